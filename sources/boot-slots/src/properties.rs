//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::entry::{Entry, is_version};
use crate::gpt::{self, SECTOR_SIZE};
use crate::record::{BootRecord, RECORD_SIZE};
use crate::verity::{BLOCK_SIZE, RootHash, SUPERBLOCK_SIZE, Superblock};

/// A disk has a sound table or is refused. The partitions of a sound one lie on
/// the disk, in numbers and places of their own, and the table written out reads
/// back as it was.
pub fn partition_table(bytes: &[u8]) {
    sound_or_refused(bytes);
    // Chance does not find checksums, so the same bytes are looked at once more
    // as a header and entries whose checksums are right.
    const HEADER: usize = 92;
    let Some((header, entries)) = bytes.split_at_checked(HEADER) else {
        return;
    };
    let sector = SECTOR_SIZE as usize;
    let mut disk = vec![0; 64 * sector];
    let room = disk.len() - 2 * sector;
    let entries = &entries[..entries.len().min(room)];
    disk[2 * sector..2 * sector + entries.len()].copy_from_slice(entries);
    disk[sector..sector + HEADER].copy_from_slice(header);
    gpt::seal(&mut disk);
    sound_or_refused(&disk);
}

fn sound_or_refused(disk: &[u8]) {
    let Ok(table) = gpt::read(disk) else { return };
    let sectors = disk.len() as u64 / SECTOR_SIZE;
    assert!(table.disk_sectors() <= sectors);
    let mut places: Vec<(u64, u64)> = Vec::new();
    for partition in &table.partitions {
        assert!(partition.first_lba <= partition.last_lba);
        assert!(partition.last_lba < sectors);
        assert!(partition.offset() + partition.size() <= disk.len() as u64);
        places.push((partition.first_lba, partition.last_lba));
    }
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 < pair[1].0));
    let mut numbers: Vec<u32> = table.partitions.iter().map(|p| p.number).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), table.partitions.len());
}

/// A superblock is one of ours, which reads back as it was and whose sizes can be
/// computed with, or refused.
pub fn verity_superblock(bytes: &[u8]) {
    let mut block = [0; SUPERBLOCK_SIZE];
    let length = bytes.len().min(block.len());
    block[..length].copy_from_slice(&bytes[..length]);
    if let Ok(superblock) = Superblock::parse(&block) {
        assert_eq!(superblock.to_bytes(), block);
        assert!(superblock.tree_size() < superblock.data_size() + 3 * BLOCK_SIZE as u64);
    }
}

/// A boot record is what was written or an empty one, and boots are counted in it
/// either way.
pub fn boot_record(bytes: &[u8]) {
    let mut sector = [0; RECORD_SIZE];
    let length = bytes.len().min(sector.len());
    sector[..length].copy_from_slice(&bytes[..length]);
    for sealed in [false, true] {
        if sealed {
            BootRecord::seal(&mut sector);
        }
        let mut record = BootRecord::parse(&sector);
        record.start(&RootHash([7; 32]));
        assert_eq!(BootRecord::parse(&record.to_bytes()), record);
    }
}

/// A file name is a kernel image's, and is written as it was read, or it is not.
pub fn entry_name(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(entry) = Entry::parse(name) {
        assert!(is_version(&entry.version));
        assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
    }
}
