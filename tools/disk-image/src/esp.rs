//! The EFI system partition: a FAT32 file system that holds the given files.
//!
//! Written once and in one piece, so a file's clusters follow each other and the
//! same files give the same bytes.

use anyhow::{Context, Result, bail};
use boot_slots::layout::ESP_SIZE;
use std::collections::{BTreeMap, BTreeSet};

const SECTOR: usize = 512;
/// Small clusters waste little and give enough of them to be FAT32 at this size.
const SECTORS_PER_CLUSTER: usize = 2;
const CLUSTER: usize = SECTORS_PER_CLUSTER * SECTOR;
const SECTORS: usize = ESP_SIZE as usize / SECTOR;
const RESERVED_SECTORS: usize = 32;
/// Enough for an entry of four bytes for each cluster.
const FAT_SECTORS: usize = (SECTORS / SECTORS_PER_CLUSTER * 4).div_ceil(SECTOR);
const FATS: usize = 2;
const DATA_AT: usize = (RESERVED_SECTORS + FATS * FAT_SECTORS) * SECTOR;
const CLUSTERS: usize = (SECTORS * SECTOR - DATA_AT) / CLUSTER;
/// By the number of clusters a driver knows that it is FAT32.
const _: () = assert!(CLUSTERS >= 65_525);

const FIRST_CLUSTER: usize = 2;
const INFO_SECTOR: usize = 1;
const BACKUP_SECTOR: usize = 6;
const MEDIA: u8 = 0xf8;
const END_OF_CHAIN: u32 = 0x0fff_ffff;

const VOLUME_ID: u32 = 0xb001_b001;
const VOLUME_LABEL: [u8; 11] = *b"BULKHEADESP";

const ENTRY: usize = 32;
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_FILE: u8 = 0x20;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const UNITS_PER_ENTRY: usize = 13;

/// 1 January 2020, as FAT has it. Without a valid date (month and day 0, say)
/// firmware refuses to rename a file, and with that boot counting fails.
const DATE: u16 = (2020 - 1980) << 9 | 1 << 5 | 1;

/// A file system of the partition's size with `files`, each a path with `/` and
/// the content. Folders are made as needed.
pub fn build<P: AsRef<str>>(files: &[(P, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut root = Folder::default();
    for (path, content) in files {
        let path = path.as_ref();
        root.add(path, content)
            .with_context(|| format!("cannot put {path} on the EFI system partition"))?;
    }
    let mut volume = Volume::new();
    volume.write_folder("", &root, None)?;
    Ok(volume.finish())
}

/// Names are kept in order, which decides which clusters a file gets.
#[derive(Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Folder<'a> {
    fn add(&mut self, path: &'a str, content: &'a [u8]) -> Result<()> {
        let (name, rest) = match path.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+.~^".contains(c);
        if name.is_empty()
            || name.len() > 255
            || name.starts_with('.')
            || !name.chars().all(is_plain)
        {
            bail!("{name:?} cannot be the name of a file there");
        }
        let taken = |other: &&str| other.eq_ignore_ascii_case(name);
        match rest {
            Some(rest) if !self.files.keys().any(taken) => {
                self.folders.entry(name).or_default().add(rest, content)
            }
            None if !self.files.keys().chain(self.folders.keys()).any(taken) => {
                self.files.insert(name, content);
                Ok(())
            }
            _ => bail!("there are two of {name}"),
        }
    }
}

struct Volume {
    bytes: Vec<u8>,
    /// The next entries of the allocation table.
    fat: Vec<u32>,
}

impl Volume {
    fn new() -> Self {
        let fat = vec![0x0fff_ff00 | u32::from(MEDIA), END_OF_CHAIN];
        Self {
            bytes: vec![0; SECTORS * SECTOR],
            fat,
        }
    }

    /// Takes clusters for `size` bytes; returns the first one.
    fn allocate(&mut self, path: &str, size: usize) -> Result<usize> {
        let first = self.fat.len();
        let count = size.div_ceil(CLUSTER).max(1);
        if first + count > FIRST_CLUSTER + CLUSTERS {
            bail!("the EFI system partition has no room for {path}");
        }
        self.fat
            .extend((1..count).map(|next| (first + next) as u32));
        self.fat.push(END_OF_CHAIN);
        Ok(first)
    }

    fn put(&mut self, cluster: usize, content: &[u8]) {
        let at = DATA_AT + (cluster - FIRST_CLUSTER) * CLUSTER;
        self.bytes[at..at + content.len()].copy_from_slice(content);
    }

    /// Writes a folder and all in it; returns its first cluster. `parent` is the
    /// first cluster of the folder that holds it, and none for the root.
    fn write_folder(
        &mut self,
        path: &str,
        folder: &Folder,
        parent: Option<usize>,
    ) -> Result<usize> {
        let mut names = ShortNames::default();
        let entries = folder
            .folders
            .keys()
            .chain(folder.files.keys())
            .map(|name| (*name, names.entries(name)))
            .collect::<BTreeMap<&str, NameEntries>>();
        let own_entries = if parent.is_some() { 2 } else { 1 };
        let count = own_entries
            + entries
                .values()
                .map(|name| name.long.len() + 1)
                .sum::<usize>();
        let cluster = self.allocate(
            if path.is_empty() { "its root" } else { path },
            count * ENTRY,
        )?;

        let mut table = Vec::with_capacity(count * ENTRY);
        match parent {
            Some(parent) => {
                // The root goes by the number 0 here.
                let parent = if parent == FIRST_CLUSTER { 0 } else { parent };
                table.extend(entry(b".          ", ATTRIBUTE_FOLDER, cluster, 0));
                table.extend(entry(b"..         ", ATTRIBUTE_FOLDER, parent, 0));
            }
            None => table.extend(entry(&VOLUME_LABEL, ATTRIBUTE_LABEL, 0, 0)),
        }
        for (name, name_entries) in &entries {
            let path = format!("{path}/{name}");
            table.extend(name_entries.long.iter().flatten());
            let short = &name_entries.short;
            if let Some(inner) = folder.folders.get(name) {
                let first = self.write_folder(&path, inner, Some(cluster))?;
                table.extend(entry(short, ATTRIBUTE_FOLDER, first, 0));
            } else if let Some(content) = folder.files.get(name) {
                let size =
                    u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
                let first = if content.is_empty() {
                    0
                } else {
                    self.allocate(&path, content.len())?
                };
                if first > 0 {
                    self.put(first, content);
                }
                table.extend(entry(short, ATTRIBUTE_FILE, first, size));
            }
        }
        self.put(cluster, &table);
        Ok(cluster)
    }

    fn finish(mut self) -> Vec<u8> {
        let free = (FIRST_CLUSTER + CLUSTERS - self.fat.len()) as u32;
        let (boot, info) = (boot_sector(), info_sector(free, self.fat.len() as u32));
        for at in [0, BACKUP_SECTOR] {
            self.bytes[at * SECTOR..][..SECTOR].copy_from_slice(&boot);
            self.bytes[(at + INFO_SECTOR) * SECTOR..][..SECTOR].copy_from_slice(&info);
        }
        let fat: Vec<u8> = self
            .fat
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        for copy in 0..FATS {
            let at = (RESERVED_SECTORS + copy * FAT_SECTORS) * SECTOR;
            self.bytes[at..at + fat.len()].copy_from_slice(&fat);
        }
        self.bytes
    }
}

fn boot_sector() -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x58, 0x90]);
    put(3, b"BULKHEAD");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[SECTORS_PER_CLUSTER as u8]);
    put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(21, &[MEDIA]);
    put(24, &63u16.to_le_bytes()); // sectors per track and heads, which mean nothing now
    put(26, &255u16.to_le_bytes());
    put(32, &(SECTORS as u32).to_le_bytes());
    put(36, &(FAT_SECTORS as u32).to_le_bytes());
    put(44, &(FIRST_CLUSTER as u32).to_le_bytes());
    put(48, &(INFO_SECTOR as u16).to_le_bytes());
    put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
    put(64, &[0x80, 0, 0x29]);
    put(67, &VOLUME_ID.to_le_bytes());
    put(71, &VOLUME_LABEL);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xaa]);
    sector
}

fn info_sector(free: u32, next: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RRaA");
    put(484, b"rrAa");
    put(488, &free.to_le_bytes());
    put(492, &next.to_le_bytes());
    put(510, &[0x55, 0xaa]);
    sector
}

fn entry(short: &[u8; 11], attribute: u8, cluster: usize, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let cluster = (cluster as u32).to_le_bytes();
    entry[..11].copy_from_slice(short);
    entry[11] = attribute;
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[20..22].copy_from_slice(&cluster[2..]);
    entry[26..28].copy_from_slice(&cluster[..2]);
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// The name of a file as a folder stores it.
struct NameEntries {
    short: [u8; 11],
    /// Empty when the short name says it all.
    long: Vec<[u8; ENTRY]>,
}

/// Short names given out in a folder.
#[derive(Default)]
struct ShortNames(BTreeSet<[u8; 11]>);

impl ShortNames {
    fn entries(&mut self, name: &str) -> NameEntries {
        let upper = name.to_ascii_uppercase();
        let (base, extension) = upper.rsplit_once('.').unwrap_or((&upper, ""));
        let is_short =
            |text: &str, length: usize| text.len() <= length && !text.contains(['.', '+']);
        let fits = is_short(base, 8) && is_short(extension, 3) && !base.is_empty();
        let mut short = padded(base, extension);
        if !fits || self.0.contains(&short) {
            let base: String = base
                .chars()
                .filter(|c| *c != '.')
                .map(|c| if c == '+' { '_' } else { c })
                .collect();
            let mut numbered = (1u32..).map(|number| {
                let tail = format!("~{number}");
                let kept = base.len().min(8 - tail.len());
                padded(&format!("{}{tail}", &base[..kept]), extension)
            });
            short = numbered
                .find(|short| !self.0.contains(short))
                .expect("a folder has fewer files than there are numbers");
        }
        self.0.insert(short);
        let long = if fits && upper == name {
            Vec::new()
        } else {
            long_entries(name, &short)
        };
        NameEntries { short, long }
    }
}

fn padded(base: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    for (place, c) in short[..8].iter_mut().zip(base.bytes()) {
        *place = c;
    }
    for (place, c) in short[8..].iter_mut().zip(extension.bytes()) {
        *place = c;
    }
    short
}

/// A long name lies before its short one, its last part first.
fn long_entries(name: &str, short: &[u8; 11]) -> Vec<[u8; ENTRY]> {
    let checksum = short
        .iter()
        .fold(0u8, |sum, c| sum.rotate_right(1).wrapping_add(*c));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(UNITS_PER_ENTRY);
    if units.len() < count * UNITS_PER_ENTRY {
        units.push(0);
    }
    units.resize(count * UNITS_PER_ENTRY, 0xffff);
    let places = (1..11)
        .step_by(2)
        .chain((14..26).step_by(2))
        .chain([28, 30]);
    let mut entries: Vec<[u8; ENTRY]> = (1u8..)
        .zip(units.chunks_exact(UNITS_PER_ENTRY))
        .map(|(number, units)| {
            let mut entry = [0; ENTRY];
            entry[0] = number;
            entry[11] = ATTRIBUTE_LONG_NAME;
            entry[13] = checksum;
            for (at, unit) in places.clone().zip(units) {
                entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
            entry
        })
        .collect();
    if let Some(last) = entries.last_mut() {
        last[0] |= 0x40;
    }
    entries.reverse();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use fatfs::{FatType, FileSystem, FsOptions};
    use std::io::{Cursor, Read};

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (
                "EFI/Linux/bulkhead_1.2.0+3.efi",
                (0..3_000_000u32).map(|n| n as u8).collect(),
            ),
            ("EFI/BOOT/BOOTX64.EFI", b"helper".to_vec()),
            ("EFI/Linux/bulkhead_1.2.0+0-3.efi", b"older".to_vec()),
            ("EFI/Linux/empty", vec![]),
            ("loader/loader.conf", b"timeout 0\n".to_vec()),
        ]
    }

    #[test]
    fn files_are_found_again() {
        let mut volume = build(&files()).unwrap();
        let file_system = FileSystem::new(Cursor::new(&mut volume), FsOptions::new()).unwrap();
        assert_eq!(file_system.fat_type(), FatType::Fat32);
        for (path, content) in files() {
            let mut read = Vec::new();
            file_system
                .root_dir()
                .open_file(path)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == content, "{path}");
        }
    }

    #[test]
    fn times_are_ones_that_firmware_takes() {
        let mut volume = build(&files()).unwrap();
        let file_system = FileSystem::new(Cursor::new(&mut volume), FsOptions::new()).unwrap();
        let folder = file_system.root_dir().open_dir("EFI/Linux").unwrap();
        let mut count = 0;
        for entry in folder.iter() {
            let entry = entry.unwrap();
            for date in [
                entry.created().date,
                entry.modified().date,
                entry.accessed(),
            ] {
                assert_eq!(
                    (date.year, date.month, date.day),
                    (2020, 1, 1),
                    "{}",
                    entry.file_name()
                );
            }
            count += 1;
        }
        assert_eq!(
            count, 5,
            "the files and the two entries of a folder for itself and its parent"
        );
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let mut files = files();
        let first = build(&files).unwrap();
        files.reverse();
        assert!(first == build(&files).unwrap());
    }

    #[test]
    fn counts_and_copies_agree() {
        let volume = build(&files()).unwrap();
        let mut read = Cursor::new(volume.clone());
        let file_system = FileSystem::new(&mut read, FsOptions::new()).unwrap();
        let stats = file_system.stats().unwrap();
        let table = &volume[RESERVED_SECTORS * SECTOR..][..(FIRST_CLUSTER + CLUSTERS) * 4];
        let free = table
            .chunks_exact(4)
            .filter(|entry| *entry == [0; 4])
            .count();
        assert_eq!(stats.free_clusters() as usize, free);
        assert_eq!(stats.total_clusters() as usize, CLUSTERS);
        let fat = |copy: usize| {
            &volume[(RESERVED_SECTORS + copy * FAT_SECTORS) * SECTOR..][..FAT_SECTORS * SECTOR]
        };
        assert!(fat(0) == fat(1));
        assert!(volume[..2 * SECTOR] == volume[BACKUP_SECTOR * SECTOR..][..2 * SECTOR]);
        // A folder begins with itself and its parent, which some drivers insist on.
        let root = &volume[DATA_AT..][..CLUSTER];
        let efi = root
            .chunks_exact(ENTRY)
            .find(|entry| entry.starts_with(b"EFI     "))
            .unwrap();
        let cluster = usize::from(u16::from_le_bytes([efi[26], efi[27]]));
        let efi = &volume[DATA_AT + (cluster - FIRST_CLUSTER) * CLUSTER..][..2 * ENTRY];
        assert!(efi.starts_with(b".          ") && efi[ENTRY..].starts_with(b"..         "));
    }

    #[test]
    fn short_names_differ_and_long_ones_are_kept_where_needed() {
        let mut names = ShortNames::default();
        for (name, short, long) in [
            ("BOOTX64.EFI", "BOOTX64 EFI", 0),
            ("loader.conf", "LOADER~1CON", 1),
            ("loader", "LOADER     ", 1),
            ("bulkhead_1.2.0+3.efi", "BULKHE~1EFI", 2),
            ("bulkhead_1.2.0.efi", "BULKHE~2EFI", 2),
            ("a+b", "A_B~1      ", 1),
        ] {
            let entries = names.entries(name);
            assert_eq!(entries.short.as_slice(), short.as_bytes(), "{name}");
            assert_eq!(entries.long.len(), long, "{name}");
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let file = |path| (path, vec![1]);
        for files in [
            vec![file("EFI/a"), file("EFI/A")],
            vec![file("EFI"), file("EFI/a")],
            vec![file("EFI//a")],
            vec![file("../a")],
            vec![file("a b")],
        ] {
            assert!(build(&files).is_err(), "{files:?}");
        }
    }

    #[test]
    fn too_much_is_an_error_that_names_the_file() {
        let files = [("EFI/Linux/huge.efi", vec![0; ESP_SIZE as usize])];
        let error = build(&files).unwrap_err().to_string();
        assert!(error.contains("EFI/Linux/huge.efi"), "{error}");
    }
}
