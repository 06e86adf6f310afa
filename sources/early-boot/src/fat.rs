//! Reads files out of a FAT16 or FAT32 file system.
//!
//! After Microsoft's "FAT: General Overview of On-Disk Format" 1.03. What is
//! read comes from a partition that anybody may have written to, so every
//! number is checked before it is used, and every chain of clusters ends.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Seek, SeekFrom};

const ENTRY: usize = 32;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
/// Bytes of a folder that are looked at.
const FOLDER_LIMIT: usize = 2 * 1024 * 1024;

/// An open file system.
pub struct Volume<D> {
    device: D,
    is_fat32: bool,
    cluster_bytes: u64,
    /// Where the first allocation table begins.
    table: u64,
    /// Where the top folder of FAT16 begins, and its size.
    top: (u64, u64),
    /// The first cluster of the top folder of FAT32.
    top_cluster: u32,
    /// Where cluster 2 begins.
    data: u64,
    /// One more than the last cluster.
    clusters: u32,
}

struct Found {
    cluster: u32,
    size: u32,
}

impl<D: Read + Seek> Volume<D> {
    /// Reads the boot sector.
    pub fn open(mut device: D) -> Result<Self> {
        let mut boot = [0u8; 512];
        device.seek(SeekFrom::Start(0))?;
        device
            .read_exact(&mut boot)
            .context("read the boot sector")?;
        ensure!(boot[510..] == [0x55, 0xaa], "no FAT boot sector");
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u64::from(u32_at(&boot, at));
        let sector = u16_at(11);
        ensure!(
            [512, 1024, 2048, 4096].contains(&sector),
            "odd sector size {sector}"
        );
        let per_cluster = u64::from(boot[13]);
        ensure!(per_cluster.is_power_of_two(), "odd cluster size");
        let reserved = u16_at(14);
        let tables = u64::from(boot[16]);
        let top_bytes = u16_at(17) * ENTRY as u64;
        let first_nonzero = |a: u64, b: u64| if a != 0 { a } else { b };
        let total = first_nonzero(u16_at(19), u32_at(32));
        let table_sectors = first_nonzero(u16_at(22), u32_at(36));
        ensure!(
            reserved > 0 && (1..=2).contains(&tables) && table_sectors > 0,
            "no FAT boot sector"
        );
        let top_start = reserved + tables * table_sectors;
        let data_start = top_start + top_bytes.div_ceil(sector);
        let data_sectors = total
            .checked_sub(data_start)
            .context("the file system is smaller than its tables")?;
        let count = data_sectors / per_cluster;
        // The kind follows from the count of clusters alone.
        ensure!(
            (4085..0x0fff_fff5).contains(&count),
            "neither FAT16 nor FAT32"
        );
        let is_fat32 = count >= 65525;
        let entry_bytes = if is_fat32 { 4 } else { 2 };
        let clusters = (count + 2).min(table_sectors * sector / entry_bytes);
        Ok(Self {
            device,
            is_fat32,
            cluster_bytes: per_cluster * sector,
            table: reserved * sector,
            top: (top_start * sector, top_bytes),
            top_cluster: if is_fat32 { u32_at(44) as u32 } else { 0 },
            data: data_start * sector,
            clusters: u32::try_from(clusters).context("count of clusters")?,
        })
    }

    /// The file system's name, as its top folder has it.
    pub fn label(&mut self) -> Result<Option<String>> {
        let folder = self.top_folder()?;
        let is_label = |entry: &Entry<'_>| {
            entry.attributes & (ATTRIBUTE_VOLUME | ATTRIBUTE_FOLDER) == ATTRIBUTE_VOLUME
        };
        let label = entries(&folder).find(is_label);
        Ok(label.map(|label| {
            let name = String::from_utf8_lossy(&label.bytes[..11]);
            name.trim_end().to_string()
        }))
    }

    /// Reads the file at `path`, of which the last part is its name and those
    /// before it are folders (in any case), at most `limit` and one byte of it.
    /// `None` if there is no such file.
    pub fn read_file(&mut self, path: &[&str], limit: usize) -> Result<Option<Vec<u8>>> {
        let Some((name, folders)) = path.split_last() else {
            return Ok(None);
        };
        let mask = if self.is_fat32 { u32::MAX } else { 0xffff };
        let mut folder = self.top_folder()?;
        for name in folders {
            let Some(found) = find(&folder, name, true) else {
                return Ok(None);
            };
            folder = self.read_chain(found.cluster & mask, FOLDER_LIMIT)?;
        }
        let Some(found) = find(&folder, name, false) else {
            return Ok(None);
        };
        let size = usize::try_from(found.size)
            .context("size of the file")?
            .min(limit + 1);
        let mut bytes = match size {
            0 => Vec::new(),
            size => self.read_chain(found.cluster & mask, size)?,
        };
        ensure!(bytes.len() >= size, "the file is cut off");
        bytes.truncate(size);
        Ok(Some(bytes))
    }

    fn top_folder(&mut self) -> Result<Vec<u8>> {
        if self.is_fat32 {
            return self.read_chain(self.top_cluster, FOLDER_LIMIT);
        }
        let (start, size) = self.top;
        self.read_at(start, size as usize)
    }

    /// Reads clusters until the chain ends or `enough` bytes are there.
    fn read_chain(&mut self, first: u32, enough: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        // `enough` bounds the loop, even where the chain is a circle.
        while bytes.len() < enough {
            ensure!(
                (2..self.clusters).contains(&cluster),
                "a chain of clusters leaves the file system"
            );
            let start = self.data + u64::from(cluster - 2) * self.cluster_bytes;
            let size = self.cluster_bytes as usize;
            let more = self.read_at(start, size)?;
            bytes.extend(more);
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(bytes)
    }

    fn next(&mut self, cluster: u32) -> Result<Option<u32>> {
        if self.is_fat32 {
            let entry = self.read_at(self.table + u64::from(cluster) * 4, 4)?;
            let next = u32_at(&entry, 0) & 0x0fff_ffff;
            Ok((next < 0x0fff_fff8).then_some(next))
        } else {
            let entry = self.read_at(self.table + u64::from(cluster) * 2, 2)?;
            let next = u32::from(u16::from_le_bytes([entry[0], entry[1]]));
            Ok((next < 0xfff8).then_some(next))
        }
    }

    fn read_at(&mut self, start: u64, size: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        self.device.seek(SeekFrom::Start(start))?;
        if let Err(error) = self.device.read_exact(&mut bytes) {
            bail!("read {size} bytes at {start}: {error}");
        }
        Ok(bytes)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// An entry of a folder that is in use.
struct Entry<'f> {
    bytes: &'f [u8],
    attributes: u8,
    long_name: Option<String>,
}

/// The entries of a folder, each with the long name that the entries before it
/// make up.
fn entries(folder: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut long: Vec<u16> = Vec::new();
    let used = folder
        .chunks_exact(ENTRY)
        .take_while(|entry| entry[0] != 0x00);
    used.filter_map(move |bytes| {
        let attributes = bytes[11];
        if bytes[0] == 0xe5 {
            long.clear();
            return None;
        }
        if attributes & 0x3f == ATTRIBUTE_LONG_NAME {
            // The parts of a name come last part first.
            let mut part = Vec::with_capacity(13);
            for range in [1..11, 14..26, 28..32] {
                for pair in bytes[range].chunks_exact(2) {
                    part.push(u16::from_le_bytes([pair[0], pair[1]]));
                }
            }
            if bytes[0] & 0x40 != 0 {
                long.clear();
            }
            part.append(&mut long);
            part.truncate(260);
            long = part;
            return None;
        }
        Some(Entry {
            bytes,
            attributes,
            long_name: long_name(&std::mem::take(&mut long)),
        })
    })
}

/// Looks a file or folder up by its long name, or by its short one if it has no
/// other.
fn find(folder: &[u8], name: &str, is_folder: bool) -> Option<Found> {
    entries(folder)
        .filter(|entry| {
            let kind = entry.attributes & (ATTRIBUTE_VOLUME | ATTRIBUTE_FOLDER);
            kind == if is_folder { ATTRIBUTE_FOLDER } else { 0 }
        })
        .find(|entry| match &entry.long_name {
            Some(long) => long.eq_ignore_ascii_case(name),
            None => short_name(entry.bytes).eq_ignore_ascii_case(name),
        })
        .map(|entry| {
            let half =
                |at: usize| u32::from(u16::from_le_bytes([entry.bytes[at], entry.bytes[at + 1]]));
            Found {
                cluster: half(20) << 16 | half(26),
                size: u32_at(entry.bytes, 28),
            }
        })
}

fn long_name(units: &[u16]) -> Option<String> {
    let end = units
        .iter()
        .position(|&unit| unit == 0)
        .unwrap_or(units.len());
    (end > 0).then(|| String::from_utf16_lossy(&units[..end]))
}

fn short_name(entry: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>| {
        String::from_utf8_lossy(&entry[range])
            .trim_end()
            .to_string()
    };
    let (stem, extension) = (part(0..8), part(8..11));
    if extension.is_empty() {
        stem
    } else {
        format!("{stem}.{extension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use proptest::prelude::*;
    use std::io::Cursor;

    const SECTOR: usize = 512;

    /// A small file system with files in its top folder.
    struct Image {
        bytes: Vec<u8>,
        fat32: bool,
        table: usize,
        data: usize,
        next: u32,
        entries: usize,
    }

    impl Image {
        fn new(fat32: bool) -> Self {
            let (clusters, reserved) = if fat32 { (66_000, 32) } else { (5_000, 1) };
            let table_sectors = (clusters + 2) * if fat32 { 4 } else { 2 } / SECTOR + 1;
            let top_sectors = if fat32 { 0 } else { 32 };
            let data = reserved + 2 * table_sectors + top_sectors;
            let total = data + clusters;
            // Only what is used is kept; the rest reads as the end of the device.
            let mut bytes = vec![0; (data + 64) * SECTOR];
            let mut put =
                |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
            put(11, &512u16.to_le_bytes());
            put(13, &[1]);
            put(14, &(reserved as u16).to_le_bytes());
            put(16, &[2]);
            put(32, &(total as u32).to_le_bytes());
            if fat32 {
                put(36, &(table_sectors as u32).to_le_bytes());
                put(44, &2u32.to_le_bytes());
            } else {
                put(17, &512u16.to_le_bytes());
                put(22, &(table_sectors as u16).to_le_bytes());
            }
            put(510, &[0x55, 0xaa]);
            let mut image = Self {
                bytes,
                fat32,
                table: reserved * SECTOR,
                data: data * SECTOR,
                next: 2,
                entries: 0,
            };
            if fat32 {
                // The top folder.
                image.chain(8);
            }
            image
        }

        /// Allocates clusters, every second one, so that no chain is in a row.
        fn chain(&mut self, count: usize) -> u32 {
            let first = self.next;
            for n in 0..count {
                let cluster = self.next;
                self.next += 2;
                let link = if n + 1 == count {
                    0x0fff_ffff
                } else {
                    self.next
                };
                self.link(cluster, link);
            }
            first
        }

        fn link(&mut self, cluster: u32, link: u32) {
            if self.fat32 {
                let at = self.table + cluster as usize * 4;
                self.bytes[at..at + 4].copy_from_slice(&link.to_le_bytes());
            } else {
                let at = self.table + cluster as usize * 2;
                self.bytes[at..at + 2].copy_from_slice(&(link as u16).to_le_bytes());
            }
        }

        fn cluster_at(&self, cluster: u32) -> usize {
            self.data + (cluster as usize - 2) * SECTOR
        }

        fn entry(&mut self, entry: &[u8; ENTRY]) {
            let at = self.entries * ENTRY;
            let at = if self.fat32 {
                self.cluster_at(2 + 2 * (at / SECTOR) as u32) + at % SECTOR
            } else {
                self.data - 32 * SECTOR + at
            };
            self.bytes[at..at + ENTRY].copy_from_slice(entry);
            self.entries += 1;
        }

        fn file(&mut self, long: Option<&str>, short: &[u8; 11], attributes: u8, content: &[u8]) {
            if let Some(long) = long {
                let mut units: Vec<u16> = long.encode_utf16().collect();
                if !units.len().is_multiple_of(13) {
                    units.push(0);
                }
                units.resize(units.len().next_multiple_of(13), 0xffff);
                let parts: Vec<&[u16]> = units.chunks(13).collect();
                for (n, part) in parts.iter().enumerate().rev() {
                    let mut entry = [0; ENTRY];
                    entry[0] = (n as u8 + 1) | if n + 1 == parts.len() { 0x40 } else { 0 };
                    entry[11] = ATTRIBUTE_LONG_NAME;
                    let places = (1..11)
                        .step_by(2)
                        .chain((14..26).step_by(2))
                        .chain([28, 30]);
                    for (unit, at) in part.iter().zip(places) {
                        entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
                    }
                    self.entry(&entry);
                }
            }
            let first = self.store(content);
            self.entry(&short_entry(short, attributes, first, content.len()));
        }

        /// Puts content into clusters of its own and says which is the first.
        fn store(&mut self, content: &[u8]) -> u32 {
            let first = match content.len().div_ceil(SECTOR) {
                0 => 0,
                count => self.chain(count),
            };
            for (n, part) in content.chunks(SECTOR).enumerate() {
                let at = self.cluster_at(first + 2 * n as u32);
                self.bytes[at..at + part.len()].copy_from_slice(part);
            }
            first
        }

        fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
            self.read_path(&[name], limit)
        }

        fn read_path(&self, path: &[&str], limit: usize) -> Result<Option<Vec<u8>>> {
            Volume::open(Cursor::new(&self.bytes))?.read_file(path, limit)
        }
    }

    fn short_entry(name: &[u8; 11], attributes: u8, cluster: u32, size: usize) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..11].copy_from_slice(name);
        entry[11] = attributes;
        entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
        entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
        entry[28..32].copy_from_slice(&(size as u32).to_le_bytes());
        entry
    }

    fn content() -> Vec<u8> {
        (0..3_000u32).map(|n| n as u8).collect()
    }

    fn usual(fat32: bool) -> Image {
        let mut image = Image::new(fat32);
        image.file(None, b"BULKHEAD   ", ATTRIBUTE_VOLUME, b"");
        image.file(None, b"EFI        ", ATTRIBUTE_FOLDER, b"");
        image.file(None, b"\xe5LD     TXT", 0, b"deleted");
        for n in 0..20 {
            image.file(
                Some(&format!("some-other-file-{n}.txt")),
                b"SOME-O~1TXT",
                0x20,
                b"",
            );
        }
        image.file(Some("user-data.toml"), b"USER-D~1TOM", 0x20, &content());
        image.file(None, b"README  TXT", 0x20, b"readme");
        image.file(Some("empty"), b"EMPTY      ", 0x20, b"");
        image
    }

    #[test]
    fn files_are_found_by_long_and_short_names() {
        for fat32 in [false, true] {
            let image = usual(fat32);
            for (name, expected) in [
                ("user-data.toml", Some(content())),
                ("USER-Data.TOML", Some(content())),
                ("readme.txt", Some(b"readme".to_vec())),
                ("empty", Some(vec![])),
                ("efi", None),
                ("bulkhead", None),
                ("old.txt", None),
                ("user-d~1.tom", None),
                ("nothing", None),
            ] {
                let found = image.read(name, 10_000).expect(name);
                assert!(found == expected, "{name}, FAT32: {fat32}");
            }
            let start = image.read("user-data.toml", 1_000).expect("a file");
            assert_eq!(start, Some(content()[..1_001].to_vec()));
        }
    }

    #[test]
    fn folders_lead_to_files() {
        for fat32 in [false, true] {
            let mut image = usual(fat32);
            let file = image.store(b"deep");
            let inner = short_entry(b"USER_DAT   ", 0x20, file, 4);
            let inner = image.store(&inner);
            let outer = short_entry(b"LATEST     ", ATTRIBUTE_FOLDER, inner, 0);
            let outer = image.store(&outer);
            image.entry(&short_entry(b"STACK      ", ATTRIBUTE_FOLDER, outer, 0));
            for (path, expected) in [
                (&["stack", "latest", "user_dat"][..], Some(b"deep".to_vec())),
                (&["stack", "latest"], None),
                (&["stack", "nothing", "user_dat"], None),
                (&["readme.txt", "latest", "user_dat"], None),
                (&[], None),
            ] {
                let found = image.read_path(path, 100).expect("readable");
                assert_eq!(found, expected, "{path:?}, FAT32: {fat32}");
            }
        }
    }

    #[test]
    fn a_volume_says_its_name() {
        for fat32 in [false, true] {
            let mut named = usual(fat32);
            named.file(None, b"SECOND     ", ATTRIBUTE_VOLUME, b"");
            for (image, expected) in [(Image::new(fat32), None), (named, Some("BULKHEAD"))] {
                let mut volume = Volume::open(Cursor::new(&image.bytes)).expect("a volume");
                let label = volume.label().expect("readable");
                assert_eq!(label.as_deref(), expected, "FAT32: {fat32}");
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_loop() {
        for fat32 in [false, true] {
            let refused = |spoil: &dyn Fn(&mut Image)| {
                let mut image = usual(fat32);
                spoil(&mut image);
                image.read("user-data.toml", 10_000).is_err()
            };
            let first = usual(fat32).next - 2 * 7;
            assert!(!refused(&|_| {}));
            assert!(refused(&|image| image.bytes[510] = 0));
            assert!(refused(&|image| image.bytes[11] = 1));
            assert!(refused(&|image| image.bytes[13] = 3));
            assert!(refused(&|image| image.bytes[16] = 0));
            assert!(refused(&|image| image.bytes[32..36].fill(0)));
            // The chain ends early, leaves the file system, or never ends.
            assert!(refused(&|image| image.link(first, 0x0fff_ffff)));
            assert!(refused(&|image| image.link(first, 0x0fff_0000)));
            assert!(refused(&|image| image.link(first, 1)));
            let mut circle = usual(fat32);
            circle.link(first, first);
            let found = circle.read("user-data.toml", 10_000).expect("bounded");
            assert_eq!(found.map(|bytes| bytes.len()), Some(content().len()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_damage_is_survived(
            fat32 in any::<bool>(),
            spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let mut image = usual(fat32);
            for (place, byte) in spots {
                // Boot sector, tables and folder are where it hurts.
                let range = [0..64, image.table..image.table + 256, image.data..image.data + 2048];
                let places: Vec<usize> = range.into_iter().flatten().collect();
                let at = places[place.index(places.len())];
                image.bytes[at] = byte;
            }
            properties::fat(&image.bytes);
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 512..4096)) {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            properties::fat(&bytes);
        }
    }
}
