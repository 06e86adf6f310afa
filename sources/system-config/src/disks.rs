//! The disks of the machine, as far as somebody has a use for them: which there
//! are, and what each is, which its model and its serial number tell.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sysutil::fs::read_text_if_present;

/// How EC2's own disks call themselves.
const INSTANCE_STORAGE: &str = "Amazon EC2 NVMe Instance Storage";
/// How EBS volumes call themselves.
const ELASTIC_BLOCK_STORE: &str = "Amazon Elastic Block Store";
/// How the serial number of a paravirtual disk begins that is to be taken for one
/// of the machine itself.
const EPHEMERAL_SERIAL: &str = "eph";
/// Kernel names of what is no disk of its own.
const NO_DISKS: [&str; 8] = ["dm-", "fd", "loop", "md", "nbd", "ram", "sr", "zram"];
/// Where an EBS volume says under what name it was attached: in the part of the
/// controller's description that is for its vendor.
const VENDOR_AREA: usize = 3072;
const VENDOR_NAME: usize = 32;

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its device node.
    pub device: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the machine's own, whose content lasts as long as the machine.
    Ephemeral,
    /// An EBS volume, with the name that it was attached under, without `/dev/`.
    Ebs(String),
    /// Any other.
    Other,
}

/// All disks, in the order of their names.
pub fn all() -> Result<Vec<Disk>> {
    list(Path::new("/sys"), &|device| {
        let file = File::open(device).with_context(|| format!("opening {}", device.display()))?;
        sysutil::sys::nvme_controller(&file)
            .with_context(|| format!("asking {} what it is", device.display()))
    })
}

/// The disks that `sys` knows. `controller` asks an NVMe disk for the description of
/// its controller.
fn list(sys: &Path, controller: &dyn Fn(&Path) -> Result<[u8; 4096]>) -> Result<Vec<Disk>> {
    let folder = sys.join("class/block");
    let listing = || format!("listing {}", folder.display());
    let mut disks = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) || path.join("partition").exists()
        {
            continue;
        }
        let text = |attribute: &str| -> Result<String> {
            let text = read_text_if_present(&path.join(attribute), 4096)?;
            Ok(text.unwrap_or_default().trim().to_owned())
        };
        let size = text("size")?.parse::<u64>().unwrap_or_default() * 512;
        // A drive without a disc, or a path to a disk that the kernel hides.
        if size == 0 || text("hidden")? == "1" {
            continue;
        }
        let device = Path::new("/dev").join(name.replace('!', "/"));
        let kind = match (text("device/model")?.as_str(), text("serial")?.as_str()) {
            (INSTANCE_STORAGE, _) => Kind::Ephemeral,
            (ELASTIC_BLOCK_STORE, _) => Kind::Ebs(attached_as(&controller(&device)?)),
            // Of a Xen machine, where the kernel's name is the one of EC2.
            _ if name.starts_with("xvd") => Kind::Ebs(name),
            (_, serial) if serial.starts_with(EPHEMERAL_SERIAL) => Kind::Ephemeral,
            _ => Kind::Other,
        };
        disks.push(Disk { device, size, kind });
    }
    disks.sort_by_key(|disk| {
        let name = disk.device.to_string_lossy().into_owned();
        (name.len(), name)
    });
    Ok(disks)
}

/// The name in a controller's description: padded, and with or without `/dev/`.
fn attached_as(controller: &[u8; 4096]) -> String {
    let name = &controller[VENDOR_AREA..VENDOR_AREA + VENDOR_NAME];
    let name = String::from_utf8_lossy(name);
    let name = name.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    name.strip_prefix("/dev/").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn disks_are_told_apart() {
        let sys = tempfile::tempdir().expect("folder");
        let put = |name: &str, attributes: &[(&str, &str)]| {
            for (attribute, text) in attributes {
                let path = sys.path().join("class/block").join(name).join(attribute);
                fs::create_dir_all(path.parent().expect("parent")).expect("folder");
                fs::write(path, format!("{text}\n")).expect("file");
            }
        };
        let some = ("size", "2048");
        put("nvme0n1", &[some, ("device/model", ELASTIC_BLOCK_STORE)]);
        put("nvme0n1p1", &[some, ("partition", "1")]);
        put("nvme10n1", &[some, ("device/model", INSTANCE_STORAGE)]);
        put("nvme2n1", &[some, ("device/model", INSTANCE_STORAGE)]);
        put("nvme2c0n1", &[some, ("hidden", "1")]);
        put("vda", &[some, ("serial", "")]);
        put("vdb", &[some, ("serial", "eph1")]);
        put("vdc", &[some, ("serial", "ephemera"), ("partition", "3")]);
        put("xvdb", &[some]);
        put("sdc", &[some, ("device/model", "QEMU HARDDISK")]);
        put("sr0", &[some]);
        put("dm-0", &[some]);
        put("loop0", &[("size", "0")]);
        put("md_ephemeral", &[some]);
        put("vdz", &[("size", "0")]);
        let controller = |device: &Path| -> Result<[u8; 4096]> {
            assert_eq!(device, Path::new("/dev/nvme0n1"));
            let mut bytes = [0; 4096];
            bytes[VENDOR_AREA..VENDOR_AREA + 12].copy_from_slice(b"/dev/xvdb   ");
            Ok(bytes)
        };
        let found = list(sys.path(), &controller).expect("listed");
        let found: Vec<_> = found
            .iter()
            .map(|disk| (disk.device.to_str().expect("text"), &disk.kind))
            .collect();
        let ebs = Kind::Ebs("xvdb".to_owned());
        assert_eq!(
            found,
            [
                ("/dev/sdc", &Kind::Other),
                ("/dev/vda", &Kind::Other),
                ("/dev/vdb", &Kind::Ephemeral),
                ("/dev/xvdb", &ebs),
                ("/dev/nvme0n1", &ebs),
                ("/dev/nvme2n1", &Kind::Ephemeral),
                ("/dev/nvme10n1", &Kind::Ephemeral),
            ]
        );
    }

    #[test]
    fn names_of_volumes() {
        for (bytes, expected) in [
            (&b"xvdb\0\0"[..], "xvdb"),
            (b"/dev/sdb  ", "sdb"),
            (b"  ", ""),
            (b"", ""),
        ] {
            let mut controller = [0; 4096];
            controller[VENDOR_AREA..VENDOR_AREA + bytes.len()].copy_from_slice(bytes);
            assert_eq!(attached_as(&controller), expected);
        }
    }
}
