//! Memory that the kernel keeps free.
//!
//! For the sake of transparent huge pages the kernel sets aside up to 67 MB however
//! small the machine is, and counts half as much again as not available. On a
//! machine of 2 GiB that is more than the whole host uses. Large machines, where it
//! is nothing, keep what the kernel has chosen: they also have the fast network
//! cards that need a reserve. A setting `kernel.sysctl."vm.min_free_kbytes"` is
//! applied later and so wins.

use crate::outcome::Failure;
use std::fs;
use std::path::Path;

const MEMINFO: &str = "/proc/meminfo";
const RESERVE: &str = "/proc/sys/vm/min_free_kbytes";
/// The part of the memory that is reserved at most: one in so many.
const SHARE: u64 = 128;
/// What is reserved at least, in KiB: what the kernel itself would choose for a
/// machine of 4 GiB without huge pages.
const LEAST: u64 = 8 * 1024;

/// Makes the kernel's reserve fit the machine.
pub fn fit_reserve() -> Result<(), Failure> {
    let read = |path: &str| fs::read_to_string(path).map_err(Failure::on("read", Path::new(path)));
    if let Some(reserve) = smaller_reserve(&read(MEMINFO)?, &read(RESERVE)?) {
        fs::write(RESERVE, reserve.to_string())
            .map_err(Failure::on("write", Path::new(RESERVE)))?;
    }
    Ok(())
}

/// The reserve in KiB, if it is to be smaller than it is.
fn smaller_reserve(meminfo: &str, reserve: &str) -> Option<u64> {
    let total: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    let now: u64 = reserve.trim().parse().ok()?;
    let wanted = (total / SHARE).max(LEAST);
    (wanted < now).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_reserve_less() {
        for (total, now, expected) in [
            ("1982092 kB", "45056\n", Some(15485)),
            ("500000 kB", "45056\n", Some(8192)),
            ("8000000 kB", "67584\n", Some(62500)),
            ("16000000 kB", "67584\n", None),
            ("1982092 kB", "5600\n", None),
            ("lots", "45056\n", None),
            ("1982092 kB", "x", None),
        ] {
            let meminfo = format!("MemTotal:       {total}\nMemFree:  1 kB\n");
            assert_eq!(smaller_reserve(&meminfo, now), expected, "{total} {now}");
        }
        assert_eq!(smaller_reserve("", "45056"), None);
    }
}
