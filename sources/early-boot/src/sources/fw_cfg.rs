//! QEMU: `-fw_cfg name=opt/bulkhead/user-data,file=…`.
//!
//! The kernel shows it in sysfs once the module `qemu_fw_cfg` is loaded; the
//! unit that runs us sees to that.

use super::file::read_file;
use crate::Source;
use anyhow::Result;
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
        read_file(&root.join(PATH), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_found_below_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let read = |limit| FwCfg.read(root.path(), limit).expect("readable");
        assert_eq!(read(10), None);
        let path = root.path().join(PATH);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, "0123456789abcdef").expect("a file");
        assert_eq!(read(100), Some(b"0123456789abcdef".to_vec()));
        assert_eq!(
            read(10),
            Some(b"0123456789a".to_vec()),
            "one more than the limit"
        );
    }
}
