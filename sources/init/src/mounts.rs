//! Mounts, and becoming the real root.

use crate::log;
use crate::outcome::Failure;
use nix::mount::{MsFlags, mount};
use std::env;
use std::fs;
use std::path::Path;

/// What moves from the initrd to the real root. Options are those that systemd
/// uses where it mounts them itself.
const SYSTEM_MOUNTS: &[(&str, &str, MsFlags, &str)] = &[
    ("/proc", "proc", NO_PROGRAMS, ""),
    ("/sys", "sysfs", NO_PROGRAMS, ""),
    (
        "/dev",
        "devtmpfs",
        MsFlags::MS_NOSUID,
        "mode=0755,size=4m,nr_inodes=1m",
    ),
    (
        "/run",
        "tmpfs",
        NO_DEVICES,
        "mode=0755,size=20%,nr_inodes=800k",
    ),
];

const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NO_PROGRAMS: MsFlags = NO_DEVICES.union(MsFlags::MS_NOEXEC);

/// What of the initrd would only take memory after the switch.
const INITRD_FILES: &[&str] = &["/init", "/modules"];

/// Mounts what this program and the system need from the kernel.
pub fn prepare_initrd() -> Result<(), Failure> {
    for (path, kind, flags, options) in SYSTEM_MOUNTS {
        mount_new(kind, kind, Path::new(path), *flags, options)?;
    }
    Ok(())
}

/// Mounts the verified root.
pub fn mount_root(device: &Path, target: &Path) -> Result<(), Failure> {
    let source = device.display().to_string();
    mount_new(
        &source,
        "erofs",
        target,
        MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV),
        "",
    )
}

/// Makes the folder if need be, and mounts there.
pub fn mount_new(
    source: &str,
    kind: &str,
    target: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), Failure> {
    let failed = |cause: String| {
        Failure::new(
            format!("cannot mount {source} ({kind}) on {}", target.display()),
            cause,
        )
    };
    if !target.is_dir() {
        fs::create_dir(target).map_err(|error| failed(error.to_string()))?;
    }
    mount(Some(source), target, Some(kind), flags, Some(options))
        .map_err(|error| failed(error.to_string()))
}

/// Makes `root` the root, and takes the system's mounts along.
pub fn switch_root(root: &Path) -> Result<(), Failure> {
    for file in INITRD_FILES.iter().map(Path::new) {
        // What stays takes some memory, and nothing else comes of it.
        let _ = if file.is_dir() {
            fs::remove_dir_all(file)
        } else {
            fs::remove_file(file)
        };
    }
    let moved = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(|error| {
            Failure::new(
                format!("cannot move {} to {}", from.display(), to.display()),
                error,
            )
        })
    };
    for (path, ..) in SYSTEM_MOUNTS {
        moved(Path::new(path), &root.join(&path[1..]))?;
    }
    let entered = Failure::on("enter", root);
    env::set_current_dir(root).map_err(&entered)?;
    moved(Path::new("."), Path::new("/"))?;
    std::os::unix::fs::chroot(".")
        .and_then(|()| env::set_current_dir("/"))
        .map_err(entered)
}

/// Makes a panic stop the machine instead of restarting it.
pub fn keep_panic_on_console() {
    const PANIC: &str = "/proc/sys/kernel/panic";
    if let Err(error) = fs::write(PANIC, "0") {
        log::warn(&format!("cannot write {PANIC}: {error}"));
    }
}
