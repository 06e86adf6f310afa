//! Kernel modules that the initrd brings.

use crate::log;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::{self, File};
use std::path::Path;

/// Names of the files to load at every boot, one a line, in order.
pub const BOOT_LIST: &str = "/modules/order";
/// The same for those that reading the EFI system partition needs.
pub const ESP_LIST: &str = "/modules/esp-order";

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the file itself.
const COMPRESSED_FILE: i32 = 4;

/// Loads the modules of a list until `is_enough` says so, which is asked after each:
/// checking a module's signature takes time, and a list has drivers for disks that
/// this machine does not have. A module that does not load is reported and no
/// more: some belong to processors that this one is not, and whatever is missing
/// in the end is noticed by the step that needs it.
pub fn load(list: &str, mut is_enough: impl FnMut() -> bool) {
    let names = match fs::read_to_string(list) {
        Ok(names) => names,
        Err(error) => return log::warn(&format!("cannot read {list}: {error}")),
    };
    let folder = Path::new(list).parent().unwrap_or(Path::new("/"));
    for name in names.lines().filter(|name| !name.is_empty()) {
        match insert(&folder.join(name)) {
            // No such device: for another processor. Exists: built in or loaded.
            Ok(()) | Err(Errno::ENODEV | Errno::EEXIST) => {}
            Err(error) => log::warn(&format!("cannot load kernel module {name}: {error}")),
        }
        if is_enough() {
            return;
        }
    }
}

/// Whether the kernel can open and mount a root.
pub fn can_open_root() -> bool {
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    file_systems.split_whitespace().any(|name| name == "erofs")
        && Path::new("/sys/module/dm_verity").exists()
}

fn insert(path: &Path) -> Result<(), Errno> {
    let file =
        File::open(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let is_plain = path.extension().is_some_and(|extension| extension == "ko");
    let flags = if is_plain { 0 } else { COMPRESSED_FILE };
    finit_module(file, c"", ModuleInitFlags::from_bits_retain(flags as _))
}
