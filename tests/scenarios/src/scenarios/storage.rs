//! Disks beside the one that the machine boots from.

use super::boot::check_clean;
use crate::stage::{BOOT, Stage, Which, marks};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use test_vm::api::Api;
use test_vm::probe::Probe;
use test_vm::{Builder, Ec2, ExtraDisk, Machine};

/// Bytes of each of the machine's own disks: XFS takes none that is much smaller.
const SIZE: u64 = 400 << 20;
const INIT: &str = "/actions/ephemeral-storage/init";
const BIND: &str = "/actions/ephemeral-storage/bind";

/// Gives the machine a blank disk with a serial number.
pub(super) fn add_disk(builder: &mut Builder, serial: &'static str) -> Result<()> {
    let path = builder.run.join(serial);
    File::create(&path)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {}", path.display()))?;
    builder.extra_disks.push(ExtraDisk {
        file: serial.to_string(),
        serial: Some(serial),
    });
    Ok(())
}

/// Waits until all that a boot starts has, and sees that nothing of it failed.
pub(super) fn is_running(machine: &Machine, probe: &mut Probe<UnixStream>) -> Result<()> {
    let mut state = String::new();
    machine.wait_until("everything has started", BOOT, || {
        let said = probe.run(&["systemctl", "is-system-running"]);
        state = said.map(|said| said.stdout).unwrap_or_default();
        !state.is_empty() && state != "starting\n"
    })?;
    ensure!(state == "running\n", "systemd says {state}");
    Ok(())
}

/// What is refused over the API, with the reason.
fn refused(api: &Api, path: &str, body: &Value, why: &str) -> Result<()> {
    let Err(error) = api.json("POST", path, Some(body)) else {
        bail!("{path} took {body}");
    };
    let error = format!("{error:#}");
    ensure!(error.contains(why), "{path} refuses {body} so: {error}");
    Ok(())
}

/// Where the machine has mounted `target` from, and as what.
pub(super) fn mounted_from(probe: &mut Probe<UnixStream>, target: &str) -> Result<String> {
    let table = probe.read("/proc/self/mountinfo")?;
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(target));
    let line = line.with_context(|| format!("nothing is mounted at {target}"))?;
    let (_, source) = line.split_once(" - ").context("a mount without a source")?;
    Ok(source.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// One disk by itself with ext4, and what is refused; no disk at all does no harm.
pub(crate) fn ephemeral(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk) = stage.machine(Which::Twin, "machine")?;
    for serial in ["eph-own", "eph-foreign", "not-ours"] {
        add_disk(&mut builder, serial)?;
    }
    let path = builder.run.join("eph-foreign");
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.write_all_at(b"XFSB", 0))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    let disks = api.get("/actions/ephemeral-storage/list-disks?format=json")?;
    ensure!(disks == json!(["/dev/vdb", "/dev/vdc"]), "{disks}");
    for name in ["list-ebs-volumes", "list-dirs"] {
        let list = api.get(&format!("/actions/ephemeral-storage/{name}?format=json"))?;
        ensure!(list == json!([]), "{name}: {list}");
    }

    refused(&api, INIT, &json!({}), "/dev/vdc holds an XFS file system")?;
    for other in ["/dev/vda", "/dev/vdd", "/dev/null"] {
        let body = json!({ "disks": [other] });
        refused(&api, INIT, &body, "is no ephemeral disk")?;
    }
    let scratch = json!({ "targets": ["/mnt/scratch"] });
    refused(&api, BIND, &scratch, "ephemeral-storage init")?;
    let own = json!({ "filesystem": "Ext4", "disks": ["/dev/vdb"] });
    for _ in 0..2 {
        api.json("POST", INIT, Some(&own))?;
    }
    refused(
        &api,
        BIND,
        &json!({ "targets": ["/etc"] }),
        "/etc cannot be on",
    )?;
    refused(&api, BIND, &json!({ "targets": [] }), "no directories")?;
    for _ in 0..2 {
        api.json("POST", BIND, Some(&scratch))?;
    }
    let mut probe = Probe::connect(&machine.probe_socket())?;
    let source = mounted_from(&mut probe, "/mnt/scratch")?;
    ensure!(source == "ext4 /dev/vdb", "/mnt/scratch is {source}");
    drop(probe);
    stage.power_off(machine)?;
    let journal = stage.journal(&disk)?;
    check_clean(&journal)?;
    let made = journal.containing("making a file system").count();
    ensure!(made == 1, "a file system was made {made} times");

    // Without such disks there is nothing to do, which is no fault.
    builder.extra_disks.clear();
    let machine = stage.boot(&builder)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    api.json("POST", INIT, Some(&json!({})))?;
    api.json("POST", BIND, Some(&scratch))?;
    stage.power_off(machine)
}

/// What Karpenter's instance-store policy puts on the machine's disks, with the label
/// that it has, and the mode that the program which keeps its data there gives it.
const DIRECTORIES: [(&str, &str, &str); 3] = [
    ("/var/lib/containerd", "container_runtime_data_t", "0700"),
    ("/var/lib/kubelet", "kubelet_data_t", "0750"),
    ("/var/log/pods", "log_t", "0755"),
];

/// The user data that Karpenter writes with its instance-store policy, but for the
/// cluster, of which there is none.
fn karpenters() -> Result<Vec<u8>> {
    let text = include_str!("../../../compat/userdata/03-karpenter-instance-store.toml");
    let (commands, _) = text
        .split_once("[settings.kubernetes]")
        .context("Karpenter's user data has another form")?;
    let alone = "[settings.kubernetes]\nstandalone-mode = true\ncluster-domain = 'cluster.local'\n";
    Ok(format!("{commands}{alone}").into_bytes())
}

/// Two disks as one, below containerd and kubelet, in two boots.
pub(crate) fn instance_store(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk) = stage.machine_of(&stage.cluster()?.node, "node")?;
    for serial in ["eph-0", "eph-1"] {
        add_disk(&mut builder, serial)?;
    }
    builder.user_data = Some(karpenters()?);
    for _ in 0..2 {
        let mut machine = stage.boot(&builder)?;
        on_instance_store(&machine)?;
        machine.power_off(BOOT)?;
    }
    let journal = stage.journal(&disk)?;
    check_clean(&journal)?;
    let made = journal.containing("making a file system").count();
    ensure!(made == 1, "a file system was made {made} times");
    Ok(())
}

fn on_instance_store(machine: &Machine) -> Result<()> {
    let mut probe = Probe::connect(&machine.probe_socket())?;
    for (directory, label, mode) in DIRECTORIES {
        let source = mounted_from(&mut probe, directory)?;
        ensure!(source == "xfs /dev/md_ephemeral", "{directory} is {source}");
        let found = probe.stat(directory)?;
        let wanted = format!("system_u:object_r:{label}:s0");
        ensure!(
            (found.label.as_deref(), found.mode.as_str()) == (Some(wanted.as_str()), mode),
            "{directory} has {found:?}"
        );
    }
    // Before that a power-off would be a failure of its start.
    machine.wait_until("kubelet has begun", BOOT, || {
        ["burstable", "besteffort"].into_iter().all(|class| {
            let group = format!("/sys/fs/cgroup/kubepods.slice/kubepods-{class}.slice");
            probe.stat(&group).is_ok()
        })
    })?;
    is_running(machine, &mut probe)?;
    let api = Api::at(&machine.api_socket());
    machine.wait_until("the API answers", BOOT, || api.answers())?;
    // The command of the user's that is to run once has, and is off since.
    let settings = api.get("/settings?keys=settings.motd,settings.bootstrap-commands")?;
    ensure!(settings["motd"] == "striped", "{settings}");
    let mode = |name: &str| &settings["bootstrap-commands"][name]["mode"];
    ensure!(mode("500-motd") == "off", "{settings}");
    ensure!(mode("000-mount-instance-storage") == "always", "{settings}");
    Ok(())
}

/// A second volume: blank, larger than it was, and with something of somebody's.
pub(crate) fn data_volume(stage: &mut Stage<'_>) -> Result<()> {
    const VOLUME: &str = "volume";
    const SIZES: [u64; 2] = [1 << 30, 2 << 30];
    let image = (stage.cluster()?.ec2_node)()?;
    let (mut builder, disk) = stage.machine_of(&image, "node")?;
    builder.services.metadata = Some(Ec2::new()?);
    builder.extra_disks.push(VOLUME.into());
    let path = builder.run.join(VOLUME);
    let volume = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    let read = |at: u64| -> Result<[u8; 4]> {
        let mut bytes = [0; 4];
        volume.read_exact_at(&mut bytes, at).context("the volume")?;
        Ok(bytes)
    };
    for size in SIZES {
        volume.set_len(size).context("cannot make it larger")?;
        let mut machine = stage.boot(&builder)?;
        data_is_on(&machine, "n1")?;
        machine.power_off(BOOT)?;
        // Blocks of 4 KiB.
        let bytes = u64::from(u32::from_le_bytes(read(1024 + 4)?)) * 4096;
        ensure!(
            bytes <= size && bytes > size - (16 << 20),
            "the file system has {bytes} of {size} bytes"
        );
    }
    let journal = stage.journal_of_volume(&path)?;
    check_clean(&journal)?;
    ensure!(
        journal.boots() == 2,
        "{} boots left entries",
        journal.boots()
    );

    volume
        .set_len(0)
        .and_then(|()| volume.set_len(SIZES[0]))
        .and_then(|()| volume.write_all_at(b"XFSB", 0))
        .context("cannot put something else on the volume")?;
    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for(
        "could be the data volume, but holds an XFS file system",
        BOOT,
    )?;
    stage.note(format!("the console says: {}", line.text));
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    data_is_on(&machine, "n1p7")?;
    machine.power_off(BOOT)?;
    ensure!(
        &read(0)? == b"XFSB" && read(1024 + 0x38)? == [0; 4],
        "it was written to"
    );
    check_clean(&stage.journal(&disk)?)
}

/// Data lies on an NVMe disk whose name ends so, and all is well. Which of the disks is the
/// first is chance.
fn data_is_on(machine: &Machine, end: &str) -> Result<()> {
    let mut probe = Probe::connect(&machine.probe_socket())?;
    for target in ["/local", "/var"] {
        let found = mounted_from(&mut probe, target)?;
        ensure!(
            found.starts_with("ext4 /dev/nvme") && found.ends_with(end),
            "{target} is {found}"
        );
    }
    is_running(machine, &mut probe)
}
