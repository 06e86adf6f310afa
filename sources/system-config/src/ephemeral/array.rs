//! Several disks as one, by the kernel's RAID driver: RAID 0 with a superblock of
//! version 1.2, as `mdadm` makes it and `linux/raid/md_p.h` describes it.
//!
//! The kernel puts an array together by what is written to `/sys`, so making one
//! is no more than writing a superblock to each disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::storage::ext4::u32_at;

/// The array's name, and where the kernel shows it.
const NAME: &str = "ephemeral";
/// Its device node.
pub const DEVICE: &str = "/dev/md_ephemeral";
const KERNEL_NAME: &str = "md_ephemeral";

/// Where the superblock lies.
pub const OFFSET: u64 = 4096;
/// How much of it is read and written.
pub const SIZE: usize = 1024;
const HEADER: usize = 256;
const DISKS_MAX: usize = (SIZE - HEADER) / 2;

const MAGIC: u32 = 0xa92b_4efc;
/// Says that the layout of a RAID 0 means something.
const FEATURE_RAID0_LAYOUT: u32 = 1 << 12;
/// How disks of different sizes are used, as kernels since 3.14 do it.
const LAYOUT: u32 = 2;
const SECTOR: u64 = 512;
const CHUNK_SECTORS: u32 = 256 * 1024 / SECTOR as u32;
/// Where data begins on each disk.
const DATA_SECTORS: u64 = 1024 * 1024 / SECTOR;

/// What the superblock of a disk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identifies the array.
    pub array: [u8; 16],
    /// How many disks it has.
    pub disks: u32,
    /// Which of them this is.
    pub number: u32,
}

/// Reads the superblock of a disk from [`SIZE`] bytes at [`OFFSET`]; `None` if there is
/// none, or one of an array that is not for ephemeral storage.
pub fn parse(bytes: &[u8]) -> Option<Member> {
    let bytes = bytes.get(..SIZE)?;
    let ours = u32_at(bytes, 0x00) == MAGIC
        && u32_at(bytes, 0x04) == 1
        && bytes[0x20..0x40].split(|byte| *byte == 0).next() == Some(NAME.as_bytes())
        && u32_at(bytes, 0xdc) as usize <= DISKS_MAX
        && checksum(bytes) == u32_at(bytes, 0xd8);
    ours.then(|| {
        let mut array = [0; 16];
        array.copy_from_slice(&bytes[0x10..0x20]);
        Member {
            array,
            disks: u32_at(bytes, 0x5c),
            number: u32_at(bytes, 0xa0),
        }
    })
}

/// Whether these disks are all disks of one array.
pub fn is_complete(members: &[Member]) -> bool {
    let Some(first) = members.first() else {
        return false;
    };
    let mut numbers: Vec<u32> = members
        .iter()
        .filter(|member| member.array == first.array)
        .map(|member| member.number)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len() == members.len() && numbers.len() == first.disks as usize
}

/// The superblock of a disk of `size` bytes.
fn superblock(member: &Member, disk: [u8; 16], size: u64, seconds: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let data = (size / SECTOR)
        .saturating_sub(DATA_SECTORS)
        .next_multiple_of(u64::from(CHUNK_SECTORS))
        .saturating_sub(u64::from(CHUNK_SECTORS));
    put(0x00, &MAGIC.to_le_bytes());
    put(0x04, &1_u32.to_le_bytes());
    put(0x08, &FEATURE_RAID0_LAYOUT.to_le_bytes());
    put(0x10, &member.array);
    put(0x20, NAME.as_bytes());
    put(0x40, &seconds.to_le_bytes());
    put(0x4c, &LAYOUT.to_le_bytes());
    put(0x58, &CHUNK_SECTORS.to_le_bytes());
    put(0x5c, &member.disks.to_le_bytes());
    put(0x80, &DATA_SECTORS.to_le_bytes());
    put(0x88, &data.to_le_bytes());
    put(0x90, &(OFFSET / SECTOR).to_le_bytes());
    put(0xa0, &member.number.to_le_bytes());
    put(0xa8, &disk);
    put(0xc0, &seconds.to_le_bytes());
    // Nothing has to be brought in step.
    put(0xd0, &u64::MAX.to_le_bytes());
    put(0xdc, &member.disks.to_le_bytes());
    for number in 0..member.disks as u16 {
        let at = HEADER + 2 * usize::from(number);
        put(at, &number.to_le_bytes());
    }
    let sum = checksum(&bytes);
    bytes[0xd8..0xdc].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The sum over all words of header and roles, the checksum itself being zero.
fn checksum(bytes: &[u8]) -> u32 {
    let length = HEADER + 2 * (u32_at(bytes, 0xdc) as usize).min(DISKS_MAX);
    let mut sum = 0_u64;
    for (at, word) in (0..).step_by(4).zip(bytes[..length].chunks(4)) {
        if at != 0xd8 {
            let mut whole = [0; 4];
            whole[..word.len()].copy_from_slice(word);
            sum += u64::from(u32::from_le_bytes(whole));
        }
    }
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// Writes superblocks that make an array of `disks`, each with its size in bytes.
pub fn create(disks: &[(PathBuf, u64)]) -> Result<()> {
    ensure!(
        (2..=DISKS_MAX).contains(&disks.len()),
        "an array has 2 to {DISKS_MAX} disks"
    );
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let array = random_id()?;
    for (number, (device, size)) in (0..).zip(disks) {
        let member = Member {
            array,
            disks: disks.len() as u32,
            number,
        };
        let file = OpenOptions::new()
            .write(true)
            .open(device)
            .with_context(|| format!("opening {}", device.display()))?;
        // What was at its beginning would be taken for its content.
        file.write_all_at(&[0; OFFSET as usize], 0)
            .and_then(|()| {
                let bytes = superblock(&member, random_id()?, *size, seconds);
                file.write_all_at(&bytes, OFFSET)?;
                file.sync_all()
            })
            .with_context(|| format!("making {} a disk of the array", device.display()))?;
    }
    Ok(())
}

/// Has the kernel put the array together, unless it has done so already.
pub fn assemble(sys: &Path, disks: &[PathBuf]) -> Result<()> {
    let array = sys.join("block").join(KERNEL_NAME).join("md");
    if array.join("array_state").exists() {
        let state = std::fs::read_to_string(array.join("array_state"))
            .with_context(|| format!("reading the state of {DEVICE}"))?;
        if !matches!(state.trim(), "clear" | "inactive") {
            return Ok(());
        }
        // An attempt that broke off.
        write(&array.join("array_state"), "clear")?;
    }
    write(&sys.join("module/md_mod/parameters/new_array"), KERNEL_NAME)?;
    write(&array.join("metadata_version"), "1.2")?;
    for disk in disks {
        let name = disk.file_name().unwrap_or_default();
        let number = sys.join("class/block").join(name).join("dev");
        let number = std::fs::read_to_string(&number)
            .with_context(|| format!("reading {}", number.display()))?;
        write(&array.join("new_dev"), number.trim())
            .with_context(|| format!("adding {} to the array", disk.display()))?;
    }
    write(&array.join("array_state"), "active").context("starting the array")
}

/// Writes to a file that is there: to be ready to make one takes a right over its folder.
fn write(path: &Path, value: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .with_context(|| format!("writing {value:?} to {}", path.display()))
}

fn random_id() -> std::io::Result<[u8; 16]> {
    let mut id = [0; 16];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u32, disks: u32) -> Member {
        Member {
            array: [7; 16],
            disks,
            number,
        }
    }

    #[test]
    fn superblocks_are_read_as_they_were_written() {
        for disks in [2, 3, 24] {
            let bytes = superblock(&member(1, disks), [9; 16], 4 << 30, 1_700_000_000);
            assert_eq!(parse(&bytes), Some(member(1, disks)));
            for at in [0x00, 0x04, 0x20, 0x5c, 0xa0, 0xd8, HEADER + 2] {
                let mut other = bytes;
                other[at] ^= 1;
                assert_eq!(parse(&other), None, "byte {at:#x}");
            }
        }
        assert_eq!(parse(&[0; SIZE]), None);
        assert_eq!(parse(&[0xff; SIZE]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn data_ends_with_a_whole_chunk_within_the_disk() {
        for size in [16 << 20, (16 << 20) + 512, 7_500_000_000_000_u64] {
            let bytes = superblock(&member(0, 2), [9; 16], size, 0);
            let data = u64::from(u32_at(&bytes, 0x88)) | u64::from(u32_at(&bytes, 0x8c)) << 32;
            assert_eq!(data % u64::from(CHUNK_SECTORS), 0);
            let end = (DATA_SECTORS + data) * SECTOR;
            assert!(end <= size && size - end <= 256 * 1024, "{size}: {end}");
        }
    }

    #[test]
    fn an_array_is_complete_with_each_of_its_disks_once() {
        let stranger = Member {
            array: [8; 16],
            ..member(1, 2)
        };
        let some = |number| member(number, 2);
        for (members, complete) in [
            (vec![some(0), some(1)], true),
            (vec![some(1), some(0)], true),
            (vec![some(0)], false),
            (vec![some(0), some(0)], false),
            (vec![some(0), stranger], false),
            (vec![some(0), some(1), some(2)], false),
            (vec![], false),
        ] {
            assert_eq!(is_complete(&members), complete, "{members:?}");
        }
    }

    #[test]
    fn the_kernel_is_told_in_order_by_files_that_are_there() {
        let sys = tempfile::tempdir().expect("folder");
        let array = sys.path().join("block/md_ephemeral/md");
        let put = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        };
        let disks = ["/dev/vdb".into(), "/dev/vdc".into()];
        let error = assemble(sys.path(), &disks).expect_err("no driver");
        assert!(format!("{error:#}").contains("new_array"), "{error:#}");
        let new_array = sys.path().join("module/md_mod/parameters/new_array");
        put(new_array.clone(), "");
        let error = assemble(sys.path(), &disks).expect_err("no array");
        assert!(
            format!("{error:#}").contains("metadata_version"),
            "{error:#}"
        );
        assert!(!array.join("metadata_version").exists(), "nothing is made");

        for file in ["metadata_version", "new_dev"] {
            put(array.join(file), "");
        }
        put(array.join("array_state"), "clear\n");
        put(sys.path().join("class/block/vdb/dev"), "254:16\n");
        put(sys.path().join("class/block/vdc/dev"), "254:32\n");
        assemble(sys.path(), &disks).expect("assembled");
        let said = |path: PathBuf| std::fs::read_to_string(path).expect("file");
        assert_eq!(said(new_array), "md_ephemeral");
        assert_eq!(said(array.join("metadata_version")), "1.2");
        assert_eq!(said(array.join("new_dev")), "254:32");
        assert!(said(array.join("array_state")).starts_with("active"));
        // One that runs is left alone.
        std::fs::remove_file(array.join("new_dev")).expect("removed");
        put(array.join("array_state"), "clean\n");
        assemble(sys.path(), &disks).expect("assembled already");
    }

    /// The bytes of a superblock whose fields were laid out by hand.
    #[test]
    fn the_checksum_is_the_folded_sum_of_words() {
        let mut bytes = [0; SIZE];
        bytes[0..4].copy_from_slice(&0xffff_ffff_u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&2_u32.to_le_bytes());
        assert_eq!(checksum(&bytes), 2);
        bytes[0xd8] = 99;
        assert_eq!(checksum(&bytes), 2, "its own place does not count");
        bytes[0xdc] = 1;
        bytes[HEADER..HEADER + 2].copy_from_slice(&0x0100_u16.to_le_bytes());
        assert_eq!(checksum(&bytes), 0x0103, "the last half word counts");
    }
}
