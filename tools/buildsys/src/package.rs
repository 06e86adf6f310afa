//! Building packages by themselves, without an image: to look at one, or to run
//! the programs of one in a test.

use crate::lock::{self, FetchOptions};
use crate::manifest::{Definitions, Name};
pub use crate::plan::packages::HOST_IMAGES;
use crate::plan::packages::Packages;
use crate::progress::Progress;
use crate::project::{Arch, Project};
use crate::store::{Entry, Store};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The tree of a package, which the store keeps while this exists.
#[derive(Clone, Debug)]
pub struct PackageTree {
    /// The package.
    pub name: Name,
    entry: Entry,
}

impl PackageTree {
    /// The folder with its files, as they lie in an image.
    pub fn path(&self) -> &Path {
        self.entry.path()
    }

    /// The path of a file of the package, which is given as it is in an image.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        let file = self.path().join(path.trim_start_matches('/'));
        if file.exists() {
            Ok(file)
        } else {
            anyhow::bail!("the package {} has no {path}", self.name)
        }
    }
}

/// Builds the packages `names`, or finds that they are there, and gives their trees
/// in the same order.
pub fn build(
    project: &Project,
    names: &[Name],
    arch: Arch,
    options: FetchOptions,
    progress: &Progress,
) -> Result<Vec<PackageTree>> {
    let definitions = Definitions::load(project)?;
    let mut lock = lock::load_complete(project, options, progress)?;
    let store = Store::open(&project.store_dir(), project.config.store.size_limit.0)?;
    let plan = |lock: &_| Packages::new(project, &definitions, names, arch, lock);
    let mut packages = plan(&lock)?;
    if packages.fetch(project, &mut lock, &store, options.locked, progress)? {
        // The mirror has moved on and so has the lock: what follows is planned anew.
        packages = plan(&lock)?;
        packages.fetch(project, &mut lock, &store, true, progress)?;
    }
    let logs = project.build_dir().join("logs");
    let built = packages
        .build(project, &lock, &store, &logs, progress)
        .with_context(|| {
            let names: Vec<&str> = names.iter().map(Name::as_str).collect();
            format!("cannot build {}", names.join(", "))
        })?;
    let trees = names.iter().zip(built.entries);
    Ok(trees
        .map(|(name, entry)| PackageTree {
            name: name.clone(),
            entry,
        })
        .collect())
}
