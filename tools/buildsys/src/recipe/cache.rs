//! Folders that compilers keep their intermediate results in between builds.
//!
//! They make a small change cheap, are no part of any key and leave no trace in
//! what comes out. Each is taken under a lock; those that nobody uses any more go.

use crate::store::{self, Freed};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Folders that nobody has used for so long go.
const AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// One compiler's folder, locked for as long as this exists.
pub struct CacheFolder {
    /// The folder.
    pub path: PathBuf,
    _lock: File,
}

impl CacheFolder {
    /// The folder `name` in `caches`; waits for who is using it. Its part `content`
    /// is removed when it is larger than `limit`, for compilers hardly ever do.
    pub fn open(caches: &Path, name: &str, content: &str, limit: u64) -> Result<Self> {
        let path = caches.join(name);
        let lock = store::lock_exclusive(&path.join("lock"))?;
        lock.set_modified(SystemTime::now())
            .with_context(|| format!("cannot note the use of {}", path.display()))?;
        remove_old(caches)?;
        let content = path.join(content);
        if content.exists() && store::tree_size(&content)? > limit {
            store::remove_tree(&content)?;
        }
        Ok(Self { path, _lock: lock })
    }
}

/// Removes all folders in `caches` that no running build uses.
pub fn clean(caches: &Path) -> Result<Freed> {
    remove(caches, |_| true)
}

/// Removes folders that have not been used for long.
fn remove_old(caches: &Path) -> Result<()> {
    let is_old = |lock: &Path| {
        let used = fs::metadata(lock).and_then(|metadata| metadata.modified());
        used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > AGE))
    };
    remove(caches, is_old).map(drop)
}

fn remove(caches: &Path, goes: impl Fn(&Path) -> bool) -> Result<Freed> {
    let mut freed = Freed::default();
    let list = || format!("cannot list {}", caches.display());
    let entries = match fs::read_dir(caches) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(freed),
        other => other.with_context(list)?,
    };
    for entry in entries {
        let folder = entry.with_context(list)?.path();
        let lock = folder.join("lock");
        if !goes(&lock) {
            continue;
        }
        let Some(_lock) = store::try_lock_exclusive(&lock)? else {
            freed.in_use += 1;
            continue;
        };
        freed.entries += 1;
        freed.bytes += store::tree_size(&folder)?;
        store::remove_tree(&folder)?;
    }
    Ok(freed)
}
