//! Where each block of a new image comes from: blocks that the running image has, too, are
//! copied, and the rest is fetched.
//!
//! Pure: from two hash trees to a plan. What a block must hash to is known from the new
//! tree, so neither the running image nor the server has to be believed.

use std::ops::Range;

use boot_slots::verity::{BLOCK_SIZE, Tree, hash_block};

/// Blocks that lie between two that are missing and are fetched with them: a request of
/// its own costs more than this.
const GAP: u64 = 16;
/// What one request asks for at most: so much is lost when a connection breaks.
const RANGE_MAX: u64 = 2048;

/// Where a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is all zeros.
    Zeros,
    /// It is this block of the running image.
    Running(u32),
    /// The repository.
    Repository,
}

/// Where each block of an image comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    sources: Vec<Source>,
}

impl Plan {
    /// Compares two trees; without one of a running image everything is fetched.
    pub fn new(new: &Tree, running: Option<&Tree>) -> Self {
        // The first half of a digest finds a block, the whole digest is compared when the
        // block is read: 16 bytes a block instead of a map of digests.
        let mut known: Vec<(u64, u32)> = match running {
            Some(tree) => (tree.digests().map(short)).zip(0..).collect(),
            None => Vec::new(),
        };
        known.sort_unstable();
        let zeros = hash_block(&[0; BLOCK_SIZE]);
        let source = |digest: &[u8]| {
            if digest == zeros {
                return Source::Zeros;
            }
            let short = short(digest);
            let at = known.partition_point(|(other, _)| *other < short);
            match known.get(at) {
                Some((other, block)) if *other == short => Source::Running(*block),
                _ => Source::Repository,
            }
        };
        Self {
            sources: new.digests().map(source).collect(),
        }
    }

    /// Where each block comes from, in their order.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// A block could not be had from where it was expected.
    pub fn fetch_instead(&mut self, block: usize) {
        if let Some(source) = self.sources.get_mut(block) {
            *source = Source::Repository;
        }
    }

    /// Runs of blocks to ask the repository for.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (block, source) in (0..).zip(&self.sources) {
            if *source != Source::Repository {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if block - last.end <= GAP && block - last.start < RANGE_MAX => {
                    last.end = block + 1;
                }
                _ => ranges.push(block..block + 1),
            }
        }
        ranges
    }
}

/// The first eight bytes of a digest.
fn short(digest: &[u8]) -> u64 {
    (digest.iter().take(8)).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_slots::verity::build;

    /// An image whose blocks are filled with these bytes.
    fn tree(blocks: &[u8]) -> Tree {
        let image: Vec<u8> = blocks.iter().flat_map(|byte| [*byte; BLOCK_SIZE]).collect();
        let built = build(&image).unwrap();
        Tree::read(&built.bytes, &built.root_hash).unwrap()
    }

    #[test]
    fn blocks_come_from_where_they_are() {
        use Source::{Repository, Running, Zeros};
        let plan = Plan::new(&tree(&[7, 0, 3, 9, 7]), Some(&tree(&[1, 7, 3, 0])));
        assert_eq!(
            plan.sources(),
            [Running(1), Zeros, Running(2), Repository, Running(1)]
        );
        assert_eq!(plan.ranges(), vec![3..4; 1]);
        let plan = Plan::new(&tree(&[7, 0, 3]), None);
        assert_eq!(plan.sources(), [Repository, Zeros, Repository]);
    }

    #[test]
    fn near_runs_are_one_request_and_long_ones_several() {
        let all = |blocks: usize| Plan {
            sources: vec![Source::Repository; blocks],
        };
        assert_eq!(all(5_000).ranges(), [0..2048, 2048..4096, 4096..5_000]);
        let mut plan = Plan {
            sources: vec![Source::Zeros; 100],
        };
        for block in [3, 20, 60, 61] {
            plan.fetch_instead(block);
        }
        assert_eq!(plan.ranges(), [3..21, 60..62]);
        assert_eq!(
            Plan {
                sources: vec![Source::Zeros; 3]
            }
            .ranges(),
            []
        );
    }
}
