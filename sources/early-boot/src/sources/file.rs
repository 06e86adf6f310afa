//! Documents in files of the host: what whoever builds on Bulkhead put into its
//! data partition before the first boot.

use crate::Source;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// A file of the host.
pub struct HostFile {
    name: &'static str,
    path: &'static str,
}

/// Asked first: everything else wins over it.
pub const DEFAULTS: HostFile = HostFile {
    name: "local defaults",
    path: "local/user-data-defaults.toml",
};

/// Beside the settings, for machines that are made without a platform's help.
pub const USER_DATA: HostFile = HostFile {
    name: "local user data",
    path: "var/lib/bulkhead/user-data.toml",
};

/// Asked last: it wins over everything else.
pub const OVERRIDES: HostFile = HostFile {
    name: "local overrides",
    path: "local/user-data-overrides.toml",
};

impl Source for HostFile {
    fn name(&self) -> &'static str {
        self.name
    }

    fn location(&self) -> String {
        format!("/{}", self.path)
    }

    fn read(&self, root: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        read_file(&root.join(self.path), limit)
    }
}

/// Reads a file that need not be there, at most `limit` bytes and one more.
pub fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", path.display()))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_below_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        for source in [DEFAULTS, USER_DATA, OVERRIDES] {
            let read = |limit| source.read(root.path(), limit).expect("readable");
            assert_eq!(read(10), None);
            let path = root.path().join(source.path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(&path, "0123456789abcdef").expect("a file");
            assert_eq!(read(100), Some(b"0123456789abcdef".to_vec()));
            assert_eq!(read(10), Some(b"0123456789a".to_vec()), "one more");
            std::fs::remove_file(&path).expect("removed");
            std::fs::create_dir(&path).expect("a folder");
            assert!(source.read(root.path(), 10).is_err(), "a folder is no file");
        }
    }
}
