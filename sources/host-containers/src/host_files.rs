//! Files of the host of which each container has a copy.
//!
//! The host replaces them when settings or leases change, and whoever has mounted one goes on
//! to see the file of before. So what is mounted in a container is a copy of its own, which
//! is written in place whenever that of the host is another. A folder in which they lie
//! could not be mounted over that of an image.

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

/// Where copies lie, in a folder for each container. The policy gives them their label by
/// their names.
const COPIES: &str = "/run/host-containers/files";
/// Names of hosts, and the servers that are asked for others. Each as it is in a container,
/// and on the host.
const FILES: [(&str, &str); 2] = [
    ("/etc/hosts", "/etc/hosts"),
    ("/etc/resolv.conf", "/run/resolv.conf"),
];

/// The copies of a container.
pub struct Copies {
    copies: Vec<Copy>,
    changes: Inotify,
}

struct Copy {
    /// Where it is in the container.
    place: &'static str,
    original: PathBuf,
    path: PathBuf,
}

impl Copies {
    /// Makes those of the container called `id`.
    pub fn make(id: &str) -> Result<Self> {
        Self::below(Path::new(COPIES), Path::new("/"), id)
    }

    /// The same for the host at `root`, with copies in `folder`.
    fn below(folder: &Path, root: &Path, id: &str) -> Result<Self> {
        let folder = folder.join(id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let copies = FILES.map(|(place, original)| Copy {
            place,
            original: root.join(original.trim_start_matches('/')),
            path: folder.join(Path::new(place).file_name().unwrap_or_default()),
        });
        let changes =
            Inotify::init(InitFlags::IN_CLOEXEC).context("cannot ask for events of files")?;
        // Watched before they are read, so that no change is missed.
        let folders: BTreeSet<_> = copies
            .iter()
            .filter_map(|copy| copy.original.parent())
            .collect();
        for folder in folders {
            let events = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
            changes
                .add_watch(folder, events)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        let copies = Self {
            copies: copies.into(),
            changes,
        };
        copies.refresh()?;
        Ok(copies)
    }

    /// Where a container has one, and where it lies.
    pub fn mounts(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.copies
            .iter()
            .map(|copy| (copy.place, copy.path.as_path()))
    }

    /// Keeps them like the host's files until the process ends, on a thread of its own.
    pub fn keep(self) {
        thread::spawn(move || {
            loop {
                if let Err(error) = self.changes.read_events() {
                    tracing::warn!("changes of the host's files are not seen any more: {error}");
                    return;
                }
                if let Err(error) = self.refresh() {
                    tracing::warn!("{error:#}; the next change is another try");
                }
            }
        });
    }

    fn refresh(&self) -> Result<()> {
        self.copies.iter().try_for_each(|copy| {
            let copying = || format!("cannot copy {}", copy.original.display());
            let text = match fs::read(&copy.original) {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                text => text.with_context(copying)?,
            };
            write_in_place(&copy.path, &text).with_context(copying)
        })
    }
}

/// Has the file hold `text`, without ever holding half of it and half of what it held:
/// what is longer is covered by empty lines before it is cut off.
fn write_in_place(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let before = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    if before == text.len() && fs::read(path)? == text {
        return Ok(());
    }
    let mut covered = text.to_vec();
    covered.resize(before.max(text.len()), b'\n');
    file.write_all(&covered)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::{Duration, Instant};

    /// A host whose files are replaced, as they are on a real one.
    fn replace(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    #[test]
    fn a_copy_stays_the_same_file_and_follows_the_hosts() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        replace(root, "etc/hosts", "127.0.0.1 localhost\n192.0.2.1 gone\n");
        fs::create_dir(root.join("run")).unwrap();
        let copies = Copies::below(&root.join("copies"), root, "admin").unwrap();
        let places: Vec<_> = copies.mounts().map(|(place, _)| place).collect();
        assert_eq!(places, ["/etc/hosts", "/etc/resolv.conf"]);
        let paths: Vec<_> = copies
            .mounts()
            .map(|(_, path)| path.to_path_buf())
            .collect();
        let read = || -> Vec<_> {
            let texts = paths.iter();
            texts
                .map(|path| fs::read_to_string(path).unwrap())
                .collect()
        };
        let numbers = || -> Vec<_> {
            let paths = paths.iter();
            paths
                .map(|path| fs::metadata(path).unwrap().ino())
                .collect()
        };
        assert_eq!(read(), ["127.0.0.1 localhost\n192.0.2.1 gone\n", ""]);
        let before = numbers();
        copies.keep();
        replace(root, "etc/hosts", "127.0.0.1 localhost\n");
        replace(root, "run/resolv.conf", "nameserver 192.0.2.53\n");
        let expected = ["127.0.0.1 localhost\n", "nameserver 192.0.2.53\n"];
        let wait_for = |expected: [&str; 2]| {
            let until = Instant::now() + Duration::from_secs(20);
            while read() != expected && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(read(), expected);
        };
        wait_for(expected);
        // One that cannot be read, as a link to itself, stays as it was, until it can.
        let link = root.join("run/link");
        symlink("resolv.conf", &link).unwrap();
        fs::rename(&link, root.join("run/resolv.conf")).unwrap();
        replace(root, "etc/hosts", "127.0.0.1 again\n");
        wait_for(["127.0.0.1 again\n", expected[1]]);
        replace(root, "run/resolv.conf", "nameserver 192.0.2.54\n");
        wait_for(["127.0.0.1 again\n", "nameserver 192.0.2.54\n"]);
        assert_eq!(numbers(), before);
    }
}
