//! Looking at what was built, and at what could be taken.

use super::description::Description;
use crate::fetch::Fetcher;
use crate::lock::{self, FetchOptions, Lock, Want};
use crate::progress::Progress;
use crate::project::{Arch, Project};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// The folder of the latest image of a variant.
pub fn latest_folder(project: &Project, variant: &str, arch: Arch) -> PathBuf {
    project.images_dir(variant, arch).join("latest")
}

/// The description of the latest image of a variant.
pub fn latest(project: &Project, variant: &str, arch: Arch) -> Result<Description> {
    Description::read(&latest_folder(project, variant, arch)).with_context(|| {
        format!(
            "there is no image of {variant} for {arch}; run `bulkhead build --variant {variant}`"
        )
    })
}

/// Paths of all files in a locked Debian package, sorted.
pub fn package_files(project: &Project, name: &str, arch: Arch) -> Result<Vec<String>> {
    let progress = Progress::new();
    let mut lock = Lock::load(project)?;
    let wants = [Want::Package(name, arch)];
    lock::fetch_locked(
        project,
        &mut lock,
        &wants,
        FetchOptions { locked: true },
        &progress,
    )?;
    let archive = lock.package(name, arch)?;
    let path = Fetcher::new(project, &progress)?.archive_path(archive);
    let mut files = Vec::new();
    deb::archive::Deb::open(&path)
        .and_then(|deb| {
            deb.for_each_entry(|entry| {
                files.push(entry.path().to_string());
                Ok::<_, deb::Error>(())
            })
        })
        .with_context(|| format!("cannot list {}", path.display()))?;
    files.sort();
    Ok(files)
}
