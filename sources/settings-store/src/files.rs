//! File operations of the store, and what each promises.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The file operations that the store needs, within one folder. Only what
/// [`Files::sync`] and [`Files::sync_folder`] have returned from is sure to be
/// there after a power cut; the tests have a second implementation which
/// forgets the rest.
pub trait Files {
    /// The file's content, or `None` if there is no such file. No more than
    /// `limit` bytes are read.
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// Creates or overwrites a file. Neither content nor name are durable yet.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content of a file durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Renames a file, replacing what has the name. Not durable yet.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the names in the folder durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Uses the folder `path`, which is made if it is not there, for its
    /// owner alone: settings hold secrets.
    pub fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }
}

impl Files for Folder {
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match File::open(self.path.join(name)) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(limit).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?
            .write_all(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
