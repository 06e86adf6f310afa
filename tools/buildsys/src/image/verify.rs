//! Building an image a second time, elsewhere and from nothing, to see whether it
//! comes out the same.
//!
//! The second build has another folder, an empty store and empty compiler caches;
//! only downloads are shared, since every one of them is checked by its hash.

use super::{BuildRequest, build};
use crate::progress::Progress;
use crate::project::{Folders, INPUTS, Project};
use crate::store;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// The downloads' folder in the cache.
const DOWNLOADS: &str = "archives";

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Folder of the image that was there.
    pub first: String,
    /// Folder of the one built for comparison.
    pub second: String,
    /// The files of both.
    pub files: Vec<ComparedFile>,
}

/// One file of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ComparedFile {
    /// Its name.
    pub name: String,
    /// Whether both images have it with the same bytes.
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

    let elsewhere = project.build_dir().join("verify");
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
    let second = build(&again, request, progress)?.folder;

    let comparison = compare(&first, &second)?;
    if comparison.is_equal() {
        store::remove_tree(&elsewhere)?;
    }
    Ok(comparison)
}

/// Copies what a build reads of the project to the folder `to`.
pub fn copy_inputs(project: &Project, to: &Path) -> Result<()> {
    INPUTS
        .into_iter()
        .chain(["variants"])
        .try_for_each(|input| copy(&project.root.join(input), &to.join(input)))
}

fn compare(first: &Path, second: &Path) -> Result<Comparison> {
    let mut names: Vec<String> = Vec::new();
    for folder in [first, second] {
        let list = || format!("cannot list {}", folder.display());
        for entry in fs::read_dir(folder).with_context(list)? {
            names.push(
                entry
                    .with_context(list)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    names.sort();
    names.dedup();
    let files = names
        .into_iter()
        .map(|name| {
            let equal = same_bytes(&first.join(&name), &second.join(&name))?;
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

/// Whether both files exist and are equal.
fn same_bytes(first: &Path, second: &Path) -> Result<bool> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let (Some(mut one), Some(mut other)) = (open(first)?, open(second)?) else {
        return Ok(false);
    };
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

    #[test]
    fn one_different_byte_is_seen() {
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
        let comparison = compare(folders[0].path(), folders[1].path()).expect("readable");
        let equal: Vec<(&str, bool)> = comparison
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.equal))
            .collect();
        assert_eq!(equal, [("extra", false), ("other", false), ("same", true)]);
        assert!(!comparison.is_equal());
    }
}
