//! Files: replaced whole or not at all, and read up to a limit.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Replaces `path` with `bytes`, so that after a power cut the old or the new
/// content is there, never a mix: temporary file in the same folder, fsync,
/// rename, fsync of the folder. The file has exactly `mode`, whatever the
/// umask says. The folder must exist.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = temporary_name(path)?;
    let result = write_and_sync(&temporary, bytes, mode)
        .and_then(|()| {
            std::fs::rename(&temporary, path)
                .with_context(|| format!("renaming {} to {}", temporary.display(), path.display()))
        })
        .and_then(|()| {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .with_context(|| format!("syncing the folder {}", folder.display()))
        });
    if result.is_err() {
        // Gone already when the rename worked; the first error tells the story.
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| format!("replacing {}", path.display()))
}

fn write_and_sync(temporary: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    // A leftover of a crashed process with our id; nobody else uses the name.
    let _ = std::fs::remove_file(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .with_context(|| format!("creating {}", temporary.display()))?;
    file.set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", temporary.display()))
}

/// `.NAME.PID-N.tmp` beside the file: unique among processes and threads.
fn temporary_name(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else {
        bail!("replacing {}: the path names no file", path.display());
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(
        ".{}-{}.tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    Ok(path.with_file_name(temporary))
}

/// Bytes of the file system that `path` is on.
pub fn size_of(path: &Path) -> Result<u64> {
    let size = nix::sys::statvfs::statvfs(path).with_context(|| {
        format!(
            "asking for the size of the file system of {}",
            path.display()
        )
    })?;
    Ok(size.fragment_size().saturating_mul(size.blocks()))
}

/// Reads a file that may come from anywhere: more than `limit` bytes are an
/// error, and no more than that is ever held.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > limit {
        bail!("{} is larger than {limit} bytes", path.display());
    }
    Ok(bytes)
}

/// As [`read_limited`], for text; a missing file is `None`.
pub fn read_text_if_present(path: &Path, limit: u64) -> Result<Option<String>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    let bytes = read_limited(path, limit)?;
    String::from_utf8(bytes)
        .map(Some)
        .with_context(|| format!("{} is not UTF-8 text", path.display()))
}

/// Where something is mounted, by the text of a `mountinfo`.
pub fn mount_points(mountinfo: &Path) -> Result<BTreeSet<PathBuf>> {
    let bytes = read_limited(mountinfo, 4 * 1024 * 1024)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point))))
        .collect())
}

/// Bytes of which the kernel has written some, blanks among them, as `\` and three
/// octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let digits = rest.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, escaped) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                text = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                text = rest;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_the_fifth_field() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("mountinfo");
        std::fs::write(
            &path,
            "22 1 254:0 / / ro - erofs /dev/root ro\n30 22 0:25 / /run rw - tmpfs t rw\n\
             31 22 0:26 / /mnt/a\\040b\\134 rw - tmpfs t rw\n",
        )
        .expect("file");
        let expected = ["/", "/mnt/a b\\", "/run"].map(PathBuf::from);
        assert_eq!(mount_points(&path).expect("read"), BTreeSet::from(expected));
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "old and longer").expect("write");
        for (bytes, mode) in [(&b"new"[..], 0o600), (b"", 0o644), (b"\0\xff", 0o666)] {
            write_atomic(&path, bytes, mode).expect("written");
            assert_eq!(std::fs::read(&path).expect("read"), bytes);
            let found = std::fs::metadata(&path).expect("stat").permissions().mode() & 0o7777;
            assert_eq!(found, mode);
        }
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("is-a-folder");
        std::fs::create_dir_all(path.join("full")).expect("folder");
        let error = format!(
            "{:#}",
            write_atomic(&path, b"x", 0o644).expect_err("a folder")
        );
        assert!(
            error.contains("replacing") && error.contains("is-a-folder"),
            "{error}"
        );
        assert_eq!(names(folder.path()), ["is-a-folder"]);
        assert!(write_atomic(Path::new("/"), b"x", 0o644).is_err());
    }

    #[test]
    fn reads_up_to_the_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").expect("write");
        assert_eq!(read_limited(&path, 5).expect("fits"), b"12345");
        let error = read_limited(&path, 4).expect_err("too large").to_string();
        assert!(error.contains("larger than 4 bytes"), "{error}");
        assert_eq!(
            read_text_if_present(&path, 9).expect("text").as_deref(),
            Some("12345")
        );
        assert_eq!(
            read_text_if_present(&folder.path().join("none"), 9).expect("none"),
            None
        );
    }

    #[test]
    fn sizes_of_file_systems() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(size_of(folder.path()).expect("a size") > 0);
        let error = size_of(&folder.path().join("none")).expect_err("no such path");
        assert!(error.to_string().contains("none"), "{error}");
    }
}
