//! What an update costs a host, from the digests of both images' blocks.

use boot_slots::verity::BLOCK_SIZE;
use serde::Serialize;
use updater::delta::Plan;

/// What a host fetches of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Bytes.
    pub bytes: u64,
    /// Requests, if none breaks off.
    pub requests: usize,
}

/// What a host fetches that has a file of blocks `old`, of the `length` bytes of `new`.
pub fn predict<'o, 'n>(
    old: impl Iterator<Item = &'o [u8]>,
    new: impl Iterator<Item = &'n [u8]>,
    length: u64,
) -> Fetched {
    let ranges = Plan::new(new, old).ranges();
    let offset = |block: u64| length.min(block * BLOCK_SIZE as u64);
    let bytes = ranges
        .iter()
        .map(|range| offset(range.end) - offset(range.start));
    Fetched {
        bytes: bytes.sum(),
        requests: ranges.len(),
    }
}
