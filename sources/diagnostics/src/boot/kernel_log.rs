//! The marks of our programs in the kernel log.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::libc;

use super::Mark;

const KERNEL_LOG: &str = "/dev/kmsg";
/// More than the kernel hands out in one record.
const RECORD_MAX: usize = 8192;

/// All records that the kernel still has.
pub fn read() -> Result<Vec<String>> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(KERNEL_LOG)
        .with_context(|| format!("opening {KERNEL_LOG}"))?;
    let mut records = Vec::new();
    let mut buffer = [0; RECORD_MAX];
    loop {
        match log.read(&mut buffer) {
            Ok(0) => return Ok(records),
            Ok(length) => records.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(records),
            // Overwritten while we read; the next read goes on behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).with_context(|| format!("reading {KERNEL_LOG}")),
        }
    }
}

/// The marks among the records, in their order.
pub fn marks(records: &[String]) -> Vec<Mark> {
    records.iter().filter_map(|record| mark(record)).collect()
}

/// Reads `LEVEL,SEQUENCE,TIME,FLAGS;bulkhead: TEXT`.
fn mark(record: &str) -> Option<Mark> {
    let (header, message) = record.split_once(';')?;
    let text = message.lines().next()?.strip_prefix("bulkhead: ")?;
    let at_us = header.split(',').nth(2)?.parse().ok()?;
    Some(Mark {
        text: text.to_owned(),
        at_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_lines_are_marks() {
        for (record, expected) in [
            (
                "27,9,1500,-;bulkhead: API ready\n",
                Some(("API ready", 1500)),
            ),
            (
                "27,9,1500,c,x=y;bulkhead: a; b\n KEY=v\n",
                Some(("a; b", 1500)),
            ),
            ("6,9,1500,-;random: bulkhead: x", None),
            ("6,9,late,-;bulkhead: x", None),
            ("6;bulkhead: x", None),
            ("", None),
        ] {
            let mark = mark(record);
            let found = mark.as_ref().map(|mark| (mark.text.as_str(), mark.at_us));
            assert_eq!(found, expected, "{record:?}");
        }
    }
}
