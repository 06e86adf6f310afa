//! Power cuts while settings are committed.

use super::set;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use boot_slots::layout::Role;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;
use test_vm::Disk;
use test_vm::api::Api;
use test_vm::disk::{RawDisk, sparse_copy};
use test_vm::write_log::WriteLog;

/// Commits of the recorded machine.
const COMMITS: u32 = 12;
/// Moments at which the power is cut, of all that the log offers.
const SAMPLES: usize = 40;

/// Two settings that every commit changes together, so that a mix shows.
fn document(number: u32) -> Value {
    json!({"motd": format!("commit {number}"), "network": {"hostname": format!("host-{number}")}})
}

/// Which commit a document is, or why it is none.
fn number_of(settings: &Value) -> Result<Option<u32>> {
    let number = |text: Option<&str>, prefix: &str| text?.strip_prefix(prefix)?.parse::<u32>().ok();
    let motd = number(settings.pointer("/motd").and_then(Value::as_str), "commit ");
    let host = number(
        settings
            .pointer("/network/hostname")
            .and_then(Value::as_str),
        "host-",
    );
    match (motd, host) {
        (None, None) => Ok(None),
        (Some(motd), Some(host)) if motd == host => Ok(Some(motd)),
        _ => bail!("a mix of two documents: {settings}"),
    }
}

/// Records what commits do to the disk, and looks at what a power cut would have
/// left at flushes, with none, some and all of what came after them.
pub(crate) fn replay(stage: &mut Stage<'_>) -> Result<()> {
    // A first boot makes file systems and grows partitions; what is recorded
    // begins after that.
    let (mut builder, disk, machine) = stage.booted()?;
    let api = Api::at(&machine.api_socket());
    set(&api, &document(0))?;
    stage.power_off(machine)?;
    let base = builder.run.join("base.img");
    sparse_copy(disk.path(), &base)?;
    builder.disk = Disk::Recorded {
        disk: "disk.img".to_string(),
        log: "writes.log".to_string(),
    };
    let machine = stage.start(&builder)?;
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    for number in 1..=COMMITS {
        set(&api, &document(number))?;
    }
    // The emulator ends in order, so that the log is whole; the guest knows nothing.
    machine.quit()?;

    let log = WriteLog::open(&builder.run.join("writes.log"))?;
    let state = RawDisk::open(&base)?;
    let partition = state.partition(Role::State)?;
    let range = partition.offset()..partition.offset() + partition.size();
    // Only flushes after which the state differs are worth a look.
    let mut moments = Vec::new();
    let mut touched = false;
    for (index, entry) in log.entries().iter().enumerate() {
        touched |= entry.length > 0 && range.contains(&entry.offset);
        if entry.action == test_vm::write_log::Action::Flush && std::mem::take(&mut touched) {
            moments.push(index + 1);
        }
    }
    ensure!(
        moments.len() >= COMMITS as usize,
        "{COMMITS} commits made only {} flushes of the state partition",
        moments.len()
    );
    let step = moments.len().div_ceil(SAMPLES);
    let (mut looked_at, mut last) = (0, None);
    let folder = stage.fresh_folder("replayed")?;
    for (position, moment) in moments.iter().enumerate().step_by(step) {
        let next = moments
            .get(position + 1)
            .copied()
            .unwrap_or(log.entries().len());
        for unflushed in [*moment, *moment + (next - *moment) / 2] {
            let path = folder.join("disk.img");
            sparse_copy(&base, &path)?;
            let file = File::options()
                .write(true)
                .open(&path)
                .context("cannot open the copy")?;
            log.replay(&file, 0..unflushed)?;
            let number = committed(stage, &RawDisk::open(&path)?, &folder).with_context(|| {
                format!(
                    "power cut after write {unflushed} of {}",
                    log.entries().len()
                )
            })?;
            if number < last {
                bail!(
                    "a power cut after write {unflushed} goes back from commit {last:?} to {number:?}"
                );
            }
            last = number;
            looked_at += 1;
        }
    }
    ensure!(
        last >= Some(COMMITS - 1),
        "the last state seen is commit {last:?} of {COMMITS}"
    );
    stage.note(format!(
        "{looked_at} power cuts at {} flushes of {} recorded writes",
        moments.len(),
        log.entries().len()
    ));
    Ok(())
}

/// Which commit the state partition of a disk holds, as the host would read it.
fn committed(stage: &Stage<'_>, disk: &RawDisk, folder: &Path) -> Result<Option<u32>> {
    number_of(&settings(stage, disk, folder)?)
}

/// The settings of the user on the state partition of a disk, as the host would read them.
pub(super) fn settings(stage: &Stage<'_>, disk: &RawDisk, folder: &Path) -> Result<Value> {
    let image = folder.join("state.img");
    disk.extract(Role::State, &image)?;
    // The kernel plays the file system's journal back when it mounts it.
    stage
        .setup()
        .emulator
        .run(folder, "e2fsck", &["-f", "-y", "state.img"])
        .or_else(|error| {
            // 1: corrected, as a journal that was played back may well be.
            if error.to_string().contains("exit status: 1)") {
                Ok(String::new())
            } else {
                Err(error)
            }
        })?;
    let settings = folder.join("settings");
    if settings.exists() {
        fs::remove_dir_all(&settings).context("cannot remove the settings looked at before")?;
    }
    stage.dump(folder, "state.img", &["/settings"], "settings")?;
    let files =
        settings_store::files::Folder::new(&settings).context("cannot open the settings")?;
    let loaded = settings_store::disk::load(&files, &settings_store::Release::default());
    Ok(loaded.state.user.to_value())
}

/// Kills machines in the middle of commits and boots them again.
pub(crate) fn killed(stage: &mut Stage<'_>) -> Result<()> {
    const KILLS: u32 = 5;
    let (builder, _) = stage.machine(Which::Twin, "machine")?;
    let mut committed = 0;
    for kill in 0..=KILLS {
        let machine = stage.start(&builder)?;
        let api = Api::at(&machine.api_socket());
        machine.wait_until("the API answers", BOOT, || api.answers())?;
        let found = number_of(&api.get("/settings")?)?;
        ensure!(
            found == (committed > 0).then_some(committed) || found == Some(committed + 1),
            "commit {committed} had been answered, but after a power cut commit {found:?} is there"
        );
        committed = found.unwrap_or(0);
        if kill == KILLS {
            let mut machine = machine;
            machine.rewind();
            machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
            return stage.power_off(machine);
        }
        // A different moment each time, from between commits to deep inside one.
        let until = Duration::from_millis(400 + u64::from(kill) * 270);
        let (stop, next) = (std::time::Instant::now() + until, committed);
        let worker = thread::spawn(move || {
            let mut done = next;
            while set(&api, &document(done + 1)).is_ok() {
                done += 1;
            }
            done
        });
        thread::sleep(stop.saturating_duration_since(std::time::Instant::now()));
        machine.cut_power();
        committed = worker
            .join()
            .map_err(|_| anyhow::anyhow!("the committing thread broke"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_documents_apart() {
        assert_eq!(number_of(&document(7)).unwrap(), Some(7));
        assert_eq!(number_of(&json!({"motd": "hello"})).unwrap(), None);
        let mut mixed = document(7);
        mixed["motd"] = document(8)["motd"].clone();
        assert!(number_of(&mixed).is_err());
        mixed["motd"] = json!("other");
        assert!(number_of(&mixed).is_err());
    }
}
