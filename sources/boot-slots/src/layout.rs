//! The partitions of a Bulkhead disk.
//!
//! Running hosts depend on order, names, types and sizes: a change here would
//! cut them off from updates. Types are those of the Discoverable Partitions
//! Specification, so that other tools show what each partition is.

use crate::gpt::{Partition, SECTOR_SIZE, Table};
use std::fmt;
use uuid::{Uuid, uuid};

const MIB: u64 = 1024 * 1024;

/// Partitions begin and end on this boundary.
pub const ALIGNMENT: u64 = MIB;

/// Size of the EFI system partition.
pub const ESP_SIZE: u64 = 128 * MIB;
/// Size of each root partition.
pub const ROOT_SIZE: u64 = 1024 * MIB;
/// Size of each verity partition: a tree over [`ROOT_SIZE`] takes 8.4 MiB.
pub const VERITY_SIZE: u64 = 16 * MIB;
/// Size of the state partition.
pub const STATE_SIZE: u64 = 64 * MIB;
/// The data partition of a fresh disk image; it grows at the first boot.
pub const DATA_SIZE_MIN: u64 = 512 * MIB;

/// What a disk image may take in all: the first volume of a node is mapped at
/// 4 GiB by Karpenter unless its owner says otherwise.
pub const DISK_SIZE_MAX: u64 = 4096 * MIB;

/// Attribute bit by which the specification marks a read-only partition.
const READ_ONLY: u64 = 1 << 60;

/// One of the two places for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The slot that an update goes to when this one is running.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// EFI system partition: boot loader and unified kernel images.
    Esp,
    /// A slot's root file system.
    Root(Slot),
    /// A slot's verity superblock and hash tree.
    Verity(Slot),
    /// Settings and identity, with the boot record in its first sector.
    State,
    /// Everything else, to the end of the disk.
    Data,
}

impl Role {
    /// All partitions in the order in which they lie on the disk.
    pub const ALL: [Self; 7] = [
        Self::Esp,
        Self::Root(Slot::A),
        Self::Verity(Slot::A),
        Self::Root(Slot::B),
        Self::Verity(Slot::B),
        Self::State,
        Self::Data,
    ];

    /// The partition's name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Esp => "BULKHEAD-ESP",
            Self::Root(Slot::A) => "BULKHEAD-ROOT-A",
            Self::Verity(Slot::A) => "BULKHEAD-VERITY-A",
            Self::Root(Slot::B) => "BULKHEAD-ROOT-B",
            Self::Verity(Slot::B) => "BULKHEAD-VERITY-B",
            Self::State => "BULKHEAD-STATE",
            Self::Data => "BULKHEAD-DATA",
        }
    }

    /// The partition's type on `architecture`.
    pub fn type_guid(self, architecture: Architecture) -> Uuid {
        match (self, architecture) {
            (Self::Esp, _) => uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
            (Self::Root(_), Architecture::X86_64) => uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            (Self::Root(_), Architecture::Aarch64) => uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
            (Self::Verity(_), Architecture::X86_64) => {
                uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
            }
            (Self::Verity(_), Architecture::Aarch64) => {
                uuid!("df3300ce-d69f-4c92-978c-9bfb0f38d820")
            }
            (Self::State | Self::Data, _) => uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"),
        }
    }

    /// Size on a fresh disk image.
    pub fn initial_size(self) -> u64 {
        match self {
            Self::Esp => ESP_SIZE,
            Self::Root(_) => ROOT_SIZE,
            Self::Verity(_) => VERITY_SIZE,
            Self::State => STATE_SIZE,
            Self::Data => DATA_SIZE_MIN,
        }
    }

    fn attributes(self) -> u64 {
        match self {
            Self::Root(_) | Self::Verity(_) => READ_ONLY,
            Self::Esp | Self::State | Self::Data => 0,
        }
    }

    /// Identifies the partition on its disk. The same on every disk: a host has
    /// one Bulkhead disk, and images are made without chance.
    fn guid(self) -> Uuid {
        named_guid(self.name())
    }
}

/// The processor, as far as partition types depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Architecture {
    /// What this program was compiled for.
    pub const fn current() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }
}

/// The table of a fresh disk image. The data partition comes last and gets
/// `data_size` bytes, or nothing and no entry when it is zero (a variant whose
/// data lies on a second volume).
pub fn fresh_table(architecture: Architecture, data_size: u64) -> Table {
    let mut partitions = Vec::new();
    let mut next = ALIGNMENT;
    for (number, role) in (1..).zip(Role::ALL) {
        let size = if role == Role::Data {
            data_size
        } else {
            role.initial_size()
        };
        if size == 0 {
            continue;
        }
        let size = size.next_multiple_of(ALIGNMENT);
        partitions.push(Partition {
            number,
            type_guid: role.type_guid(architecture),
            guid: role.guid(),
            first_lba: next / SECTOR_SIZE,
            last_lba: (next + size) / SECTOR_SIZE - 1,
            attributes: role.attributes(),
            name: role.name().to_string(),
        });
        next += size;
    }
    let disk_sectors = (next + ALIGNMENT) / SECTOR_SIZE;
    Table::new(named_guid("BULKHEAD-DISK"), disk_sectors, partitions)
}

/// The partition that has `role`, by name and type.
pub fn find(table: &Table, role: Role, architecture: Architecture) -> Option<&Partition> {
    let type_guid = role.type_guid(architecture);
    table
        .partitions
        .iter()
        .find(|partition| partition.name == role.name() && partition.type_guid == type_guid)
}

/// A version-8 UUID made from a name.
fn named_guid(name: &str) -> Uuid {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_disk_stays_under_its_limit_with_room_for_data() {
        let table = fresh_table(Architecture::X86_64, DATA_SIZE_MIN);
        let size = table.disk_sectors() * SECTOR_SIZE;
        assert!(size < DISK_SIZE_MAX, "the disk takes {size} bytes");
        assert_eq!(table.partitions.len(), 7);
        for (partition, role) in table.partitions.iter().zip(Role::ALL) {
            assert_eq!(partition.name, role.name());
            assert_eq!(partition.offset() % ALIGNMENT, 0);
            assert_eq!(partition.size(), role.initial_size());
        }
    }

    #[test]
    fn layout_is_fixed_for_running_hosts() {
        let table = fresh_table(Architecture::X86_64, DATA_SIZE_MIN);
        let places: Vec<_> = table
            .partitions
            .iter()
            .map(|p| (p.name.as_str(), p.offset() / MIB, p.size() / MIB))
            .collect();
        assert_eq!(
            places,
            [
                ("BULKHEAD-ESP", 1, 128),
                ("BULKHEAD-ROOT-A", 129, 1024),
                ("BULKHEAD-VERITY-A", 1153, 16),
                ("BULKHEAD-ROOT-B", 1169, 1024),
                ("BULKHEAD-VERITY-B", 2193, 16),
                ("BULKHEAD-STATE", 2209, 64),
                ("BULKHEAD-DATA", 2273, 512),
            ]
        );
    }

    #[test]
    fn without_data_the_state_partition_is_last() {
        let table = fresh_table(Architecture::Aarch64, 0);
        assert!(find(&table, Role::Data, Architecture::Aarch64).is_none());
        assert_eq!(
            table.partitions.last().map(|p| p.name.as_str()),
            Some("BULKHEAD-STATE")
        );
    }

    #[test]
    fn a_partition_is_found_by_name_and_type() {
        let mut table = fresh_table(Architecture::X86_64, DATA_SIZE_MIN);
        let role = Role::Root(Slot::B);
        assert_eq!(
            find(&table, role, Architecture::X86_64).map(|p| p.offset()),
            Some(1169 * MIB)
        );
        assert!(find(&table, role, Architecture::Aarch64).is_none());
        table.partitions[3].name = "OTHER".to_string();
        assert!(find(&table, role, Architecture::X86_64).is_none());
    }
}
