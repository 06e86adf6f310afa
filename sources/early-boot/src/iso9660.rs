//! Reads files out of an ISO 9660 file system, the way media with user data are
//! made: with Rock Ridge names, with Joliet names, or with neither.
//!
//! After ECMA-119, IEEE P1282 (its entry `NM`) and Microsoft's Joliet
//! specification. The kernel's own driver is not used: it would be one more
//! module that parses what a stranger may have written, with the rights of the
//! kernel. Here every number is checked before it is used, nothing is followed
//! more than once, and all reads are bounded.

use anyhow::{Context, Result, ensure};
use std::io::{ErrorKind, Read, Seek, SeekFrom};

/// Descriptors lie in sectors of this size, whatever the size of a block is.
pub(crate) const SECTOR: usize = 2048;
const FIRST_DESCRIPTOR: u64 = 16;
/// Descriptors that are looked at.
const DESCRIPTORS: u64 = 32;
pub(crate) const PRIMARY: u8 = 1;
pub(crate) const SUPPLEMENTARY: u8 = 2;
pub(crate) const TERMINATOR: u8 = 255;
/// What a supplementary descriptor of Joliet says about its names.
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];
pub(crate) const FLAG_FOLDER: u8 = 0x02;
/// The file goes on in the next record; nobody writes user data that large.
const FLAG_PARTS: u8 = 0x80;
/// Bytes of a folder that are looked at.
const FOLDER_LIMIT: usize = 1024 * 1024;

/// An open file system.
pub struct Volume<D> {
    device: D,
    label: String,
    block: u64,
    primary: Extent,
    joliet: Option<Extent>,
}

/// Where a file or folder lies: its first block, and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    block: u32,
    size: u32,
}

/// A record of a folder.
struct Entry {
    /// Names under which it can be found.
    names: Vec<String>,
    extent: Extent,
    is_folder: bool,
    is_whole: bool,
}

impl<D: Read + Seek> Volume<D> {
    /// Reads the descriptors. `None` if this is no such file system.
    pub fn open(mut device: D) -> Result<Option<Self>> {
        let mut primary = None;
        let mut joliet = None;
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTORS {
            let start = number * SECTOR as u64;
            let Some(sector) = read_sector(&mut device, start)? else {
                break;
            };
            if &sector[1..6] != b"CD001" {
                break;
            }
            match sector[0] {
                PRIMARY if primary.is_none() => primary = Some(Descriptor::parse(&sector)?),
                SUPPLEMENTARY if JOLIET.contains(&&sector[88..91]) => {
                    joliet = Some(Descriptor::parse(&sector)?);
                }
                TERMINATOR => break,
                _ => {}
            }
        }
        let Some(primary) = primary else {
            return Ok(None);
        };
        let same_blocks = |joliet: &Descriptor| joliet.block == primary.block;
        Ok(Some(Self {
            device,
            label: primary.label,
            block: primary.block,
            primary: primary.top,
            joliet: joliet.filter(same_blocks).map(|joliet| joliet.top),
        }))
    }

    /// The file system's name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The names of files in the top folder, each in the best form that there is.
    pub fn top_files(&mut self) -> Result<Vec<String>> {
        let (top, is_joliet) = match self.joliet {
            Some(top) => (top, true),
            None => (self.primary, false),
        };
        let entries = self.folder(top, is_joliet)?;
        let files = entries.into_iter().filter(|entry| !entry.is_folder);
        Ok(files
            .filter_map(|entry| entry.names.into_iter().next())
            .collect())
    }

    /// Reads the file at `path`, of which the last part is its name and those
    /// before it are folders (in any case), at most `limit` and one byte of it.
    /// `None` if there is no such file.
    pub fn read_file(&mut self, path: &[&str], limit: usize) -> Result<Option<Vec<u8>>> {
        let mut tops = vec![(self.primary, false)];
        tops.extend(self.joliet.map(|top| (top, true)));
        for (top, is_joliet) in tops {
            if let Some(found) = self.find(top, is_joliet, path)? {
                let size = usize::try_from(found.size).context("size of the file")?;
                return self.read(found, size.min(limit + 1)).map(Some);
            }
        }
        Ok(None)
    }

    fn find(&mut self, top: Extent, is_joliet: bool, path: &[&str]) -> Result<Option<Extent>> {
        let mut here = top;
        for (depth, name) in path.iter().enumerate() {
            let is_folder = depth + 1 < path.len();
            let entries = self.folder(here, is_joliet)?;
            let found = entries.into_iter().find(|entry| {
                let is_named = |there: &String| there.eq_ignore_ascii_case(name);
                entry.is_folder == is_folder && entry.names.iter().any(is_named)
            });
            match found {
                Some(entry) => {
                    ensure!(entry.is_whole, "{name} is in several parts");
                    here = entry.extent;
                }
                None => return Ok(None),
            }
        }
        Ok((!path.is_empty()).then_some(here))
    }

    fn folder(&mut self, extent: Extent, is_joliet: bool) -> Result<Vec<Entry>> {
        let size = usize::try_from(extent.size).context("size of a folder")?;
        let bytes = self.read(extent, size.min(FOLDER_LIMIT))?;
        Ok(entries(&bytes, is_joliet))
    }

    fn read(&mut self, extent: Extent, size: usize) -> Result<Vec<u8>> {
        let start = u64::from(extent.block) * self.block;
        // Grows with what is there, not with what somebody says there is.
        let mut bytes = Vec::new();
        self.device.seek(SeekFrom::Start(start))?;
        let read = (&mut self.device).take(size as u64).read_to_end(&mut bytes);
        let read = read.with_context(|| format!("read {size} bytes at {start}"))?;
        ensure!(read == size, "a file or folder is cut off");
        Ok(bytes)
    }
}

struct Descriptor {
    label: String,
    block: u64,
    top: Extent,
}

impl Descriptor {
    fn parse(sector: &[u8]) -> Result<Self> {
        let block = u64::from(u16::from_le_bytes([sector[128], sector[129]]));
        ensure!(
            [512, 1024, 2048].contains(&block),
            "odd block size {block} of an ISO 9660 file system"
        );
        Ok(Self {
            label: String::from_utf8_lossy(&sector[40..72])
                .trim_end()
                .to_string(),
            block,
            top: extent(&sector[156..190]),
        })
    }
}

/// The sector at `start`, or `None` if the device ends before its end.
fn read_sector(device: &mut (impl Read + Seek), start: u64) -> Result<Option<Vec<u8>>> {
    let mut sector = vec![0; SECTOR];
    device.seek(SeekFrom::Start(start))?;
    match device.read_exact(&mut sector) {
        Ok(()) => Ok(Some(sector)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read the sector at {start}")),
    }
}

/// Where the file of a record lies, which is at least 34 bytes long.
fn extent(record: &[u8]) -> Extent {
    let number = |at: usize| {
        u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
    };
    Extent {
        // What goes before the content of a file, nobody writes.
        block: number(2).saturating_add(u32::from(record[1])),
        size: number(10),
    }
}

fn entries(folder: &[u8], is_joliet: bool) -> Vec<Entry> {
    const SHORTEST: usize = 34;
    let mut found = Vec::new();
    // Records do not cross sectors; what is left of one is zero.
    for sector in folder.chunks(SECTOR) {
        let mut rest = sector;
        while let Some(&length) = rest.first() {
            let length = usize::from(length);
            if length < SHORTEST || length > rest.len() {
                break;
            }
            let (record, after) = rest.split_at(length);
            rest = after;
            found.extend(entry(record, is_joliet));
        }
    }
    found
}

/// A record with a name; the two for a folder itself and the one above have none.
fn entry(record: &[u8], is_joliet: bool) -> Option<Entry> {
    let length = usize::from(record[32]);
    let name = record.get(33..33 + length)?;
    if matches!(name, [] | [0] | [1]) {
        return None;
    }
    let mut names = Vec::new();
    if is_joliet {
        let units: Vec<u16> = name
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        names.push(without_version(&String::from_utf16_lossy(&units)));
    } else {
        // A name of odd length is followed by nothing, one of even length by a zero.
        let after = 33 + length + (length + 1) % 2;
        names.extend(rock_ridge(record.get(after..).unwrap_or_default()));
        names.push(without_version(&String::from_utf8_lossy(name)));
    }
    Some(Entry {
        names,
        extent: extent(record),
        is_folder: record[25] & FLAG_FOLDER != 0,
        is_whole: record[25] & FLAG_PARTS == 0,
    })
}

/// `NAME.EXT;1` without the version, and without the dot of a name that has
/// nothing behind it.
fn without_version(name: &str) -> String {
    let name = name.split(';').next().unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name).to_string()
}

/// The name in a record's entries `NM`.
fn rock_ridge(mut rest: &[u8]) -> Option<String> {
    const HEAD: usize = 5;
    /// The record is for the folder itself or the one above.
    const FLAGS_SPECIAL: u8 = 0x06;
    let mut name = Vec::new();
    while let [a, b, length, _, flags, ..] = *rest {
        let length = usize::from(length);
        if length < 4 || length > rest.len() {
            break;
        }
        if [a, b] == *b"NM" && length >= HEAD {
            if flags & FLAGS_SPECIAL != 0 {
                return None;
            }
            name.extend_from_slice(&rest[HEAD..length]);
        }
        rest = &rest[length..];
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Names, iso9660 as image};
    use crate::properties;
    use proptest::prelude::*;
    use std::io::Cursor;

    const PLAIN: Names = Names {
        rock_ridge: false,
        joliet: false,
    };
    const ROCK_RIDGE: Names = Names {
        rock_ridge: true,
        joliet: false,
    };
    const JOLIET_ONLY: Names = Names {
        rock_ridge: false,
        joliet: true,
    };

    fn content() -> Vec<u8> {
        (0..5_000u32).map(|n| n as u8).collect()
    }

    fn usual(names: Names) -> Vec<u8> {
        let content = content();
        let mut files: Vec<(Vec<String>, Vec<u8>)> = (0..40)
            .map(|n| {
                let name = format!("OTHER_{n}.TXT=another file with a long name, number {n}.txt");
                (vec![name], vec![n])
            })
            .collect();
        files.push((
            ["OPENSTAC=openstack", "LATEST=latest", "USER_DAT.=user_data"]
                .map(String::from)
                .to_vec(),
            content,
        ));
        files.push((vec!["README.TXT=readme.txt".into()], b"readme".to_vec()));
        files.push((vec!["EMPTY.=empty".into()], vec![]));
        let files: Vec<(Vec<&str>, &[u8])> = files
            .iter()
            .map(|(path, content)| (path.iter().map(String::as_str).collect(), &content[..]))
            .collect();
        let files: Vec<(&[&str], &[u8])> = files
            .iter()
            .map(|(path, content)| (&path[..], *content))
            .collect();
        image("config-2", names, &files)
    }

    fn open(bytes: &[u8]) -> Volume<Cursor<&[u8]>> {
        Volume::open(Cursor::new(bytes))
            .expect("readable")
            .expect("a volume")
    }

    #[test]
    fn files_are_found_by_every_kind_of_name() {
        let long = &["openstack", "latest", "user_data"][..];
        let short = &["openstac", "latest", "user_dat"][..];
        for (names, has_long) in [(PLAIN, false), (ROCK_RIDGE, true), (JOLIET_ONLY, true)] {
            let bytes = usual(names);
            let mut volume = open(&bytes);
            assert_eq!(volume.label(), "config-2");
            let mut read = |path: &[&str]| volume.read_file(path, 10_000).expect("readable");
            assert_eq!(read(long), has_long.then(content), "{names:?}");
            assert_eq!(read(short), Some(content()), "{names:?}");
            assert_eq!(read(&["ReadMe.txt"]), Some(b"readme".to_vec()));
            assert_eq!(read(&["empty"]), Some(vec![]));
            for nothing in [&["latest"][..], &["openstac", "latest"], &["nothing"], &[]] {
                assert_eq!(read(nothing), None, "{names:?} {nothing:?}");
            }
            assert_eq!(
                volume.read_file(short, 100).expect("readable"),
                Some(content()[..101].to_vec())
            );
            let files = volume.top_files().expect("readable");
            assert_eq!(files.len(), 42);
            let last = if has_long { "readme.txt" } else { "README.TXT" };
            assert_eq!(files[40], last, "{names:?}");
        }
    }

    #[test]
    fn what_is_no_such_file_system_is_none() {
        let mut other = usual(PLAIN);
        other[16 * SECTOR + 1] = b'X';
        for bytes in [
            vec![],
            vec![0; 20 * SECTOR],
            other,
            vec![0; 16 * SECTOR + 9],
        ] {
            assert!(
                Volume::open(Cursor::new(bytes))
                    .expect("readable")
                    .is_none()
            );
        }
    }

    #[test]
    fn damage_is_an_error() {
        let refused = |spoil: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = usual(PLAIN);
            spoil(&mut bytes);
            let Ok(Some(mut volume)) = Volume::open(Cursor::new(&bytes[..])) else {
                return true;
            };
            volume.read_file(&["readme.txt"], 100).is_err()
        };
        let top = 16 * SECTOR + 156;
        assert!(!refused(&|_| {}));
        assert!(refused(&|bytes| bytes[16 * SECTOR + 128] = 3));
        assert!(refused(&|bytes| bytes[top + 2..top + 6].fill(0xff)));
        assert!(refused(&|bytes| bytes[top + 10..top + 14].fill(0xff)));
        assert!(refused(&|bytes| bytes.truncate(21 * SECTOR)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_damage_is_survived(
            rock_ridge in any::<bool>(),
            joliet in any::<bool>(),
            spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let mut bytes = usual(Names { rock_ridge, joliet });
            for (place, byte) in spots {
                // Descriptors and folders are where it hurts.
                let at = 16 * SECTOR + place.index(bytes.len() - 16 * SECTOR);
                bytes[at] = byte;
            }
            properties::iso9660(&bytes);
        }

        #[test]
        fn any_bytes_are_survived(
            start in prop::collection::vec(any::<u8>(), 0..200),
            rest in prop::collection::vec(any::<u8>(), 0..4096),
        ) {
            let mut bytes = vec![0; 16 * SECTOR];
            bytes.extend_from_slice(b"\x01CD001\x01");
            bytes.extend(start);
            bytes.extend(rest);
            properties::iso9660(&bytes);
        }
    }
}
