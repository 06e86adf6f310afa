//! GUID partition tables on disks with 512-byte sectors.
//!
//! [`read`] takes the primary table when it is sound and the backup otherwise;
//! whatever it returns has passed both checksums and its partitions lie on the
//! disk without overlapping. [`write`] keeps one sound table on the disk at every
//! moment: the backup goes first, and reaches the disk before the primary.

use crate::ReadAt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use uuid::Uuid;

/// Sector size of every disk that Bulkhead boots from.
pub const SECTOR_SIZE: u64 = 512;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_SIZE: usize = 92;
const ENTRY_SIZE: usize = 128;
const ENTRY_COUNT: usize = 128;
/// Sectors of the entry array that this module writes.
const ENTRY_SECTORS: u64 = (ENTRY_SIZE * ENTRY_COUNT) as u64 / SECTOR_SIZE;
/// Upper bounds of what is accepted when reading.
const ENTRY_SIZE_MAX: u32 = 4096;
const ENTRY_COUNT_MAX: u32 = 1024;
const NAME_UNITS: usize = 36;

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Identifies the disk.
    pub disk_guid: Uuid,
    /// The partitions in use, by number.
    pub partitions: Vec<Partition>,
    /// Where the backup header lies, which is the last sector the table knows of.
    last_sector: u64,
}

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1: the kernel's `vda1` is 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Identifies this partition.
    pub guid: Uuid,
    /// First sector.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Name; at most 36 UTF-16 units are stored.
    pub name: String,
}

impl Partition {
    /// Where it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.first_lba * SECTOR_SIZE
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        (self.last_lba - self.first_lba + 1) * SECTOR_SIZE
    }
}

/// Why there is no usable table.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The disk could not be read.
    #[error("cannot read the disk")]
    Read(#[from] io::Error),
    /// There is no table, or neither of its copies is sound.
    #[error("no sound partition table: primary: {primary}; backup: {backup}")]
    Unsound {
        /// What is wrong with the first copy.
        primary: Flaw,
        /// What is wrong with the second copy.
        backup: Flaw,
    },
}

/// What is wrong with one copy of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The sector holds something else.
    #[error("no header")]
    Signature,
    /// The header says it is of a kind this module does not know.
    #[error("unknown revision or header size")]
    Revision,
    /// The header's checksum does not match.
    #[error("header checksum")]
    HeaderChecksum,
    /// The header was copied from elsewhere.
    #[error("header lies in another sector than it says")]
    Misplaced,
    /// The header's numbers make no sense together or exceed the disk.
    #[error("numbers out of range")]
    Range,
    /// The entries' checksum does not match.
    #[error("entry checksum")]
    EntryChecksum,
    /// A partition lies outside of the usable sectors or on another one.
    #[error("partition {0} outside of the disk or overlapping")]
    Partition(u32),
    /// The sector could not be read.
    #[error("unreadable")]
    Unreadable,
}

impl Table {
    /// A table for a disk of `disk_sectors`.
    pub fn new(disk_guid: Uuid, disk_sectors: u64, partitions: Vec<Partition>) -> Self {
        Self {
            disk_guid,
            partitions,
            last_sector: disk_sectors.saturating_sub(1),
        }
    }

    /// Sectors of the disk that the table covers.
    pub fn disk_sectors(&self) -> u64 {
        self.last_sector + 1
    }

    /// The sectors that partitions may use.
    pub fn usable(&self) -> std::ops::RangeInclusive<u64> {
        2 + ENTRY_SECTORS..=self.last_sector.saturating_sub(ENTRY_SECTORS + 1)
    }

    /// The table for the same disk after it became larger: the partition that
    /// lies last is extended, in steps of `alignment` bytes. `None` when there is
    /// nothing to gain, which includes a disk that became smaller.
    pub fn grown(&self, disk_sectors: u64, alignment: u64) -> Option<Self> {
        let mut table = Self {
            last_sector: disk_sectors.checked_sub(1)?,
            ..self.clone()
        };
        let step = (alignment / SECTOR_SIZE).max(1);
        let end = (*table.usable().end() + 1) / step * step;
        let last = table
            .partitions
            .iter_mut()
            .max_by_key(|partition| partition.last_lba)?;
        if end <= last.last_lba + 1 {
            return None;
        }
        last.last_lba = end - 1;
        Some(table)
    }

    /// Protective boot record, primary header and entries: the first 34 sectors.
    pub fn primary_bytes(&self) -> Vec<u8> {
        let entries = self.entry_bytes();
        let mut bytes = self.protective_mbr().to_vec();
        bytes.extend(self.header_bytes(&entries, 1, self.last_sector, 2));
        bytes.extend(entries);
        bytes
    }

    /// Entries and backup header: the last 33 sectors.
    pub fn backup_bytes(&self) -> Vec<u8> {
        let entries = self.entry_bytes();
        let header = self.header_bytes(
            &entries,
            self.last_sector,
            1,
            self.last_sector - ENTRY_SECTORS,
        );
        let mut bytes = entries;
        bytes.extend(header);
        bytes
    }

    /// Where [`backup_bytes`](Self::backup_bytes) belongs, in bytes.
    pub fn backup_offset(&self) -> u64 {
        (self.last_sector - ENTRY_SECTORS) * SECTOR_SIZE
    }

    fn entry_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY_SIZE * ENTRY_COUNT];
        for partition in &self.partitions {
            let start = (partition.number as usize - 1) * ENTRY_SIZE;
            let entry = &mut bytes[start..start + ENTRY_SIZE];
            entry[..16].copy_from_slice(&partition.type_guid.to_bytes_le());
            entry[16..32].copy_from_slice(&partition.guid.to_bytes_le());
            entry[32..40].copy_from_slice(&partition.first_lba.to_le_bytes());
            entry[40..48].copy_from_slice(&partition.last_lba.to_le_bytes());
            entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
            for (place, unit) in entry[56..]
                .chunks_exact_mut(2)
                .zip(partition.name.encode_utf16().take(NAME_UNITS))
            {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header_bytes(&self, entries: &[u8], own: u64, other: u64, entries_lba: u64) -> Vec<u8> {
        let usable = self.usable();
        let mut header = Vec::with_capacity(SECTOR_SIZE as usize);
        header.extend(SIGNATURE);
        header.extend(REVISION.to_le_bytes());
        header.extend((HEADER_SIZE as u32).to_le_bytes());
        header.extend([0; 8]); // checksum, filled in below, and reserved
        header.extend(own.to_le_bytes());
        header.extend(other.to_le_bytes());
        header.extend(usable.start().to_le_bytes());
        header.extend(usable.end().to_le_bytes());
        header.extend(self.disk_guid.to_bytes_le());
        header.extend(entries_lba.to_le_bytes());
        header.extend((ENTRY_COUNT as u32).to_le_bytes());
        header.extend((ENTRY_SIZE as u32).to_le_bytes());
        header.extend(crc32fast::hash(entries).to_le_bytes());
        let checksum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header.resize(SECTOR_SIZE as usize, 0);
        header
    }

    /// One partition over the whole disk, for tools that know no GPT.
    fn protective_mbr(&self) -> [u8; SECTOR_SIZE as usize] {
        let mut mbr = [0; SECTOR_SIZE as usize];
        let size = u32::try_from(self.last_sector).unwrap_or(u32::MAX);
        let entry = &mut mbr[446..462];
        entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
        entry[4] = 0xee;
        entry[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&1u32.to_le_bytes());
        entry[12..16].copy_from_slice(&size.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        mbr
    }
}

/// Reads the table of `disk`.
pub fn read<D: ReadAt + ?Sized>(disk: &D) -> Result<Table, GptError> {
    let sectors = disk.size()? / SECTOR_SIZE;
    let primary = match read_copy(disk, 1, sectors) {
        Ok(table) => return Ok(table),
        Err(flaw) => flaw,
    };
    match read_copy(disk, sectors.saturating_sub(1), sectors) {
        Ok(table) => Ok(table),
        Err(backup) => Err(GptError::Unsound { primary, backup }),
    }
}

/// Writes both copies of `table`, and makes sure that they lie on the disk.
pub fn write(disk: &File, table: &Table) -> io::Result<()> {
    disk.write_all_at(&table.backup_bytes(), table.backup_offset())?;
    disk.sync_all()?;
    disk.write_all_at(&table.primary_bytes(), 0)?;
    disk.sync_all()
}

/// Makes the checksums right of a primary header that lies in its place with its
/// entries behind it: past them lie the checks that matter.
pub(crate) fn seal(disk: &mut [u8]) {
    let header = SECTOR_SIZE as usize;
    disk[header..header + 8].copy_from_slice(SIGNATURE);
    disk[header + 8..header + 12].copy_from_slice(&REVISION.to_le_bytes());
    disk[header + 12..header + 16].copy_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
    disk[header + 24..header + 32].copy_from_slice(&1u64.to_le_bytes());
    disk[header + 72..header + 80].copy_from_slice(&2u64.to_le_bytes());
    let count = u32_at(disk, header + 80) as usize;
    let size = u32_at(disk, header + 84) as usize;
    let entries = count
        .checked_mul(size)
        .and_then(|length| disk.get(2 * header..)?.get(..length))
        .map(crc32fast::hash)
        .unwrap_or_default();
    disk[header + 88..header + 92].copy_from_slice(&entries.to_le_bytes());
    disk[header + 16..header + 20].fill(0);
    let checksum = crc32fast::hash(&disk[header..header + HEADER_SIZE]);
    disk[header + 16..header + 20].copy_from_slice(&checksum.to_le_bytes());
}

fn read_copy<D: ReadAt + ?Sized>(disk: &D, lba: u64, sectors: u64) -> Result<Table, Flaw> {
    let mut sector = [0; SECTOR_SIZE as usize];
    disk.read_exact_at(&mut sector, lba * SECTOR_SIZE)
        .map_err(|_| Flaw::Unreadable)?;
    let header = Header::parse(&sector)?;
    if header.own_lba != lba {
        return Err(Flaw::Misplaced);
    }
    // The bounds were checked, so this is at most 4 MiB.
    let mut entries = vec![0; header.entry_count as usize * header.entry_size as usize];
    let start = header
        .entries_lba
        .checked_mul(SECTOR_SIZE)
        .ok_or(Flaw::Range)?;
    disk.read_exact_at(&mut entries, start)
        .map_err(|_| Flaw::Range)?;
    if crc32fast::hash(&entries) != header.entries_crc {
        return Err(Flaw::EntryChecksum);
    }
    let last_sector = header.own_lba.max(header.other_lba);
    // A disk that became larger has its backup before the end, never after it.
    if last_sector >= sectors || header.last_usable > last_sector {
        return Err(Flaw::Range);
    }
    let partitions = parse_entries(&entries, &header)?;
    Ok(Table {
        disk_guid: header.disk_guid,
        partitions,
        last_sector,
    })
}

struct Header {
    own_lba: u64,
    other_lba: u64,
    first_usable: u64,
    last_usable: u64,
    disk_guid: Uuid,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    fn parse(sector: &[u8; SECTOR_SIZE as usize]) -> Result<Self, Flaw> {
        if &sector[..8] != SIGNATURE {
            return Err(Flaw::Signature);
        }
        let size = u32_at(sector, 12) as usize;
        if u32_at(sector, 8) != REVISION || !(HEADER_SIZE..=sector.len()).contains(&size) {
            return Err(Flaw::Revision);
        }
        let mut unsigned = sector[..size].to_vec();
        unsigned[16..20].fill(0);
        if crc32fast::hash(&unsigned) != u32_at(sector, 16) {
            return Err(Flaw::HeaderChecksum);
        }
        let header = Self {
            own_lba: u64_at(sector, 24),
            other_lba: u64_at(sector, 32),
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            disk_guid: guid_at(sector, 56),
            entries_lba: u64_at(sector, 72),
            entry_count: u32_at(sector, 80),
            entry_size: u32_at(sector, 84),
            entries_crc: u32_at(sector, 88),
        };
        let plausible = (ENTRY_SIZE as u32..=ENTRY_SIZE_MAX).contains(&header.entry_size)
            && header.entry_size.is_power_of_two()
            && header.entry_count <= ENTRY_COUNT_MAX
            && header.first_usable <= header.last_usable;
        if plausible {
            Ok(header)
        } else {
            Err(Flaw::Range)
        }
    }
}

fn parse_entries(entries: &[u8], header: &Header) -> Result<Vec<Partition>, Flaw> {
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(header.entry_size as usize)) {
        let type_guid = guid_at(entry, 0);
        if type_guid.is_nil() {
            continue;
        }
        let units: Vec<u16> = entry[56..ENTRY_SIZE]
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        let partition = Partition {
            number,
            type_guid,
            guid: guid_at(entry, 16),
            first_lba: u64_at(entry, 32),
            last_lba: u64_at(entry, 40),
            attributes: u64_at(entry, 48),
            name: String::from_utf16_lossy(&units),
        };
        if partition.first_lba > partition.last_lba
            || partition.first_lba < header.first_usable
            || partition.last_lba > header.last_usable
        {
            return Err(Flaw::Partition(number));
        }
        partitions.push(partition);
    }
    let mut by_place: Vec<&Partition> = partitions.iter().collect();
    by_place.sort_by_key(|partition| partition.first_lba);
    for pair in by_place.windows(2) {
        if pair[0].last_lba >= pair[1].first_lba {
            return Err(Flaw::Partition(pair[1].number));
        }
    }
    Ok(partitions)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn guid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut value = [0; 16];
    value.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes_le(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK_SECTORS: u64 = 4096;

    fn partition(number: u32, first_lba: u64, last_lba: u64) -> Partition {
        Partition {
            number,
            type_guid: Uuid::from_u128(0x1234),
            guid: Uuid::from_u128(u128::from(number)),
            first_lba,
            last_lba,
            attributes: 1 << 60,
            name: format!("PART-{number}"),
        }
    }

    fn table() -> Table {
        let partitions = vec![partition(1, 64, 127), partition(2, 128, 1023)];
        Table::new(Uuid::from_u128(0xd15c), DISK_SECTORS, partitions)
    }

    fn disk_of(table: &Table) -> Vec<u8> {
        let mut disk = vec![0; (table.disk_sectors() * SECTOR_SIZE) as usize];
        let primary = table.primary_bytes();
        disk[..primary.len()].copy_from_slice(&primary);
        let at = table.backup_offset() as usize;
        disk[at..].copy_from_slice(&table.backup_bytes());
        disk
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&disk_of(&table())).unwrap(), table());
    }

    #[test]
    fn either_copy_is_enough() {
        let sound = disk_of(&table());
        let mut no_primary = sound.clone();
        no_primary[512..1024].fill(0);
        assert_eq!(read(&no_primary).unwrap(), table());
        let mut torn_entries = sound.clone();
        torn_entries[1024 + 33] ^= 1;
        assert_eq!(read(&torn_entries).unwrap(), table());
        let mut no_backup = sound.clone();
        let end = no_backup.len() - 512;
        no_backup[end..].fill(0);
        assert_eq!(read(&no_backup).unwrap(), table());
        no_backup[512..1024].fill(0);
        let error = read(&no_backup).unwrap_err();
        assert!(matches!(
            error,
            GptError::Unsound {
                primary: Flaw::Signature,
                backup: Flaw::Signature
            }
        ));
    }

    #[test]
    fn senseless_partitions_are_refused() {
        for (partitions, flaw) in [
            (
                vec![partition(1, 64, 127), partition(2, 127, 200)],
                Flaw::Partition(2),
            ),
            (vec![partition(1, 200, 100)], Flaw::Partition(1)),
            (vec![partition(3, 2, 100)], Flaw::Partition(3)),
            (vec![partition(1, 64, DISK_SECTORS - 1)], Flaw::Partition(1)),
            (vec![partition(1, 64, u64::MAX)], Flaw::Partition(1)),
        ] {
            let disk = disk_of(&Table {
                partitions,
                ..table()
            });
            match read(&disk) {
                Err(GptError::Unsound { primary, .. }) => assert_eq!(primary, flaw),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_table_longer_than_the_disk_is_refused() {
        let mut disk = disk_of(&table());
        disk.truncate(disk.len() - 512);
        assert!(read(&disk).is_err());
    }

    #[test]
    fn growing_extends_the_last_partition_and_moves_the_backup() {
        let grown = table().grown(8192, 64 * SECTOR_SIZE).unwrap();
        assert_eq!(grown.partitions[0], table().partitions[0]);
        assert_eq!(grown.partitions[1].last_lba, 8127);
        assert_eq!(grown.disk_sectors(), 8192);
        assert_eq!(read(&disk_of(&grown)).unwrap(), grown);
        assert!(grown.grown(8192, 64 * SECTOR_SIZE).is_none());
        assert!(grown.grown(4096, 64 * SECTOR_SIZE).is_none());
    }

    #[test]
    fn the_old_table_is_found_after_the_disk_grew() {
        let mut disk = disk_of(&table());
        disk.resize(disk.len() * 2, 0);
        assert_eq!(read(&disk).unwrap(), table());
    }

    #[test]
    fn a_sound_table_lies_on_the_disk_at_every_write() {
        let old = disk_of(&table());
        let mut disk = old.clone();
        disk.resize(8192 * 512, 0);
        let grown = table().grown(8192, SECTOR_SIZE).unwrap();
        let backup_at = grown.backup_offset() as usize;
        for (at, bytes) in [
            (backup_at, grown.backup_bytes()),
            (0, grown.primary_bytes()),
        ] {
            for (number, sector) in bytes.chunks(512).enumerate() {
                let at = at + number * 512;
                disk[at..at + 512].copy_from_slice(sector);
                let found = read(&disk).unwrap();
                assert!(
                    found == table() || found == grown,
                    "neither the old nor the new table"
                );
            }
        }
        assert_eq!(read(&disk).unwrap(), grown);
    }

    #[test]
    fn write_goes_through_a_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(DISK_SECTORS * SECTOR_SIZE).unwrap();
        write(&file, &table()).unwrap();
        assert_eq!(read(&file).unwrap(), table());
    }

    proptest! {
        #[test]
        fn any_change_of_a_copy_is_noticed(at in 512usize..512 + 92, bit in 0u8..8) {
            let mut disk = disk_of(&table());
            disk[at] ^= 1 << bit;
            prop_assert!(read_copy(&disk, 1, DISK_SECTORS).is_err());
            prop_assert_eq!(read(&disk).unwrap(), table());
        }

        #[test]
        fn any_bytes_are_a_sound_table_or_refused(header in proptest::collection::vec(any::<u8>(), 92), entries in proptest::collection::vec(any::<u8>(), 0..600), count in 0u32..5) {
            let mut bytes = header;
            bytes[80..84].copy_from_slice(&count.to_le_bytes());
            bytes[84..88].copy_from_slice(&(ENTRY_SIZE as u32).to_le_bytes());
            bytes[32..40].copy_from_slice(&63u64.to_le_bytes());
            bytes[40..48].copy_from_slice(&2u64.to_le_bytes());
            bytes[48..56].copy_from_slice(&62u64.to_le_bytes());
            bytes.extend(entries);
            crate::properties::partition_table(&bytes);
        }

        #[test]
        fn any_sealed_header_is_sound_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            crate::properties::partition_table(&bytes);
        }

        #[test]
        fn foreign_entries_never_panic(entries in proptest::collection::vec(any::<u8>(), 256)) {
            let mut disk = disk_of(&table());
            disk[1024..1024 + 256].copy_from_slice(&entries);
            let checksum = crc32fast::hash(&disk[1024..1024 + ENTRY_SIZE * ENTRY_COUNT]);
            disk[512 + 88..512 + 92].copy_from_slice(&checksum.to_le_bytes());
            disk[528..532].fill(0);
            let header = crc32fast::hash(&disk[512..512 + 92]);
            disk[528..532].copy_from_slice(&header.to_le_bytes());
            if let Ok(table) = read_copy(&disk, 1, DISK_SECTORS) {
                for partition in &table.partitions {
                    prop_assert!(table.usable().contains(&partition.first_lba));
                    prop_assert!(table.usable().contains(&partition.last_lba));
                }
            }
        }
    }
}
