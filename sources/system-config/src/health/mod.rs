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
use api_types::{BOOT_COMPLAINT, BootComplaint};

use crate::esp::{self, Esp};
use crate::image::{Image, boot_record};
use decide::{Verdict, decide};
use probe::Probe;
pub use probe::failed_units;

/// How long the system gets to become healthy from when something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long kubelet gets once everything was started: it starts last and has more to begin
/// with.
const KUBELET_PATIENCE: Duration = Duration::from_secs(120);
/// Exists once the boot is complete.
const COMPLETE: &str = "/run/bulkhead/boot-complete";
/// How long the time limit of a boot stands back for bootstrap containers, which may
/// format disks and fetch what a node needs.
const BOOTSTRAP: Duration = Duration::from_secs(60 * 60);
/// What the rest of a boot gets behind them.
const REST: Duration = Duration::from_secs(5 * 60);
const BOOTSTRAP_UNIT: &str = "bootstrap-containers.service";
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between the announcement of a restart and the restart: time to read it, and
/// for the journal to be written.
pub const GRACE: Duration = Duration::from_secs(15);

/// Waits for health, then blesses the running image.
pub fn bless_boot() -> Result<()> {
    let started = Instant::now();
    let mut patience = Patience::default();
    let mut last = None;
    loop {
        let probe = probe::probe()?;
        let Some(complaint) = probe.complaint() else {
            break;
        };
        let is_over = patience.is_over(started.elapsed(), probe.waits_for_kubelet());
        if probe.is_hopeless() || is_over {
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

/// Since when something is wrong, by the time since everything was started.
#[derive(Default)]
struct Patience {
    /// Nothing where kubelet alone is waited for.
    wrong_since: Option<Duration>,
}

impl Patience {
    /// Whether a system that is not healthy now has had its time. What goes wrong while kubelet
    /// is waited for gets as much time as what was wrong from the start.
    fn is_over(&mut self, now: Duration, waits_for_kubelet: bool) -> bool {
        if waits_for_kubelet {
            self.wrong_since = None;
            return now > KUBELET_PATIENCE;
        }
        now - *self.wrong_since.get_or_insert(now) > PATIENCE
    }
}

/// Runs when the time for a boot is over and it is not complete.
pub fn boot_deadline() -> Result<()> {
    let look = || Look {
        bootstrap_runs: is_starting(BOOTSTRAP_UNIT),
        is_complete: Path::new(COMPLETE).exists(),
    };
    if completes_after_bootstrap(&look, &std::thread::sleep) {
        return Ok(());
    }
    let probe = probe::probe().unwrap_or_default();
    let complaint = probe.complaint();
    give_up(
        &complaint.unwrap_or_else(|| "it takes too long".to_owned()),
        &probe,
    )
}

/// What there is to see when the time is over.
struct Look {
    bootstrap_runs: bool,
    is_complete: bool,
}

/// Waits for bootstrap containers, if any run, and then for the rest of the boot. Returns
/// whether it is complete after all.
fn completes_after_bootstrap(look: &dyn Fn() -> Look, pause: &dyn Fn(Duration)) -> bool {
    if !look().bootstrap_runs {
        return false;
    }
    sysutil::console::say("bootstrap containers still run; the boot waits for them");
    let mut waited = Duration::ZERO;
    while look().bootstrap_runs && waited < BOOTSTRAP {
        pause(INTERVAL);
        waited += INTERVAL;
    }
    if look().bootstrap_runs {
        return false;
    }
    waited = Duration::ZERO;
    while !look().is_complete && waited < REST {
        pause(INTERVAL);
        waited += INTERVAL;
    }
    look().is_complete
}

/// Whether a unit has been started and is not up yet.
fn is_starting(unit: &str) -> bool {
    let state =
        sysutil::process::output(Command::new("/usr/bin/systemctl").args(["is-active", unit]));
    state.is_ok_and(|output| output.stdout.starts_with(b"activating"))
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
/// another image. Where storage alone fails, user data stops the boot, or what is to be
/// done at boot fails, a blessed image is not to blame: the boot does not count against
/// it, for no other image would do better.
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
        // kubelet alone is started again and again as it is.
        false => decide(&entries, &image.version, !probe.waits_for_kubelet()),
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
            leave_word(&image, complaint);
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

/// Leaves why a trial failed to whatever boots next, which tells it with the status of
/// updates. A restart is worth more than that word.
fn leave_word(image: &Image, complaint: &str) {
    let word = BootComplaint {
        version: image.version.clone(),
        complaint: complaint.to_owned(),
    };
    let path = Path::new("/").join(BOOT_COMPLAINT);
    let written = serde_json::to_vec(&word)
        .context("writing down the complaint")
        .and_then(|json| sysutil::fs::write_atomic(&path, &json, 0o644));
    if let Err(error) = written {
        tracing::warn!("the next boot is not told why this one failed: {error:#}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn what_goes_wrong_while_kubelet_is_waited_for_gets_its_time() {
        // Seconds, and whether kubelet alone is waited for; the last look is the end.
        for looks in [
            &[(0, false), (60, false), (61, false)][..],
            &[(0, true), (61, true), (120, true), (121, true)],
            &[(0, true), (110, false), (170, false), (171, false)],
            &[
                (0, false),
                (50, true),
                (70, false),
                (130, false),
                (131, false),
            ],
            &[(0, false), (50, true), (121, true)],
        ] {
            let mut patience = Patience::default();
            let over: Vec<_> = looks
                .iter()
                .map(|&(now, kubelet)| patience.is_over(Duration::from_secs(now), kubelet))
                .collect();
            let (last, before) = over.split_last().unwrap();
            assert!(*last && !before.contains(&true), "{looks:?}: {over:?}");
        }
    }

    #[test]
    fn the_time_limit_stands_back_for_bootstrap_containers() {
        const MINUTE: u64 = 60;
        // Seconds from the time limit on at which they end and the boot is complete; whether
        // that is waited for, and until when.
        for (bootstrap, complete, expected, end) in [
            (0, 5, false, 0),
            (10 * MINUTE, 12 * MINUTE, true, 12 * MINUTE),
            (10 * MINUTE, 16 * MINUTE, false, 15 * MINUTE),
            (61 * MINUTE, 62 * MINUTE, false, 60 * MINUTE),
        ] {
            let now = Cell::new(0);
            let look = || Look {
                bootstrap_runs: now.get() < bootstrap,
                is_complete: now.get() >= complete,
            };
            let pause = |time: Duration| now.set(now.get() + time.as_secs());
            let completes = completes_after_bootstrap(&look, &pause);
            assert_eq!((completes, now.get()), (expected, end), "{bootstrap}");
        }
    }
}
