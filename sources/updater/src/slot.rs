//! Filling the other slot.
//!
//! Its superblock is wiped first and written last, so that a slot that is half filled is
//! none: `init` finds no image in it. In between every block is checked against the hash
//! tree before it is written, and all of it once more as the disk gives it back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boot_slots::ReadAt;
use boot_slots::layout::{Role, Slot};
use boot_slots::verity::{
    BLOCK_SIZE, RootHash, SUPERBLOCK_SIZE, Superblock, Tree, hash_block, verify,
};
use bytes::Bytes;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::delta::{Plan, Source};
use crate::http::{Answer, Body, HttpError, Server};
use crate::repository;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// How often a request is made again that broke off without having brought anything.
const RETRIES: u32 = 5;
/// Before the first of them; each further one waits twice as long.
const PAUSE: Duration = Duration::from_millis(500);

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

/// Where the blocks of a new image came from, and what was fetched for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Blocks of the image.
    pub blocks: u64,
    /// Of these, copied from the running slot.
    pub copied: u64,
    /// Bytes of the image that the repository sent.
    pub fetched: u64,
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

    let mut filling = Filling {
        root: &root,
        digests: tree.digests().collect(),
        plan: Plan::new(tree, running),
        filled: Filled {
            blocks: tree.data_blocks(),
            ..Filled::default()
        },
    };
    let source = disk.partition(Role::Root(slot.other()))?;
    filling.copy(&source).with_context(in_slot)?;
    filling.fetch(&mut image.server).await?;
    let filled = filling.filled;

    write(&verity, &tree.bytes()[BLOCK_SIZE..], BLOCK).with_context(in_slot)?;
    for partition in [&root, &verity] {
        partition.sync_all().with_context(in_slot)?;
        // What is checked next comes from the disk and not from memory.
        posix_fadvise(partition, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .with_context(in_slot)?;
    }
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

struct Filling<'a> {
    root: &'a File,
    digests: Vec<&'a [u8]>,
    plan: Plan,
    filled: Filled,
}

impl Filling<'_> {
    /// Writes what need not be fetched. A block that the running image should have and
    /// has not is left to be fetched.
    fn copy(&mut self, running: &File) -> Result<()> {
        let mut block = vec![0; BLOCK_SIZE];
        for at in 0..self.digests.len() {
            let from = match self.plan.sources()[at] {
                Source::Repository => continue,
                Source::Zeros => None,
                Source::Running(from) => Some(from),
            };
            match from {
                None => block.fill(0),
                Some(from) => {
                    let offset = u64::from(from) * BLOCK;
                    let read = ReadAt::read_exact_at(running, &mut block, offset);
                    if read.is_err() || hash_block(&block) != self.digests[at] {
                        self.plan.fetch_instead(at);
                        continue;
                    }
                    self.filled.copied += 1;
                }
            }
            write(self.root, &block, at as u64 * BLOCK)?;
        }
        Ok(())
    }

    async fn fetch(&mut self, server: &mut Server) -> Result<()> {
        for range in self.plan.ranges() {
            let mut next = range.start;
            let mut failures = 0;
            while next < range.end {
                let before = next;
                let bytes = next * BLOCK..range.end * BLOCK;
                let error = match server.get_range(&bytes).await {
                    Ok(Answer::Part(body)) => match self.take(body, &mut next, range.end).await? {
                        Ended::Whole => continue,
                        Ended::Broken(error) => error,
                    },
                    Ok(Answer::Whole(body)) => return self.fetch_whole(body, server).await,
                    Err(error) if error.is_passing() => Some(error),
                    Err(error) => return Err(error.into()),
                };
                failures = if next > before { 0 } else { failures + 1 };
                self.pause(failures, error, server).await?;
            }
        }
        Ok(())
    }

    /// The server sends the whole file whatever it is asked for: what is not needed is
    /// passed over, and a connection that breaks means beginning anew.
    async fn fetch_whole(&mut self, body: Body, server: &mut Server) -> Result<()> {
        tracing::info!(url = %server.url(), "the server knows no ranges: fetching the whole file");
        let (mut body, mut failures) = (Some(body), 0);
        let end = self.digests.len() as u64;
        loop {
            let error = match body.take() {
                Some(body) => match self.take(body, &mut 0, end).await? {
                    Ended::Whole => return Ok(()),
                    Ended::Broken(error) => error,
                },
                None => match server.get().await {
                    Ok(again) => {
                        body = Some(again);
                        continue;
                    }
                    Err(error) if error.is_passing() => Some(error),
                    Err(error) => return Err(error.into()),
                },
            };
            failures += 1;
            self.pause(failures, error, server).await?;
        }
    }

    /// Writes blocks from `next` to `end` as they come, each once it is checked.
    async fn take(&mut self, mut body: Body, next: &mut u64, end: u64) -> Result<Ended> {
        let mut block = Vec::with_capacity(BLOCK_SIZE);
        loop {
            let mut piece: Bytes = match body.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Ended::Broken(None)),
                Err(error) if error.is_passing() => return Ok(Ended::Broken(Some(error))),
                Err(error) => return Err(error.into()),
            };
            self.filled.fetched += piece.len() as u64;
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(BLOCK_SIZE - block.len()));
                block.extend_from_slice(&part);
                if block.len() < BLOCK_SIZE {
                    continue;
                }
                let at = usize::try_from(*next).context("counting blocks")?;
                ensure!(
                    hash_block(&block) == self.digests[at],
                    "what the server sent for block {at} is not what the hash tree says"
                );
                write(self.root, &block, *next * BLOCK)?;
                block.clear();
                *next += 1;
                if *next == end {
                    return Ok(Ended::Whole);
                }
            }
        }
    }

    async fn pause(&self, failures: u32, error: Option<HttpError>, server: &Server) -> Result<()> {
        let error = match error {
            Some(error) => anyhow::Error::from(error),
            None => anyhow::anyhow!("{} ended too soon", server.url()),
        };
        if failures > RETRIES {
            return Err(error);
        }
        tracing::warn!("{error:#}: asking again for what is missing");
        tokio::time::sleep(PAUSE * 2u32.pow(failures)).await;
        Ok(())
    }
}

/// How a body ended.
enum Ended {
    /// All that was asked for came.
    Whole,
    /// It broke off, or was shorter.
    Broken(Option<HttpError>),
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

fn write(partition: &File, bytes: &[u8], offset: u64) -> Result<()> {
    FileExt::write_all_at(partition, bytes, offset)
        .with_context(|| format!("writing {} bytes at {offset}", bytes.len()))
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
