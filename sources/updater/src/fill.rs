//! Putting a file together from blocks that are here already and those that are not.
//!
//! What each block must hash to is known from what was signed. So every block is checked
//! before it is kept, whoever had it, and a download that breaks off goes on where it was.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot_slots::ReadAt;
use boot_slots::blocks::Blocks;
use boot_slots::verity::{BLOCK_SIZE, hash_block};
use bytes::Bytes;

use crate::delta::{Plan, Source};
use crate::http::{Answer, Body, HttpError, Server};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// How often a request is made again that broke off without having brought anything.
const RETRIES: u32 = 5;
/// Before the first of them; each further one waits twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the blocks of a file came from, and what was fetched for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Blocks of the file.
    pub blocks: u64,
    /// Of these, copied from what was here.
    pub copied: u64,
    /// Bytes of the file that the repository sent.
    pub fetched: u64,
}

/// Where a file is put together.
pub trait Place {
    /// Puts bytes there.
    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<()>;
}

impl Place for &File {
    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        write(self, bytes, offset)
    }
}

/// In memory: as long as the file already.
impl Place for Vec<u8> {
    fn put(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let place = start.and_then(|start| self.get_mut(start..)?.get_mut(..bytes.len()));
        place
            .with_context(|| format!("there is no place for {} bytes at {offset}", bytes.len()))?
            .copy_from_slice(bytes);
        Ok(())
    }
}

/// Writes to a file or a partition.
pub fn write(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    FileExt::write_all_at(file, bytes, offset)
        .with_context(|| format!("writing {} bytes at {offset}", bytes.len()))
}

/// A file while it is put together.
pub struct Filling<'a, P> {
    place: P,
    length: u64,
    digests: Vec<&'a [u8]>,
    plan: Plan,
    filled: Filled,
}

impl<'a, P: Place> Filling<'a, P> {
    /// Of `length` bytes, whose blocks have `digests`. Blocks with those of `here` need
    /// not be fetched.
    pub fn new<'h>(
        place: P,
        length: u64,
        digests: impl Iterator<Item = &'a [u8]>,
        here: impl Iterator<Item = &'h [u8]>,
    ) -> Result<Self> {
        let digests: Vec<_> = digests.collect();
        let blocks = length.div_ceil(BLOCK);
        ensure!(
            digests.len() as u64 == blocks,
            "it has {length} bytes, which are {blocks} blocks, and digests are signed for {}",
            digests.len()
        );
        Ok(Self {
            place,
            length,
            plan: Plan::new(digests.iter().copied(), here),
            digests,
            filled: Filled {
                blocks,
                ..Filled::default()
            },
        })
    }

    /// Puts in place what need not be fetched: zeros, and blocks of `here`. One that should
    /// be there and is not is left to be fetched.
    pub fn copy(&mut self, here: &(impl ReadAt + ?Sized)) -> Result<()> {
        let here = Blocks::of(here);
        let mut block = vec![0; BLOCK_SIZE];
        for at in 0..self.digests.len() {
            let from = match self.plan.sources()[at] {
                Source::Repository => continue,
                Source::Zeros => None,
                Source::Here(from) => Some(from),
            };
            match from {
                None => block.fill(0),
                Some(from) => {
                    let from = u64::from(from) * BLOCK;
                    let is_there = here
                        .as_ref()
                        .is_ok_and(|here| here.read_exact_at(&mut block, from).is_ok())
                        && hash_block(&block) == self.digests[at];
                    if !is_there {
                        self.plan.fetch_instead(at);
                        continue;
                    }
                    self.filled.copied += 1;
                }
            }
            let offset = at as u64 * BLOCK;
            let length = self.length_at(offset);
            self.place.put(&block[..length], offset)?;
        }
        Ok(())
    }

    /// Fetches the rest, after which the file is whole.
    pub async fn fetch(&mut self, server: &mut Server) -> Result<()> {
        for range in self.plan.ranges() {
            let mut next = range.start;
            let mut failures = 0;
            while next < range.end {
                let before = next;
                let bytes = next * BLOCK..self.length.min(range.end * BLOCK);
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

    /// The file, and where it came from.
    pub fn done(self) -> (P, Filled) {
        (self.place, self.filled)
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

    /// Keeps blocks from `next` to `end` as they come, each once it is checked.
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
                let length = self.length_at(*next * BLOCK);
                let part = piece.split_to(piece.len().min(length - block.len()));
                block.extend_from_slice(&part);
                if block.len() < length {
                    continue;
                }
                // As the last one was hashed.
                block.resize(BLOCK_SIZE, 0);
                let at = usize::try_from(*next).context("counting blocks")?;
                ensure!(
                    hash_block(&block) == self.digests[at],
                    "what the server sent for block {at} is not what was signed"
                );
                self.place.put(&block[..length], *next * BLOCK)?;
                block.clear();
                *next += 1;
                if *next == end {
                    return Ok(Ended::Whole);
                }
            }
        }
    }

    /// Bytes of the block at an offset: all but the last are whole.
    fn length_at(&self, offset: u64) -> usize {
        // No more than a block.
        self.length.saturating_sub(offset).min(BLOCK) as usize
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
