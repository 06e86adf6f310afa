//! The file `user-data.toml` in the top folder of the EFI system partition.
//!
//! The partition is read directly, not mounted: mounting would load the
//! modules of a file system for one small file (seconds under emulation) and
//! would need the right to mount.

use crate::block::{Device, devices, disks_of_root};
use crate::{Source, fat};
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

const PARTITION: &str = "BULKHEAD-ESP";
const FILE: &str = "user-data.toml";

/// The EFI system partition of the disk that the root is on.
pub struct Esp;

impl Source for Esp {
    fn name(&self) -> &'static str {
        "EFI system partition"
    }

    fn location(&self) -> String {
        format!("{PARTITION}/{FILE}")
    }

    fn read(&self, root: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        let Some(device) = find(root) else {
            return Ok(None);
        };
        let file = File::open(&device).with_context(|| format!("open {}", device.display()))?;
        fat::Volume::open(file)
            .and_then(|mut volume| volume.read_file(&[FILE], limit))
            .with_context(|| format!("look for {FILE} on {}", device.display()))
    }
}

/// The device of our partition. Where several disks have one, it is that of the
/// disk which holds the root. A foreign disk's is not asked: whoever can plug in a
/// disk should not configure the machine by that.
fn find(root: &Path) -> Option<PathBuf> {
    let candidates: Vec<Device> = devices(root)
        .into_iter()
        .filter(|device| device.label.as_deref() == Some(PARTITION))
        .collect();
    let root_disks = disks_of_root(root);
    let is_ours = |device: &Device| {
        root_disks.is_empty()
            || root_disks
                .iter()
                .any(|disk| Some(disk) == device.disk.as_ref())
    };
    candidates
        .into_iter()
        .find(is_ours)
        .map(|device| device.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A `/sys` with disks; `partitions` are disk, name of the partition's
    /// device and its label, `root` the partition that the root lies on.
    fn find_in(partitions: &[(&str, &str, &str)], root_on: Option<&str>) -> Option<String> {
        let root = tempfile::tempdir().expect("a folder");
        let blocks = root.path().join("sys/class/block");
        fs::create_dir_all(&blocks).expect("a folder");
        let mut places = Vec::new();
        for (disk, partition, label) in partitions {
            let place = root.path().join("sys/devices").join(disk).join(partition);
            fs::create_dir_all(&place).expect("a folder");
            let uevent = format!("MAJOR=254\nDEVNAME={partition}\nPARTN=1\nPARTNAME={label}\n");
            fs::write(place.join("uevent"), uevent).expect("a file");
            symlink(&place, blocks.join(partition)).expect("a link");
            places.push((*partition, place));
        }
        let mapper = root.path().join("sys/devices/virtual/dm-0");
        fs::create_dir_all(mapper.join("slaves")).expect("a folder");
        fs::write(mapper.join("uevent"), "DEVNAME=dm-0\n").expect("a file");
        if let Some((name, place)) = places.iter().find(|(name, _)| Some(*name) == root_on) {
            symlink(place, mapper.join("slaves").join(name)).expect("a link");
            symlink(&mapper, blocks.join("dm-0")).expect("a link");
        }
        let found = find(root.path())?;
        let found = found.strip_prefix(root.path()).expect("below the root");
        Some(found.display().to_string())
    }

    #[test]
    fn the_partition_is_that_of_the_disk_with_the_root() {
        let ours = [
            ("vda", "vda1", "BULKHEAD-ESP"),
            ("vda", "vda2", "BULKHEAD-ROOT-A"),
            ("vdb", "vdb1", "BULKHEAD-ESP"),
        ];
        let foreign = [("vda", "vda2", "x"), ("vdb", "vdb1", "BULKHEAD-ESP")];
        for (partitions, root_on, expected) in [
            (&ours[..], Some("vda2"), Some("dev/vda1")),
            (&ours[..], Some("vdb1"), Some("dev/vdb1")),
            (&ours[..], None, Some("dev/vda1")),
            (&foreign[..], Some("vda2"), None),
            (&[], None, None),
        ] {
            let found = find_in(partitions, root_on);
            assert_eq!(found.as_deref(), expected, "{partitions:?} {root_on:?}");
        }
    }

    #[test]
    fn a_machine_without_the_partition_has_no_user_data_there() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(Esp.read(root.path(), 10).expect("nothing there"), None);
    }
}
