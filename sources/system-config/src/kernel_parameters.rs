//! `kernel-parameters`: puts the kernel parameters of the settings where the
//! next boot finds them; `reboot-to-reconcile`: restarts for them, if the
//! settings ask for that.
//!
//! The kernel says itself what it runs with (see [`boot_slots::parameters`]).
//! The EFI system partition is looked at only when that is not what the settings
//! want, or when something was stored since the start. A restart follows a change
//! of the partition and nothing else, so it happens once for a change, whatever
//! the firmware makes of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use boot_slots::addon::{self, Stored};
use boot_slots::parameters::{Parameters, Words};
use serde::Deserialize;

use crate::esp::Esp;

const SETTINGS: &str = "etc/bulkhead/boot.toml";
const COMMAND_LINE: &str = "proc/cmdline";
/// Exists while the partition may hold something else than the kernel was
/// started with.
const STORED: &str = "run/bulkhead/kernel-parameters";
/// Exists when the machine is to restart before its services start. The unit
/// asks for it.
const REBOOT: &str = "run/bulkhead/reboot-to-reconcile";
const SIZE_LIMIT: u64 = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    reboot_to_reconcile: bool,
    kernel: Words,
    init: Words,
}

/// What somebody at the console has to know.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing.
    Settled,
    /// They come with the next boot.
    Stored,
    /// The firmware would refuse them.
    SecureBoot,
    /// The host did not boot with them.
    Refused,
    /// The kernel should run with them and does not.
    NotTaken,
}

/// Brings the EFI system partition in line with the settings.
pub fn run() -> Result<()> {
    let root = Path::new("/");
    let outcome = reconcile(root, sysutil::efi::is_secure_boot(root), |text| {
        let esp = Esp::mount()?;
        let stored = addon::store(esp.path(), text)?;
        esp.unmount()?;
        Ok(stored)
    })?;
    let complaint = match outcome {
        Outcome::Settled => return Ok(()),
        Outcome::Stored => {
            tracing::info!("kernel parameters stored for the next boot");
            return Ok(());
        }
        Outcome::SecureBoot => {
            "under Secure Boot only signed ones are taken; build the variant with them in \
             [kernel] arguments"
        }
        Outcome::Refused => {
            "several boots in a row did not complete with them; change them to try again"
        }
        Outcome::NotTaken => {
            "they lie on the EFI system partition, and the kernel was started without them"
        }
    };
    sysutil::console::say(&format!(
        "kernel parameters of the settings are not in force: {complaint}"
    ));
    Ok(())
}

/// Restarts the machine. Does not return before it does, so that nothing that
/// comes later starts.
pub fn reboot_to_reconcile() -> Result<()> {
    sysutil::console::say("restarting once, for kernel parameters of the settings");
    crate::health::restart()?;
    loop {
        std::thread::park();
    }
}

fn reconcile(
    root: &Path,
    secure_boot: bool,
    store: impl FnOnce(&str) -> Result<Stored>,
) -> Result<Outcome> {
    let read = |name: &str| sysutil::fs::read_text_if_present(&root.join(name), SIZE_LIMIT);
    let text = read(SETTINGS)?.unwrap_or_default();
    let settings: Settings =
        toml::from_str(&text).with_context(|| format!("reading /{SETTINGS}"))?;
    let wanted =
        Parameters::new(&settings.kernel, &settings.init).context("the settings of the boot")?;
    let command_line = read(COMMAND_LINE)?.context("the kernel has no command line")?;
    wanted
        .check_length(&command_line)
        .context("the settings of the boot")?;
    let in_force = Parameters::of_command_line(&command_line) == wanted;
    let flag = |name: &str| -> PathBuf { root.join(name) };
    if in_force && !flag(STORED).exists() {
        return Ok(Outcome::Settled);
    }
    // What is there may be of use once Secure Boot is off again; nobody takes it
    // until then.
    if secure_boot && !wanted.is_empty() {
        return Ok(Outcome::SecureBoot);
    }
    let stored = store(&wanted.text()).context("storing kernel parameters")?;
    if stored == Stored::Changed {
        set(&flag(STORED))?;
        if settings.reboot_to_reconcile && !in_force {
            set(&flag(REBOOT))?;
        }
    }
    Ok(match stored {
        Stored::Refused => Outcome::Refused,
        Stored::Changed => Outcome::Stored,
        Stored::Unchanged if in_force || flag(STORED).exists() => Outcome::Settled,
        Stored::Unchanged => Outcome::NotTaken,
    })
}

fn set(flag: &Path) -> Result<()> {
    if let Some(folder) = flag.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
    }
    sysutil::fs::write_atomic(flag, b"", 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host, with a partition that outlives its boots.
    struct Host {
        root: tempfile::TempDir,
        esp: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let folder = || tempfile::tempdir().expect("folder");
            let host = Self {
                root: folder(),
                esp: folder(),
            };
            for folder in ["etc/bulkhead", "proc"] {
                std::fs::create_dir_all(host.root.path().join(folder)).expect("folder");
            }
            host.boot("");
            host
        }

        /// Starts the kernel with what settings have added to its command line.
        fn boot(&self, added: &str) {
            let _ = std::fs::remove_dir_all(self.root.path().join("run"));
            let line = format!("quiet bulkhead.version=1 {added}\n");
            std::fs::write(self.root.path().join(COMMAND_LINE), line).expect("file");
        }

        /// Renders these settings and runs; whether a restart was asked for.
        fn run(&self, settings: &str, secure_boot: bool) -> (Outcome, bool) {
            std::fs::write(self.root.path().join(SETTINGS), settings).expect("file");
            let outcome = reconcile(self.root.path(), secure_boot, |text| {
                Ok(addon::store(self.esp.path(), text)?)
            });
            let reboot = self.root.path().join(REBOOT);
            let asked = reboot.exists();
            let _ = std::fs::remove_file(reboot);
            (outcome.expect("reconciled"), asked)
        }

        fn has_addon(&self) -> bool {
            self.esp
                .path()
                .join(addon::FOLDER)
                .join(addon::NAME)
                .exists()
        }
    }

    const A: &str = "[kernel]\na = [\"1\"]\n";
    const A_WITH_REBOOT: &str = "reboot-to-reconcile = true\n[kernel]\na = [\"1\"]\n";

    #[test]
    fn one_restart_for_a_change() {
        let host = Host::new();
        assert_eq!(host.run(A_WITH_REBOOT, false), (Outcome::Stored, true));
        // Asked again in the same boot.
        assert_eq!(host.run(A_WITH_REBOOT, false), (Outcome::Settled, false));
        host.boot("bulkhead.settings a=1");
        assert_eq!(host.run(A_WITH_REBOOT, false), (Outcome::Settled, false));
        // A firmware that does not take it does not restart for ever.
        host.boot("");
        assert_eq!(host.run(A_WITH_REBOOT, false), (Outcome::NotTaken, false));
        // Nobody has asked for a restart.
        let host = Host::new();
        assert_eq!(host.run(A, false), (Outcome::Stored, false));
    }

    #[test]
    fn unset_parameters_leave() {
        let host = Host::new();
        assert_eq!(host.run("", false), (Outcome::Settled, false));
        host.run(A, false);
        assert!(host.has_addon());
        // In the boot that stored it.
        assert_eq!(host.run("", false), (Outcome::Stored, false));
        assert!(!host.has_addon());
        // In a later one.
        host.run(A, false);
        host.boot("bulkhead.settings a=1");
        assert_eq!(host.run("", false), (Outcome::Stored, false));
        assert!(!host.has_addon());
        // And back, before the restart.
        assert_eq!(host.run(A, false), (Outcome::Stored, false));
        assert!(host.has_addon());
    }

    #[test]
    fn secure_boot_keeps_the_partition_as_it_is() {
        let host = Host::new();
        assert_eq!(host.run(A_WITH_REBOOT, true), (Outcome::SecureBoot, false));
        assert!(!host.has_addon());
        assert_eq!(host.run("", true), (Outcome::Settled, false));
    }

    #[test]
    fn what_did_not_boot_is_not_stored_again() {
        let host = Host::new();
        host.run(A_WITH_REBOOT, false);
        addon::refuse(host.esp.path()).expect("set aside");
        host.boot("");
        assert_eq!(host.run(A_WITH_REBOOT, false), (Outcome::Refused, false));
        assert!(!host.has_addon());
    }

    #[test]
    fn settings_that_the_kernel_cannot_take_are_named() {
        let host = Host::new();
        let long = format!("[kernel]\na = [\"{}\"]", "x".repeat(2100));
        for (settings, named) in [
            ("[kernel]\nenforcing = [\"0\"]", "enforcing"),
            (long.as_str(), "2047"),
            ("unknown = 1", "boot.toml"),
        ] {
            std::fs::write(host.root.path().join(SETTINGS), settings).expect("file");
            let error = reconcile(host.root.path(), false, |_| panic!("nothing to store"))
                .expect_err(settings);
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }
}
