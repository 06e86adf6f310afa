//! `storage`: finds the partitions of the running system's disk, grows the
//! last one, makes or repairs their file systems, and mounts them.
//!
//! [`facts`] reads, [`plan`] decides, [`execute`] acts. Nothing here stops the
//! boot: a partition that cannot be used is replaced by memory, which is said
//! on the console and remembered for the health check.

mod execute;
pub mod ext4;
mod facts;
mod plan;

use std::path::Path;

use anyhow::{Context, Result};

pub use execute::{bind, make_folder};
pub use facts::open_partition;

/// Holds what went wrong, one problem a line; absent when all is well.
pub const DEGRADED: &str = "/run/bulkhead/storage-problems";

/// Tells journald, which starts after this, that its place on the data
/// partition is there: it need not begin in memory and be told to move.
const JOURNAL_READY: &str = "/run/systemd/journal/flushed";

/// Prepares the storage of the running system.
pub fn run() -> Result<()> {
    let (facts, mut problems) = facts::gather();
    for problem in &problems {
        sysutil::console::say(problem);
    }
    let actions = plan::plan(&facts);
    tracing::debug!(?actions, "planned");
    problems.extend(execute::execute(&actions, &mut execute::Host));
    write_below_run(JOURNAL_READY, "")?;
    if problems.is_empty() {
        return Ok(());
    }
    write_below_run(DEGRADED, &format!("{}\n", problems.join("\n")))
}

fn write_below_run(path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    sysutil::fs::write_atomic(path, text.as_bytes(), 0o644)
}
