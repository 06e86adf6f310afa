//! OpenStack's config drive: a volume called `config-2` with the file
//! `openstack/latest/user_data`.
//!
//! It is an ISO 9660 or FAT file system on a disc, a disk or a partition. Disks
//! that are made to be plugged in and out are not looked at: whoever can plug one
//! in should not configure the machine by that.

use crate::block::{DISC_PATIENCE, Device, await_discs, devices};
use crate::{Source, fat, iso9660};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::Duration;

const LABEL: &str = "config-2";
const FILE: [&str; 3] = ["openstack", "latest", "user_data"];

/// The config drive, wherever it is.
pub struct ConfigDrive;

impl Source for ConfigDrive {
    fn name(&self) -> &'static str {
        "config drive"
    }

    fn location(&self) -> String {
        format!("{LABEL}/{}", FILE.join("/"))
    }

    fn patience(&self) -> Duration {
        DISC_PATIENCE
    }

    fn read(&self, root: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        await_discs(root, DISC_PATIENCE);
        for device in devices(root) {
            if !may_hold_it(&device) {
                continue;
            }
            // A drive without a medium, or a disk that fails, holds no user data.
            let Ok(file) = File::open(&device.node) else {
                continue;
            };
            let found = read_volume(file, limit).transpose();
            if let Some(content) = found {
                return content.with_context(|| {
                    format!("read {} on {}", FILE.join("/"), device.node.display())
                });
            }
        }
        Ok(None)
    }
}

fn may_hold_it(device: &Device) -> bool {
    let is_ours = device
        .label
        .as_deref()
        .is_some_and(|label| label.starts_with("BULKHEAD-"));
    !is_ours && !device.is_virtual && (device.is_optical || !device.is_removable)
}

/// The file, if this is the volume. That a device cannot be read is an error only
/// once its name is known.
fn read_volume(mut device: impl Read + Seek, limit: usize) -> Result<Option<Option<Vec<u8>>>> {
    if let Ok(Some(mut volume)) = iso9660::Volume::open(&mut device) {
        let is_it = volume.label().eq_ignore_ascii_case(LABEL);
        return is_it.then(|| volume.read_file(&FILE, limit)).transpose();
    }
    if let Ok(mut volume) = fat::Volume::open(&mut device) {
        let label = volume.label().ok().flatten();
        let is_it = label.is_some_and(|label| label.eq_ignore_ascii_case(LABEL));
        return is_it.then(|| volume.read_file(&FILE, limit)).transpose();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::add;
    use crate::fake::{Names, iso9660 as image};
    use std::fs;

    fn iso(label: &str, content: &str) -> Vec<u8> {
        let names = Names {
            rock_ridge: true,
            joliet: true,
        };
        let path = &["OPENSTAC=openstack", "LATEST=latest", "USER_DAT=user_data"][..];
        image(label, names, &[(path, content.as_bytes())])
    }

    #[test]
    fn the_volume_is_found_by_its_name() {
        let found = iso("config-2", "found");
        let other = iso("other", "not this one");
        let mut cut = iso("CONFIG-2", "found");
        cut.truncate(40 * 1024);
        for (devices, expected) in [
            (vec![], Ok(None)),
            (vec![("vdb", "disk", false, &found)], Ok(Some("found"))),
            (vec![("sr0", "disk", true, &found)], Ok(Some("found"))),
            (vec![("sdb", "disk", true, &found)], Ok(None)),
            (vec![("vdb", "disk", false, &other)], Ok(None)),
            (
                vec![
                    ("vdb", "disk", false, &other),
                    ("vdc", "disk", false, &found),
                ],
                Ok(Some("found")),
            ),
            (vec![("vdb", "disk", false, &cut)], Err(())),
        ] {
            let root = tempfile::tempdir().expect("a folder");
            for (name, kind, removable, content) in &devices {
                let properties = format!("DEVTYPE={kind}\n");
                add(
                    root.path(),
                    &format!("pci0/{name}"),
                    &properties,
                    *removable,
                );
                fs::write(root.path().join("dev").join(name), content).expect("a file");
            }
            // A drive without a medium: its node cannot be opened.
            add(root.path(), "pci0/sr1", "DEVTYPE=disk\n", true);
            let read = ConfigDrive.read(root.path(), 100).map_err(|_| ());
            let expected = expected.map(|text: Option<&str>| text.map(|text| text.into()));
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn our_own_partitions_are_not_looked_at() {
        let root = tempfile::tempdir().expect("a folder");
        let properties = "DEVTYPE=partition\nPARTNAME=BULKHEAD-DATA\n";
        add(root.path(), "pci0/vda/vda1", properties, false);
        fs::write(root.path().join("dev/vda1"), iso("config-2", "x")).expect("a file");
        assert_eq!(ConfigDrive.read(root.path(), 100).expect("nothing"), None);
    }
}
