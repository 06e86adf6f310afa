//! `bless-boot` and `boot-deadline`: was this boot a good one, and what follows.
//!
//! A healthy system keeps its image: the counters in the image's file name go
//! away, and the boot record's count of failures with them. An unhealthy one is
//! left as it is; when its image is still on trial the machine restarts, so
//! that the boot loader's counting leads to the other image. An image that was
//! blessed before never restarts a machine from here.

mod decide;
mod probe;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::esp::{self, Esp};
use crate::image::{Image, boot_record};
use decide::{Verdict, decide};
use probe::Probe;
pub use probe::failed_units;

/// How long the system gets to become healthy once everything was started.
const PATIENCE: Duration = Duration::from_secs(60);
/// Exists once the boot is complete.
const COMPLETE: &str = "/run/bulkhead/boot-complete";
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between the announcement of a restart and the restart: time to read it, and
/// for the journal to be written.
pub const GRACE: Duration = Duration::from_secs(15);

/// Waits for health, then blesses the running image.
pub fn bless_boot() -> Result<()> {
    let started = Instant::now();
    let mut last = None;
    loop {
        let probe = probe::probe()?;
        let Some(complaint) = probe.complaint() else {
            break;
        };
        if probe.is_hopeless() || started.elapsed() > PATIENCE {
            return give_up(&complaint, &probe);
        }
        if last.as_ref() != Some(&complaint) {
            tracing::warn!("not healthy yet: {complaint}");
            last = Some(complaint);
        }
        std::thread::sleep(INTERVAL);
    }
    bless(&Image::running()?)?;
    sysutil::console::say("boot complete");
    // Stands the time limit down.
    std::fs::create_dir_all("/run/bulkhead").context("making the folder /run/bulkhead")?;
    sysutil::fs::write_atomic(Path::new(COMPLETE), b"", 0o644)
}

/// Runs when the time for a boot is over and it is not complete.
pub fn boot_deadline() -> Result<()> {
    let probe = probe::probe().unwrap_or_default();
    let complaint = probe.complaint();
    give_up(
        &complaint.unwrap_or_else(|| "it takes too long".to_owned()),
        &probe,
    )
}

fn bless(image: &Image) -> Result<()> {
    let (mut record, partition) = boot_record()?;
    // The usual case needs no look at the ESP, whose file system takes a while
    // to be loaded: the image was blessed before, and the boot loader says that
    // it started it from a name without counters.
    let counted = esp::boot_was_counted().unwrap_or(true);
    if counted || !record.is_blessed(&image.root) {
        let esp = Esp::mount()?;
        boot_slots::bless::bless(esp.path(), &image.version)
            .with_context(|| format!("blessing the image {}", image.version))?;
        esp.unmount()?;
        tracing::info!(version = image.version, "image blessed");
    }
    // Last, so that "blessed" in the record means that all of it happened.
    record.bless(&image.root);
    record.write(&partition).context("writing the boot record")
}

/// Says why the boot is not complete, and restarts when that can lead to
/// another image. Where storage alone fails or user data stops the boot, a blessed
/// image is not to blame: the boot does not count against it, for no other image
/// would do better.
fn give_up(complaint: &str, probe: &Probe) -> Result<()> {
    sysutil::console::say(&format!("boot not complete: {complaint}"));
    let image = Image::running()?;
    let entries = {
        let esp = Esp::mount()?;
        let entries = boot_slots::bless::list(esp.path())?;
        esp.unmount()?;
        entries
    };
    let verdict = match probe.stopped_by_user_data {
        true => Verdict::Stay("any other would be stopped, too"),
        false => decide(&entries, &image.version),
    };
    match verdict {
        Verdict::Stay(why) => {
            sysutil::console::say(&format!("going on with image {}: {why}", image.version));
            let (mut record, partition) = boot_record()?;
            if probe.is_blameless() && record.is_blessed(&image.root) {
                record.bless(&image.root);
                record
                    .write(&partition)
                    .context("writing the boot record")?;
            }
        }
        Verdict::Restart(why) => {
            sysutil::console::say(&format!(
                "image {} is on trial, restarting in {} seconds: {why}",
                image.version,
                GRACE.as_secs()
            ));
            std::thread::sleep(GRACE);
            if Path::new(COMPLETE).exists() {
                sysutil::console::say("the boot is complete after all, not restarting");
                return Ok(());
            }
            restart()?;
        }
    }
    bail!("boot not complete: {complaint}")
}

/// Restarts the machine: by way of the units, and where other jobs stand in
/// the way of that, past them, with all file systems unmounted all the same.
pub fn restart() -> Result<()> {
    let systemctl =
        |option| sysutil::process::run(Command::new("/usr/bin/systemctl").args(["reboot", option]));
    if let Err(error) = systemctl("--no-block") {
        tracing::warn!("an orderly restart is refused: {error:#}");
        systemctl("--force")?;
    }
    Ok(())
}
