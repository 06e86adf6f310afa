//! Building an image or packages a second time, elsewhere and from nothing, to see whether it
//! comes out the same.
//!
//! The second build has another folder, an empty store and empty compiler caches;
//! only downloads are shared, since every one of them is checked by its hash.

use super::{BuildRequest, build};
use crate::lock::FetchOptions;
use crate::manifest::Name;
use crate::progress::Progress;
use crate::project::{Arch, Folders, INPUTS, Project};
use crate::{package, store};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::iter;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// The downloads' folder in the cache.
const DOWNLOADS: &str = "archives";

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Folder of what was there.
    pub first: String,
    /// Folder of the one built for comparison.
    pub second: String,
    /// The files of both, and the folders in them.
    pub files: Vec<ComparedFile>,
}

/// One file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ComparedFile {
    /// Its path in the folder.
    pub name: String,
    /// Whether both have it, and the same.
    pub equal: bool,
}

impl Comparison {
    /// Whether every file is the same.
    pub fn is_equal(&self) -> bool {
        self.files.iter().all(|file| file.equal)
    }
}

/// Builds the image here if need be, then elsewhere, and compares all files.
///
/// What was built elsewhere is removed when it is the same, and kept to be looked
/// at when it is not.
pub fn verify(
    project: &Project,
    request: &BuildRequest,
    progress: &Progress,
) -> Result<Comparison> {
    let first = build(project, request, progress)?.folder;
    let again = elsewhere(project, progress)?;
    let second = build(&again, request, progress)?.folder;
    let comparison = compare(&first, &second)?;
    if comparison.is_equal() {
        store::remove_tree(&folder_of(project))?;
    }
    Ok(comparison)
}

/// The same for packages, as the images of host containers are: a comparison for each of
/// `names`, in their order.
pub fn verify_packages(
    project: &Project,
    names: &[Name],
    arch: Arch,
    progress: &Progress,
) -> Result<Vec<Comparison>> {
    let build = |project: &Project| {
        let options = FetchOptions { locked: true };
        package::build(project, names, arch, options, progress)
    };
    let first = build(project)?;
    let again = elsewhere(project, progress)?;
    let second = build(&again)?;
    let comparisons: Vec<Comparison> = iter::zip(&first, &second)
        .map(|(one, other)| compare(one.path(), other.path()))
        .collect::<Result<_>>()?;
    if comparisons.iter().all(Comparison::is_equal) {
        store::remove_tree(&folder_of(project))?;
    }
    Ok(comparisons)
}

/// Where things are built again.
fn folder_of(project: &Project) -> PathBuf {
    project.build_dir().join("verify")
}

/// The project in another place, where nothing was built.
fn elsewhere(project: &Project, progress: &Progress) -> Result<Project> {
    let elsewhere = folder_of(project);
    store::remove_tree(&elsewhere)?;
    let root = elsewhere.join("another/place");
    let cache = elsewhere.join("cache");
    for folder in [&root, &cache] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    copy_inputs(project, &root)?;
    let downloads = project.cache_dir().join(DOWNLOADS);
    symlink(&downloads, cache.join(DOWNLOADS))
        .with_context(|| format!("cannot share {}", downloads.display()))?;
    let mut again = Project::open(&root)?;
    again.folders = Folders {
        cache,
        data: project.folders.data.clone(),
    };
    progress.message("building again from nothing");
    Ok(again)
}

/// Copies what a build reads of the project to the folder `to`.
pub fn copy_inputs(project: &Project, to: &Path) -> Result<()> {
    INPUTS
        .into_iter()
        .chain(["variants"])
        .try_for_each(|input| copy(&project.root.join(input), &to.join(input)))
}

fn compare(first: &Path, second: &Path) -> Result<Comparison> {
    let mut names = BTreeSet::new();
    for folder in [first, second] {
        list(folder, Path::new(""), &mut names)?;
    }
    let files = names
        .into_iter()
        .map(|name| {
            let equal = same_entry(&first.join(&name), &second.join(&name))?;
            let name = name.display().to_string();
            Ok(ComparedFile { name, equal })
        })
        .collect::<Result<_>>()?;
    let shown = |folder: &Path| folder.display().to_string();
    Ok(Comparison {
        first: shown(first),
        second: shown(second),
        files,
    })
}

/// Adds what lies in the folder `below` of `root`, and in those in it, to `names`.
fn list(root: &Path, below: &Path, names: &mut BTreeSet<PathBuf>) -> Result<()> {
    let folder = root.join(below);
    let listing = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(&folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name = below.join(entry.file_name());
        if entry.file_type().with_context(listing)?.is_dir() {
            list(root, &name, names)?;
        }
        names.insert(name);
    }
    Ok(())
}

/// Whether both are there and are equal: folders and files by what may be done with them,
/// files by their bytes too, links by where they lead.
fn same_entry(first: &Path, second: &Path) -> Result<bool> {
    let metadata = |path: &Path| match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    let (Some(one), Some(other)) = (metadata(first)?, metadata(second)?) else {
        return Ok(false);
    };
    if one.file_type() != other.file_type() || one.mode() != other.mode() {
        return Ok(false);
    }
    if one.is_symlink() {
        let target = |path: &Path| {
            fs::read_link(path).with_context(|| format!("cannot read {}", path.display()))
        };
        return Ok(target(first)? == target(second)?);
    }
    Ok(one.is_dir() || same_bytes(first, second)?)
}

/// Whether two files are equal.
fn same_bytes(first: &Path, second: &Path) -> Result<bool> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut one, mut other) = (open(first)?, open(second)?);
    let comparing = || {
        format!(
            "cannot compare {} and {}",
            first.display(),
            second.display()
        )
    };
    let size = |file: &File| file.metadata().with_context(comparing);
    let (size, other_size) = (size(&one)?, size(&other)?);
    if size.len() != other_size.len() {
        return Ok(false);
    }
    // Volumes of nothing but a hole, which would take long to read.
    if size.blocks() == 0 && other_size.blocks() == 0 {
        return Ok(true);
    }
    let (mut block, mut other_block) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = one.read(&mut block).with_context(comparing)?;
        if length == 0 {
            return Ok(true);
        }
        other
            .read_exact(&mut other_block[..length])
            .with_context(comparing)?;
        if block[..length] != other_block[..length] {
            return Ok(false);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copying = || format!("cannot copy {} to {}", from.display(), to.display());
    let metadata = fs::symlink_metadata(from).with_context(copying)?;
    if metadata.is_dir() {
        fs::create_dir_all(to).with_context(copying)?;
        for entry in fs::read_dir(from).with_context(copying)? {
            let entry = entry.with_context(copying)?;
            if entry.file_name() != "target" {
                copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(from).with_context(copying)?;
        symlink(target, to).with_context(copying)?;
    } else if metadata.is_file() {
        fs::copy(from, to).with_context(copying)?;
    } else {
        bail!("{} is no file, folder or link", from.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn whatever_differs_is_seen() {
        let folders = [
            tempfile::tempdir().expect("folder"),
            tempfile::tempdir().expect("folder"),
        ];
        for folder in &folders {
            fs::write(folder.path().join("same"), vec![7; 3 << 20]).expect("file");
            fs::write(folder.path().join("other"), vec![7; 3 << 20]).expect("file");
        }
        let mut changed = vec![7; 3 << 20];
        changed[(2 << 20) + 5] = 8;
        fs::write(folders[1].path().join("other"), changed).expect("file");
        fs::write(folders[1].path().join("extra"), "x").expect("file");
        for (folder, target, mode) in [(&folders[0], "same", 0o600), (&folders[1], "other", 0o700)]
        {
            let inner = folder.path().join("inner");
            fs::create_dir(&inner).expect("folder");
            fs::write(inner.join("same"), "x").expect("file");
            fs::write(inner.join("mode"), "x").expect("file");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(inner.join("mode"), mode).expect("mode");
            symlink(target, inner.join("link")).expect("link");
        }
        let comparison = compare(folders[0].path(), folders[1].path()).expect("readable");
        let equal: Vec<(&str, bool)> = comparison
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.equal))
            .collect();
        let expected = [
            ("extra", false),
            ("inner", true),
            ("inner/link", false),
            ("inner/mode", false),
            ("inner/same", true),
            ("other", false),
            ("same", true),
        ];
        assert_eq!(equal, expected);
        assert!(!comparison.is_equal());
    }
}
