//! Raw disks, read and altered while no machine uses them.

use anyhow::{Context, Result, bail};
use boot_slots::gpt::{self, Partition, Table};
use boot_slots::layout::{self, Architecture, Role};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Copies a file and leaves its holes. Where the file system can, the copy shares
/// its blocks with the original.
pub fn sparse_copy(from: &Path, to: &Path) -> Result<()> {
    let attempt = || format!("cannot copy {} to {}", from.display(), to.display());
    let source = File::open(from).with_context(attempt)?;
    let target = File::create(to).with_context(attempt)?;
    let length = source.metadata().with_context(attempt)?.len();
    target.set_len(length).with_context(attempt)?;
    copy_range(&source, &target, 0, 0, length).with_context(attempt)
}

/// Copies `length` bytes; holes of the source are skipped, so the target has to be
/// empty there.
fn copy_range(source: &File, target: &File, from: u64, to: u64, length: u64) -> io::Result<()> {
    let (mut position, end) = (from, from + length);
    while position < end {
        let data = match lseek(source, signed(position)?, Whence::SeekData) {
            Ok(data) => unsigned(data)?,
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if data >= end {
            return Ok(());
        }
        let hole = unsigned(lseek(source, signed(data)?, Whence::SeekHole)?)?.min(end);
        let (mut source, mut target) = (source, target);
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(to + (data - from)))?;
        let copied = io::copy(&mut source.take(hole - data), &mut target)?;
        if copied != hole - data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position = hole;
    }
    Ok(())
}

fn signed(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn unsigned(position: i64) -> io::Result<u64> {
    u64::try_from(position).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A disk with our partitions in a file.
#[derive(Debug)]
pub struct RawDisk {
    path: PathBuf,
    file: File,
    table: Table,
}

impl RawDisk {
    /// Opens the disk at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let table = gpt::read(&file)
            .with_context(|| format!("{} has no partition table", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            table,
        })
    }

    /// Copies the disk `from` to `to` and opens the copy.
    pub fn copy(from: &Path, to: &Path) -> Result<Self> {
        sparse_copy(from, to)?;
        Self::open(to)
    }

    /// Makes the disk larger, as whoever runs a machine does: the partitions stay as they
    /// are until the machine takes note of it. Opened anew, it shows them then.
    pub fn enlarge(&self, size: u64) -> Result<()> {
        self.file
            .set_len(size)
            .with_context(|| format!("cannot make {} bigger", self.path.display()))
    }

    /// Where the disk is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The partition table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The partition that has `role`.
    pub fn partition(&self, role: Role) -> Result<&Partition> {
        [Architecture::X86_64, Architecture::Aarch64]
            .into_iter()
            .find_map(|architecture| layout::find(&self.table, role, architecture))
            .with_context(|| format!("{} has no partition {}", self.path.display(), role.name()))
    }

    /// Reads `length` bytes at `offset` of a partition.
    pub fn read(&self, role: Role, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let start = self.position(role, offset, length as u64)?;
        self.file
            .read_exact_at(&mut bytes, start)
            .with_context(|| format!("cannot read {} of {}", role.name(), self.path.display()))?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset` of a partition.
    pub fn write(&self, role: Role, offset: u64, bytes: &[u8]) -> Result<()> {
        let start = self.position(role, offset, bytes.len() as u64)?;
        self.file
            .write_all_at(bytes, start)
            .with_context(|| format!("cannot write {} of {}", role.name(), self.path.display()))
    }

    /// Turns over the lowest bit of the byte at `offset` of a partition.
    pub fn flip_bit(&self, role: Role, offset: u64) -> Result<()> {
        let byte = self.read(role, offset, 1)?[0];
        self.write(role, offset, &[byte ^ 1])
    }

    /// Fills a whole partition: block after block is what `block` gives for its number.
    pub fn fill(&self, role: Role, mut block: impl FnMut(u64) -> [u8; 4096]) -> Result<()> {
        let size = self.partition(role)?.size();
        for number in 0..size / 4096 {
            self.write(role, number * 4096, &block(number))?;
        }
        Ok(())
    }

    /// Writes the file `image` to the start of a partition and zeros behind it.
    pub fn install(&self, role: Role, image: &Path) -> Result<()> {
        let attempt = || {
            format!(
                "cannot write {} to {} of {}",
                image.display(),
                role.name(),
                self.path.display()
            )
        };
        let source = File::open(image).with_context(attempt)?;
        let length = source.metadata().with_context(attempt)?.len();
        let start = self.position(role, 0, length)?;
        let (mut source, mut target) = (&source, &self.file);
        target.seek(SeekFrom::Start(start)).with_context(attempt)?;
        io::copy(&mut source, &mut target).with_context(attempt)?;
        Ok(())
    }

    /// Copies a partition into a file of its own.
    pub fn extract(&self, role: Role, to: &Path) -> Result<()> {
        let partition = self.partition(role)?;
        let attempt = || format!("cannot copy {} to {}", role.name(), to.display());
        let target = File::create(to).with_context(attempt)?;
        target.set_len(partition.size()).with_context(attempt)?;
        copy_range(&self.file, &target, partition.offset(), 0, partition.size())
            .with_context(attempt)
    }

    /// Opens the file system of the EFI system partition.
    pub fn esp(&self) -> Result<Esp> {
        let partition = self.partition(Role::Esp)?;
        let window = Window {
            file: self
                .file
                .try_clone()
                .context("cannot duplicate the disk's descriptor")?,
            start: partition.offset(),
            length: partition.size(),
            position: 0,
        };
        let files = fatfs::FileSystem::new(window, esp_options()).with_context(|| {
            format!(
                "{} of {} has no file system",
                Role::Esp.name(),
                self.path.display()
            )
        })?;
        Ok(Esp { files })
    }

    fn position(&self, role: Role, offset: u64, length: u64) -> Result<u64> {
        let partition = self.partition(role)?;
        if offset
            .checked_add(length)
            .is_none_or(|end| end > partition.size())
        {
            bail!(
                "{length} bytes at {offset} do not fit in {} ({} bytes)",
                role.name(),
                partition.size()
            );
        }
        Ok(partition.offset() + offset)
    }
}

fn esp_options() -> fatfs::FsOptions {
    fatfs::FsOptions::new().time_provider(&FixedTime)
}

/// The time of files that are put on the EFI system partition. Without a valid
/// one firmware refuses to rename them, and boot counting renames.
#[derive(Debug)]
struct FixedTime;

impl fatfs::TimeProvider for FixedTime {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 2020,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        let time = fatfs::Time {
            hour: 0,
            min: 0,
            sec: 0,
            millis: 0,
        };
        fatfs::DateTime {
            date: self.get_current_date(),
            time,
        }
    }
}

/// The EFI system partition of a disk. What was changed is on the disk when this
/// is dropped; paths have slashes and no leading one.
pub struct Esp {
    files: fatfs::FileSystem<Window>,
}

impl std::fmt::Debug for Esp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Esp").finish_non_exhaustive()
    }
}

impl Esp {
    /// Names in a folder, sorted.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let attempt = || format!("cannot list {folder} of the EFI system partition");
        let root = self.files.root_dir();
        let entries = match folder {
            "" => root,
            folder => root.open_dir(folder).with_context(attempt)?,
        };
        let mut names = Vec::new();
        for entry in entries.iter() {
            let name = entry.with_context(attempt)?.file_name();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let attempt = || format!("cannot read {path} of the EFI system partition");
        let mut bytes = Vec::new();
        self.files
            .root_dir()
            .open_file(path)
            .with_context(attempt)?
            .read_to_end(&mut bytes)
            .with_context(attempt)?;
        Ok(bytes)
    }

    /// Makes or replaces a file.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let attempt = || format!("cannot write {path} of the EFI system partition");
        let mut file = self
            .files
            .root_dir()
            .create_file(path)
            .with_context(attempt)?;
        file.truncate().with_context(attempt)?;
        file.write_all(bytes).with_context(attempt)?;
        file.flush().with_context(attempt)
    }

    /// Renames a file.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let root = self.files.root_dir();
        root.rename(from, &root, to)
            .with_context(|| format!("cannot rename {from} of the EFI system partition to {to}"))
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.files
            .root_dir()
            .remove(path)
            .with_context(|| format!("cannot remove {path} of the EFI system partition"))
    }
}

/// A part of a file that reads and writes like a file of its own.
struct Window {
    file: File,
    start: u64,
    length: u64,
    position: u64,
}

impl Window {
    fn room(&self, wanted: usize) -> usize {
        usize::try_from(self.length.saturating_sub(self.position))
            .map_or(wanted, |room| room.min(wanted))
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self
            .file
            .read_at(&mut buffer[..room], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Window {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self
            .file
            .write_at(&buffer[..room], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// A blank disk of `size` bytes at `path`.
pub fn blank(path: &Path, size: u64) -> Result<()> {
    let attempt = || format!("cannot create {}", path.display());
    File::create(path)
        .with_context(attempt)?
        .set_len(size)
        .with_context(attempt)
}

/// Bytes that a file takes on its file system, holes left out.
pub fn allocated(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let data = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    Ok(data.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::layout::Slot;

    /// A fresh disk with a FAT file system on its EFI system partition.
    fn sample(folder: &Path) -> RawDisk {
        let path = folder.join("disk.img");
        let table = layout::fresh_table(Architecture::X86_64, layout::DATA_SIZE_MIN);
        blank(&path, table.disk_sectors() * gpt::SECTOR_SIZE).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        gpt::write(&file, &table).unwrap();
        let esp = layout::find(&table, Role::Esp, Architecture::X86_64).unwrap();
        let mut window = Window {
            file,
            start: esp.offset(),
            length: esp.size(),
            position: 0,
        };
        fatfs::format_volume(&mut window, fatfs::FormatVolumeOptions::new()).unwrap();
        RawDisk::open(&path).unwrap()
    }

    #[test]
    fn partitions_are_altered_where_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let disk = sample(folder.path());
        let root = Role::Root(Slot::B);
        disk.write(root, 4096, b"abc").unwrap();
        disk.flip_bit(root, 4097).unwrap();
        assert_eq!(disk.read(root, 4095, 5).unwrap(), b"\0acc\0");
        let size = disk.partition(root).unwrap().size();
        let error = disk.write(root, size - 1, b"ab").unwrap_err().to_string();
        assert!(error.contains("BULKHEAD-ROOT-B"), "{error}");
        disk.fill(Role::State, |number| [number as u8; 4096])
            .unwrap();
        assert_eq!(disk.read(Role::State, 3 * 4096 - 1, 2).unwrap(), [2, 3]);
        let extracted = folder.path().join("state");
        disk.extract(Role::State, &extracted).unwrap();
        let bytes = fs::read(&extracted).unwrap();
        assert_eq!(bytes.len() as u64, layout::STATE_SIZE);
        assert_eq!(bytes[4096 * 5], 5);
        let image = folder.path().join("image");
        fs::write(&image, b"image").unwrap();
        disk.install(root, &image).unwrap();
        assert_eq!(disk.read(root, 0, 6).unwrap(), b"image\0");
    }

    #[test]
    fn a_copy_is_sparse_and_equal() {
        let folder = tempfile::tempdir().unwrap();
        let disk = sample(folder.path());
        let copy = RawDisk::copy(disk.path(), &folder.path().join("copy.img")).unwrap();
        assert_eq!(copy.table(), disk.table());
        assert_eq!(copy.esp().unwrap().list("").unwrap(), Vec::<String>::new());
        let (size, taken) = (
            fs::metadata(copy.path()).unwrap().len(),
            allocated(copy.path()).unwrap(),
        );
        assert_eq!(size, fs::metadata(disk.path()).unwrap().len());
        assert!(taken < size / 10, "{taken} of {size} bytes are allocated");
    }

    #[test]
    fn files_of_the_esp() {
        let folder = tempfile::tempdir().unwrap();
        let disk = sample(folder.path());
        {
            let esp = disk.esp().unwrap();
            esp.write("one.efi", &[7; 100_000]).unwrap();
            esp.write("one.efi", b"short").unwrap();
            esp.rename("one.efi", "two+3-0.efi").unwrap();
            esp.write("gone", b"").unwrap();
            esp.remove("gone").unwrap();
        }
        let esp = disk.esp().unwrap();
        assert_eq!(esp.list("").unwrap(), ["two+3-0.efi"]);
        assert_eq!(esp.read("two+3-0.efi").unwrap(), b"short");
        let error = format!("{:#}", esp.read("none").unwrap_err());
        assert!(error.contains("none"), "{error}");
        assert!(esp.list("EFI").is_err());
    }

    #[test]
    fn a_disk_without_a_table_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        blank(&path, 1 << 20).unwrap();
        let error = format!("{:#}", RawDisk::open(&path).unwrap_err());
        assert!(error.contains("partition table"), "{error}");
    }
}
