//! From texts to files.

use crate::catalog::ConfigFile;
use crate::render::RenderedFile;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Texts of config files, all of them rendered and checked.
#[derive(Clone, Debug)]
pub struct Rendered {
    files: Vec<RenderedFile>,
    folders: Vec<ConfigFile>,
}

/// What [`Rendered::write`] replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Names of the files that differed; a folder has one name.
    pub files: Vec<String>,
    /// The paths of files that were written or removed.
    pub paths: Vec<String>,
    /// Units to restart, each once.
    pub restart: Vec<String>,
    /// Units to reload, each once and none of those to restart.
    pub reload: Vec<String>,
}

impl Rendered {
    pub(crate) fn new(files: Vec<RenderedFile>, folders: Vec<ConfigFile>) -> Self {
        Self { files, folders }
    }

    /// The texts, for tests and for looking at.
    pub fn files(&self) -> &[RenderedFile] {
        &self.files
    }

    /// Replaces the files below `root` that differ in content or permissions,
    /// each of them atomically, and removes those of folders that the settings no
    /// longer ask for.
    ///
    /// A file that cannot be written does not keep the others from it: they
    /// belong to other services. The result then says what was replaced, and
    /// the errors are in `failed`.
    pub fn write(&self, root: &Path, failed: &mut Vec<anyhow::Error>) -> Replaced {
        let mut replaced = Replaced::default();
        for rendered in &self.files {
            match write_one(rendered, root) {
                Ok(false) => {}
                Ok(true) => replaced.add(&rendered.file, &rendered.path),
                Err(error) => failed.push(error),
            }
        }
        for folder in &self.folders {
            let wanted = self.files.iter().map(|file| file.path.as_str()).collect();
            match remove_others(&folder.path, root, &wanted) {
                Ok(removed) => {
                    for path in removed {
                        replaced.add(folder, &path);
                    }
                }
                Err(error) => failed.push(error),
            }
        }
        let Replaced {
            restart, reload, ..
        } = &mut replaced;
        reload.retain(|unit| !restart.contains(unit));
        replaced
    }
}

impl Replaced {
    fn add(&mut self, file: &ConfigFile, path: &str) {
        if !self.files.contains(&file.name) {
            self.files.push(file.name.clone());
        }
        self.paths.push(path.to_string());
        for (units, list) in [
            (&file.restart, &mut self.restart),
            (&file.reload, &mut self.reload),
        ] {
            for unit in units {
                if !list.contains(unit) {
                    list.push(unit.clone());
                }
            }
        }
    }
}

/// Answers whether the file had to be replaced.
fn write_one(rendered: &RenderedFile, root: &Path) -> Result<bool> {
    let path = root.join(rendered.path.trim_start_matches('/'));
    let mode = rendered.file.mode()?;
    let is_same = fs::read(&path).is_ok_and(|there| there == rendered.text.as_bytes())
        && fs::metadata(&path).is_ok_and(|there| there.permissions().mode() & 0o7777 == mode);
    if is_same {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    sysutil::fs::write_atomic(&path, rendered.text.as_bytes(), mode)
        .with_context(|| format!("write the config file {:?}", rendered.file.name))?;
    Ok(true)
}

/// Removes the files at and below the folder `path` that are not `wanted`, and says
/// which. Folders stay, empty: what reads them passes over those.
fn remove_others(path: &str, root: &Path, wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    let folder = root.join(path.trim_start_matches('/'));
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", folder.display()))?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let kind = entry.file_type();
        let kind = kind.with_context(|| format!("look at {}", entry.path().display()))?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            removed.extend(remove_others(&path, root, wanted)?);
        } else if !wanted.contains(path.as_str()) {
            fs::remove_file(entry.path())
                .with_context(|| format!("remove {}", entry.path().display()))?;
            removed.push(path);
        }
    }
    Ok(removed)
}
