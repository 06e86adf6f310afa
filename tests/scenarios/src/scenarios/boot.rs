//! A boot with nothing wrong.

use crate::evidence::Journal;
use crate::stage::{Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use test_vm::probe::{Probe, Refusal};

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

/// Numbers of the errors that the host is to refuse with.
const PERMISSION_DENIED: i32 = 13;
const READ_ONLY: i32 = 30;

/// What can be seen on the inside of a machine that has booted with nothing wrong.
pub(crate) fn inside(stage: &mut Stage<'_>) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Twin, "machine")?;
    let machine = stage.boot(&builder)?;
    let probe = Probe::at(&machine.probe_socket());
    let state = probe
        .try_run(&["systemctl", "is-system-running"])?
        .context("systemctl")?;
    if state.stdout.trim() != "running" {
        let failed = probe.try_run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
        bail!(
            "systemd says {}: {}",
            state.stdout.trim(),
            failed.map_or_else(|e| e.message, |e| e.stdout)
        );
    }
    for (path, filesystem) in [
        ("/", "erofs"),
        ("/usr", "erofs"),
        ("/etc", "tmpfs"),
        ("/run", "tmpfs"),
        ("/var", "ext4"),
        ("/opt", "ext4"),
        ("/mnt", "ext4"),
        ("/local", "ext4"),
        ("/var/lib/bulkhead", "ext4"),
    ] {
        let found = probe.stat(path)?.filesystem.unwrap_or_default();
        ensure!(
            found == filesystem,
            "{path} lies on {found}, not on {filesystem}"
        );
    }
    let read = |path: &str| probe.read(path).map(|text| text.trim().to_string());
    let enforce = read("/sys/fs/selinux/enforce")?;
    ensure!(enforce == "1", "/sys/fs/selinux/enforce is {enforce}");
    let lockdown = read("/sys/kernel/security/lockdown")?;
    ensure!(
        lockdown.contains("[integrity]"),
        "the kernel's lockdown is {lockdown}"
    );
    let bpf = read("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    ensure!(bpf != "0", "kernel.unprivileged_bpf_disabled is {bpf}");
    let memory = probe.memory()?;
    stage.note(format!(
        "{} of {} MiB in use right after the boot",
        memory.used() >> 20,
        memory.total >> 20
    ));
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// What the host must refuse to one of its own services.
pub(crate) fn denials(stage: &mut Stage<'_>) -> Result<()> {
    let (builder, disk) = stage.machine(Which::Twin, "machine")?;
    let machine = stage.boot(&builder)?;
    let probe = Probe::at(&machine.probe_socket());
    let refused =
        |what: &str, answer: std::result::Result<(), Refusal>, expected: &[i32]| match answer {
            Ok(()) => bail!("{what} was allowed"),
            Err(refusal) => {
                ensure!(
                    refusal.errno.is_some_and(|errno| expected.contains(&errno)),
                    "{what} failed for another reason: {refusal}"
                );
                Ok(())
            }
        };
    refused(
        "writing a file of the root",
        probe.try_write("/usr/lib/os-release", "ID=other\n")?,
        &[READ_ONLY, PERMISSION_DENIED],
    )?;
    // Root may write here by its permissions, so it is the policy that refuses.
    for path in [
        "/etc/motd",
        "/etc/scenario",
        "/var/lib/bulkhead/settings/current",
    ] {
        refused(
            &format!("writing {path}"),
            probe.try_write(path, "x")?,
            &[PERMISSION_DENIED],
        )?;
    }
    refused(
        "switching SELinux off",
        probe.try_write("/sys/fs/selinux/enforce", "0")?,
        &[PERMISSION_DENIED],
    )?;
    stage.power_off(machine)?;
    let journal = stage.journal(&disk)?;
    let denials = journal.containing("avc:  denied").count();
    ensure!(denials > 0, "the journal has no record of what was refused");
    let first = journal
        .containing("avc:  denied")
        .next()
        .map(|entry| entry.message.clone());
    stage.note(format!(
        "{denials} denials on record: {}",
        first.unwrap_or_default()
    ));
    Ok(())
}
