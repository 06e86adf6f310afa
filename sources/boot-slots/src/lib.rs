//! What a Bulkhead disk looks like and which of its slots boots next.
//!
//! One description for everybody who touches the disk: `disk-image` makes it on
//! the workstation, `init` opens it at boot, `system-config` grows it and blesses
//! a boot, the updater fills the other slot. A slot is a pair of partitions, root
//! and verity tree; what lies in a slot is told by the verity superblock, whose
//! UUID is the first half of the root hash, so that an update never rewrites the
//! partition table.
//!
//! - [`layout`]: the partitions, their types, names and sizes; start here
//! - [`gpt`]: reading, writing and growing the partition table
//! - [`verity`]: superblock, hash tree and root hash
//! - [`blocks`]: the same digests of any other file, as a list
//! - [`entry`]: names of unified kernel images and the order in which they boot
//! - [`bless`]: what lies on the EFI system partition, and renaming it
//! - [`record`]: the counter of failed boots on the state partition
//! - [`parameters`], [`addon`]: kernel parameters of the settings, and the file on
//!   the EFI system partition that carries them
//!
//! Everything here works on files and folders that the caller has opened or
//! mounted; no module starts a program, mounts anything or reads a command line.

extern crate alloc;

pub mod addon;
pub mod bless;
pub mod blocks;
pub mod entry;
pub mod gpt;
pub mod layout;
pub mod parameters;
#[doc(hidden)]
pub mod properties;
pub mod record;
pub mod verity;

use std::fs::File;
use std::io;

/// Reading at an offset: a block device, a disk image or bytes in a test.
pub trait ReadAt {
    /// Fills `buffer` from `offset`; reading past the end is an error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    /// By seeking, which also works on block devices (their metadata says 0).
    fn size(&self) -> io::Result<u64> {
        use std::io::{Seek, SeekFrom};
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?))
            .and_then(|range| self.get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(range);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}
