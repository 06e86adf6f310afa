//! The set-up of a sandbox as a list of operations.
//!
//! The list is made by the caller's process, where memory may be allocated and
//! errors be explained; the child walks it with nothing but system calls
//! (`child`). The root that the program sees is a tmpfs with the toolchain's
//! top-level entries bound into it, so that mount points which the toolchain does
//! not have can be made anywhere: a folder of the toolchain that lacks one is
//! made of single binds too, as deep as needed.

use crate::{Network, Sandbox};
use anyhow::{Context, Result, bail};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Where the new root is put together, and where the old one is seen meanwhile.
const NEW: &str = "/new";
const OLD: &str = "/old";

/// The caller's folder that the first tmpfs covers for a moment. Any folder that
/// each Linux has would do; what lies in it stays reachable below [`OLD`].
const STAGE: &str = "/tmp";

/// Made anew in each sandbox, whatever the toolchain has there.
const REPLACED: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// One step of the set-up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Write `text` to a file of /proc that configures this process.
    Write {
        path: CString,
        text: CString,
    },
    /// Cut the mounts off from the caller's.
    MakePrivate,
    Tmpfs {
        path: CString,
        options: CString,
    },
    Mkdir {
        path: CString,
    },
    /// Make an empty file to mount on.
    Touch {
        path: CString,
    },
    Symlink {
        target: CString,
        path: CString,
    },
    Bind {
        from: CString,
        to: CString,
    },
    /// Restrict the mount at `path`, and all below it if `recursive`.
    Restrict {
        path: CString,
        read_only: bool,
        devices: bool,
        recursive: bool,
    },
    /// A new /proc, or the caller's where the kernel refuses a new one.
    Proc {
        path: CString,
        fallback: CString,
    },
    Devpts {
        path: CString,
    },
    /// Make `root` the root, with the former one at `old` below it; `old` equal
    /// to `root` throws the former one away.
    Pivot {
        root: CString,
        old: CString,
    },
    Hostname {
        name: CString,
    },
    LoopbackUp,
    Chdir {
        path: CString,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Paths as the reader knows them, without the places of the set-up.
        fn show(path: &CString) -> String {
            let path = path.to_string_lossy();
            for prefix in [NEW, OLD] {
                if let Some(rest) = path.strip_prefix(prefix)
                    && (rest.is_empty() || rest.starts_with('/'))
                {
                    return if rest.is_empty() {
                        "/".to_string()
                    } else {
                        rest.to_string()
                    };
                }
            }
            path.into_owned()
        }
        match self {
            Self::Write { path, .. } => write!(f, "write {}", show(path)),
            Self::MakePrivate => write!(f, "make the mounts private"),
            Self::Tmpfs { path, .. } => write!(f, "mount a tmpfs at {}", show(path)),
            Self::Mkdir { path } => write!(f, "make the folder {}", show(path)),
            Self::Touch { path } => write!(f, "make the mount point {}", show(path)),
            Self::Symlink { path, .. } => write!(f, "make the symbolic link {}", show(path)),
            Self::Bind { from, to } => write!(f, "bind {} at {}", show(from), show(to)),
            Self::Restrict { path, .. } => write!(f, "restrict the mount at {}", show(path)),
            Self::Proc { path, .. } => write!(f, "mount {}", show(path)),
            Self::Devpts { path } => write!(f, "mount {}", show(path)),
            Self::Pivot { root, .. } => write!(f, "make {} the root", show(root)),
            Self::Hostname { .. } => write!(f, "set the host name"),
            Self::LoopbackUp => write!(f, "bring the loopback interface up"),
            Self::Chdir { path } => write!(f, "enter the working folder {}", show(path)),
        }
    }
}

/// A bind whose host side is known to exist.
struct Point {
    host: PathBuf,
    /// Relative to the new root.
    guest: PathBuf,
    is_dir: bool,
    writable: bool,
}

/// The whole set-up of `sandbox` for a caller with these ids.
pub(crate) fn operations(sandbox: &Sandbox, uid: u32, gid: u32) -> Result<Vec<Op>> {
    let root = real_path(&sandbox.root).context("cannot use the sandbox's root")?;
    let points = points(sandbox)?;
    let mut ops = Ops(Vec::new());
    // One user is all that an ordinary caller may map, and setgroups must be
    // given up for that; root gets the same so that both behave alike. Who has
    // entered another sandbox is root there already.
    let (uid, gid) = match sandbox.network {
        Network::Of(_) => (0, 0),
        Network::None | Network::Host | Network::Own => (uid, gid),
    };
    ops.write("/proc/self/setgroups", "deny")?;
    ops.write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    ops.write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    ops.push(Op::MakePrivate);

    ops.tmpfs(STAGE, "mode=0755")?;
    ops.mkdir(format!("{STAGE}{NEW}"))?;
    ops.mkdir(format!("{STAGE}{OLD}"))?;
    ops.push(Op::Pivot {
        root: c(STAGE)?,
        old: c(format!("{STAGE}{OLD}"))?,
    });

    ops.tmpfs(NEW, "mode=0755")?;
    ops.lay(&root, Path::new(""), &points)?;
    ops.dev(&sandbox.devices)?;
    for (folder, options) in [("tmp", "mode=1777"), ("run", "mode=0755")] {
        ops.mkdir(format!("{NEW}/{folder}"))?;
        ops.tmpfs(&format!("{NEW}/{folder}"), options)?;
    }
    ops.mkdir(format!("{NEW}/proc"))?;
    ops.push(Op::Proc {
        path: c(format!("{NEW}/proc"))?,
        fallback: c(format!("{OLD}/proc"))?,
    });
    ops.mkdir(format!("{NEW}/sys"))?;
    if sandbox.sys {
        ops.bind(Path::new("/sys"), Path::new("sys"), false, false)?;
    }
    for point in &points {
        ops.point(point)?;
    }
    ops.push(Op::Restrict {
        path: c(NEW)?,
        read_only: true,
        devices: false,
        recursive: false,
    });
    ops.push(Op::Pivot {
        root: c(NEW)?,
        old: c(NEW)?,
    });

    ops.push(Op::Hostname {
        name: c(&sandbox.hostname)?,
    });
    if sandbox.network == Network::Own {
        ops.push(Op::LoopbackUp);
    }
    ops.push(Op::Chdir {
        path: c(&sandbox.working_dir)?,
    });
    Ok(ops.0)
}

fn points(sandbox: &Sandbox) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for bind in &sandbox.binds {
        let host = real_path(&bind.host).with_context(|| {
            format!("cannot show it at {} in the sandbox", bind.guest.display())
        })?;
        let guest = bind
            .guest
            .strip_prefix("/")
            .unwrap_or(&bind.guest)
            .to_path_buf();
        let plain = guest
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !bind.guest.is_absolute() || !plain || guest.as_os_str().is_empty() {
            bail!(
                "{} is no absolute path below / without '..'",
                bind.guest.display()
            );
        }
        points.push(Point {
            is_dir: host.is_dir(),
            host,
            guest,
            writable: bind.writable,
        });
    }
    // An outer mount would cover one inside it that was made before.
    points.sort_by_key(|point| point.guest.components().count());
    Ok(points)
}

/// Follows links now, while they mean what the caller means.
fn real_path(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}

struct Ops(Vec<Op>);

impl Ops {
    fn push(&mut self, op: Op) {
        self.0.push(op);
    }

    fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.push(Op::Write {
            path: c(path)?,
            text: c(text)?,
        });
        Ok(())
    }

    fn mkdir(&mut self, path: impl AsRef<OsStr>) -> Result<()> {
        self.push(Op::Mkdir { path: c(path)? });
        Ok(())
    }

    fn tmpfs(&mut self, path: &str, options: &str) -> Result<()> {
        self.push(Op::Tmpfs {
            path: c(path)?,
            options: c(options)?,
        });
        Ok(())
    }

    /// Binds `host` at `guest`, where a mount point exists.
    fn bind(&mut self, host: &Path, guest: &Path, writable: bool, devices: bool) -> Result<()> {
        let to = c(within(NEW, guest))?;
        self.push(Op::Bind {
            from: c(within(OLD, host))?,
            to: to.clone(),
        });
        self.push(Op::Restrict {
            path: to,
            read_only: !writable,
            devices,
            recursive: true,
        });
        Ok(())
    }

    /// Lays the entries of the toolchain's `folder` into the new root, as whole
    /// folders where every mount point below exists, and singly where not.
    fn lay(&mut self, root: &Path, folder: &Path, points: &[Point]) -> Result<()> {
        let path = root.join(folder);
        let list = || format!("cannot list {}", path.display());
        let mut entries: Vec<OsString> = fs::read_dir(&path)
            .with_context(list)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_>>()
            .with_context(list)?;
        entries.sort();
        for name in entries {
            if folder.as_os_str().is_empty() && REPLACED.iter().any(|replaced| name == *replaced) {
                continue;
            }
            let guest = folder.join(&name);
            let host = root.join(&guest);
            // What the caller may not even look at (another user's FUSE mount, say)
            // cannot be shown either.
            let Ok(metadata) = fs::symlink_metadata(&host) else {
                continue;
            };
            let is_point = points.iter().any(|point| point.guest == guest);
            let below = points
                .iter()
                .filter(|point| point.guest.starts_with(&guest));
            if metadata.is_symlink() {
                if is_point {
                    continue;
                }
                if let Some(point) = below.into_iter().next() {
                    bail!(
                        "the mount point /{} leads through the symbolic link {}: name the folder that it means",
                        point.guest.display(),
                        host.display()
                    );
                }
                let target = fs::read_link(&host)
                    .with_context(|| format!("cannot read the link {}", host.display()))?;
                self.push(Op::Symlink {
                    target: c(target)?,
                    path: c(within(NEW, &guest))?,
                });
            } else if metadata.is_dir() {
                self.mkdir(within(NEW, &guest))?;
                if is_point {
                    continue;
                }
                if below
                    .into_iter()
                    .all(|point| has_mount_point(root, &guest, point))
                {
                    self.bind(&host, &guest, false, false)?;
                } else {
                    self.lay(root, &guest, points)?;
                }
            } else if !is_point {
                self.push(Op::Touch {
                    path: c(within(NEW, &guest))?,
                });
                self.bind(&host, &guest, false, false)?;
            }
        }
        Ok(())
    }

    fn dev(&mut self, devices: &[PathBuf]) -> Result<()> {
        let dev = format!("{NEW}/dev");
        self.mkdir(&dev)?;
        // Not the default mode 1777: in a sticky folder the kernel refuses to
        // open another user's device for writing with O_CREAT, which is what
        // every `> /dev/null` does.
        self.tmpfs(&dev, "mode=0755")?;
        let standard = DEVICES.iter().map(|name| Path::new("/dev").join(name));
        for device in standard
            .chain(devices.iter().cloned())
            .filter(|path| path.exists())
        {
            let guest = device.strip_prefix("/").unwrap_or(&device).to_path_buf();
            if !guest.starts_with("dev") {
                bail!("{} is no device: it does not lie in /dev", device.display());
            }
            self.parents(&guest)?;
            self.push(Op::Touch {
                path: c(within(NEW, &guest))?,
            });
            self.push(Op::Bind {
                from: c(within(OLD, &device))?,
                to: c(within(NEW, &guest))?,
            });
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            self.push(Op::Symlink {
                target: c(target)?,
                path: c(format!("{dev}/{name}"))?,
            });
        }
        self.mkdir(format!("{dev}/pts"))?;
        self.push(Op::Devpts {
            path: c(format!("{dev}/pts"))?,
        });
        self.mkdir(format!("{dev}/shm"))?;
        self.tmpfs(&format!("{dev}/shm"), "mode=1777")
    }

    fn parents(&mut self, guest: &Path) -> Result<()> {
        let mut parents: Vec<&Path> = guest.ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            self.mkdir(within(NEW, parent))?;
        }
        Ok(())
    }

    fn point(&mut self, point: &Point) -> Result<()> {
        self.parents(&point.guest)?;
        let path = c(within(NEW, &point.guest))?;
        self.push(if point.is_dir {
            Op::Mkdir { path }
        } else {
            Op::Touch { path }
        });
        self.bind(&point.host, &point.guest, point.writable, false)
    }
}

/// Whether the toolchain's `folder`, bound whole, offers what `point` mounts on.
fn has_mount_point(root: &Path, folder: &Path, point: &Point) -> bool {
    let mut path = root.join(folder);
    let Ok(rest) = point.guest.strip_prefix(folder) else {
        return false;
    };
    let parts: Vec<_> = rest.components().collect();
    for (index, part) in parts.iter().enumerate() {
        path.push(part);
        let is_last = index + 1 == parts.len();
        let fits = fs::symlink_metadata(&path).is_ok_and(|metadata| {
            if is_last {
                metadata.is_dir() == point.is_dir && !metadata.is_symlink()
            } else {
                metadata.is_dir()
            }
        });
        if !fits {
            return false;
        }
    }
    true
}

/// `path`, absolute or not, below `base`.
fn within(base: &str, path: &Path) -> PathBuf {
    Path::new(base).join(path.strip_prefix("/").unwrap_or(path))
}

/// As a C string.
pub(crate) fn c(text: impl AsRef<OsStr>) -> Result<CString> {
    let text = text.as_ref();
    CString::new(text.as_bytes())
        .with_context(|| format!("{} has a NUL byte in it", text.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the plan that lays out a small toolchain, as text.
    fn layout(sandbox: impl FnOnce(Sandbox) -> Sandbox) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        fs::create_dir_all(root.join("usr/bin"))?;
        fs::create_dir_all(root.join("etc/ssl"))?;
        fs::create_dir_all(root.join("dev"))?;
        fs::write(root.join("etc/passwd"), "")?;
        std::os::unix::fs::symlink("usr/bin", root.join("bin"))?;
        std::os::unix::fs::symlink("../run/x", root.join("etc/resolv.conf"))?;
        let sandbox = sandbox(Sandbox::new(root));
        let points = points(&sandbox)?;
        let mut ops = Ops(Vec::new());
        ops.lay(&fs::canonicalize(root)?, Path::new(""), &points)?;
        for point in &points {
            ops.point(point)?;
        }
        Ok(ops
            .0
            .iter()
            .filter(|op| !matches!(op, Op::Restrict { .. }))
            .map(|op| match op {
                Op::Bind { to, .. } => {
                    format!("bind {}", to.to_string_lossy().trim_start_matches(NEW))
                }
                op => op.to_string(),
            })
            .collect())
    }

    fn check(sandbox: impl FnOnce(Sandbox) -> Sandbox, expected: &[&str]) {
        assert_eq!(layout(sandbox).unwrap(), expected);
    }

    #[test]
    fn whole_folders_are_bound_where_nothing_is_missing() {
        check(
            |sandbox| sandbox,
            &[
                "make the symbolic link /bin",
                "make the folder /etc",
                "bind /etc",
                "make the folder /usr",
                "bind /usr",
            ],
        );
        check(
            |sandbox| sandbox.read_only("/dev/null", "/etc/passwd"),
            &[
                "make the symbolic link /bin",
                "make the folder /etc",
                "bind /etc",
                "make the folder /usr",
                "bind /usr",
                "make the folder /etc",
                "make the mount point /etc/passwd",
                "bind /etc/passwd",
            ],
        );
    }

    #[test]
    fn a_folder_that_lacks_a_mount_point_is_made_of_single_binds() {
        check(
            |sandbox| sandbox.read_only("/dev/null", "/etc/resolv.conf"),
            &[
                "make the symbolic link /bin",
                "make the folder /etc",
                "make the mount point /etc/passwd",
                "bind /etc/passwd",
                "make the folder /etc/ssl",
                "bind /etc/ssl",
                "make the folder /usr",
                "bind /usr",
                "make the folder /etc",
                "make the mount point /etc/resolv.conf",
                "bind /etc/resolv.conf",
            ],
        );
    }

    #[test]
    fn an_outer_mount_comes_before_the_one_inside_it() {
        let ops =
            layout(|sandbox| sandbox.read_only("/", "/work/in").writable("/", "/work")).unwrap();
        let position = |op: &str| ops.iter().position(|other| other == op).unwrap();
        assert!(
            position("bind /work") < position("bind /work/in"),
            "{ops:?}"
        );
    }

    #[test]
    fn bad_mount_points_are_refused() {
        for (guest, part) in [
            ("work", "no absolute path"),
            ("/", "no absolute path"),
            ("/work/../etc", "no absolute path"),
            ("/bin/tool", "symbolic link"),
        ] {
            let error = layout(|sandbox| sandbox.read_only("/dev/null", guest)).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{guest}: {error:#}");
        }
        let error = layout(|sandbox| sandbox.read_only("/no such file", "/x")).unwrap_err();
        assert!(format!("{error:#}").contains("/no such file"), "{error:#}");
    }
}
