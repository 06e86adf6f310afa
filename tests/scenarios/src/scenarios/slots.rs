//! Two slots, of which the newer one does not work.
//!
//! Slot A holds the image as it was built. Slot B gets the same image as the next
//! version would: the root is one block longer, so that its root hash is another
//! one, and the kernel image says so and is signed again. Then something is wrong
//! with B, and the machine has to come up from A.

use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use boot_slots::bless::FOLDER;
use boot_slots::entry::{Entry, Tries};
use boot_slots::layout::{Role, Slot};
use boot_slots::verity;
use disk_image::authenticode::{self, Signer};
use disk_image::pe::Pe;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use test_vm::disk::{RawDisk, sparse_copy};
use test_vm::{Builder, Machine, Wait};

/// Processor seconds of a boot that fails: firmware, loader, kernel, `init`.
const FAILED_BOOT: f64 = 45.0;
const FIRST_SLOT: &str = "bulkhead: root verified, slot A";
const SECOND_SLOT: &str = "bulkhead: root verified, slot B";

/// A machine with two versions on its disk.
struct TwoSlots {
    builder: Builder,
    disk: RawDisk,
    /// In slot A.
    old: String,
    /// In slot B.
    new: String,
    /// The new version's kernel image.
    kernel: Vec<u8>,
}

impl TwoSlots {
    /// Slot B gets the next version; its kernel image is not on the disk yet.
    fn prepare(stage: &Stage<'_>, name: &str) -> Result<Self> {
        let (builder, disk) = stage.machine(Which::Variant, name)?;
        let old = blessed_as_the_only_one(&disk)?;
        let new = next_version(&old)?;
        let image = stage.setup().image(Which::Variant);
        let root = stage.folder().join("next.erofs");
        sparse_copy(&image.join("root.erofs"), &root)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .open(&root)
            .with_context(|| format!("cannot open {}", root.display()))?;
        file.seek(SeekFrom::End(0))
            .and_then(|_| file.write_all(&[0; verity::BLOCK_SIZE]))
            .with_context(|| format!("cannot make {} longer", root.display()))?;
        let tree = verity::build(&file)
            .with_context(|| format!("cannot compute the tree of {}", root.display()))?;
        disk.install(Role::Root(Slot::B), &root)?;
        disk.write(Role::Verity(Slot::B), 0, &tree.bytes)?;
        fs::remove_file(&root).with_context(|| format!("cannot remove {}", root.display()))?;

        let kernel = kernel_for(image, (&old, &new), &tree.root_hash, &stage.setup().signer)?;
        Ok(Self {
            builder,
            disk,
            old,
            new,
            kernel,
        })
    }

    /// Puts the new version's kernel image on the disk.
    fn install(&self, kernel: &[u8], tries: Tries) -> Result<()> {
        let name = Entry::blessed(&self.new).with_tries(tries).to_string();
        self.disk.esp()?.write(&format!("{FOLDER}/{name}"), kernel)
    }

    /// Checks that the machine completes its boot from slot A after slot B has
    /// failed `times`.
    fn comes_up_from_the_first_slot(
        &self,
        stage: &mut Stage<'_>,
        mut machine: Machine,
    ) -> Result<()> {
        machine.wait(&Wait::line(FIRST_SLOT, FAILED_BOOT).across_resets())?;
        let failed = machine.cpu_seconds();
        machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
        stage.note(format!(
            "slot A took over after {} resets and {failed:.0} CPU s, boot complete after {:.0} CPU s",
            machine.resets(),
            machine.cpu_seconds()
        ));
        stage.power_off(machine)
    }

    /// The tries of the new version, as its file is called now.
    fn tries(&self) -> Result<Option<Tries>> {
        let disk = RawDisk::open(self.disk.path())?;
        let names = disk.esp()?.list(FOLDER)?;
        Ok(names
            .iter()
            .filter_map(|name| Entry::parse(name))
            .find(|entry| entry.version == self.new)
            .map(|entry| entry.tries))
    }

    fn require_exhausted(&self) -> Result<()> {
        let tries = self.tries()?;
        ensure!(
            tries.is_some_and(Tries::is_exhausted),
            "version {} has not used up its tries afterwards: {tries:?}",
            self.new
        );
        Ok(())
    }
}

/// A bit of the new root is turned over: the machine resets until its tries are
/// used up and comes up from the other slot.
pub(crate) fn flipped_bit(stage: &mut Stage<'_>) -> Result<()> {
    let slots = TwoSlots::prepare(stage, "machine")?;
    slots.install(&slots.kernel, Tries::NEW)?;
    // The file system's superblock lies here: it is read whenever it is mounted.
    slots.disk.flip_bit(Role::Root(Slot::B), 1024 + 512)?;
    let mut machine = stage.start(&slots.builder)?;
    for try_number in 1..=boot_slots::entry::NEW_TRIES {
        machine
            .wait(&Wait::line("is corrupted", FAILED_BOOT).across_resets())
            .with_context(|| format!("try {try_number} of the corrupted slot"))?;
    }
    slots.comes_up_from_the_first_slot(stage, machine)?;
    slots.require_exhausted()
}

/// A new slot whose kernel image has the root hash of no root is left after its tries.
pub(crate) fn abandoned(stage: &mut Stage<'_>) -> Result<()> {
    let slots = TwoSlots::prepare(stage, "machine")?;
    slots.install(&slots.kernel, Tries::NEW)?;
    slots.disk.fill(Role::Verity(Slot::B), |_| [0; 4096])?;
    let mut machine = stage.start(&slots.builder)?;
    for try_number in 1..=boot_slots::entry::NEW_TRIES {
        machine
            .wait(&Wait::line("FATAL", FAILED_BOOT).across_resets())
            .with_context(|| format!("try {try_number} of the slot without a root"))?;
    }
    slots.comes_up_from_the_first_slot(stage, machine)?;
    slots.require_exhausted()
}

/// A slot that was good once has no counter in its name; when it fails three boots
/// in a row it is left all the same.
pub(crate) fn blessed_fails(stage: &mut Stage<'_>) -> Result<()> {
    let slots = TwoSlots::prepare(stage, "machine")?;
    slots.install(&slots.kernel, Tries::NEW)?;
    let mut machine = stage.start(&slots.builder)?;
    machine.wait_for(SECOND_SLOT, FAILED_BOOT)?;
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    stage.power_off(machine)?;
    let tries = slots.tries()?;
    ensure!(
        tries == Some(Tries::Blessed),
        "version {} was not blessed after a complete boot: {tries:?}",
        slots.new
    );
    slots.disk.flip_bit(Role::Root(Slot::B), 1024 + 512)?;
    let mut machine = stage.start(&slots.builder)?;
    machine.wait(&Wait::line("is corrupted", FAILED_BOOT).across_resets())?;
    machine.wait(&Wait::line("is corrupted", FAILED_BOOT).across_resets())?;
    machine.wait(&Wait::line("is corrupted", FAILED_BOOT).across_resets())?;
    // The next start counts a fourth one, demotes the slot and starts over.
    slots.comes_up_from_the_first_slot(stage, machine)?;
    slots.require_exhausted()
}

/// A kernel image that was altered after it was signed is refused.
pub(crate) fn altered_kernel(stage: &mut Stage<'_>) -> Result<()> {
    refused(stage, |kernel| {
        let changed = replace_in(kernel, b".cmdline", "enforcing=1", "enforcing=0")?;
        ensure!(
            changed > 0,
            "there is no enforcing=1 to be altered on the command line"
        );
        Ok(())
    })
}

/// A kernel image without a signature is refused.
pub(crate) fn unsigned_kernel(stage: &mut Stage<'_>) -> Result<()> {
    refused(stage, |kernel| {
        *kernel = authenticode::without_signature(kernel)?;
        Ok(())
    })
}

fn refused(stage: &mut Stage<'_>, spoil: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let slots = TwoSlots::prepare(stage, "machine")?;
    let mut kernel = slots.kernel.clone();
    spoil(&mut kernel)?;
    slots.install(&kernel, Tries::NEW)?;
    let mut machine = stage.start(&slots.builder)?;
    let line = machine.wait(
        &Wait::line("ccess denied", FAILED_BOOT)
            .or("ccess Denied")
            .or("ecurity")
            .across_resets(),
    )?;
    stage.note(format!("the console says: {}", line.text));
    slots.comes_up_from_the_first_slot(stage, machine)?;
    let _ = &slots.old;
    Ok(())
}

/// The version of the only kernel image on a fresh disk. It is made one that has
/// proved itself, as the image that a machine is running has.
fn blessed_as_the_only_one(disk: &RawDisk) -> Result<String> {
    let esp = disk.esp()?;
    let entries: Vec<(String, Entry)> = esp
        .list(FOLDER)?
        .into_iter()
        .filter_map(|name| Entry::parse(&name).map(|entry| (name, entry)))
        .collect();
    let [(name, entry)] = &entries[..] else {
        bail!(
            "the fresh disk has {} kernel images instead of one",
            entries.len()
        );
    };
    if entry.tries != Tries::Blessed {
        let blessed = Entry::blessed(&entry.version).to_string();
        esp.rename(&format!("{FOLDER}/{name}"), &format!("{FOLDER}/{blessed}"))?;
    }
    Ok(entry.version.clone())
}

/// A later version that is written with as many characters.
/// The kernel image of the image in `image`, as that of another version and root would be.
pub(super) fn kernel_for(
    image: &Path,
    (old, new): (&str, &str),
    root_hash: &verity::RootHash,
    signer: &Signer,
) -> Result<Vec<u8>> {
    let old_tree = fs::read(image.join("root.verity")).context("cannot read root.verity")?;
    let old_hash = verity::hash_block(
        old_tree
            .get(verity::BLOCK_SIZE..2 * verity::BLOCK_SIZE)
            .context("root.verity is too short")?,
    );
    let mut kernel = fs::read(image.join("bulkhead.efi")).context("cannot read bulkhead.efi")?;
    let (from, to) = (
        verity::RootHash(old_hash).to_string(),
        root_hash.to_string(),
    );
    ensure!(
        replace_in(&mut kernel, b".cmdline", &from, &to)? > 0,
        "the command line of bulkhead.efi does not name the root hash {from}"
    );
    replace_in(&mut kernel, b".cmdline", old, new)?;
    ensure!(
        replace_in(&mut kernel, b".osrel", old, new)? > 0,
        "the os-release of bulkhead.efi does not name the version {old}"
    );
    authenticode::sign(&kernel, signer)
}

/// The kernel image of the image in `image`, with another argument in the place of one that
/// is at least as long.
pub(super) fn kernel_with(
    image: &Path,
    (from, to): (&str, &str),
    signer: &Signer,
) -> Result<Vec<u8>> {
    let mut kernel = fs::read(image.join("bulkhead.efi")).context("cannot read bulkhead.efi")?;
    let to = format!("{to:width$}", width = from.len());
    ensure!(
        replace_in(&mut kernel, b".cmdline", from, &to)? == 1,
        "the command line of bulkhead.efi does not have {from} once"
    );
    authenticode::sign(&kernel, signer)
}

/// A later version that is as long, for it is put where the other one stood.
pub fn next_version(version: &str) -> Result<String> {
    let last = version.chars().last().and_then(|last| last.to_digit(10));
    let Some(last @ 0..=8) = last else {
        bail!("cannot make a later version of {version:?}: its last digit must be below 9");
    };
    Ok(format!("{}{}", &version[..version.len() - 1], last + 1))
}

/// Replaces text in a section of a kernel image by text of the same length, and
/// says how often it was found.
fn replace_in(program: &mut [u8], section: &[u8], from: &str, to: &str) -> Result<usize> {
    ensure!(
        from.len() == to.len() && !from.is_empty(),
        "{from:?} and {to:?} differ in length"
    );
    let pe = Pe::parse(program).context("the kernel image is no EFI program")?;
    let found = pe
        .sections
        .iter()
        .find(|candidate| candidate.name == section)
        .with_context(|| {
            format!(
                "the kernel image has no {}",
                String::from_utf8_lossy(section)
            )
        })?;
    let bytes = &mut program[found.raw_offset..found.raw_offset + found.raw_size];
    let mut count = 0;
    let mut at = 0;
    while let Some(offset) = bytes[at..]
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        bytes[at + offset..at + offset + to.len()].copy_from_slice(to.as_bytes());
        at += offset + to.len();
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_versions_are_later_and_as_long() {
        for version in ["0.1.0", "1.2.8", "10"] {
            let next = next_version(version).unwrap();
            assert_eq!(next.len(), version.len());
            assert!(
                boot_slots::entry::compare_versions(version, &next).is_lt(),
                "{next}"
            );
        }
        for version in ["0.9", "1.0-rc", ""] {
            assert!(next_version(version).is_err(), "{version}");
        }
    }
}
