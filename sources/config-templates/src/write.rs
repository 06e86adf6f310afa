//! From texts to files.

use crate::render::RenderedFile;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Texts of config files, all of them rendered and checked.
#[derive(Clone, Debug)]
pub struct Rendered {
    files: Vec<RenderedFile>,
}

/// What [`Rendered::write`] replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Names of the files that differed.
    pub files: Vec<String>,
    /// Their paths.
    pub paths: Vec<String>,
    /// Units to restart, each once.
    pub restart: Vec<String>,
    /// Units to reload, each once and none of those to restart.
    pub reload: Vec<String>,
}

impl Rendered {
    pub(crate) fn new(files: Vec<RenderedFile>) -> Self {
        Self { files }
    }

    /// The texts, for tests and for looking at.
    pub fn files(&self) -> &[RenderedFile] {
        &self.files
    }

    /// Replaces the files below `root` that differ in content or permissions,
    /// each of them atomically.
    ///
    /// A file that cannot be written does not keep the others from it: they
    /// belong to other services. The result then says what was replaced, and
    /// the errors are in `failed`.
    pub fn write(&self, root: &Path, failed: &mut Vec<anyhow::Error>) -> Replaced {
        let mut replaced = Replaced::default();
        for rendered in &self.files {
            match write_one(rendered, root) {
                Ok(false) => {}
                Ok(true) => replaced.add(rendered),
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
    fn add(&mut self, rendered: &RenderedFile) {
        let file = &rendered.file;
        self.files.push(file.name.clone());
        self.paths.push(file.path.clone());
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
    let path = root.join(rendered.file.path.trim_start_matches('/'));
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
