//! Unix sockets whose path may be longer than the 107 bytes that fit an address:
//! the folder is opened first and named by its descriptor.

use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> Result<UnixStream> {
    with_short_path(path, |short| UnixStream::connect(short))
        .with_context(|| format!("cannot connect to {}", path.display()))
}

/// Listens at `path`, in place of a socket that an earlier run left there.
pub fn listen(path: &Path) -> Result<UnixListener> {
    remove_if_there(path)?;
    with_short_path(path, |short| UnixListener::bind(short))
        .with_context(|| format!("cannot listen at {}", path.display()))
}

/// Takes datagrams at `path`, in place of a socket that an earlier run left there.
pub fn bind_datagrams(path: &Path) -> Result<UnixDatagram> {
    remove_if_there(path)?;
    with_short_path(path, |short| UnixDatagram::bind(short))
        .with_context(|| format!("cannot take datagrams at {}", path.display()))
}

/// Makes `socket` send to the one at `path`.
pub fn connect_datagrams(socket: &UnixDatagram, path: &Path) -> Result<()> {
    with_short_path(path, |short| socket.connect(short))
        .with_context(|| format!("cannot connect to {}", path.display()))
}

/// Removes what an earlier run left at `path`.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn with_short_path<T>(path: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder)?;
    action(
        &Path::new("/proc/self/fd")
            .join(folder.as_raw_fd().to_string())
            .join(name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn paths_may_be_long() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("a.sock");
        for _ in 0..2 {
            let listener = listen(&path).unwrap();
            let mut client = connect(&path).unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        }
        let error = format!("{:#}", connect(&deep.join("none")).unwrap_err());
        assert!(error.contains("none"), "{error}");
    }
}
