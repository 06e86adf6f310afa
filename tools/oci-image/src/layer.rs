//! Layers: archives of files.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files that a layer of an image adds: all root's, with one fixed time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// By path from the root on, without a leading slash.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
}

impl Layer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, and those that it lies in.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<&mut Self> {
        self.add(path, Entry::Folder { mode })
    }

    /// Adds a file, and the folders that it lies in.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<&mut Self> {
        let bytes = bytes.to_vec();
        self.add(path, Entry::File { mode, bytes })
    }

    /// Adds a copy of the file `from`, which keeps its permissions.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let read = || format!("cannot read {}", from.display());
        let mode = fs::metadata(from).with_context(read)?.permissions().mode();
        let bytes = fs::read(from).with_context(read)?;
        self.file(path, mode & 0o777, &bytes)
    }

    /// Adds the files and links of the folder `from` and those below it, which keep
    /// their permissions.
    pub fn tree(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let list = || format!("cannot list {}", from.display());
        for entry in fs::read_dir(from).with_context(list)? {
            let entry = entry.with_context(list)?;
            let source = entry.path();
            let name = entry.file_name();
            let name = name
                .to_str()
                .with_context(|| format!("{} is not UTF-8", source.display()))?;
            let path = format!("{path}/{name}");
            let kind = entry.file_type().with_context(list)?;
            if kind.is_dir() {
                self.tree(&path, &source)?;
            } else if kind.is_symlink() {
                let read = || format!("cannot read {}", source.display());
                let target = fs::read_link(&source).with_context(read)?;
                let target = target
                    .to_str()
                    .with_context(|| format!("{} leads to what is not UTF-8", source.display()))?;
                self.link(&path, target)?;
            } else {
                self.copy(&path, &source)?;
            }
        }
        Ok(self)
    }

    /// Adds a symbolic link, and the folders that it lies in.
    pub fn link(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        ensure!(
            !target.contains('\0'),
            "{path} cannot lead to a path with a zero byte"
        );
        let target = target.to_string();
        self.add(path, Entry::Link { target })
    }

    fn add(&mut self, path: &str, entry: Entry) -> Result<&mut Self> {
        let path = path.trim_matches('/');
        let mut parents = Vec::new();
        for (index, _) in path.match_indices('/') {
            parents.push(&path[..index]);
        }
        let plain =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        ensure!(
            path.split('/').all(plain),
            "{path:?} is no path inside an image"
        );
        for parent in parents {
            match self.entries.get(parent) {
                Some(Entry::Folder { .. }) => {}
                Some(_) => bail!("{path} cannot lie in {parent}, which is no folder"),
                None => {
                    let folder = Entry::Folder { mode: 0o755 };
                    self.entries.insert(parent.to_string(), folder);
                }
            }
        }
        if self.entries.insert(path.to_string(), entry).is_some() {
            bail!("{path} is added to an image twice");
        }
        Ok(self)
    }

    pub(crate) fn into_tar(self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let appended = match entry {
                Entry::Folder { mode } => {
                    let mut header = header(tar::EntryType::Directory, *mode);
                    archive.append_data(&mut header, format!("{path}/"), &[][..])
                }
                Entry::File { mode, bytes } => append_file(&mut archive, path, *mode, bytes),
                Entry::Link { target } => {
                    let mut header = header(tar::EntryType::Symlink, 0o777);
                    archive.append_link(&mut header, path, target)
                }
            };
            appended.expect("an archive in memory takes every path that `add` has let through");
        }
        archive
            .into_inner()
            .expect("an archive in memory cannot fail to be ended")
    }
}

pub(crate) fn append_file(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_lies_in_them() {
        let mut layer = Layer::new();
        layer.file("/usr/bin/app", 0o755, b"x").unwrap();
        layer.link("bin", "usr/bin").unwrap();
        layer.folder("tmp", 0o1777).unwrap();
        let bytes = layer.into_tar();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mode().unwrap())
            })
            .collect();
        let expected = [
            ("bin", 0o777),
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/app", 0o755),
        ];
        assert_eq!(
            entries,
            expected.map(|(path, mode)| (path.to_string(), mode))
        );
    }

    #[test]
    fn a_tree_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("usr/bin");
        fs::create_dir_all(&programs).unwrap();
        fs::write(programs.join("app"), b"x").unwrap();
        fs::set_permissions(programs.join("app"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("usr/bin", folder.path().join("bin")).unwrap();
        let mut taken = Layer::new();
        taken.tree("", folder.path()).unwrap();
        let mut expected = Layer::new();
        expected.file("usr/bin/app", 0o755, b"x").unwrap();
        expected.link("bin", "usr/bin").unwrap();
        assert_eq!(taken, expected);
    }

    #[test]
    fn odd_paths_are_refused() {
        for bad in ["", "/", "a/../b", "./a", "a//b", "a\0"] {
            assert!(Layer::new().file(bad, 0o644, b"").is_err(), "{bad:?}");
        }
        let mut layer = Layer::new();
        layer.file("a", 0o644, b"").unwrap();
        assert!(layer.file("a", 0o644, b"").is_err());
        assert!(layer.file("a/b", 0o644, b"").is_err());
    }
}
