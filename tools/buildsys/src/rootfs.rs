//! The root file system as a list: packages merged, every path owned once.
//!
//! Nothing is copied here. An entry says what lies at a path and where its
//! content comes from; the image writer turns the list into an archive.

use crate::manifest::Name;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What lies at a path of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A symbolic link to this target.
    Link(String),
    /// A regular file with the content of this one.
    File(PathBuf),
    /// A regular file with this content.
    Bytes(Vec<u8>),
}

/// One entry of the image.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub content: Content,
    /// Permissions. Links have none of their own.
    pub mode: u32,
    /// The package that it comes from; none for what the build makes.
    pub package: Option<Name>,
}

impl Entry {
    /// Reads the content of a regular file; none for other kinds.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        match &self.content {
            Content::File(path) => {
                let bytes =
                    fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Some(bytes))
            }
            Content::Bytes(bytes) => Ok(Some(bytes.clone())),
            Content::Folder | Content::Link(_) => Ok(None),
        }
    }
}

/// The image's root: path (relative, without a leading slash) → entry.
#[derive(Clone, Debug, Default)]
pub struct Rootfs {
    entries: BTreeMap<String, Entry>,
}

/// Folders that every image has, beside those that packages bring.
const FOLDERS: [(&str, u32); 18] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("efi", 0o755),
    ("etc", 0o755),
    ("local", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share/factory/etc", 0o755),
    ("var", 0o755),
];

/// Links of a merged `/usr`.
const LINKS: [(&str, &str); 4] = [
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
];

impl Rootfs {
    /// A root with the folders and links that every image has.
    pub fn new() -> Self {
        let mut root = Self::default();
        for (path, mode) in FOLDERS {
            root.add_parents(path);
            root.entries.insert(
                path.to_string(),
                Entry {
                    content: Content::Folder,
                    mode,
                    package: None,
                },
            );
        }
        for (path, target) in LINKS {
            root.entries.insert(
                path.to_string(),
                Entry {
                    content: Content::Link(target.to_string()),
                    mode: 0o777,
                    package: None,
                },
            );
        }
        root
    }

    /// Adds everything below `tree` as files of `package`.
    pub fn add_tree(&mut self, package: &Name, tree: &Path) -> Result<()> {
        self.add_folder(package, tree, "")
    }

    /// Adds a file that the build itself makes.
    pub fn add_file(&mut self, path: &str, content: Vec<u8>, mode: u32) -> Result<()> {
        self.insert(
            path,
            Entry {
                content: Content::Bytes(content),
                mode,
                package: None,
            },
        )
    }

    /// Adds a file that the build has made, as `source`.
    pub fn add_source(&mut self, path: &str, source: PathBuf, mode: u32) -> Result<()> {
        self.insert(
            path,
            Entry {
                content: Content::File(source),
                mode,
                package: None,
            },
        )
    }

    /// Takes entries out for which `leave` says so.
    pub fn remove(&mut self, leave: impl Fn(&str) -> bool) {
        self.entries.retain(|path, _| !leave(path));
    }

    /// All entries in the order of their paths, folders before what is in them.
    pub fn iter(&self) -> btree_map::Iter<'_, String, Entry> {
        self.entries.iter()
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    fn add_folder(&mut self, package: &Name, folder: &Path, prefix: &str) -> Result<()> {
        let reading = || format!("cannot read {}", folder.display());
        for item in fs::read_dir(folder).with_context(reading)? {
            let item = item.with_context(reading)?;
            let name = item.file_name();
            let name = name.to_str().with_context(|| {
                format!("the package {package} has a file whose name is not UTF-8: {name:?}")
            })?;
            let path = if prefix.is_empty() {
                name.to_string()
            } else {
                format!("{prefix}/{name}")
            };
            let metadata = item
                .metadata()
                .with_context(|| format!("cannot read {}", item.path().display()))?;
            let mode = metadata.permissions().mode() & 0o7777;
            let package_of = Some(package.clone());
            if metadata.is_dir() {
                // Writable staging folders are an artefact of unpacking without root.
                let mode = mode & !0o022 | 0o755;
                let entry = Entry {
                    content: Content::Folder,
                    mode,
                    package: package_of,
                };
                self.insert(&path, entry)?;
                self.add_folder(package, &item.path(), &path)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(item.path()).with_context(reading)?;
                let target = target.to_string_lossy().into_owned();
                let entry = Entry {
                    content: Content::Link(target),
                    mode: 0o777,
                    package: package_of,
                };
                self.insert(&path, entry)?;
            } else if metadata.is_file() {
                let entry = Entry {
                    content: Content::File(item.path()),
                    mode,
                    package: package_of,
                };
                self.insert(&path, entry)?;
            } else {
                bail!("the package {package} has /{path}, which is no file, folder or link");
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<()> {
        self.add_parents(path);
        if let Some(there) = self.entries.get(path) {
            if there.content == Content::Folder && entry.content == Content::Folder {
                return Ok(());
            }
            let owner = |entry: &Entry| match &entry.package {
                Some(package) => format!("the package {package}"),
                None => "the build".to_string(),
            };
            bail!(
                "/{path} is claimed by {} and by {}",
                owner(there),
                owner(&entry)
            );
        }
        self.entries.insert(path.to_string(), entry);
        Ok(())
    }

    fn add_parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            self.entries
                .entry(path[..end].to_string())
                .or_insert(Entry {
                    content: Content::Folder,
                    mode: 0o755,
                    package: None,
                });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name::try_from(name.to_string()).expect("valid name")
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("folder");
            fs::write(path, file).expect("file");
        }
        folder
    }

    #[test]
    fn merges_and_keeps_order() {
        let (a, b) = (tree(&["usr/lib/a"]), tree(&["usr/lib/b", "usr/share/x/y"]));
        let mut root = Rootfs::new();
        root.add_tree(&name("a"), a.path()).expect("a fits");
        root.add_tree(&name("b"), b.path()).expect("b fits");
        let paths: Vec<&String> = root.iter().map(|(path, _)| path).collect();
        let mut sorted = paths.clone();
        sorted.sort();
        assert_eq!(paths, sorted);
        assert_eq!(
            root.get("usr/share/x").expect("parent").content,
            Content::Folder
        );
        assert_eq!(
            root.get("usr/lib/b").expect("file").package,
            Some(name("b"))
        );
    }

    #[test]
    fn a_file_claimed_twice_names_both_packages() {
        let (a, b) = (tree(&["usr/lib/same"]), tree(&["usr/lib/same"]));
        let mut root = Rootfs::new();
        root.add_tree(&name("one"), a.path()).expect("first");
        let error = root
            .add_tree(&name("two"), b.path())
            .expect_err("second")
            .to_string();
        assert_eq!(
            error,
            "/usr/lib/same is claimed by the package one and by the package two"
        );
    }
}
