//! Finding the slot that holds an image.
//!
//! There is no udev here: devices appear in `/sys` and `/dev` as drivers find
//! them, and this module looks again until the slot is there.

use crate::outcome::Failure;
use boot_slots::ReadAt;
use boot_slots::gpt::{self, Table};
use boot_slots::layout::{self, Architecture, Role, Slot};
use boot_slots::verity::{RootHash, SUPERBLOCK_SIZE, Superblock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BLOCK_DEVICES: &str = "/sys/class/block";
const DEVICES: &str = "/dev";

/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Devices that never hold a system.
const IGNORED: &[&str] = &["dm-", "loop", "md", "nbd", "ram", "sr", "zram", "fd"];

/// A disk with a partition table.
#[derive(Debug)]
pub struct Disk {
    /// The kernel's name, such as `vda`.
    pub name: String,
    /// Its partitions.
    pub table: Table,
}

/// A slot that holds the image looked for.
#[derive(Debug)]
pub struct FoundSlot {
    /// Where it is.
    pub disk: Disk,
    /// Which of the two.
    pub slot: Slot,
    /// What its hash partition says.
    pub superblock: Superblock,
}

impl Disk {
    /// The device of the partition with this role.
    pub fn device(&self, role: Role) -> Option<PathBuf> {
        let partition = layout::find(&self.table, role, Architecture::current())?;
        let name = partition_name(&self.name, partition.number);
        Some(Path::new(DEVICES).join(name))
    }
}

impl FoundSlot {
    /// `major:minor` of a partition of the slot, by which device-mapper opens it.
    pub fn device_number(&self, role: Role) -> Result<String, Failure> {
        let device = self
            .disk
            .device(role)
            .ok_or_else(|| Failure::plain(format!("the disk has no {}", role.name())))?;
        let name = device.file_name().unwrap_or_default();
        let path = Path::new(BLOCK_DEVICES).join(name).join("dev");
        let number = fs::read_to_string(&path).map_err(Failure::on("read", &path))?;
        Ok(number.trim().to_string())
    }
}

/// Waits for a slot that holds the image with this root hash.
pub fn wait_for_slot(root_hash: &RootHash) -> Result<FoundSlot, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match find_now(root_hash) {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                return Err(Failure::new(
                    format!("no slot holds the image with root hash {root_hash}; found"),
                    seen,
                ));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Looks once; if no disk has the slot, returns what the disks have instead.
pub fn find_now(root_hash: &RootHash) -> Result<FoundSlot, String> {
    let mut seen = Vec::new();
    for name in disk_names() {
        match open(&name) {
            Ok((device, table)) => match find_slot(&device, &table, root_hash) {
                Ok((slot, superblock)) if has_devices(&name, &table, slot) => {
                    let disk = Disk { name, table };
                    return Ok(FoundSlot {
                        disk,
                        slot,
                        superblock,
                    });
                }
                Ok(_) => seen.push(format!("{name}: its partitions have no devices yet")),
                Err(contents) => seen.push(format!("{name}: {contents}")),
            },
            Err(reason) => seen.push(format!("{name}: {reason}")),
        }
    }
    if seen.is_empty() {
        seen.push("no disk at all".to_string());
    }
    Err(seen.join("; "))
}

/// The first disk that has a state partition.
pub fn any_with_state() -> Option<Disk> {
    disk_names().into_iter().find_map(|name| {
        let (_, table) = open(&name).ok()?;
        let disk = Disk { name, table };
        disk.device(Role::State).is_some().then_some(disk)
    })
}

/// Which slot of a disk holds the image, or what they hold instead.
fn find_slot<D: ReadAt + ?Sized>(
    disk: &D,
    table: &Table,
    root_hash: &RootHash,
) -> Result<(Slot, Superblock), String> {
    let mut contents = Vec::new();
    for slot in Slot::ALL {
        let found = |role| layout::find(table, role, Architecture::current());
        let (Some(root), Some(verity)) = (found(Role::Root(slot)), found(Role::Verity(slot)))
        else {
            contents.push(format!("no slot {slot}"));
            continue;
        };
        let mut start = [0; SUPERBLOCK_SIZE];
        if let Err(error) = disk.read_exact_at(&mut start, verity.offset()) {
            contents.push(format!("slot {slot} is unreadable ({error})"));
            continue;
        }
        match Superblock::parse(&start) {
            Ok(superblock) if superblock.uuid != root_hash.uuid() => {
                contents.push(format!("slot {slot} holds another image"));
            }
            Ok(superblock)
                if superblock.data_size() > root.size()
                    || superblock.tree_size() > verity.size() =>
            {
                contents.push(format!("slot {slot} claims more than it has"));
            }
            Ok(superblock) => return Ok((slot, superblock)),
            Err(error) => contents.push(format!("slot {slot} has {error}")),
        }
    }
    Err(contents.join(", "))
}

fn has_devices(name: &str, table: &Table, slot: Slot) -> bool {
    [Role::Root(slot), Role::Verity(slot)]
        .into_iter()
        .all(|role| {
            layout::find(table, role, Architecture::current()).is_some_and(|partition| {
                Path::new(DEVICES)
                    .join(partition_name(name, partition.number))
                    .exists()
            })
        })
}

fn open(name: &str) -> Result<(File, Table), String> {
    let device = File::open(Path::new(DEVICES).join(name)).map_err(|error| error.to_string())?;
    let table = gpt::read(&device).map_err(|error| error.to_string())?;
    Ok((device, table))
}

/// Whole disks, by name, so that two boots look at them in the same order.
fn disk_names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(BLOCK_DEVICES)
        .into_iter()
        .flatten()
        .filter_map(|device| {
            let device = device.ok()?;
            let name = device.file_name().into_string().ok()?;
            let is_partition = device.path().join("partition").exists();
            let ignored = IGNORED.iter().any(|prefix| name.starts_with(prefix));
            (!is_partition && !ignored).then_some(name)
        })
        .collect();
    names.sort();
    names
}

/// The kernel's name of a partition: `vda1`, but `nvme0n1p1`.
fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{separator}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::gpt::SECTOR_SIZE;

    #[test]
    fn partition_names() {
        for (disk, expected) in [
            ("vda", "vda3"),
            ("nvme0n1", "nvme0n1p3"),
            ("xvda", "xvda3"),
            ("mmcblk0", "mmcblk0p3"),
        ] {
            assert_eq!(partition_name(disk, 3), expected);
        }
    }

    /// A disk image with these superblocks in its slots.
    fn disk(slots: [Option<Superblock>; 2]) -> (Vec<u8>, Table) {
        let table = layout::fresh_table(Architecture::current(), 0);
        let mut disk = vec![0; (table.disk_sectors() * SECTOR_SIZE) as usize];
        for (slot, superblock) in Slot::ALL.into_iter().zip(slots) {
            let partition =
                layout::find(&table, Role::Verity(slot), Architecture::current()).unwrap();
            if let Some(superblock) = superblock {
                let at = partition.offset() as usize;
                disk[at..at + SUPERBLOCK_SIZE].copy_from_slice(&superblock.to_bytes());
            }
        }
        (disk, table)
    }

    #[test]
    fn a_slot_is_found_by_what_lies_in_it() {
        let wanted = RootHash([7; 32]);
        let right = Superblock {
            uuid: wanted.uuid(),
            data_blocks: 100,
        };
        let other = Superblock {
            uuid: RootHash([8; 32]).uuid(),
            data_blocks: 100,
        };
        let huge = Superblock {
            data_blocks: 1 << 29,
            ..right
        };
        for (slots, expected) in [
            ([Some(right), None], Ok(Slot::A)),
            ([Some(other), Some(right)], Ok(Slot::B)),
            ([Some(right), Some(right)], Ok(Slot::A)),
            ([Some(huge), Some(right)], Ok(Slot::B)),
            (
                [Some(other), None],
                Err("slot A holds another image, slot B has no verity superblock"),
            ),
            (
                [Some(huge), Some(other)],
                Err("slot A claims more than it has, slot B holds another image"),
            ),
        ] {
            let (disk, table) = disk(slots);
            let found = find_slot(&disk, &table, &wanted).map(|(slot, _)| slot);
            assert_eq!(found, expected.map_err(str::to_string));
        }
    }
}
