//! What an update costs a host, from the trees of both images.

use boot_slots::verity::{BLOCK_SIZE, Tree};
use serde::Serialize;
use updater::delta::Plan;

/// What a host fetches of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Bytes.
    pub bytes: u64,
    /// Requests, if none breaks off.
    pub requests: usize,
}

/// What a host fetches of the root of `new` that runs `old`.
pub fn predict(old: &Tree, new: &Tree) -> Fetched {
    let ranges = Plan::new(new, Some(old)).ranges();
    let blocks: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    Fetched {
        bytes: blocks * BLOCK_SIZE as u64,
        requests: ranges.len(),
    }
}
