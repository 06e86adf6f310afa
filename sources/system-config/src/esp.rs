//! The EFI system partition, mounted where nobody else looks, and what the boot
//! loader says about itself.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use boot_slots::layout::Role;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

const PLACE: &str = "/run/bulkhead/esp";
/// Held by whoever has it mounted.
const LOCK: &str = "/run/bulkhead/esp.lock";
const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Vendor of the boot loader interface's variables.
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The mounted partition; unmounted when dropped. One program has it at a time, and others
/// wait: what an update renames and what a boot blesses are names in one folder.
pub struct Esp {
    mounted: bool,
    _lock: Flock<File>,
}

impl Esp {
    /// Mounts it.
    pub fn mount() -> Result<Esp> {
        let (_, device) = crate::storage::open_partition(Role::Esp)?;
        std::fs::create_dir_all(PLACE).with_context(|| format!("making the folder {PLACE}"))?;
        let lock = File::create(LOCK).with_context(|| format!("opening {LOCK}"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("locking {LOCK}"))?;
        // Whoever had the lock before may have been killed while it was mounted.
        while umount2(PLACE, MntFlags::MNT_DETACH).is_ok() {}
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some(&device),
            PLACE,
            Some("vfat"),
            flags,
            Some("umask=0077"),
        )
        .with_context(|| format!("mounting {} at {PLACE}", device.display()))?;
        Ok(Esp {
            mounted: true,
            _lock: lock,
        })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        Path::new(PLACE)
    }

    /// Unmounts it, which writes everything out.
    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        umount(PLACE).with_context(|| format!("unmounting {PLACE}"))
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        // Only reached when an error is already on its way to the user.
        if self.mounted {
            let _ = umount(PLACE);
        }
    }
}

/// Whether systemd-boot counted this boot. `None` when it did not start the
/// system, or there are no EFI variables.
pub fn boot_was_counted() -> Option<bool> {
    was_counted(Path::new(VARIABLES))
}

fn was_counted(variables: &Path) -> Option<bool> {
    let variable = |name: &str| -> PathBuf { variables.join(format!("{name}-{LOADER}")) };
    let by_boot_loader = variable("LoaderEntrySelected").exists();
    by_boot_loader.then(|| variable("LoaderBootCountPath").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_loaders_variables_tell() {
        let folder = tempfile::tempdir().expect("folder");
        let set = |name: &str| {
            std::fs::write(folder.path().join(format!("{name}-{LOADER}")), "").expect("file");
        };
        assert_eq!(was_counted(folder.path()), None);
        set("LoaderEntrySelected");
        assert_eq!(was_counted(folder.path()), Some(false));
        set("LoaderBootCountPath");
        assert_eq!(was_counted(folder.path()), Some(true));
    }
}
