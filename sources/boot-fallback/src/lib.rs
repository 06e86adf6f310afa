//! EFI program that starts the boot loader, and another image when it gives up.
//!
//! The firmware starts this program (`\EFI\BOOT\BOOTX64.EFI`). It starts
//! systemd-boot, which picks an image and counts its tries. When the firmware
//! refuses that image, because it was altered or its signature is not trusted,
//! systemd-boot 257 returns instead of trying another, and the firmware would
//! wait for ever. Then, or when systemd-boot itself is missing or refused, this
//! program goes through the images in boot order and starts the first one that
//! the firmware accepts. Nothing here weakens Secure Boot: each image is loaded
//! by the firmware, which judges it.
//!
//! - [`uefi`]: the part of the firmware's interface in use
//! - `entry`: names of images and their order, shared with the crate `boot-slots`
//!
//! Compiled for firmware only; elsewhere this crate is empty.

#![cfg_attr(target_os = "uefi", no_std)]
#![cfg(target_os = "uefi")]
#![warn(missing_docs)]

extern crate alloc;

#[allow(dead_code)] // the host renames images, this program only reads their names
#[path = "../../boot-slots/src/entry.rs"]
mod entry;
mod memory;
mod uefi;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use entry::Entry;
use uefi::{Firmware, Handle, Status, SystemTable};

#[cfg(target_arch = "x86_64")]
const BOOT_LOADER: &str = r"\EFI\systemd\systemd-bootx64.efi";
#[cfg(target_arch = "aarch64")]
const BOOT_LOADER: &str = r"\EFI\systemd\systemd-bootaa64.efi";

/// Where images lie.
const IMAGES: &str = r"\EFI\Linux";

/// Where the firmware begins.
///
/// # Safety
///
/// Only the firmware may call this, with the image's own handle and its table.
#[unsafe(no_mangle)]
pub unsafe extern "efiapi" fn efi_main(image: Handle, table: *const SystemTable) -> Status {
    // SAFETY: the firmware passes what `Firmware::new` asks for.
    let firmware = unsafe { Firmware::new(image, table) };
    memory::init(&firmware);
    let status = run(&firmware);
    memory::forget();
    status
}

/// Starts what can be started. Returns only when nothing could.
fn run(firmware: &Firmware) -> Status {
    match firmware.start(BOOT_LOADER) {
        Ok(status) => say(firmware, &format!("systemd-boot ended ({status})")),
        Err(status) => say(firmware, &format!("systemd-boot did not start: {status}")),
    }
    let images = match firmware.file_names(IMAGES) {
        Ok(names) => in_boot_order(names),
        Err(status) => {
            say(firmware, &format!("cannot list {IMAGES}: {status}"));
            Vec::new()
        }
    };
    for name in &images {
        say(firmware, &format!("starting {name}"));
        match firmware.start(&format!(r"{IMAGES}\{name}")) {
            Ok(status) => say(firmware, &format!("{name} ended ({status})")),
            Err(status) => say(firmware, &format!("{name} was refused: {status}")),
        }
    }
    if images.is_empty() {
        say(firmware, &format!("FATAL: there is no image in {IMAGES}"));
    } else {
        say(
            firmware,
            &format!(
                "FATAL: none of the {} images in {IMAGES} starts",
                images.len()
            ),
        );
    }
    Status::NOT_FOUND
}

/// The names that are images, the first to boot first.
fn in_boot_order(names: Vec<String>) -> Vec<String> {
    let mut images: Vec<(Entry, String)> = names
        .into_iter()
        .filter_map(|name| Some((Entry::parse(&name)?, name)))
        .collect();
    images.sort_by(|(a, _), (b, _)| a.boot_order(b));
    images.into_iter().map(|(_, name)| name).collect()
}

fn say(firmware: &Firmware, text: &str) {
    firmware.print(&("bulkhead: boot-fallback: ".to_string() + text + "\r\n"));
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing in this program panics by intent; without an operating system all
    // that is left is to stand still where a person can see it.
    loop {
        core::hint::spin_loop();
    }
}
