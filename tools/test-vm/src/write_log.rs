//! Reads what the emulator recorded of a disk's writes, and plays them back up to
//! the moment at which the power is to have failed.
//!
//! The format is that of the kernel's dm-log-writes: a header sector, then for
//! each entry a sector that describes it and the data written. All numbers are
//! little-endian.
//!
//! A disk may keep what was not flushed yet or lose it, in any order. So the
//! states that a power cut can leave are: everything up to a flush, with any of
//! the writes that came after it.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// Longest entry that is believed. The emulator splits longer requests.
const DATA_MAX: u64 = 64 << 20;

/// One thing that was done to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What was done.
    pub action: Action,
}

/// What an [`Entry`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Data was written; it lies at this offset of the log.
    Write {
        /// Offset of the data in the log.
        data: u64,
    },
    /// The range may have been given up; what it reads as afterwards is undefined.
    Discard,
    /// Everything before had to be made durable.
    Flush,
}

/// Why a log could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flaw {
    NoHeader,
    Version(u64),
    SectorSize(u32),
    Entry(u64),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHeader => f.write_str("it does not begin with the header of a write log"),
            Self::Version(version) => write!(f, "its version is {version}, not {VERSION}"),
            Self::SectorSize(size) => write!(f, "its sector size of {size} makes no sense"),
            Self::Entry(index) => write!(f, "entry {index} runs past its end or makes no sense"),
        }
    }
}

/// A log that was read.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the entries of the log at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let length = file
            .metadata()
            .with_context(|| format!("cannot look at {}", path.display()))?
            .len();
        let entries = read_entries(length, |buffer, offset| file.read_exact_at(buffer, offset))
            .with_context(|| format!("cannot read {}", path.display()))?
            .map_err(|flaw| {
                anyhow::anyhow!("the write log {} is damaged: {flaw}", path.display())
            })?;
        Ok(Self { file, entries })
    }

    /// Everything that was done, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// For each flush the number of entries up to and with it.
    pub fn flushes(&self) -> Vec<usize> {
        (1..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.action == Action::Flush)
            .map(|(count, _)| count)
            .collect()
    }

    /// Does to `disk` what the entries `range` did. Discards are left out: a disk
    /// may ignore them, and what a file system gave up it does not read.
    pub fn replay(&self, disk: &File, range: std::ops::Range<usize>) -> Result<()> {
        let Some(entries) = self.entries.get(range.clone()) else {
            bail!(
                "the log has {} entries, not {}",
                self.entries.len(),
                range.end
            );
        };
        for entry in entries {
            if let Action::Write { data } = entry.action {
                let bytes = self.data(data, entry.length)?;
                disk.write_all_at(&bytes, entry.offset)
                    .context("cannot replay a write")?;
            }
        }
        Ok(())
    }

    /// The first `length` bytes of what a write has at `data` of the log.
    pub fn data(&self, data: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.file
            .read_exact_at(&mut bytes, data)
            .context("cannot read the write log")?;
        Ok(bytes)
    }
}

/// The inner result tells a damaged log from one that could not be read.
fn read_entries(
    length: u64,
    read_at: impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Result<Vec<Entry>, Flaw>> {
    let mut header = [0; 28];
    if length < header.len() as u64 {
        return Ok(Err(Flaw::NoHeader));
    }
    read_at(&mut header, 0)?;
    if number(&header, 0) != MAGIC {
        return Ok(Err(Flaw::NoHeader));
    }
    let (version, count) = (number(&header, 8), number(&header, 16));
    if version != VERSION {
        return Ok(Err(Flaw::Version(version)));
    }
    let sector = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
    if !sector.is_power_of_two() || !(512..=65536).contains(&sector) {
        return Ok(Err(Flaw::SectorSize(sector)));
    }
    let sector = u64::from(sector);
    let mut entries = Vec::new();
    let mut position = sector;
    for index in 0..count {
        match read_entry(length, sector, position, &read_at)? {
            Some((entry, next)) => {
                entries.push(entry);
                position = next;
            }
            None => return Ok(Err(Flaw::Entry(index))),
        }
    }
    Ok(Ok(entries))
}

fn read_entry(
    length: u64,
    sector: u64,
    position: u64,
    read_at: &impl Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Option<(Entry, u64)>> {
    let mut bytes = [0; 32];
    let Some(data) = position.checked_add(sector).filter(|end| *end <= length) else {
        return Ok(None);
    };
    read_at(&mut bytes, position)?;
    let (at, sectors, flags) = (number(&bytes, 0), number(&bytes, 8), number(&bytes, 16));
    let (Some(offset), Some(size)) = (at.checked_mul(sector), sectors.checked_mul(sector)) else {
        return Ok(None);
    };
    if offset.checked_add(size).is_none() {
        return Ok(None);
    }
    let (action, next) = if flags & DISCARD != 0 {
        (Action::Discard, data)
    } else if size == 0 {
        (Action::Flush, data)
    } else {
        let end = data
            .checked_add(size)
            .filter(|end| *end <= length && size <= DATA_MAX);
        let Some(end) = end else { return Ok(None) };
        (Action::Write { data }, end)
    };
    if size == 0 && action == Action::Flush && flags & FLUSH == 0 {
        return Ok(None);
    }
    Ok(Some((
        Entry {
            offset,
            length: size,
            action,
        },
        next,
    )))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(count: u64, sector: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [MAGIC, VERSION, count] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(sector.to_le_bytes());
        bytes.resize(sector as usize, 0);
        bytes
    }

    fn entry(log: &mut Vec<u8>, sector: u64, data: &[u8], flags: u64) {
        assert_eq!(data.len() % 512, 0);
        let start = log.len();
        for number in [sector, data.len() as u64 / 512, flags, 0] {
            log.extend(number.to_le_bytes());
        }
        log.resize(start + 512, 0);
        log.extend(data);
    }

    fn discard(log: &mut Vec<u8>, sector: u64, sectors: u64) {
        let start = log.len();
        for number in [sector, sectors, DISCARD, 0] {
            log.extend(number.to_le_bytes());
        }
        log.resize(start + 512, 0);
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, Flaw> {
        read_entries(bytes.len() as u64, |buffer, offset| {
            let start = usize::try_from(offset).unwrap();
            let part = bytes
                .get(start..start + buffer.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })
        .expect("the reader stays inside the file")
    }

    /// Two writes to the same place with a flush between, a discard, a third write.
    fn sample() -> Vec<u8> {
        let mut log = header(5, 512);
        entry(&mut log, 1, &[1; 512], 0);
        entry(&mut log, 0, &[], FLUSH);
        discard(&mut log, 1, 2);
        entry(&mut log, 1, &[2; 1024], 0);
        entry(&mut log, 0, &[], FLUSH);
        log
    }

    #[test]
    fn reads_entries() {
        let entries = read(&sample()).unwrap();
        let expected = [
            Entry {
                offset: 512,
                length: 512,
                action: Action::Write { data: 1024 },
            },
            Entry {
                offset: 0,
                length: 0,
                action: Action::Flush,
            },
            Entry {
                offset: 512,
                length: 1024,
                action: Action::Discard,
            },
            Entry {
                offset: 512,
                length: 1024,
                action: Action::Write { data: 3072 },
            },
            Entry {
                offset: 0,
                length: 0,
                action: Action::Flush,
            },
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn replays_up_to_a_flush() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, sample()).unwrap();
        let log = WriteLog::open(&path).unwrap();
        assert_eq!(log.flushes(), [2, 5]);
        let check = |count: usize, expected: [u8; 3]| {
            let disk_path = folder.path().join("disk");
            std::fs::write(&disk_path, [0; 3 * 512]).unwrap();
            let disk = File::options()
                .read(true)
                .write(true)
                .open(&disk_path)
                .unwrap();
            log.replay(&disk, 0..count).unwrap();
            let bytes = std::fs::read(&disk_path).unwrap();
            assert_eq!(
                [bytes[0], bytes[512], bytes[1024]],
                expected,
                "{count} entries"
            );
        };
        check(0, [0, 0, 0]);
        check(2, [0, 1, 0]);
        check(3, [0, 1, 0]);
        check(5, [0, 2, 2]);
        let disk = tempfile::tempfile().unwrap();
        assert!(log.replay(&disk, 0..6).is_err());
    }

    #[test]
    fn damage_is_named() {
        let check = |bytes: &[u8], expected: Flaw| assert_eq!(read(bytes), Err(expected));
        check(b"", Flaw::NoHeader);
        check(&[0; 512], Flaw::NoHeader);
        check(&header(0, 512)[..27], Flaw::NoHeader);
        check(&header(1, 512), Flaw::Entry(0));
        check(&header(0, 513), Flaw::SectorSize(513));
        let log = sample();
        check(&log[..log.len() - 1], Flaw::Entry(4));
        let mut version = sample();
        version[8] = 9;
        check(&version, Flaw::Version(9));
        let mut far = header(1, 512);
        entry(&mut far, u64::MAX / 512, &[1; 512], 0);
        check(&far, Flaw::Entry(0));
        let mut nothing = header(1, 512);
        entry(&mut nothing, 0, &[], 0);
        check(&nothing, Flaw::Entry(0));
    }

    proptest! {
        /// Whatever a log says, the reader neither panics nor leaves the file.
        #[test]
        fn foreign_bytes_do_no_harm(
            at in 0..3600usize, bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut log = sample();
            let at = at.min(log.len());
            let end = (at + bytes.len()).min(log.len());
            let length = end - at;
            log[at..end].copy_from_slice(&bytes[..length]);
            if let Ok(entries) = read(&log) {
                for entry in entries {
                    if let Action::Write { data } = entry.action {
                        prop_assert!(data + entry.length <= log.len() as u64);
                    }
                }
            }
        }
    }
}
