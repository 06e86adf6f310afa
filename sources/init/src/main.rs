//! The first program of a boot: opens the verified root and switches to it.
//!
//! The kernel starts it from the initrd. It loads the modules that the initrd
//! brings, finds the slot that holds the image named on the signed command line,
//! opens it through dm-verity, fills `/etc`, and becomes systemd. It has no
//! settings, starts no other program and leaves everything else to the system
//! that it starts. [`boot`] is the list of steps; each module is one of them.
//!
//! Whatever goes wrong ends in one line that names the cause, and in a restart
//! that the boot record has counted, so that the other slot gets its turn.

mod command_line;
mod demotion;
mod device_mapper;
mod device_nodes;
mod disks;
mod etc;
mod kernel_modules;
mod log;
mod memory;
mod mounts;
mod outcome;

use crate::command_line::CommandLine;
use crate::outcome::{Failure, Restart};
use boot_slots::layout::Role;
use boot_slots::record::{BootRecord, FAILURES_MAX, Verdict};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where the root is opened before it becomes `/`.
const ROOT: &str = "/root";
/// The system's first program.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

fn main() {
    let mut restart = Restart::After5Seconds;
    let Err(failure) = boot(&mut restart);
    outcome::fatal(&failure, restart)
}

/// The steps of a boot. Returns only on failure.
fn boot(restart: &mut Restart) -> Result<std::convert::Infallible, Failure> {
    mounts::prepare_initrd()?;
    log::mark("init started");
    let command_line = CommandLine::read()?;
    let mut found = None;
    kernel_modules::load(kernel_modules::BOOT_LIST, || {
        if kernel_modules::can_open_root() {
            found = disks::find_now(&command_line.root_hash).ok();
        }
        found.is_some()
    });
    let found = match found.map_or_else(|| disks::wait_for_slot(&command_line.root_hash), Ok) {
        Ok(found) => found,
        Err(failure) => {
            // The disk's record still counts the boot, so that restarting ends.
            if let Some(disk) = disks::any_with_state() {
                *restart = count(&disk, &command_line).1;
            }
            return Err(failure);
        }
    };
    let (record, next) = count(&found.disk, &command_line);
    *restart = next;

    let device = device_mapper::open_verity(&found, &command_line.root_hash)?;
    mounts::mount_root(&device, Path::new(ROOT))?;
    log::mark(&format!(
        "root verified, slot {}, version {}",
        found.slot, command_line.version
    ));

    let machine_id = identity(&found.disk, record)?;
    etc::prepare(Path::new(ROOT), Path::new("/run"), &machine_id)?;
    if let Err(failure) = memory::fit_reserve() {
        log::warn(&failure.to_string());
    }
    device_nodes::make(Path::new(ROOT), Path::new("/dev"));
    mounts::switch_root(Path::new(ROOT))?;
    log::mark("starting systemd");
    let error = Command::new(SYSTEMD)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(Failure::new(format!("cannot start {SYSTEMD}"), error))
}

/// Counts this boot in the record on `disk`, and does what its verdict asks for.
/// Returns the record, or none when the disk has no readable state partition, and
/// what a failure from now on leads to. A host must boot without a record, so
/// faults are reported and that is all.
fn count(disk: &disks::Disk, command_line: &CommandLine) -> (Option<BootRecord>, Restart) {
    let image = &command_line.root_hash;
    let mut record = match disk.read_record() {
        Ok(Some(record)) => record,
        Ok(None) => {
            log::warn("the disk has no state partition: failed boots are not counted");
            return (None, Restart::After5Seconds);
        }
        Err(failure) => {
            log::warn(&failure.to_string());
            return (None, Restart::After5Seconds);
        }
    };
    let verdict = record.start(image);
    if let Err(failure) = disk.write_record(&record) {
        log::warn(&failure.to_string());
    }
    // Before the image is blamed: it may boot well without them.
    if command_line.has_settings && record.failures(image) > FAILURES_MAX {
        match demotion::refuse_parameters(disk, command_line, &mut record) {
            Ok(true) => {
                log::warn(&format!(
                    "{FAILURES_MAX} boots in a row did not complete with kernel parameters of \
                     the settings; trying without them"
                ));
                outcome::restart_now()
            }
            Ok(false) => {}
            Err(failure) => log::warn(&format!("kernel parameters stay: {failure}")),
        }
    }
    match verdict {
        Verdict::Boot => (Some(record), Restart::After5Seconds),
        Verdict::Demote => {
            let failures = record.failures(image) - 1;
            log::warn(&format!(
                "{failures} boots in a row did not complete; trying the other slot"
            ));
            match demotion::demote(disk, command_line, &mut record) {
                Ok(()) => outcome::restart_now(),
                Err(failure) => log::warn(&format!("staying with this slot: {failure}")),
            }
            (Some(record), Restart::After5Seconds)
        }
        Verdict::BootOnceMore => {
            let failures = record.failures(image) - 1;
            log::warn(&format!(
                "{failures} boots in a row did not complete and no other image works: \
                 if this one fails too, the machine stops instead of restarting"
            ));
            mounts::keep_panic_on_console();
            (Some(record), Restart::Never)
        }
    }
}

/// The host's identity: from the record, or new and then kept there.
fn identity(disk: &disks::Disk, record: Option<BootRecord>) -> Result<[u8; 16], Failure> {
    if let Some(machine_id) = record.as_ref().and_then(|record| record.machine_id) {
        return Ok(machine_id);
    }
    let machine_id = etc::new_machine_id()?;
    if let Some(mut record) = record {
        record.machine_id = Some(machine_id);
        if let Err(failure) = disk.write_record(&record) {
            log::warn(&format!(
                "the machine ID lasts until the next boot: {failure}"
            ));
        }
    }
    Ok(machine_id)
}

impl disks::Disk {
    /// `None` when there is no state partition.
    fn read_record(&self) -> Result<Option<BootRecord>, Failure> {
        let Some(device) = self.device(Role::State) else {
            return Ok(None);
        };
        let failed = Failure::on("read the boot record on", &device);
        let file = std::fs::File::open(&device).map_err(&failed)?;
        BootRecord::read(&file).map(Some).map_err(failed)
    }

    fn write_record(&self, record: &BootRecord) -> Result<(), Failure> {
        let Some(device) = self.device(Role::State) else {
            return Ok(());
        };
        let failed = Failure::on("write the boot record on", &device);
        let file = OpenOptions::new()
            .write(true)
            .open(&device)
            .map_err(&failed)?;
        record.write(&file).map_err(failed)
    }
}
