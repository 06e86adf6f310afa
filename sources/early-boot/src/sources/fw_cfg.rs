//! QEMU: `-fw_cfg name=opt/bulkhead/user-data,file=…`.
//!
//! The kernel shows it in sysfs once the module `qemu_fw_cfg` is loaded; the
//! unit that runs us sees to that.

use crate::Source;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

const PATH: &str = "sys/firmware/qemu_fw_cfg/by_name/opt/bulkhead/user-data/raw";

/// QEMU's firmware configuration.
pub struct FwCfg;

impl Source for FwCfg {
    fn name(&self) -> &'static str {
        "QEMU fw_cfg"
    }

    fn location(&self) -> String {
        "opt/bulkhead/user-data".into()
    }

    fn read(&self, root: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        let file = match File::open(root.join(PATH)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open /{PATH}")),
        };
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read /{PATH}"))?;
        Ok(Some(bytes))
    }
}
