//! What lies on a partition, told from its first bytes: nothing, an ext4 with
//! its size and health, or something that is not ours to touch.

/// How much of a partition is looked at.
pub const EXAMINED: usize = 1024 * 1024;

/// Where mke2fs puts the first backup of the superblock when blocks have 4 KiB.
pub const BACKUP_SUPERBLOCK: u64 = 32768 * 4096;

/// Where the superblock lies.
pub const SUPERBLOCK: usize = 1024;
/// Size of the superblock.
pub const SUPERBLOCK_SIZE: usize = 1024;
/// The boot record on the state partition, which ext4 leaves alone.
pub const BOOT_RECORD_SIZE: usize = 512;

const MAGIC: u16 = 0xef53;
const STATE_HAS_ERRORS: u16 = 0x0002;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Zeros, as far as it was looked at; a boot record does not count.
    Blank,
    /// An ext4 whose superblock is sound.
    Ext4(Geometry),
    /// An ext4 whose superblock is not, and why.
    DamagedExt4(&'static str),
    /// Something else of a known kind.
    Foreign(&'static str),
    /// Something else.
    Unknown,
}

/// Size and health of an ext4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of blocks.
    pub blocks: u64,
    /// Size of a block in bytes.
    pub block_size: u64,
    /// The kernel met an inconsistency while it was mounted.
    pub has_errors: bool,
}

/// Tells what a partition holds whose first [`EXAMINED`] bytes (or all of it)
/// are `start`.
pub fn examine(start: &[u8]) -> Content {
    if let Some(superblock) = start.get(SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_SIZE)
        && u16_at(superblock, 0x38) == MAGIC
    {
        return match geometry(superblock) {
            Ok(geometry) => Content::Ext4(geometry),
            Err(flaw) => Content::DamagedExt4(flaw),
        };
    }
    if let Some(name) = foreign(start) {
        return Content::Foreign(name);
    }
    if start.iter().skip(BOOT_RECORD_SIZE).all(|byte| *byte == 0) {
        Content::Blank
    } else {
        Content::Unknown
    }
}

/// Whether `superblock`, read from where a file system has it or keeps a backup of it,
/// is sound and bears the volume name `label`.
pub fn is_superblock_of(superblock: &[u8], label: &str) -> bool {
    superblock.len() >= SUPERBLOCK_SIZE
        && u16_at(superblock, 0x38) == MAGIC
        && geometry(&superblock[..SUPERBLOCK_SIZE]).is_ok()
        && superblock[0x78..0x88].split(|byte| *byte == 0).next()
            == Some(&label.as_bytes()[..label.len().min(16)])
}

fn geometry(superblock: &[u8]) -> Result<Geometry, &'static str> {
    let incompatible = u32_at(superblock, 0x60);
    if u32_at(superblock, 0x64) & RO_COMPAT_METADATA_CSUM != 0
        && crc32c(&superblock[..0x3fc]) != u32_at(superblock, 0x3fc)
    {
        return Err("the checksum of its superblock is wrong");
    }
    let block_size_log = u32_at(superblock, 0x18);
    if block_size_log > 6 {
        return Err("its block size is impossible");
    }
    let mut blocks = u64::from(u32_at(superblock, 0x4));
    if incompatible & INCOMPAT_64BIT != 0 {
        blocks |= u64::from(u32_at(superblock, 0x150)) << 32;
    }
    if blocks == 0 {
        return Err("it has no blocks");
    }
    Ok(Geometry {
        blocks,
        block_size: 1024 << block_size_log,
        has_errors: u16_at(superblock, 0x3a) & STATE_HAS_ERRORS != 0,
    })
}

/// Signatures of what else is found on disks.
fn foreign(start: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(usize, &[u8], &str); 12] = [
        (0, b"XFSB", "an XFS file system"),
        (0, b"LUKS\xba\xbe", "an encrypted volume"),
        (0, b"hsqs", "a squashfs image"),
        (3, b"NTFS    ", "an NTFS file system"),
        (82, b"FAT32   ", "a FAT file system"),
        (512, b"LABELONE", "an LVM volume"),
        (1024, &0xe0f5_e1e2_u32.to_le_bytes(), "an erofs image"),
        (4086, b"SWAPSPACE2", "swap space"),
        (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
        (
            4096,
            &0xa92b_4efc_u32.to_le_bytes(),
            "a part of a disk array",
        ),
        (512, b"EFI PART", "a partition table"),
        // Boot sectors of file systems end so, too: those are above.
        (510, &[0x55, 0xaa], "a partition table"),
    ];
    SIGNATURES
        .into_iter()
        .find(|(at, bytes, _)| start.get(*at..at + bytes.len()) == Some(bytes))
        .map(|(_, _, name)| name)
}

/// CRC-32C (Castagnoli) as ext4 computes it: seed of all ones, no inversion
/// at the end. Bit by bit, for it is used on a kilobyte per boot.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ 0x82f6_3b78
            }
        })
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`, which must be there.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The first bytes of a sound ext4, for tests here and of the plan.
#[cfg(test)]
pub fn example(blocks: u32, errors: bool) -> Vec<u8> {
    let mut start = vec![0; EXAMINED];
    let superblock = &mut start[SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_SIZE];
    superblock[0x4..0x8].copy_from_slice(&blocks.to_le_bytes());
    superblock[0x18..0x1c].copy_from_slice(&2u32.to_le_bytes());
    superblock[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
    superblock[0x3a] = if errors { 3 } else { 1 };
    superblock[0x64..0x68].copy_from_slice(&RO_COMPAT_METADATA_CSUM.to_le_bytes());
    let checksum = crc32c(&superblock[..0x3fc]);
    superblock[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_the_published_value() {
        // The usual check value has the final inversion that ext4 leaves out.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn sound_superblocks_give_size_and_health() {
        for (blocks, errors) in [(1, false), (131_072, true)] {
            let expected = Geometry {
                blocks: blocks.into(),
                block_size: 4096,
                has_errors: errors,
            };
            assert_eq!(examine(&example(blocks, errors)), Content::Ext4(expected));
        }
    }

    #[test]
    fn large_file_systems_use_the_high_word() {
        let mut start = example(1, false);
        let superblock = &mut start[SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_SIZE];
        superblock[0x64] = 0; // without checksum
        superblock[0x65] = 0;
        superblock[0x60] = INCOMPAT_64BIT as u8;
        superblock[0x150] = 2;
        let expected = Geometry {
            blocks: 1 | 2 << 32,
            block_size: 4096,
            has_errors: false,
        };
        assert_eq!(examine(&start), Content::Ext4(expected));
    }

    #[test]
    fn a_flipped_bit_in_the_superblock_is_damage() {
        for at in [0x0, 0x4, 0x18, 0x70, 0x3ff] {
            let mut start = example(1000, false);
            start[SUPERBLOCK + at] ^= 0x10;
            let content = examine(&start);
            assert!(
                matches!(content, Content::DamagedExt4(_)),
                "{at:#x}: {content:?}"
            );
        }
    }

    #[test]
    fn a_backup_is_known_by_its_name() {
        let mut start = example(1000, false);
        let superblock = &mut start[SUPERBLOCK..SUPERBLOCK + SUPERBLOCK_SIZE];
        superblock[0x78..0x78 + 13].copy_from_slice(b"BULKHEAD-DATA");
        let checksum = crc32c(&superblock[..0x3fc]);
        superblock[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
        assert!(is_superblock_of(superblock, "BULKHEAD-DATA"));
        assert!(!is_superblock_of(superblock, "BULKHEAD-STATE"));
        assert!(!is_superblock_of(superblock, "BULKHEAD"));
        superblock[0x80] ^= 1;
        assert!(!is_superblock_of(superblock, "BULKHEAD-DATA"));
        assert!(!is_superblock_of(&[0; SUPERBLOCK_SIZE], ""));
    }

    #[test]
    fn other_content_is_told_apart() {
        let with = |at: usize, bytes: &[u8]| {
            let mut start = vec![0; EXAMINED];
            start[at..at + bytes.len()].copy_from_slice(bytes);
            start
        };
        for (start, expected) in [
            (vec![0; EXAMINED], Content::Blank),
            (vec![], Content::Blank),
            (vec![0; 700], Content::Blank),
            (with(0, b"any boot record"), Content::Blank),
            (with(BOOT_RECORD_SIZE, b"x"), Content::Unknown),
            (with(EXAMINED - 1, b"x"), Content::Unknown),
            (vec![0xaa; EXAMINED], Content::Unknown),
            (with(0, b"XFSB"), Content::Foreign("an XFS file system")),
            (
                with(0x1_0040, b"_BHRfS_M"),
                Content::Foreign("a btrfs file system"),
            ),
        ] {
            assert_eq!(examine(&start), expected);
        }
    }
}
