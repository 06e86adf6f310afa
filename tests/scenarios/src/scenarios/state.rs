//! The state and data partitions.

use super::boot::check_clean;
use super::set;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use boot_slots::layout::Role;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use test_vm::api::Api;
use test_vm::disk::RawDisk;
use test_vm::{Builder, Machine};

/// A state partition of zeros.
pub(crate) fn zeroed(stage: &mut Stage<'_>) -> Result<()> {
    made_again(stage, |_| [0; 4096])
}

/// A state partition full of garbage.
pub(crate) fn garbage(stage: &mut Stage<'_>) -> Result<()> {
    // A generator of 64-bit numbers by Marsaglia; the same garbage each time.
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    made_again(stage, move |_| {
        let mut block = [0; 4096];
        for word in block.chunks_exact_mut(8) {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            word.copy_from_slice(&number.to_le_bytes());
        }
        block
    })
}

/// Boots once so that there is a state, replaces it, and boots again.
fn made_again(stage: &mut Stage<'_>, block: impl FnMut(u64) -> [u8; 4096]) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Variant, "machine")?;
    disk.fill(Role::State, block)?;
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("state partition", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    let complete = machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    stage.note(format!("boot complete after {:.1} CPU s", complete.cpu));
    stage.power_off(machine)?;
    let magic = disk.read(Role::State, 1024 + 0x38, 2)?;
    ensure!(
        magic == [0x53, 0xef],
        "the state partition has no ext4 file system afterwards"
    );
    Ok(())
}

/// A state partition without a free block: what was set holds, what is set now is
/// refused with the reason.
pub(crate) fn full(stage: &mut Stage<'_>) -> Result<()> {
    const SAID: &str = "set before the disk was full";
    let builder = with_changed_state(stage, SAID, |folder| {
        fs::write(folder.join("large"), [0xff; 1 << 20])?;
        fs::write(folder.join("small"), [0xff; 4096])?;
        let large = (0..256).map(|number| format!("write large large-{number}\n"));
        let small = (0..256).map(|number| format!("write small small-{number}\n"));
        Ok(large.chain(small).collect())
    })?;
    let mut machine = stage.start(&builder)?;
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    stays_as_it_is(&machine, SAID, "no space left")?;
    stage.power_off(machine)
}

/// A state partition that can only be read: what was set holds, what is set now is
/// refused with the reason.
pub(crate) fn read_only(stage: &mut Stage<'_>) -> Result<()> {
    const SAID: &str = "set before the disk was read-only";
    let builder = with_changed_state(stage, SAID, |_| Ok("feature read-only\n".to_string()))?;
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("state partition can only be read", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    // Its boot does not count as complete, but there is no better image to go back to.
    machine.wait_for("going on with image", BOOT)?;
    stays_as_it_is(&machine, SAID, "read-only file system")?;
    stage.power_off(machine)
}

/// The API has the motd `said`, and refuses another one with a message that has `why`.
fn stays_as_it_is(machine: &Machine, said: &str, why: &str) -> Result<()> {
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    let motd = || -> Result<Value> { Ok(api.get("/settings")?["motd"].take()) };
    ensure!(motd()? == said, "after the boot the motd is {}", motd()?);
    let Err(refused) = set(&api, &json!({ "motd": "x".repeat(60_000) })) else {
        bail!("a partition that takes no writes took a commit");
    };
    let refused = format!("{refused:#}");
    ensure!(
        refused.to_lowercase().contains(why),
        "the refusal does not say why: {refused}"
    );
    ensure!(motd()? == said, "after the refusal the motd is {}", motd()?);
    Ok(())
}

/// A machine that is off, with the motd `said`, after commands of debugfs have been run
/// on the file system of its state partition. `commands` is given the folder that they
/// run in.
fn with_changed_state(
    stage: &mut Stage<'_>,
    said: &str,
    commands: impl FnOnce(&Path) -> Result<String>,
) -> Result<Builder> {
    let (builder, disk, machine) = stage.booted()?;
    set(&Api::at(&machine.api_socket()), &json!({ "motd": said }))?;
    stage.power_off(machine)?;
    let folder = stage.fresh_folder("state")?;
    let image = folder.join("state.img");
    disk.extract(Role::State, &image)?;
    let commands = commands(&folder)?;
    fs::write(folder.join("commands"), commands).context("cannot write commands of debugfs")?;
    let arguments = ["-w", "-f", "commands", "state.img"];
    stage.setup().emulator.run(&folder, "debugfs", &arguments)?;
    disk.install(Role::State, &image)?;
    Ok(builder)
}

/// A clock without a battery: the boot goes on, and no time before the image's shows.
pub(crate) fn clock_of_1970(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk) = stage.machine(Which::Twin, "machine")?;
    builder.clock = Some("1970-01-01T00:00:00");
    let machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    set(&api, &json!({ "motd": "set in another time" }))?;
    let date = api.request("GET", "/os", None)?;
    let date = date.header("date").context("the API sends no date")?;
    stage.note(format!("the host's clock says {date}"));
    ensure!(!date.contains(" 1970 "), "the host's clock says {date}");
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// On a bigger disk the data partition and its file system grow.
pub(crate) fn data_grows(stage: &mut Stage<'_>) -> Result<()> {
    const SIZE: u64 = 8 << 30;
    let (builder, disk) = stage.machine(Which::Variant, "machine")?;
    let before = disk.partition(Role::Data)?.size();
    disk.enlarge(SIZE)?;
    let machine = stage.boot(&builder)?;
    stage.power_off(machine)?;
    let disk = RawDisk::open(disk.path())?;
    let partition = disk.partition(Role::Data)?;
    let after = partition.size();
    ensure!(
        partition.offset() + after > SIZE - (16 << 20),
        "the data partition ends at {} of {SIZE} bytes",
        partition.offset() + after
    );
    let blocks = disk.read(Role::Data, 1024 + 4, 4)?;
    let log_size = disk.read(Role::Data, 1024 + 0x18, 4)?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let files = number(&blocks) << (10 + number(&log_size));
    ensure!(
        files > after - (16 << 20) && files <= after,
        "the data file system has {files} bytes in a partition of {after}"
    );
    stage.note(format!(
        "data grew from {} to {} MiB",
        before >> 20,
        after >> 20
    ));
    Ok(())
}
