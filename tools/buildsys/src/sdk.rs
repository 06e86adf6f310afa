//! Toolchains: the trees that build steps, and the emulator, run in.
//!
//! A toolchain is a set of locked Debian archives unpacked into one entry of the
//! store. Maintainer scripts are not run; what the few that matter would have
//! done is `fix_up`, and nothing else. [`Toolchain::sandbox`] is how
//! everything runs in one.

use crate::fetch::Fetcher;
use crate::lock::{Lock, LockedArchive};
use crate::progress::{self, Progress, Task};
use crate::project::{Arch, Project};
use crate::signals;
use crate::store::{Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result, bail};
use deb::archive::Deb;
use sandbox::{Group, Sandbox};
use std::fs;
use std::io::ErrorKind;
use std::num::NonZero;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Changes when the same archives must give another tree.
const LAYOUT_VERSION: &str = "1";

/// The clock of build steps that ask for one: 2020-01-01. Some formats cannot
/// tell times before 1980.
pub const SOURCE_DATE_EPOCH: u64 = 1_577_836_800;

/// Names that Debian leaves to its alternatives system, and what they mean here,
/// the first that there is.
const ALTERNATIVES: [(&str, &[&str]); 6] = [
    ("awk", &["mawk", "gawk"]),
    ("c++", &["g++"]),
    ("c99", &["c99-gcc"]),
    ("cc", &["gcc"]),
    ("go", &["../lib/go/bin/go"]),
    ("gofmt", &["../lib/go/bin/gofmt"]),
];

/// Folders at the root that a system with merged `/usr` has as links into it.
const MERGED_USR: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// An unpacked toolchain, which the store keeps while this exists.
#[derive(Clone, Debug)]
pub struct Toolchain {
    root: PathBuf,
    key: Key,
    path: String,
    _entry: Option<Entry>,
}

/// Where programs lie in a toolchain.
const PATH: &str = "/usr/sbin:/usr/bin";

impl Toolchain {
    /// The toolchain `name` of `Bulkhead.toml` for images of `target`, fetched and
    /// unpacked if it is not in the store.
    pub fn prepare(
        project: &Project,
        lock: &Lock,
        name: &str,
        target: Arch,
        store: &Store,
        fetcher: &Fetcher,
        progress: &Progress,
    ) -> Result<Self> {
        let work = || format!("cannot prepare the toolchain {name}");
        if !project.config.toolchains.contains_key(name) {
            bail!("Bulkhead.toml has no [toolchains.{name}]");
        }
        let archives = lock
            .toolchain(name, target, workstation()?)
            .with_context(work)?;
        let key = key(&archives);
        let entry = match store.get(&key)? {
            Some(entry) => entry,
            None => {
                let files = fetcher.fetch_all(&archives).with_context(work)?;
                store
                    .build(&key, |staging| {
                        let task = progress.start(format!("unpack {name}"));
                        unpack(&files, staging, &task)?;
                        let size = crate::store::tree_size(staging)?;
                        task.finish(format!(
                            "unpacked {name}: {} packages, {}",
                            files.len(),
                            progress::size(size)
                        ));
                        Ok(())
                    })
                    .with_context(work)?
            }
        };
        let root = entry.path().to_path_buf();
        Ok(Self {
            root,
            key,
            path: PATH.to_string(),
            _entry: Some(entry),
        })
    }

    /// The key that the toolchain `name` for images of `target` has, whether or not it
    /// is unpacked.
    pub fn key_of(lock: &Lock, name: &str, target: Arch) -> Result<Key> {
        Ok(key(&lock.toolchain(name, target, workstation()?)?))
    }

    /// The workstation's own programs as a toolchain, for tests: nothing of it is
    /// locked, and what it builds is fit for nothing else.
    pub fn of_this_machine() -> Result<Self> {
        let output = Command::new("rustc")
            .args(["--print", "sysroot"])
            .output()
            .context("cannot run rustc")?;
        let sysroot = String::from_utf8(output.stdout).context("rustc's folder is not UTF-8")?;
        let path = format!("{}/bin:{PATH}:/sbin:/bin", sysroot.trim());
        let key = KeyBuilder::new("toolchain")
            .field("machine", &path)
            .finish();
        Ok(Self {
            root: PathBuf::from("/"),
            key,
            path,
            _entry: None,
        })
    }

    /// The folder that is `/` for what runs in the toolchain.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is in it, as part of the keys of all that is built with it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// A sandbox with this toolchain at `/` and an environment that is the same
    /// everywhere.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(&self.root)
            .hostname("bulkhead")
            .env("PATH", &self.path)
            .env("HOME", "/tmp")
            .env("TMPDIR", "/tmp")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string())
    }
}

/// The architecture that toolchains run on.
pub fn workstation() -> Result<Arch> {
    let name = std::env::consts::ARCH;
    name.parse()
        .map_err(|_| anyhow::anyhow!("builds run on x86_64 and aarch64, not on {name}"))
}

fn key(archives: &[&LockedArchive]) -> Key {
    let mut digests: Vec<String> = archives
        .iter()
        .map(|archive| archive.sha256.to_string())
        .collect();
    digests.sort();
    KeyBuilder::new("toolchain")
        .field("layout", LAYOUT_VERSION)
        .field("archives", digests.join(" "))
        .finish()
}

/// Unpacks `archives` into the empty folder `root`.
///
/// Archives of one toolchain have no file in common (Debian sees to that), so
/// they can be unpacked in any order and at the same time.
fn unpack(archives: &[PathBuf], root: &Path, task: &Task) -> Result<()> {
    for name in MERGED_USR {
        let target = format!("usr/{name}");
        fs::create_dir_all(root.join(&target))
            .and_then(|()| symlink(&target, root.join(name)))
            .with_context(|| format!("cannot prepare {}", root.join(name).display()))?;
    }
    // The largest first, so that no core is left with one at the end.
    let mut queue: Vec<(u64, &PathBuf)> = archives
        .iter()
        .map(|path| {
            (
                fs::metadata(path).map_or(0, |metadata| metadata.len()),
                path,
            )
        })
        .collect();
    queue.sort_by(|a, b| b.cmp(a));
    let next = AtomicUsize::new(0);
    let group = Group::current();
    let work = || -> Result<()> {
        let _guard = group.as_ref().map(Group::enter);
        while let Some((_, path)) = queue.get(next.fetch_add(1, Ordering::SeqCst)) {
            signals::check()?;
            let deb = Deb::open(path)
                .with_context(|| format!("cannot read the archive {}", path.display()))?;
            task.note(format!(
                "{} of {} archives",
                next.load(Ordering::SeqCst).min(queue.len()),
                queue.len()
            ));
            deb.unpack(root, wanted).with_context(|| {
                format!("cannot unpack {} ({})", deb.control().name, path.display())
            })?;
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("an unpacking thread panicked"))
            })
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    fix_up(root).context("cannot complete the toolchain")
}

/// Nothing that runs here reads manuals or translations, which are a good part
/// of the files.
fn wanted(path: &str) -> bool {
    const UNWANTED: [&str; 5] = ["doc", "doc-base", "info", "locale", "man"];
    match path.strip_prefix("usr/share/") {
        Some(rest) => {
            let first = rest.split('/').next().unwrap_or(rest);
            // Licences are read by the inventory of what an image has.
            !UNWANTED.contains(&first) || path.ends_with("/copyright")
        }
        // Of Rust's sources only the library is ever compiled; its tools and
        // tests are forty thousand files.
        None => !path
            .strip_prefix("usr/src/rustc-")
            .is_some_and(|rest| matches!(rest.split('/').nth(1), Some("compiler" | "src"))),
    }
}

/// What maintainer scripts would have done, as far as anything needs it.
fn fix_up(root: &Path) -> Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(&etc).with_context(|| format!("cannot make {}", etc.display()))?;
    for name in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{name}.master"));
        if master.exists() && !etc.join(name).exists() {
            fs::copy(&master, etc.join(name))
                .with_context(|| format!("cannot copy {}", master.display()))?;
        }
    }
    let bin = root.join("usr/bin");
    for (name, targets) in ALTERNATIVES {
        let link = bin.join(name);
        if fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        if let Some(target) = targets.iter().find(|target| bin.join(target).exists()) {
            symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    certificates(root)
}

/// One file of all authorities' certificates, where OpenSSL looks for it.
fn certificates(root: &Path) -> Result<()> {
    let mut found = Vec::new();
    find(&root.join("usr/share/ca-certificates"), "crt", &mut found)?;
    if found.is_empty() {
        return Ok(());
    }
    found.sort();
    let mut bundle = Vec::new();
    for path in &found {
        bundle.extend(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    let folder = root.join("etc/ssl/certs");
    let path = folder.join("ca-certificates.crt");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, bundle))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn find(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    let list = || format!("cannot list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(list)?,
    };
    for entry in entries {
        let path = entry.with_context(list)?.path();
        if path.is_dir() {
            find(&path, extension, found)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_tree_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(
            root,
            "usr/share/base-passwd/passwd.master",
            "root:*:0:0::/root:/bin/sh\n",
        );
        write(root, "usr/bin/gcc", "");
        write(root, "usr/bin/mawk", "");
        write(root, "usr/bin/c++", "own");
        write(root, "usr/bin/g++", "");
        write(root, "usr/share/ca-certificates/mozilla/b.crt", "B\n");
        write(root, "usr/share/ca-certificates/mozilla/a.crt", "A");
        write(root, "usr/share/ca-certificates/mozilla/readme", "no");
        fix_up(root).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("etc/passwd"), "root:*:0:0::/root:/bin/sh\n");
        assert_eq!(read("etc/ssl/certs/ca-certificates.crt"), "A\nB\n");
        assert_eq!(
            fs::read_link(root.join("usr/bin/cc")).unwrap(),
            Path::new("gcc")
        );
        assert_eq!(
            fs::read_link(root.join("usr/bin/awk")).unwrap(),
            Path::new("mawk")
        );
        assert_eq!(read("usr/bin/c++"), "own");
        for absent in ["etc/group", "usr/bin/go", "usr/bin/c99"] {
            assert!(fs::symlink_metadata(root.join(absent)).is_err(), "{absent}");
        }
    }

    #[test]
    fn manuals_stay_away_and_licences_do_not() {
        for (path, expected) in [
            ("usr/bin/gcc", true),
            ("usr/share/doc/gcc/changelog.gz", false),
            ("usr/share/doc/gcc/copyright", true),
            ("usr/share/man/man1/gcc.1.gz", false),
            ("usr/share/locale/de/LC_MESSAGES/gcc.mo", false),
            ("usr/share/misc/magic", true),
            ("usr/share/dockerfile", true),
            ("usr/lib/locale/C.utf8/LC_CTYPE", true),
            ("usr/src/rustc-1.96.1/library/core/src/lib.rs", true),
            ("usr/src/rustc-1.96.1/src/tools/x.rs", false),
            ("usr/src/rustc-1.96.1/compiler", false),
        ] {
            assert_eq!(wanted(path), expected, "{path}");
        }
    }
}
