//! The image that is running, as the signed command line names it.

use std::path::Path;

use anyhow::{Context, Result};
use boot_slots::layout::Role;
use boot_slots::record::BootRecord;
use boot_slots::verity::RootHash;

/// The running image.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// Its version, which is part of its file's name on the ESP.
    pub version: String,
    /// Its root hash, by which the boot record knows it.
    pub root: RootHash,
}

impl Image {
    /// Reads the kernel's command line.
    pub fn running() -> Result<Image> {
        let bytes = sysutil::fs::read_limited(Path::new("/proc/cmdline"), 64 * 1024)?;
        Image::parse(&String::from_utf8_lossy(&bytes))
            .context("reading the kernel's command line for the image that is running")
    }

    fn parse(command_line: &str) -> Result<Image> {
        let value = |name: &str| {
            command_line
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("the argument {name} is missing"))
        };
        let root = value("bulkhead.root")?;
        Ok(Image {
            version: value("bulkhead.version")?.to_owned(),
            root: root
                .parse()
                .with_context(|| format!("bulkhead.root={root} is no root hash"))?,
        })
    }
}

/// The boot record, with the partition that it was read from.
pub fn boot_record() -> Result<(BootRecord, std::fs::File)> {
    let (partition, device) = crate::storage::open_partition(Role::State)?;
    let record = BootRecord::read(&partition)
        .with_context(|| format!("reading the boot record on {}", device.display()))?;
    Ok((record, partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_name_the_image() {
        let hash = "ab".repeat(32);
        let line = format!("quiet bulkhead.version=1.2.0 bulkhead.root={hash} panic=5\n");
        let image = Image::parse(&line).expect("parsed");
        assert_eq!(
            (image.version.as_str(), image.root.to_string()),
            ("1.2.0", hash)
        );
        for (line, expected) in [
            ("bulkhead.version=1", "bulkhead.root is missing"),
            (
                "bulkhead.version=1 bulkhead.root=xyz",
                "bulkhead.root=xyz is no root hash",
            ),
            ("bulkhead.versions=1", "missing"),
        ] {
            let error = format!("{:#}", Image::parse(line).expect_err("incomplete"));
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
