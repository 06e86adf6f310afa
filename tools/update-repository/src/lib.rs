//! Makes, extends and checks signed repositories of updates, after The Update Framework.
//!
//! Start at [`Repository`], a folder for one variant and architecture beside a folder of
//! targets that all of them share; [`Keys`] sign it. [`simulate`] shows how waves reach a
//! fleet, [`validate`] whether hosts can be updated from what was published, [`predict`] what
//! an update fetches. Signing is the crate `tough`'s work, what the manifest says is in
//! `update-metadata`, and reading a repository as a host does in `updater`.

mod keys;
mod predict;
mod repository;
mod schedule;
pub mod simulate;
#[cfg(test)]
mod tests;
mod validate;

use repository::moment;

pub use keys::{Draft, Holders, Keys, Lack, NewKey, Progress, Role, Source, public_key};
pub use predict::{Fetched, predict};
pub use repository::{Release, Repository};
pub use schedule::{Schedule, duration};
pub use validate::{Checked, validate};

use anyhow::{Context, Result};
use std::future::Future;

/// Name of the target that says which releases there are.
pub const MANIFEST: &str = "manifest.json";

/// Runs what `tough` does, which waits for files and nothing else.
fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .context("cannot start a runtime")?
        .block_on(work)
}
