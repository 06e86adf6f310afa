//! `storage`: finds the partitions of the running system's disk, grows the
//! last one, makes or repairs their file systems, and mounts them.
//!
//! [`facts`] reads, [`plan`] decides, [`execute`] acts. Nothing here stops the
//! boot: a partition that cannot be used is replaced by memory, which is said
//! on the console and remembered for the health check.

mod execute;
mod ext4;
mod facts;
mod plan;

use std::path::Path;

use anyhow::Result;

pub use facts::open_partition;

/// Holds what went wrong, one problem a line; absent when all is well.
pub const DEGRADED: &str = "/run/bulkhead/storage-problems";

/// Prepares the storage of the running system.
pub fn run() -> Result<()> {
    let (facts, mut problems) = facts::gather();
    for problem in &problems {
        sysutil::console::say(problem);
    }
    let actions = plan::plan(&facts);
    tracing::debug!(?actions, "planned");
    problems.extend(execute::execute(&actions, &mut execute::Host));
    if problems.is_empty() {
        return Ok(());
    }
    let path = Path::new(DEGRADED);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    sysutil::fs::write_atomic(path, format!("{}\n", problems.join("\n")).as_bytes(), 0o644)
}
