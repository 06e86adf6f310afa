//! Putting a file together from blocks that are here already and those that are not.
//!
//! What each block must hash to is known from what was signed. So every block is checked
//! before it is kept, whoever had it, and a download that breaks off goes on where it was.
//! Several connections fetch at once, so that a server that is far away is not waited for
//! once for each range.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot_slots::ReadAt;
use boot_slots::blocks::Blocks;
use boot_slots::verity::{BLOCK_SIZE, hash_block};
use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::delta::{Plan, Source};
use crate::http::{Answer, Body, HttpError, Server};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Connections that ranges of a file are fetched over at once. A few are enough to fill a
/// line in spite of its length, and no more than a browser opens.
const CONNECTIONS: usize = 4;
/// How often a request is made again that broke off without having brought anything.
const RETRIES: u32 = 5;
/// Before the first of them; each further one waits twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the blocks of a file came from, and what was fetched for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Blocks of the file.
    pub blocks: u64,
    /// Of these, in their place already.
    pub kept: u64,
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

/// A file while it is put together. Connections have it in turns: none waits for anything
/// while it puts a block in place.
pub struct Filling<'a, P> {
    place: RefCell<P>,
    length: u64,
    digests: Vec<&'a [u8]>,
    plan: Plan,
    filled: Cell<Filled>,
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
            place: RefCell::new(place),
            length,
            plan: Plan::new(digests.iter().copied(), here),
            digests,
            filled: Cell::new(Filled {
                blocks,
                ..Filled::default()
            }),
        })
    }

    /// Puts in place what need not be fetched: zeros, and blocks of `here`. One that should
    /// be there and is not is left to be fetched.
    pub fn copy(&mut self, here: &(impl ReadAt + ?Sized)) -> Result<()> {
        let here = Blocks::of(here);
        let mut block = vec![0; BLOCK_SIZE];
        for at in 0..self.digests.len() {
            let from = match self.plan.sources()[at] {
                Source::Repository | Source::InPlace => continue,
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
                        self.plan.take_instead(at, Source::Repository);
                        continue;
                    }
                    self.filled.get_mut().copied += 1;
                }
            }
            let offset = at as u64 * BLOCK;
            let length = self.length_at(offset);
            self.place.get_mut().put(&block[..length], offset)?;
        }
        Ok(())
    }

    /// Leaves what would be fetched and is in `place` already, as an update that was broken off
    /// left it there.
    pub fn keep(&mut self, place: &(impl ReadAt + ?Sized)) {
        let mut block = vec![0; BLOCK_SIZE];
        for at in 0..self.digests.len() {
            if self.plan.sources()[at] != Source::Repository {
                continue;
            }
            let offset = at as u64 * BLOCK;
            let length = self.length_at(offset);
            block[length..].fill(0);
            let is_read = place.read_exact_at(&mut block[..length], offset).is_ok();
            if is_read && hash_block(&block) == self.digests[at] {
                self.plan.take_instead(at, Source::InPlace);
                self.filled.get_mut().kept += 1;
            }
        }
    }

    /// Fetches the rest, after which the file is whole.
    pub async fn fetch(&self, server: &mut Server) -> Result<()> {
        let ranges = self.plan.ranges();
        let connections = CONNECTIONS.min(ranges.len());
        let mut parts = ranges.into_iter().map(Part::new);
        let Some(mut first) = parts.next() else {
            return Ok(());
        };
        // Before there is more than one connection it is known whether the server knows
        // ranges, and where it sends on to.
        server.shared_by(connections);
        let body = loop {
            match self.ask(server, &mut first).await? {
                Some(Answer::Part(body)) => break body,
                Some(Answer::Whole(body)) => return self.fetch_whole(Some(body), server).await,
                None => {}
            }
        };
        let queue = RefCell::new(parts);
        let mut others: Vec<_> = (1..connections).map(|_| server.another()).collect();
        let mut begun = Some((first, body));
        let fetching = std::iter::once(&mut *server)
            .chain(&mut others)
            .map(|server| self.fetch_parts(server, begun.take(), &queue));
        match try_join_all(fetching).await {
            Ok(_) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::NoRanges) => self.fetch_whole(None, server).await,
        }
    }

    /// The file, and where it came from.
    pub fn done(self) -> (P, Filled) {
        (self.place.into_inner(), self.filled.get())
    }

    /// Fetches parts of the queue, one after the other, over one connection. The first may
    /// have been answered already.
    async fn fetch_parts(
        &self,
        server: &mut Server,
        mut begun: Option<(Part, Body)>,
        queue: &RefCell<impl Iterator<Item = Part>>,
    ) -> Result<(), Stop> {
        loop {
            let (mut part, mut body) = match begun.take() {
                Some((part, body)) => (part, Some(body)),
                None => match queue.borrow_mut().next() {
                    Some(part) => (part, None),
                    None => return Ok(()),
                },
            };
            while !part.is_whole() {
                let Some(body) = body.take() else {
                    match self.ask(server, &mut part).await? {
                        Some(Answer::Part(answer)) => body = Some(answer),
                        Some(Answer::Whole(_)) => return Err(Stop::NoRanges),
                        None => {}
                    }
                    continue;
                };
                let before = part.next;
                if let Ended::Broken(error) = self.take(body, &mut part).await? {
                    let has_brought = part.next > before;
                    part.broke(has_brought, error, server).await?;
                }
            }
        }
    }

    /// The server sends the whole file whatever it is asked for: what is not needed is
    /// passed over, and a connection that breaks means beginning anew.
    async fn fetch_whole(&self, mut body: Option<Body>, server: &mut Server) -> Result<()> {
        tracing::info!(url = %server.url(), "the server knows no ranges: fetching the whole file");
        server.shared_by(1);
        let mut part = Part::new(0..self.digests.len() as u64);
        loop {
            let error = match body.take() {
                Some(body) => match self.take(body, &mut part).await? {
                    Ended::Whole => return Ok(()),
                    Ended::Broken(error) => error,
                },
                None => match server.get().await {
                    Ok(again) => {
                        body = Some(again);
                        part.next = 0;
                        continue;
                    }
                    Err(error) => Some(error),
                },
            };
            part.broke(false, error, server).await?;
        }
    }

    /// Asks for what is missing of a part; nothing if it is to be asked for again.
    async fn ask(&self, server: &mut Server, part: &mut Part) -> Result<Option<Answer>> {
        let bytes = part.next * BLOCK..self.length.min(part.end * BLOCK);
        match server.get_range(&bytes).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                part.broke(false, Some(error), server).await?;
                Ok(None)
            }
        }
    }

    /// Keeps the blocks of a part as they come, each once it is checked.
    async fn take(&self, mut body: Body, part: &mut Part) -> Result<Ended> {
        let mut block = Vec::with_capacity(BLOCK_SIZE);
        while !part.is_whole() {
            match body.next().await {
                Ok(Some(piece)) => self.put(piece, &mut block, part)?,
                Ok(None) => return Ok(Ended::Broken(None)),
                Err(error) => return Ok(Ended::Broken(Some(error))),
            }
        }
        Ok(Ended::Whole)
    }

    /// Puts what a piece makes whole in place; the rest waits in `block`.
    fn put(&self, mut piece: Bytes, block: &mut Vec<u8>, part: &mut Part) -> Result<()> {
        let mut filled = self.filled.get();
        filled.fetched += piece.len() as u64;
        self.filled.set(filled);
        while !piece.is_empty() && !part.is_whole() {
            let offset = part.next * BLOCK;
            let length = self.length_at(offset);
            let taken = piece.split_to(piece.len().min(length - block.len()));
            block.extend_from_slice(&taken);
            if block.len() < length {
                continue;
            }
            // As the last one was hashed.
            block.resize(BLOCK_SIZE, 0);
            let at = usize::try_from(part.next).context("counting blocks")?;
            ensure!(
                hash_block(block) == self.digests[at],
                "what the server sent for block {at} is not what was signed"
            );
            self.place.borrow_mut().put(&block[..length], offset)?;
            block.clear();
            part.next += 1;
        }
        Ok(())
    }

    /// Bytes of the block at an offset: all but the last are whole.
    fn length_at(&self, offset: u64) -> usize {
        // No more than a block.
        self.length.saturating_sub(offset).min(BLOCK) as usize
    }
}

/// Blocks that are asked for together.
struct Part {
    /// The first one that is missing.
    next: u64,
    end: u64,
    /// How often in a row nothing came.
    failures: u32,
}

impl Part {
    fn new(blocks: Range<u64>) -> Self {
        Self {
            next: blocks.start,
            end: blocks.end,
            failures: 0,
        }
    }

    fn is_whole(&self) -> bool {
        self.next >= self.end
    }

    /// Waits before it is asked for again, if there is a point in that. Without an error
    /// the answer was too short.
    async fn broke(
        &mut self,
        has_brought: bool,
        error: Option<HttpError>,
        server: &Server,
    ) -> Result<()> {
        self.failures = if has_brought { 0 } else { self.failures + 1 };
        let error = match error {
            Some(error) if !error.is_passing() => return Err(error.into()),
            Some(error) => anyhow::Error::from(error),
            None => anyhow::anyhow!("{} ended too soon", server.url()),
        };
        if self.failures > RETRIES {
            return Err(error);
        }
        tracing::warn!("{error:#}: asking again for what is missing");
        tokio::time::sleep(PAUSE * 2u32.pow(self.failures)).await;
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

/// Why a connection fetches no more, and the others neither.
enum Stop {
    /// It was sent the whole file.
    NoRanges,
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
