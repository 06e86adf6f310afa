//! The state and data partitions.

use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, ensure};
use boot_slots::layout::Role;
use std::fs::File;
use test_vm::disk::RawDisk;

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

/// On a bigger disk the data partition and its file system grow.
pub(crate) fn data_grows(stage: &mut Stage<'_>) -> Result<()> {
    const SIZE: u64 = 8 << 30;
    let (builder, disk) = stage.machine(Which::Variant, "machine")?;
    let before = disk.partition(Role::Data)?.size();
    let path = disk.path().to_path_buf();
    drop(disk);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {} bigger", path.display()))?;
    let machine = stage.boot(&builder)?;
    stage.power_off(machine)?;
    let disk = RawDisk::open(&path)?;
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
