//! A boot with nothing wrong.

use crate::evidence::Journal;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use std::os::unix::net::UnixStream;
use test_vm::api::Api;
use test_vm::probe::{Probe, Refused};
use test_vm::{Machine, Wait, firmware};

/// Processor seconds within which a host that has nothing to do is off, from the power
/// button on: three times what it takes. Real machines are several times as fast as the
/// emulated one, so none of them needs five seconds.
const OFF: f64 = 8.0;

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
    machine.power_off(OFF)?;
    stage.note(format!(
        "off after {:.1} CPU s more",
        machine.cpu_seconds() - boot
    ));
    drop(machine);
    check_clean(&stage.journal(&disk)?)
}

/// What every boot with nothing wrong leaves in the journal, and what it does not.
pub(crate) fn check_clean(journal: &Journal) -> Result<()> {
    journal.require("Secure boot enabled")?;
    journal.require("Successfully loaded SELinux policy")?;
    journal.forbid("avc:  denied")?;
    journal.forbid("Failed with result")?;
    journal.forbid("dependency failed")
}

/// Kernel parameters of the settings, with a firmware that checks no signatures: they
/// hold from the next boot on, and until they are taken back.
pub(crate) fn kernel_parameters(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, _) = stage.machine(Which::Twin, "machine")?;
    builder.variables = firmware::without_keys(&stage.setup().emulator)?;
    let mut machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    let socket = machine.probe_socket();
    let line = || Probe::connect(&socket)?.read("/proc/cmdline");
    let wanted = json!({ "boot": { "kernel-parameters": { "log_buf_len": ["1M"] } } });
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    ensure!(
        !line()?.contains("bulkhead.settings"),
        "before, the kernel has {}",
        line()?
    );
    // The restart must not overtake what writes the parameters to the disk.
    const APPLIED: &str = "/tx/commit_and_apply?tx=scenario&wait=true";
    api.json("PATCH", "/settings?tx=scenario", Some(&wanted))?;
    api.json("POST", APPLIED, None)?;
    restart(&mut machine, &api)?;
    ensure!(
        line()?.contains(" bulkhead.settings log_buf_len=1M"),
        "with the setting, the kernel has {}",
        line()?
    );
    api.json(
        "DELETE",
        "/settings?tx=scenario&keys=settings.boot.kernel",
        None,
    )?;
    api.json("POST", APPLIED, None)?;
    restart(&mut machine, &api)?;
    ensure!(
        !line()?.contains("bulkhead.settings"),
        "without the setting, the kernel has {}",
        line()?
    );
    stage.power_off(machine)
}

/// Restarts the machine by its API and waits until it has booted.
pub(super) fn restart(machine: &mut Machine, api: &Api) -> Result<()> {
    machine.skip_to_now();
    api.json("POST", "/actions/reboot", None)?;
    machine.wait(&Wait::line(marks::BOOT_COMPLETE, BOOT + 30.0).across_resets())?;
    machine.wait_until("the API answers", BOOT, || api.answers())
}

/// MiB that a host of 2 GiB may use, caches that it does not need left out.
const MEMORY_IN_USE: u64 = 120;
/// Numbers of the errors that the host is to refuse with.
const PERMISSION_DENIED: i32 = 13;
const READ_ONLY: i32 = 30;

/// What can be seen on the inside of a machine that has booted with nothing wrong.
pub(crate) fn inside(stage: &mut Stage<'_>) -> Result<()> {
    let (_, disk, machine) = stage.booted()?;
    let mut probe = Probe::connect(&machine.probe_socket())?;
    let state = probe.run(&["systemctl", "is-system-running"])?;
    if state.stdout.trim() != "running" {
        let failed = probe.run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
        bail!("systemd says {}: {}", state.stdout.trim(), failed.stdout);
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
    let mut read = |path: &str| probe.read(path).map(|text| text.trim().to_string());
    let enforce = read("/sys/fs/selinux/enforce")?;
    ensure!(enforce == "1", "/sys/fs/selinux/enforce is {enforce}");
    let lockdown = read("/sys/kernel/security/lockdown")?;
    ensure!(
        lockdown.contains("[integrity]"),
        "the kernel's lockdown is {lockdown}"
    );
    let bpf = read("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    ensure!(bpf != "0", "kernel.unprivileged_bpf_disabled is {bpf}");
    let memory = probe.meminfo()?;
    let used = (memory.total - memory.available) >> 20;
    stage.note(format!(
        "{used} of {} MiB in use right after the boot",
        memory.total >> 20
    ));
    ensure!(
        used <= MEMORY_IN_USE,
        "{used} MiB are in use right after the boot"
    );
    stage.power_off(machine)?;
    check_clean(&stage.journal(&disk)?)
}

/// Paths that a service must not write, and what tells the record of a refusal from
/// others.
const FORBIDDEN: [(&str, &str); 4] = [
    ("/etc/motd", "name=\"motd\""),
    ("/etc/scenario", "object_r:etc_t:s0 tclass=dir"),
    ("/var/lib/bulkhead/settings/current", "object_r:state_t:s0"),
    ("/sys/fs/selinux/enforce", "object_r:selinuxfs_t:s0"),
];

/// What the host must refuse to one of its own services.
pub(crate) fn denials(stage: &mut Stage<'_>) -> Result<()> {
    let (_, disk, machine) = stage.booted()?;
    let mut probe = Probe::connect(&machine.probe_socket())?;
    refused(
        &mut probe,
        "/usr/lib/os-release",
        &[READ_ONLY, PERMISSION_DENIED],
    )?;
    // Root may write here by its permissions, so it is the policy that refuses.
    for (path, _) in FORBIDDEN {
        refused(&mut probe, path, &[PERMISSION_DENIED])?;
    }
    stage.power_off(machine)?;
    let journal = stage.journal(&disk)?;
    for (path, object) in FORBIDDEN {
        ensure!(
            journal
                .containing("AVC avc:  denied")
                .any(|entry| entry.message.contains(object)),
            "the journal has no record of the denial of {path}"
        );
    }
    Ok(())
}

fn refused(probe: &mut Probe<UnixStream>, path: &str, expected: &[i32]) -> Result<()> {
    let Err(error) = probe.write(path, "0") else {
        bail!("a service of the host could write {path}");
    };
    let errno = error
        .downcast_ref::<Refused>()
        .and_then(|refused| refused.errno);
    ensure!(
        errno.is_some_and(|errno| expected.contains(&errno)),
        "writing {path} failed for another reason: {error:#}"
    );
    Ok(())
}
