//! What the firmware says the machine is.

use std::fs;
use std::path::Path;

/// The machine's maker, such as `Amazon EC2`. Empty where nothing says so.
pub fn vendor(root: &Path) -> String {
    let path = root.join("sys/class/dmi/id/sys_vendor");
    fs::read_to_string(path)
        .map(|vendor| vendor.trim().to_string())
        .unwrap_or_default()
}

/// True if this is EC2.
pub fn is_ec2(root: &Path) -> bool {
    vendor(root) == "Amazon EC2"
}
