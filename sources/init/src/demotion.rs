//! Taking back what boots fail with: an image that proved itself once, or kernel
//! parameters of the settings.

use crate::command_line::CommandLine;
use crate::disks::Disk;
use crate::kernel_modules;
use crate::log;
use crate::mounts::mount_new;
use crate::outcome::Failure;
use boot_slots::addon;
use boot_slots::bless;
use boot_slots::entry::Entry;
use boot_slots::layout::Role;
use boot_slots::record::BootRecord;
use nix::mount::{MsFlags, umount};
use std::path::Path;

const MOUNT_POINT: &str = "/esp";
/// What the kernel of the day is built for; names of ours are ASCII.
const OPTIONS: &str = "codepage=437,iocharset=ascii,utf8,errors=continue";

/// Puts the running image behind the other one, so that the boot loader starts
/// that at the next boot. An error when there is no other one to start.
pub fn demote(
    disk: &Disk,
    command_line: &CommandLine,
    record: &mut BootRecord,
) -> Result<(), Failure> {
    on_esp(disk, |esp| rename(esp, &command_line.version))?;
    record.demote(&command_line.root_hash);
    if let Err(failure) = disk.write_record(record) {
        // The other slot boots all the same.
        log::warn(&failure.to_string());
    }
    Ok(())
}

/// Sets kernel parameters of the settings aside, so that the next boot is without
/// them, and takes back what they have cost the image. False if they are not
/// from the EFI system partition.
pub fn refuse_parameters(
    disk: &Disk,
    command_line: &CommandLine,
    record: &mut BootRecord,
) -> Result<bool, Failure> {
    let refused = on_esp(disk, |esp| {
        addon::refuse(esp).map_err(|error| Failure::plain(chain(&error)))
    })?;
    if refused {
        record.excuse(&command_line.root_hash);
        if let Err(failure) = disk.write_record(record) {
            log::warn(&failure.to_string());
        }
    }
    Ok(refused)
}

/// Does something on the EFI system partition, mounted for it alone.
fn on_esp<T>(disk: &Disk, work: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
    let device = disk
        .device(Role::Esp)
        .ok_or_else(|| Failure::plain("the disk has no EFI system partition"))?;
    kernel_modules::load(kernel_modules::ESP_LIST, || false);
    let esp = Path::new(MOUNT_POINT);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new(&device.display().to_string(), "vfat", esp, flags, OPTIONS)?;
    let done = work(esp);
    umount(esp).map_err(Failure::on("unmount", esp))?;
    done
}

fn rename(esp: &Path, version: &str) -> Result<(), Failure> {
    let entries = bless::list(esp).map_err(|error| Failure::plain(chain(&error)))?;
    if !another_works(&entries, version) {
        return Err(Failure::plain(
            "there is no other image that could be tried",
        ));
    }
    bless::demote(esp, version).map_err(|error| Failure::plain(chain(&error)))
}

/// Whether there is an image other than `version` that is not exhausted.
fn another_works(entries: &[Entry], version: &str) -> bool {
    entries
        .iter()
        .any(|entry| entry.version != version && !entry.tries.is_exhausted())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_with_another_image_is_one_taken_back() {
        for (names, renamed) in [
            (&["bulkhead_2.efi", "bulkhead_1.efi"][..], true),
            (&["bulkhead_2.efi", "bulkhead_3+2-1.efi"], true),
            (&["bulkhead_2.efi"], false),
            (&["bulkhead_2.efi", "bulkhead_1+0-3.efi"], false),
            (&["bulkhead_2.efi", "bulkhead_2+3.efi"], false),
        ] {
            let esp = tempfile::tempdir().unwrap();
            let folder = esp.path().join(bless::FOLDER);
            fs::create_dir_all(&folder).unwrap();
            for name in names {
                fs::write(folder.join(name), "").unwrap();
            }
            assert_eq!(rename(esp.path(), "2").is_ok(), renamed, "{names:?}");
            assert_eq!(
                folder.join("bulkhead_2+0-3.efi").exists(),
                renamed,
                "{names:?}"
            );
        }
    }
}
