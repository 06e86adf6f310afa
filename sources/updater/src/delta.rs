//! Where each block of a new file comes from: blocks that the running image has, too, are
//! copied, and the rest is fetched.
//!
//! Pure: from the digests of both to a plan. What a block must hash to is known from the new
//! ones, so neither what is here nor the server has to be believed.

use std::ops::Range;

use boot_slots::verity::{BLOCK_SIZE, hash_block};

/// Blocks that lie between two that are missing and are fetched with them. They are 64 kB,
/// what a line of 100 Mbit/s brings in 5 ms: a server that is 20 ms away takes as long to
/// answer, asked over four connections. No byte is in two ranges, so that no gap makes an
/// update larger than the file.
const GAP: u64 = 16;
/// What one request asks for at most: so much is lost when a connection breaks.
const RANGE_MAX: u64 = 2048;

/// Where a block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is all zeros.
    Zeros,
    /// It is this block of what is here.
    Here(u32),
    /// It is in its place already.
    InPlace,
    /// The repository.
    Repository,
}

/// Where each block of a file comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    sources: Vec<Source>,
}

impl Plan {
    /// For a file of blocks with digests `new`, where a file with digests `here` is.
    pub fn new<'n, 'h>(
        new: impl Iterator<Item = &'n [u8]>,
        here: impl Iterator<Item = &'h [u8]>,
    ) -> Self {
        // The first half of a digest finds a block, the whole digest is compared when the
        // block is read: 16 bytes a block instead of a map of digests.
        let mut known: Vec<(u64, u32)> = here.map(short).zip(0..).collect();
        known.sort_unstable();
        let zeros = hash_block(&[0; BLOCK_SIZE]);
        let source = |digest: &[u8]| {
            if digest == zeros {
                return Source::Zeros;
            }
            let short = short(digest);
            let at = known.partition_point(|(other, _)| *other < short);
            match known.get(at) {
                Some((other, block)) if *other == short => Source::Here(*block),
                _ => Source::Repository,
            }
        };
        Self {
            sources: new.map(source).collect(),
        }
    }

    /// Where each block comes from, in their order.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// A block comes from elsewhere than was planned.
    pub fn take_instead(&mut self, block: usize, from: Source) {
        if let Some(source) = self.sources.get_mut(block) {
            *source = from;
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

    /// Digests of blocks that are filled with these bytes.
    fn digests(blocks: &[u8]) -> Vec<[u8; 32]> {
        let digest = |byte: &u8| hash_block(&[*byte; BLOCK_SIZE]);
        blocks.iter().map(digest).collect()
    }

    fn plan(new: &[u8], here: &[u8]) -> Plan {
        let (new, here) = (digests(new), digests(here));
        Plan::new(
            new.iter().map(|digest| &digest[..]),
            here.iter().map(|digest| &digest[..]),
        )
    }

    #[test]
    fn blocks_come_from_where_they_are() {
        use Source::{Here, Repository, Zeros};
        let mixed = plan(&[7, 0, 3, 9, 7], &[1, 7, 3, 0]);
        assert_eq!(
            mixed.sources(),
            [Here(1), Zeros, Here(2), Repository, Here(1)]
        );
        assert_eq!(mixed.ranges(), vec![3..4; 1]);
        let alone = plan(&[7, 0, 3], &[]);
        assert_eq!(alone.sources(), [Repository, Zeros, Repository]);
    }

    #[test]
    fn no_plan_asks_for_more_than_the_file() {
        const BLOCKS: u64 = 3 * RANGE_MAX + 100;
        for gap in [1, 2, GAP, GAP + 1, GAP + 2, 3 * GAP] {
            let mut plan = Plan {
                sources: vec![Source::Zeros; BLOCKS as usize],
            };
            (0..BLOCKS)
                .step_by(gap as usize)
                .for_each(|block| plan.take_instead(block as usize, Source::Repository));
            let ranges = plan.ranges();
            let is_apart = |pair: &[Range<u64>]| pair[0].end <= pair[1].start;
            assert!(ranges.windows(2).all(is_apart), "{gap}: {ranges:?}");
            let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            assert!(asked <= BLOCKS, "{gap}");
            for block in (0..BLOCKS).step_by(gap as usize) {
                let is_in = |range: &Range<u64>| range.contains(&block);
                assert!(ranges.iter().any(is_in), "{gap}: {block}");
            }
        }
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
            plan.take_instead(block, Source::Repository);
        }
        assert_eq!(plan.ranges(), [3..21, 60..62]);
        // The widest gap that is fetched with what it lies between, and one that is wider.
        plan.take_instead(78, Source::Repository);
        assert_eq!(plan.ranges(), [3..21, 60..79]);
        plan.take_instead(96, Source::Repository);
        assert_eq!(plan.ranges(), [3..21, 60..79, 96..97]);
        assert_eq!(
            Plan {
                sources: vec![Source::Zeros; 3]
            }
            .ranges(),
            []
        );
    }
}
