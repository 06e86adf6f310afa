//! Filling the other slot.
//!
//! Its superblock is wiped first and written last, so that a slot that is half filled is
//! none: `init` finds no image in it. In between every block is checked against the hash
//! tree before it is written, and all of it once more as the disk gives it back.

use std::fs::File;
use std::io;

use anyhow::{Context, Result, bail, ensure};
use boot_slots::ReadAt;
use boot_slots::layout::{Role, Slot};
use boot_slots::verity::{BLOCK_SIZE, RootHash, SUPERBLOCK_SIZE, Superblock, Tree, verify};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::task::yield_now;

use crate::fill::{Filled, Filling, write};
use crate::repository;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Access to the partitions of the running system's disk.
pub trait Disk {
    /// Opens a partition for reading and writing.
    fn partition(&self, role: Role) -> Result<File>;
    /// Does something with the mounted EFI system partition.
    fn with_esp<T>(&self, work: impl FnOnce(&std::path::Path) -> Result<T>) -> Result<T>;
}

/// The slot that `running` was started from. If both hold it, it is the one that `init`
/// finds first.
pub fn running_slot(disk: &impl Disk, running: &RootHash) -> Result<Slot> {
    for slot in Slot::ALL {
        if holds(disk, slot)?.is_some_and(|superblock| superblock.uuid == running.uuid()) {
            return Ok(slot);
        }
    }
    bail!("neither slot holds the running image {running}")
}

/// What lies in a slot.
pub fn holds(disk: &impl Disk, slot: Slot) -> Result<Option<Superblock>> {
    let partition = disk.partition(Role::Verity(slot))?;
    let mut start = [0; SUPERBLOCK_SIZE];
    ReadAt::read_exact_at(&partition, &mut start, 0)
        .with_context(|| format!("reading {}", Role::Verity(slot).name()))?;
    Ok(Superblock::parse(&start).ok())
}

/// Puts the image of `tree` into `slot`; `running` is the tree of the other slot's image.
pub async fn fill(
    disk: &impl Disk,
    slot: Slot,
    tree: &Tree,
    running: Option<&Tree>,
    mut image: repository::File,
) -> Result<Filled> {
    let root = disk.partition(Role::Root(slot))?;
    let verity = disk.partition(Role::Verity(slot))?;
    let in_slot = || format!("slot {slot}");
    check_size(&root, tree.data_blocks() * BLOCK, Role::Root(slot))?;
    check_size(&verity, tree.bytes().len() as u64, Role::Verity(slot))?;
    ensure!(
        image.length == tree.data_blocks() * BLOCK,
        "{} has {} bytes, and its hash tree is for {}",
        image.server.url(),
        image.length,
        tree.data_blocks() * BLOCK
    );

    // From here on the slot holds nothing.
    write(&verity, &[0; BLOCK_SIZE], 0).with_context(in_slot)?;
    verity.sync_all().with_context(in_slot)?;

    let here = running.into_iter().flat_map(Tree::digests);
    let mut filling = Filling::new(&root, image.length, tree.digests(), here)?;
    let source = disk.partition(Role::Root(slot.other()))?;
    filling.copy(&source).with_context(in_slot)?;
    // Each of these may take a while, in which somebody may want it to stop.
    yield_now().await;
    filling.keep(&root);
    yield_now().await;
    filling.fetch(&mut image.server).await?;
    let (_, filled) = filling.done();

    write(&verity, &tree.bytes()[BLOCK_SIZE..], BLOCK).with_context(in_slot)?;
    for partition in [&root, &verity] {
        partition.sync_all().with_context(in_slot)?;
        // What is checked next comes from the disk and not from memory.
        posix_fadvise(partition, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .with_context(in_slot)?;
    }
    yield_now().await;
    let is_whole = verify(&root, tree.bytes(), tree.root_hash()).with_context(in_slot)?
        && holds_bytes(&verity, &tree.bytes()[BLOCK_SIZE..], BLOCK).with_context(in_slot)?;
    ensure!(
        is_whole,
        "slot {slot} does not hold what was written to it: the disk may be failing"
    );
    write(&verity, &tree.bytes()[..BLOCK_SIZE], 0).with_context(in_slot)?;
    verity.sync_all().with_context(in_slot)?;
    Ok(filled)
}

/// Whether a slot holds the image with this root hash, to the last block. One that cannot be
/// read does not.
pub fn holds_whole(disk: &impl Disk, slot: Slot, root_hash: &RootHash) -> Result<bool> {
    let root = disk.partition(Role::Root(slot))?;
    let partition = disk.partition(Role::Verity(slot))?;
    let whole = Tree::read(&partition, root_hash)
        .map_err(anyhow::Error::from)
        .and_then(|tree| Ok(verify(&root, tree.bytes(), root_hash)?));
    Ok(whole.unwrap_or_else(|error| {
        tracing::warn!("slot {slot}: {error:#}");
        false
    }))
}

fn check_size(partition: &File, wanted: u64, role: Role) -> Result<()> {
    let size = ReadAt::size(partition).with_context(|| format!("size of {}", role.name()))?;
    ensure!(
        wanted <= size,
        "the image needs {wanted} bytes in {}, which has {size}",
        role.name()
    );
    Ok(())
}

fn holds_bytes(partition: &File, expected: &[u8], offset: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 1024 * 1024];
    let mut at = offset;
    for expected in expected.chunks(buffer.len()) {
        let buffer = &mut buffer[..expected.len()];
        ReadAt::read_exact_at(partition, buffer, at)?;
        if buffer != expected {
            return Ok(false);
        }
        at += expected.len() as u64;
    }
    Ok(true)
}
