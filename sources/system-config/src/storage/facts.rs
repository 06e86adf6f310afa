//! Reading the facts: which disk the root lies on, what its table says, what
//! its partitions hold, what is mounted.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use boot_slots::ReadAt;
use boot_slots::gpt::{self, SECTOR_SIZE};
use boot_slots::layout::{Architecture, Role, find};
use sysutil::fs::{mount_points, read_text_if_present};

use super::ext4::{self, Content};
use super::plan::{Disk, Facts, OtherDisk, Purpose, Volume, choose_data_volume};
use crate::disks::{self, Kind};

/// Gathers the facts of the running system. What cannot be read is missing
/// from them and told by the second value, since the boot goes on anyway.
pub fn gather() -> (Facts, Vec<String>) {
    let mut problems = Vec::new();
    let mut note = |what: &str, error: anyhow::Error| problems.push(format!("{what}: {error:#}"));
    let mounted = mount_points(Path::new("/proc/self/mountinfo")).unwrap_or_else(|error| {
        note("mount table", error);
        BTreeSet::new()
    });
    let mut facts = Facts {
        disk: None,
        state: None,
        data: None,
        data_volume: None,
        mounted,
    };
    match root_disk(Path::new("/sys"), Path::new("/")).and_then(|disk| read_disk(&disk)) {
        Err(error) => note("disk of the running system", error),
        Ok(disk) => {
            for purpose in [Purpose::State, Purpose::Data] {
                match volume(Path::new("/sys"), &disk, purpose) {
                    Ok(volume) => match purpose {
                        Purpose::State => facts.state = volume,
                        Purpose::Data => facts.data = volume,
                    },
                    Err(error) => note(purpose.name(), error),
                }
            }
            if Path::new(DATA_VOLUME).exists() {
                match data_volume(&disk.device) {
                    Ok(volume) => facts.data_volume = volume,
                    Err(error) => note("data volume", error),
                }
            }
            facts.disk = Some(disk);
        }
    }
    (facts, problems)
}

/// Says that the image is for machines whose data lies on a volume of its own.
const DATA_VOLUME: &str = "/usr/share/bulkhead/data-volume";
/// How long such a volume may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);

/// The data volume of a machine whose root lies on `root_disk`. Without one its data
/// partition is good enough to go on with, which somebody has to learn of.
fn data_volume(root_disk: &Path) -> Result<Option<Volume>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !controllers_are_ready(Path::new("/sys"))? {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut others = Vec::new();
    for disk in disks::all()? {
        let name = match disk.kind {
            Kind::Ephemeral => continue,
            Kind::Ebs(name) => Some(name),
            Kind::Other => None,
        };
        if disk.device == root_disk {
            continue;
        }
        others.push(other_disk(disk.device, name)?);
    }
    let on_partition = |why: &str| {
        sysutil::console::say(&format!("data stays on the disk of the system: {why}"));
    };
    match choose_data_volume(&others) {
        Ok(Some(volume)) => Ok(Some(volume.clone())),
        Ok(None) => {
            on_partition("there is no volume for it");
            Ok(None)
        }
        Err(why) => {
            on_partition(&why);
            Ok(None)
        }
    }
}

fn other_disk(device: PathBuf, name: Option<String>) -> Result<OtherDisk> {
    let reading = || format!("reading {}", device.display());
    let file = File::open(&device).with_context(|| format!("opening {}", device.display()))?;
    let size = file.size().with_context(reading)?;
    let content = read_content(&file, size, Purpose::Data).with_context(reading)?;
    let is_data = match content {
        Content::Ext4(_) => is_named(&file, ext4::SUPERBLOCK as u64).with_context(reading)?,
        Content::DamagedExt4(_) => {
            size > ext4::BACKUP_SUPERBLOCK + ext4::SUPERBLOCK_SIZE as u64
                && is_named(&file, ext4::BACKUP_SUPERBLOCK).with_context(reading)?
        }
        Content::Blank | Content::Foreign(_) | Content::Unknown => false,
    };
    Ok(OtherDisk {
        volume: Volume {
            device: device.clone(),
            size,
            content,
        },
        name,
        is_data,
    })
}

/// Whether the superblock at `offset` is that of a host's data.
fn is_named(file: &impl ReadAt, offset: u64) -> Result<bool> {
    let mut superblock = [0; ext4::SUPERBLOCK_SIZE];
    file.read_exact_at(&mut superblock, offset)?;
    Ok(ext4::is_superblock_of(&superblock, Role::Data.name()))
}

/// Whether each NVMe controller that the kernel knows shows its disk, or never will:
/// the kernel asks them one beside the other, and the root's may be the first.
fn controllers_are_ready(sys: &Path) -> Result<bool> {
    let folder = sys.join("class/nvme");
    if !folder.exists() {
        return Ok(true);
    }
    let listing = || format!("listing {}", folder.display());
    for entry in std::fs::read_dir(&folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let state = read_text_if_present(&path.join("state"), 64)?.unwrap_or_default();
        let shows_disk = || -> Result<bool> {
            let mut entries = std::fs::read_dir(&path).with_context(listing)?;
            Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("size").exists())))
        };
        let is_ready = match state.trim() {
            "live" => shows_disk()?,
            "new" | "connecting" | "resetting" => false,
            _ => true,
        };
        if !is_ready {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A partition of the running system's disk, opened for reading and writing.
pub fn open_partition(role: Role) -> Result<(File, PathBuf)> {
    let disk = read_disk(&root_disk(Path::new("/sys"), Path::new("/"))?)?;
    let Some(partition) = find(&disk.table, role, Architecture::current()) else {
        bail!("{} has no partition {}", disk.device.display(), role.name());
    };
    let device = device_node(&partition_name(Path::new("/sys"), &disk, partition.number)?);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&device)
        .with_context(|| format!("opening {}", device.display()))?;
    Ok((file, device))
}

/// The name of the disk whose partitions the root is made of: through the
/// device mapper's list of parts, then from a partition to its disk.
fn root_disk(sys: &Path, root: &Path) -> Result<String> {
    let device = std::fs::metadata(root)
        .context("looking at the root")?
        .dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    disk_of(sys, major, minor)
}

fn disk_of(sys: &Path, major: u64, minor: u64) -> Result<String> {
    let device = sys.join(format!("dev/block/{major}:{minor}"));
    let slaves = device.join("slaves");
    let mut parts: Vec<PathBuf> = match std::fs::read_dir(&slaves) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect(),
        Err(_) => Vec::new(),
    };
    parts.sort();
    let part = parts.first().unwrap_or(&device);
    let part = part
        .canonicalize()
        .with_context(|| format!("following {}", part.display()))?;
    let disk = if part.join("partition").exists() {
        part.parent()
    } else {
        Some(part.as_path())
    };
    match disk.and_then(Path::file_name) {
        Some(name) => Ok(name.to_string_lossy().into_owned()),
        None => bail!("{} lies on no disk", part.display()),
    }
}

fn read_disk(name: &str) -> Result<Disk> {
    let device = device_node(name);
    let file = File::open(&device).with_context(|| format!("opening {}", device.display()))?;
    let sectors = file
        .size()
        .with_context(|| format!("size of {}", device.display()))?
        / SECTOR_SIZE;
    let table = gpt::read(&file)
        .with_context(|| format!("reading the partition table of {}", device.display()))?;
    Ok(Disk {
        device,
        table,
        sectors,
    })
}

fn volume(sys: &Path, disk: &Disk, purpose: Purpose) -> Result<Option<Volume>> {
    let Some(partition) = find(&disk.table, purpose.role(), Architecture::current()) else {
        return Ok(None);
    };
    let device = device_node(&partition_name(sys, disk, partition.number)?);
    let file = File::open(&device).with_context(|| format!("opening {}", device.display()))?;
    let size = file
        .size()
        .with_context(|| format!("size of {}", device.display()))?;
    let content = read_content(&file, size, purpose)
        .with_context(|| format!("reading {}", device.display()))?;
    Ok(Some(Volume {
        device,
        size,
        content,
    }))
}

/// The superblock decides in most boots; the rest is read when it does not.
fn read_content(file: &impl ReadAt, size: u64, purpose: Purpose) -> Result<Content> {
    let read = |offset: u64, length: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; size.saturating_sub(offset).min(length as u64) as usize];
        if !bytes.is_empty() {
            file.read_exact_at(&mut bytes, offset)?;
        }
        Ok(bytes)
    };
    let mut content = ext4::examine(&read(0, 4096)?);
    if matches!(content, Content::Blank | Content::Unknown) {
        content = ext4::examine(&read(0, ext4::EXAMINED)?);
    }
    // Overwritten at its start only: the backup proves whose it was.
    if content == Content::Unknown
        && ext4::is_superblock_of(
            &read(ext4::BACKUP_SUPERBLOCK, ext4::SUPERBLOCK_SIZE)?,
            purpose.role().name(),
        )
    {
        content = Content::DamagedExt4("its beginning was overwritten");
    }
    Ok(content)
}

/// The kernel's name for partition `number` of `disk`.
fn partition_name(sys: &Path, disk: &Disk, number: u32) -> Result<String> {
    let disk = disk.device.strip_prefix("/dev").unwrap_or(&disk.device);
    let disk = disk.to_string_lossy().replace('/', "!");
    let folder = sys.join("class/block").join(&disk);
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("listing {}", folder.display()))?
            .path();
        let Ok(Some(text)) = read_text_if_present(&path.join("partition"), 64) else {
            continue;
        };
        if text.trim().parse() == Ok(number)
            && let Some(name) = path.file_name()
        {
            return Ok(name.to_string_lossy().into_owned());
        }
    }
    bail!("the kernel knows no partition {number} of {disk}")
}

fn device_node(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::gpt::Table;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A /sys with a disk of three partitions, two of which make dm-0.
    fn sys() -> tempfile::TempDir {
        let sys = tempfile::tempdir().expect("folder");
        let at = |path: &str| sys.path().join(path);
        for number in [1, 2, 3] {
            let folder = at(&format!("devices/pci/block/vda/vda{number}"));
            fs::create_dir_all(&folder).expect("folder");
            fs::write(folder.join("partition"), format!("{number}\n")).expect("file");
        }
        for folder in [
            "devices/virtual/block/dm-0/slaves",
            "dev/block",
            "class/block",
        ] {
            fs::create_dir_all(at(folder)).expect("folder");
        }
        for (target, link) in [
            ("../../devices/virtual/block/dm-0", "dev/block/254:0"),
            ("../../devices/pci/block/vda/vda1", "dev/block/253:1"),
            ("../../devices/pci/block/vda", "dev/block/253:0"),
            ("../../devices/pci/block/vda", "class/block/vda"),
            (
                "../../../../pci/block/vda/vda3",
                "devices/virtual/block/dm-0/slaves/vda3",
            ),
            (
                "../../../../pci/block/vda/vda2",
                "devices/virtual/block/dm-0/slaves/vda2",
            ),
        ] {
            symlink(target, at(link)).expect("link");
        }
        sys
    }

    #[test]
    fn the_roots_disk_is_found_behind_the_device_mapper() {
        let sys = sys();
        for (major, minor) in [(254, 0), (253, 1), (253, 0)] {
            let disk = disk_of(sys.path(), major, minor).expect("found");
            assert_eq!(disk, "vda", "{major}:{minor}");
        }
        assert!(disk_of(sys.path(), 9, 9).is_err());
    }

    #[test]
    fn partitions_are_found_by_number() {
        let sys = sys();
        let table = Table::new(uuid::Uuid::nil(), 2048, vec![]);
        let disk = Disk {
            device: "/dev/vda".into(),
            table,
            sectors: 2048,
        };
        assert_eq!(partition_name(sys.path(), &disk, 3).expect("found"), "vda3");
        let error = partition_name(sys.path(), &disk, 7)
            .expect_err("absent")
            .to_string();
        assert!(error.contains("no partition 7 of vda"), "{error}");
    }

    #[test]
    fn controllers_are_waited_for_until_they_show_a_disk() {
        let sys = tempfile::tempdir().expect("folder");
        let is_ready = || controllers_are_ready(sys.path()).expect("readable");
        assert!(is_ready(), "there is none");
        let controller = |number: u32| sys.path().join(format!("class/nvme/nvme{number}"));
        let put = |number: u32, state: &str| {
            fs::create_dir_all(controller(number)).expect("folder");
            fs::write(controller(number).join("state"), format!("{state}\n")).expect("file");
        };
        for (state, ready) in [("new", false), ("connecting", false), ("dead", true)] {
            put(0, state);
            assert_eq!(is_ready(), ready, "{state}");
        }
        put(1, "live");
        assert!(!is_ready(), "it shows no disk yet");
        let disk = controller(1).join("nvme1n1");
        fs::create_dir_all(&disk).expect("folder");
        fs::write(disk.join("size"), "8\n").expect("file");
        assert!(is_ready());
    }

    #[test]
    fn content_beyond_the_first_page_counts() {
        let mut bytes = vec![0; 2 * ext4::EXAMINED];
        let size = bytes.len() as u64;
        assert_eq!(
            read_content(&bytes, size, Purpose::Data).expect("read"),
            Content::Blank
        );
        bytes[ext4::EXAMINED - 1] = 1;
        assert_eq!(
            read_content(&bytes, size, Purpose::Data).expect("read"),
            Content::Unknown
        );
        assert_eq!(
            read_content(&vec![0; 600], 600, Purpose::Data).expect("read"),
            Content::Blank
        );
    }
}
