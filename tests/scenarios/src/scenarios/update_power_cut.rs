//! Power cuts while an update is prepared, activated, tried, and proved or given up.
//!
//! Everything that the host writes is recorded. Then the disk is put together as a power
//! cut at each flush could have left it: with none of the writes since that flush, with all
//! of them, and with some of them, of which one is torn. Each must be the disk of a host
//! that comes up: what the boot loader would start is whole, settings are there, and the
//! updater knows how far it is.

use super::set;
use super::updates::{Image, Updates, activate_and_reboot, command, settled};
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use api_types::UpdateImage;
use boot_slots::bless::FOLDER;
use boot_slots::entry::{Entry, in_boot_order};
use boot_slots::layout::{Role, Slot};
use boot_slots::verity::{SUPERBLOCK_SIZE, Superblock};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use test_vm::api::Api;
use test_vm::disk::{RawDisk, sparse_copy};
use test_vm::write_log::{Action, WriteLog};
use test_vm::{Disk, Wait};
use updater::state::{Facts, Outcome, Record};

/// What a disk writes at once, or not at all.
const SECTOR: u64 = 512;
/// Power cuts after which the machine is really booted.
const BOOTS: usize = 3;
/// Processor seconds for the record's steps.
const STEP: f64 = 180.0;
const KEPT: &str = "kept through power cuts";

/// Records an update that is good and one that is not, and looks at what power cuts would
/// have left.
pub(crate) fn power_cut(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk, machine) = stage.booted()?;
    let api = Api::at(&machine.api_socket());
    let updates = Updates::new(stage)?;
    let mut settings = updates.settings("http");
    settings["motd"] = json!(KEPT);
    set(&api, &settings)?;
    stage.power_off(machine)?;

    let base = builder.run.join("base.img");
    sparse_copy(disk.path(), &base)?;
    builder.services.files = Some(updates.folder().to_path_buf());
    builder.disk = Disk::Recorded {
        disk: "disk.img".to_string(),
        log: "writes.log".to_string(),
    };
    let mut machine = stage.start(&builder)?;
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    updates.release(&updates.new)?;
    for step in ["refresh", "prepare"] {
        command(&mut machine, &api, step, STEP)?;
    }
    activate_and_reboot(&mut machine, &api, BOOT + 30.0)?;
    settled(&mut machine, &api, "activate")?;
    updates.release(&updates.bad)?;
    for step in ["refresh", "prepare"] {
        command(&mut machine, &api, step, STEP)?;
    }
    activate_and_reboot(&mut machine, &api, BOOT + STEP)?;
    settled(&mut machine, &api, "activate")?;
    // The emulator ends in order, so that the log is whole; the guest knows nothing.
    machine.quit()?;

    let log = WriteLog::open(&builder.run.join("writes.log"))?;
    let cuts = Cuts::new(stage, &base, &log, &updates)?;
    let booted = cuts.look_at_all(stage)?;
    for (number, disk) in booted.iter().enumerate() {
        let name = format!("after-cut-{number}");
        let (mut builder, copy) = stage.machine(Which::Twin, &name)?;
        fs::rename(disk, copy.path()).context("cannot move the disk")?;
        builder.services.files = Some(updates.folder().to_path_buf());
        let mut machine = stage.start(&builder)?;
        // It may be the image that does not boot which is tried.
        machine.wait(&Wait::line(marks::BOOT_COMPLETE, BOOT + STEP).across_resets())?;
        let api = Api::at(&machine.api_socket());
        machine.wait_until("the API answers", BOOT, || api.answers())?;
        let motd = api.get("/settings")?["motd"].clone();
        ensure!(motd == KEPT, "after a power cut settings.motd is {motd}");
        machine.wait_until("it is told how far the update is", STEP, || {
            api.get("/updates/status").is_ok()
        })?;
        stage.power_off(machine)?;
    }
    Ok(())
}

/// A record, and the disk that it is played back to.
struct Cuts<'a> {
    log: &'a WriteLog,
    disk: PathBuf,
    folder: PathBuf,
    /// Every image that the disk may have; the last does not boot.
    images: [&'a Image; 3],
    roles: Vec<(Role, std::ops::Range<u64>)>,
}

/// What was found of a disk, and holds until something of it is written.
#[derive(Default)]
struct Found {
    /// The version that each slot holds, whole.
    slots: [Option<usize>; 2],
    /// What the updater has kept.
    record: Record,
    stale: BTreeSet<Role>,
}

impl<'a> Cuts<'a> {
    fn new(
        stage: &Stage<'_>,
        base: &Path,
        log: &'a WriteLog,
        updates: &'a Updates,
    ) -> Result<Self> {
        let folder = stage.fresh_folder("cuts")?;
        let disk = folder.join("disk.img");
        sparse_copy(base, &disk)?;
        let table = RawDisk::open(&disk)?;
        let roles = [
            Role::Esp,
            Role::Root(Slot::A),
            Role::Verity(Slot::A),
            Role::Root(Slot::B),
            Role::Verity(Slot::B),
            Role::State,
            Role::Data,
        ];
        let roles = roles
            .into_iter()
            .map(|role| {
                let partition = table.partition(role)?;
                Ok((
                    role,
                    partition.offset()..partition.offset() + partition.size(),
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            log,
            disk,
            folder,
            images: [&updates.old, &updates.new, &updates.bad],
            roles,
        })
    }

    /// Looks at every flush; returns disks to be booted.
    fn look_at_all(&self, stage: &mut Stage<'_>) -> Result<Vec<PathBuf>> {
        let flushes = self.log.flushes();
        let file = File::options()
            .read(true)
            .write(true)
            .open(&self.disk)
            .context("cannot open the copy")?;
        let mut found = Found::default();
        found.stale.extend(self.roles.iter().map(|(role, _)| *role));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut done, mut looked_at, mut booted) = (0, 0, Vec::new());
        for (number, &flush) in flushes.iter().enumerate() {
            let next = flushes.get(number + 1).copied();
            let next = next.map_or(self.log.entries().len(), |next| next - 1);
            self.log.replay(&file, done..flush)?;
            found.stale.extend(self.touched(done..flush));
            done = flush;
            let at = |what: &str| format!("power cut after flush {number}, {what}");
            self.look(stage, &mut found, false)
                .with_context(|| at("all later writes lost"))?;
            looked_at += 1;
            let writes: Vec<usize> = (flush..next)
                .filter(|index| self.log.entries()[*index].length > 0)
                .collect();
            if writes.is_empty() {
                continue;
            }
            for (what, pieces, some) in [
                ("all later writes kept", self.whole(&writes), false),
                (
                    "some later writes kept",
                    self.torn(&writes, &mut random),
                    true,
                ),
            ] {
                let undo = self.apply(&file, &pieces)?;
                let touched = self.touched(flush..next);
                found.stale.extend(touched.iter().copied());
                self.look(stage, &mut found, some)
                    .with_context(|| at(what))?;
                looked_at += 1;
                let share = flushes.len() / (BOOTS + 1);
                if some && booted.len() < BOOTS && number > share * (booted.len() + 1) {
                    let path = self.folder.join(format!("boot-{}.img", booted.len()));
                    sparse_copy(&self.disk, &path)?;
                    booted.push(path);
                }
                for (offset, bytes) in undo.iter().rev() {
                    file.write_all_at(bytes, *offset)
                        .context("cannot take a write back")?;
                }
                found.stale.extend(touched);
            }
        }
        stage.note(format!(
            "{looked_at} power cuts at {} flushes of {} recorded writes, {} of them booted",
            flushes.len(),
            self.log.entries().len(),
            booted.len()
        ));
        Ok(booted)
    }

    fn touched(&self, entries: std::ops::Range<usize>) -> BTreeSet<Role> {
        let entries = &self.log.entries()[entries];
        let role_of = |offset: u64| self.roles.iter().find(|(_, range)| range.contains(&offset));
        entries
            .iter()
            .filter(|entry| matches!(entry.action, Action::Write { .. }))
            .filter_map(|entry| Some(role_of(entry.offset)?.0))
            .collect()
    }

    /// All of these writes: offset on the disk, offset in the log, length.
    fn whole(&self, writes: &[usize]) -> Vec<(u64, u64, u64)> {
        writes
            .iter()
            .filter_map(|index| {
                let entry = self.log.entries()[*index];
                match entry.action {
                    Action::Write { data } => Some((entry.offset, data, entry.length)),
                    _ => None,
                }
            })
            .collect()
    }

    /// Some of them, the last of which is torn.
    fn torn(&self, writes: &[usize], random: &mut Random) -> Vec<(u64, u64, u64)> {
        let mut some = self.whole(writes);
        some.retain(|_| random.next().is_multiple_of(2));
        let torn = random.next();
        if let Some((_, _, length)) = some.last_mut() {
            *length = torn % (*length / SECTOR).max(1) * SECTOR;
        }
        some
    }

    /// Does these writes; returns what was there before.
    fn apply(&self, file: &File, writes: &[(u64, u64, u64)]) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut undo = Vec::new();
        for (offset, data, length) in writes {
            let mut before = vec![0; usize::try_from(*length)?];
            file.read_exact_at(&mut before, *offset)
                .context("cannot read what a write replaces")?;
            let bytes = self.log.data(*data, *length)?;
            file.write_all_at(&bytes, *offset)
                .context("cannot replay a write")?;
            undo.push((*offset, before));
        }
        Ok(undo)
    }

    /// Whether a host with this disk comes up, by what can be seen from outside.
    fn look(&self, stage: &Stage<'_>, found: &mut Found, some: bool) -> Result<()> {
        let disk = RawDisk::open(&self.disk)?;
        let stale = std::mem::take(&mut found.stale);
        for (index, slot) in Slot::ALL.into_iter().enumerate() {
            if stale.contains(&Role::Root(slot)) || stale.contains(&Role::Verity(slot)) {
                found.slots[index] = self.version_in(&disk, slot)?;
            }
        }
        let slots_changed = stale
            .iter()
            .any(|role| matches!(role, Role::Root(_) | Role::Verity(_)));
        if slots_changed || stale.contains(&Role::Esp) {
            self.look_at_kernels(&disk, found)?;
        }
        if stale.contains(&Role::State) {
            found.record = self.look_at_state(stage, &disk)?;
        }
        self.look_at_update(&disk, found, some)
    }

    /// Which of the released images a slot holds, whole and with its hash tree.
    fn version_in(&self, disk: &RawDisk, slot: Slot) -> Result<Option<usize>> {
        for (index, image) in self.images.iter().enumerate() {
            // The tree first: it is small, and different where anything is.
            let holds = |role, file: &Path| -> Result<bool> {
                let bytes =
                    fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                Ok(disk.read(role, 0, bytes.len())? == bytes)
            };
            if holds(Role::Verity(slot), &image.hash)? && holds(Role::Root(slot), &image.root)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Every kernel image that the boot loader would start is whole, and so is the slot that
    /// it starts; one of them boots. Those that are used up come after all others: under such
    /// a name a new one is written.
    fn look_at_kernels(&self, disk: &RawDisk, found: &Found) -> Result<()> {
        let esp = disk.esp()?;
        let mut boots = false;
        for name in esp.list(FOLDER)? {
            let Some(entry) = Entry::parse(&name).filter(|entry| !entry.tries.is_exhausted())
            else {
                continue;
            };
            let mut images = self.images.iter().enumerate();
            let Some((index, image)) = images.find(|(_, image)| image.version == entry.version)
            else {
                bail!("{name} is of no version that was released");
            };
            let kernel = fs::read(&image.boot)
                .with_context(|| format!("cannot read {}", image.boot.display()))?;
            ensure!(
                esp.read(&format!("{FOLDER}/{name}"))? == kernel,
                "{name} is not the kernel image that was released"
            );
            ensure!(
                found.slots.contains(&Some(index)),
                "the boot loader would start {name}, but no slot holds its image"
            );
            boots |= index + 1 < self.images.len();
        }
        ensure!(boots, "no image that boots is left");
        Ok(())
    }

    /// Settings are there; what the updater has kept.
    fn look_at_state(&self, stage: &Stage<'_>, disk: &RawDisk) -> Result<Record> {
        let settings = super::power_cut::settings(stage, disk, &self.folder)?;
        let motd = settings.pointer("/motd").and_then(Value::as_str);
        ensure!(motd == Some(KEPT), "settings.motd is {motd:?}");
        const STATUS: &str = "status.json";
        let status = self.folder.join(STATUS);
        if status.exists() {
            fs::remove_file(&status).context("cannot remove the status looked at before")?;
        }
        let request = format!("dump /updates/{STATUS} {STATUS}");
        let emulator = &stage.setup().emulator;
        emulator.run(&self.folder, "debugfs", &["-R", &request, "state.img"])?;
        // Before the first look for updates there is none.
        if !status.exists() {
            return Ok(Record::default());
        }
        let text = fs::read(&status).context("cannot read the updater's status")?;
        let mut stored: Value = serde_json::from_slice(&text).context("the updater's status")?;
        serde_json::from_value(stored["record"].take()).context("the updater's record")
    }

    /// What the updater finds after a boot of what comes first: none is given up but the one that
    /// does not boot, and none is lost. FAT may lose both names of a file that is renamed where a
    /// cut keeps `some` of the writes.
    fn look_at_update(&self, disk: &RawDisk, found: &Found, some: bool) -> Result<()> {
        let names = disk.esp()?.list(FOLDER)?;
        let entries = in_boot_order(&names);
        let running = entries.first().context("there are no kernel images")?;
        let holds = |slot: &Option<usize>| {
            slot.is_some_and(|index| self.images[index].version == running.version)
        };
        let other = match holds(&found.slots[0]) {
            true => Slot::B,
            false => Slot::A,
        };
        let start = disk.read(Role::Verity(other), 0, SUPERBLOCK_SIZE)?;
        let other = start.as_slice().try_into().map(Superblock::parse)?.ok();
        let facts = Facts {
            running: UpdateImage {
                version: running.version.clone(),
                arch: String::new(),
                variant: String::new(),
            },
            is_blessed: false,
            entries,
            other_slot: other.map(|superblock| superblock.uuid.simple().to_string()),
            complaint: None,
        };
        let mut record = found.record.clone();
        let [.., bad] = self.images;
        match record.reconcile(&facts) {
            None => Ok(()),
            Some(Outcome::GivenUp(version, _)) if version.to_string() == bad.version => Ok(()),
            Some(Outcome::Lost(..)) if some => Ok(()),
            Some(outcome) => bail!("the updater finds {outcome:?} with {names:?}"),
        }
    }
}

/// Marsaglia's xorshift: the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
