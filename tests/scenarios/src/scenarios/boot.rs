//! A boot with nothing wrong.

use crate::evidence::Journal;
use crate::stage::{Stage, Which, marks};
use anyhow::{Result, ensure};

/// Firmware to boot complete and off again, on the variant itself.
pub(crate) fn clean_boot(stage: &mut Stage<'_>) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Variant, "machine")?;
    let mut machine = stage.boot(&builder)?;
    ensure!(
        machine.resets() == 0,
        "the machine was reset {} times",
        machine.resets()
    );
    let boot = machine.cpu_seconds();
    machine.rewind();
    machine.wait_for(marks::ROOT_VERIFIED, 1.0)?;
    machine.wait_for(marks::API_READY, 1.0)?;
    machine.power_off(25.0)?;
    stage.note(format!(
        "off after {:.1} CPU s more",
        machine.cpu_seconds() - boot
    ));
    drop(machine);
    check_clean(&stage.journal(&disk)?)
}

/// What every boot with nothing wrong leaves in the journal, and what it does not.
pub(crate) fn check_clean(journal: &Journal) -> Result<()> {
    journal.require("Secure Boot is enabled")?;
    journal.require("Successfully loaded SELinux policy")?;
    journal.forbid("avc:  denied")?;
    journal.forbid("Failed with result")?;
    journal.forbid("dependency failed")
}
