//! What the probe tells of files and of memory.
//!
//! Errors of system calls stay as they are: tests judge them by their number.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::libc::O_NONBLOCK;
use serde::Serialize;

/// The largest file that is read, in bytes.
const READ_LIMIT: u64 = 4 << 20;

/// What lies at a path.
#[derive(Debug, PartialEq, Serialize)]
pub struct Status {
    /// `file`, `directory`, `symlink`, `socket`, `fifo`, `block` or `character`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The permissions in octal, such as `0755`.
    pub mode: String,
    /// Who owns it.
    pub uid: u32,
    /// Whose group it has.
    pub gid: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its SELinux label; none where there are no labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The type of the file system that it lies on, such as `erofs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
}

/// The machine's memory in bytes.
#[derive(Debug, PartialEq, Serialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}

/// The content of the file at `path`; what is not UTF-8 is replaced.
pub fn read(path: &str) -> Result<String> {
    let mut bytes = Vec::new();
    // Opening a FIFO or a terminal must not wait for somebody at its other end.
    OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(absolute(path)?)?
        .take(READ_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_LIMIT {
        bail!("the file is larger than {READ_LIMIT} bytes");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes `content` all that is in the file at `path`.
pub fn write(path: &str, content: &str) -> Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(O_NONBLOCK)
        .open(absolute(path)?)?;
    Ok(file.write_all(content.as_bytes())?)
}

/// What lies at `path` itself: links are not followed.
pub fn stat(path: &str) -> Result<Status> {
    let path = absolute(path)?;
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symlink"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_block_device() {
        "block"
    } else if kind.is_char_device() {
        "character"
    } else {
        "file"
    };
    let mounts = fs::read("/proc/self/mountinfo").context("reading the mounts")?;
    Ok(Status {
        kind,
        mode: format!("{:04o}", metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        label: sysutil::sys::selinux_label(path)?,
        filesystem: file_system(&String::from_utf8_lossy(&mounts), &resolved(path)?),
    })
}

/// How much memory the machine has and how much is available.
pub fn memory() -> Result<Memory> {
    parse_memory(&fs::read_to_string("/proc/meminfo")?)
}

fn absolute(path: &str) -> Result<&Path> {
    let path = Path::new(path);
    if !path.is_absolute() {
        bail!("the path is not absolute");
    }
    Ok(path)
}

/// The path without links on the way, but not followed if it is one itself.
fn resolved(path: &Path) -> Result<PathBuf> {
    Ok(match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => folder.canonicalize()?.join(name),
        _ => path.canonicalize()?,
    })
}

/// The type of the file system at `path`, by the text of a `mountinfo`: of the
/// mounts above it the nearest one counts, and of several at one place the last.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            // A varying number of fields ends with the dash.
            let (place, file_system) = line.split_once(" - ")?;
            let place = unescape(place.split(' ').nth(4)?);
            path.starts_with(&place)
                .then(|| (place.len(), file_system.split(' ').next()))
        })
        .max_by_key(|(length, _)| *length)?
        .1
        .map(str::to_string)
}

/// Undoes the kernel's `\040` for a space, and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse_memory(text: &str) -> Result<Memory> {
    let bytes = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .and_then(|kibibytes| kibibytes.checked_mul(1024))
            .with_context(|| format!("/proc/meminfo has no {key} in kB"))
    };
    Ok(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    fn reads_text_up_to_the_limit() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        let name = path.to_str().expect("text");
        for (content, expected) in [(&b"a\n"[..], "a\n"), (b"", ""), (b"a\xffb", "a\u{fffd}b")] {
            fs::write(&path, content).expect("file");
            assert_eq!(read(name).expect("read"), expected);
        }
        let file = File::create(&path).expect("file");
        file.set_len(READ_LIMIT).expect("length");
        assert_eq!(read(name).expect("fits").len() as u64, READ_LIMIT);
        file.set_len(READ_LIMIT + 1).expect("length");
        assert!(
            read(name)
                .expect_err("too large")
                .to_string()
                .contains("larger than 4194304 bytes")
        );
        // Without an end.
        assert!(read("/dev/zero").is_err());
        assert!(read("/").is_err());
    }

    #[test]
    fn writing_replaces() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        let name = path.to_str().expect("text");
        for content in ["long content", "short", ""] {
            write(name, content).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("file"), content);
        }
        assert!(write("file", "").is_err());
    }

    #[test]
    fn tells_what_lies_at_a_path() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path();
        fs::write(folder.join("file"), "12345").expect("file");
        fs::set_permissions(folder.join("file"), PermissionsExt::from_mode(0o4640)).expect("mode");
        fs::create_dir(folder.join("folder")).expect("folder");
        symlink("nowhere", folder.join("link")).expect("link");
        let _socket = UnixListener::bind(folder.join("socket")).expect("socket");
        let status = |name: &str| stat(folder.join(name).to_str().expect("text")).expect(name);
        let file = status("file");
        assert_eq!(
            (file.kind, file.mode.as_str(), file.size),
            ("file", "4640", 5)
        );
        assert_eq!(
            file.uid,
            fs::metadata(folder).expect("folder").uid(),
            "made by us"
        );
        for (name, kind) in [
            ("folder", "directory"),
            ("link", "symlink"),
            ("socket", "socket"),
        ] {
            let found = status(name);
            assert_eq!(found.kind, kind);
            assert_eq!(found.filesystem, file.filesystem, "{name}");
        }
        let null = stat("/dev/null").expect("device");
        assert_eq!((null.kind, null.mode.as_str()), ("character", "0666"));
        let proc = stat("/proc/self/status").expect("file");
        assert_eq!(proc.filesystem.as_deref(), Some("proc"));
        assert!(stat("/").expect("root").filesystem.is_some());
        assert!(stat("/proc/..").is_ok());
    }

    #[test]
    fn the_nearest_and_last_mount_counts() {
        let mounts = "\
            21 1 254:0 / / ro shared:1 - erofs /dev/dm-0 ro\n\
            22 21 0:20 / /etc rw,nosuid - tmpfs tmpfs rw\n\
            23 21 254:3 / /local rw shared:2 master:1 - ext4 /dev/vda7 rw\n\
            24 21 254:3 /var /var rw - ext4 /dev/vda7 rw\n\
            25 24 0:30 / /var rw - xfs x rw\n\
            26 24 0:31 / /mnt/a\\040b\\134c rw - vfat x rw\n\
            broken line\n";
        let check = |path: &str, expected: &str| {
            let found = file_system(mounts, Path::new(path));
            assert_eq!(found.as_deref(), Some(expected), "{path}");
        };
        check("/", "erofs");
        check("/usr/bin", "erofs");
        check("/etc", "tmpfs");
        check("/etc/motd", "tmpfs");
        check("/etcetera", "erofs");
        check("/local/x", "ext4");
        check("/var/lib", "xfs");
        check("/mnt/a b\\c/d", "vfat");
        check("/mnt/a", "erofs");
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:        2048 kB\nMemFree:   1 kB\nMemAvailable:       3 kB\n";
        assert_eq!(
            parse_memory(text).expect("valid"),
            Memory {
                total: 2 << 20,
                available: 3072
            }
        );
        for (text, missing) in [
            ("", "MemTotal"),
            ("MemTotal: 5 kB\n", "MemAvailable"),
            ("MemTotal: 5\nMemAvailable: 5 kB\n", "MemTotal"),
            ("MemTotal: 99999999999999999999 kB\n", "MemTotal"),
        ] {
            let error = parse_memory(text).expect_err("refused").to_string();
            assert!(error.contains(missing), "{error}");
        }
    }
}
