//! The disk: a partition table and what lies in the partitions.

use anyhow::{Context, Result, bail};
use boot_slots::gpt::SECTOR_SIZE;
use boot_slots::layout::{self, Architecture, DISK_SIZE_MAX, Role};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the disk is for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides the types of some partitions.
    pub architecture: Architecture,
    /// Size of the data partition; 0 when data lies on a second volume.
    pub data_size: u64,
}

/// What lies in a partition.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// The content of a file.
    File(&'a Path),
    /// These bytes.
    Bytes(&'a [u8]),
}

/// Zeros in pieces of this size are left out of the file.
const PIECE: usize = 64 * 1024;

/// Writes the disk to `path`: sparse, so that it takes no more room than its
/// content. Partitions that `parts` does not name stay blank; the host makes its
/// state and data partitions at the first boot.
pub fn write(path: &Path, options: &Options, parts: &[(Role, Content)]) -> Result<()> {
    let table = layout::fresh_table(options.architecture, options.data_size);
    let size = table.disk_sectors() * SECTOR_SIZE;
    if size > DISK_SIZE_MAX {
        bail!("the disk would take {size} bytes, more than the {DISK_SIZE_MAX} it may");
    }
    let context = || format!("cannot write {}", path.display());
    let disk = File::create(path).with_context(context)?;
    disk.set_len(size).with_context(context)?;
    disk.write_all_at(&table.primary_bytes(), 0)
        .with_context(context)?;
    disk.write_all_at(&table.backup_bytes(), table.backup_offset())
        .with_context(context)?;
    for (role, content) in parts {
        let name = role.name();
        let partition = layout::find(&table, *role, options.architecture)
            .with_context(|| format!("the disk has no partition {name}"))?;
        let written = match content {
            Content::Bytes(bytes) => copy(*bytes, &disk, partition.offset(), partition.size()),
            Content::File(source) => {
                let source = File::open(source)
                    .with_context(|| format!("cannot read {}", source.display()))?;
                copy(source, &disk, partition.offset(), partition.size())
            }
        };
        written.with_context(|| format!("cannot fill partition {name} of {}", path.display()))?;
    }
    Ok(())
}

fn copy(mut source: impl Read, disk: &File, offset: u64, size: u64) -> Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match source.read(&mut piece[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        if done + filled as u64 > size {
            bail!("its content is larger than the {size} bytes that it has");
        }
        let piece = &piece[..filled];
        if piece.iter().any(|byte| *byte != 0) {
            disk.write_all_at(piece, offset + done)?;
        }
        done += filled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::gpt;
    use boot_slots::layout::{DATA_SIZE_MIN, STATE_SIZE, Slot};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const OPTIONS: Options = Options {
        architecture: Architecture::X86_64,
        data_size: DATA_SIZE_MIN,
    };

    #[test]
    fn partitions_hold_their_content_and_nothing_else_takes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let root = folder.path().join("root.erofs");
        let mut content = vec![7; 3 * PIECE + 100];
        content[PIECE..2 * PIECE].fill(0);
        fs::write(&root, &content).unwrap();
        let parts = [
            (Role::Root(Slot::B), Content::File(&root)),
            (Role::State, Content::Bytes(b"state")),
        ];
        write(&path, &OPTIONS, &parts).unwrap();

        let disk = File::open(&path).unwrap();
        let table = gpt::read(&disk).unwrap();
        let at = |role| {
            layout::find(&table, role, Architecture::X86_64)
                .unwrap()
                .offset()
        };
        let mut read = vec![0; content.len()];
        disk.read_exact_at(&mut read, at(Role::Root(Slot::B)))
            .unwrap();
        assert!(read == content);
        let mut read = [0; 6];
        disk.read_exact_at(&mut read, at(Role::State)).unwrap();
        assert_eq!(&read, b"state\0");
        let taken = disk.metadata().unwrap().blocks() * 512;
        assert!(taken < 1024 * 1024, "the disk takes {taken} bytes");

        let again = folder.path().join("again.img");
        write(&again, &OPTIONS, &parts).unwrap();
        let again = gpt::read(&File::open(&again).unwrap()).unwrap();
        assert_eq!(again, table);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let large = vec![1; STATE_SIZE as usize + 1];
        let error = write(&path, &OPTIONS, &[(Role::State, Content::Bytes(&large))]).unwrap_err();
        assert!(format!("{error:#}").contains("BULKHEAD-STATE"), "{error:#}");
        let no_data = Options {
            data_size: 0,
            ..OPTIONS
        };
        assert!(write(&path, &no_data, &[(Role::Data, Content::Bytes(b"x"))]).is_err());
        let huge = Options {
            data_size: DISK_SIZE_MAX,
            ..OPTIONS
        };
        assert!(write(&path, &huge, &[]).is_err());
    }
}
