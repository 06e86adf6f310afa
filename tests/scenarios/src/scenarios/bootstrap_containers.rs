//! Containers that prepare a host before its services start.

use super::host_containers::{ESCAPED, Host, host_beside_registry};
use super::set;
use super::storage::{add_disk, mounted_from};
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use test_vm::Machine;
use test_vm::api::Api;
use test_vm::disk::RawDisk;

/// Prepares disks: kubelet's data on one, and swap space on the other. Besides it looks at
/// what it sees, and tries what it must not succeed in.
const DISKS: &str = r#"
set -e
host=/.bottlerocket/rootfs
place=$host/var/lib/kubelet
mount -t ext4 $host/dev/vdb $place || {
    echo makes a file system
    busybox mke2fs $host/dev/vdb
    mount -t ext4 $host/dev/vdb $place
}
mkdir -p $place/own $host/mnt/own
mount -o bind $place/own $host/mnt/own
echo kept >> $host/mnt/own/boots
busybox mkswap /dev/vdc
busybox swapon /dev/vdc
set +e
echo "user data: $(cat /.bottlerocket/bootstrap-containers/current/user-data)"
echo "label: $(cat /proc/self/attr/current)"
grep -e CapEff -e Seccomp: /proc/self/status
/usr/local/bin/apiclient set motd=prepared && echo speaks to the API
busybox chroot $host /usr/sbin/modprobe dummy && grep -q ^dummy /proc/modules && echo loads modules
cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness && echo sets kernel variables
for process in /proc/[0-9]*; do echo "process: $(cat $process/comm)"; done
echo "namespace of processes: $(busybox readlink /proc/self/ns/pid)"
mount -o bind /bin/busybox /usr/local/bin/apiclient && echo covers a file
mount -t tmpfs none /.bottlerocket/support && echo covers a folder

touch $host/etc/written && echo escaped-to-etc
touch $host/usr/written && echo escaped-to-the-image
mount -o remount,rw $host; touch $host/usr/written && echo escaped-by-remount
touch $host/var/lib/bulkhead/written && echo escaped-to-settings
cat $host/etc/bootstrap-containers/* && echo escaped-to-secrets
cat $host/var/lib/bulkhead/* && echo escaped-to-settings
busybox insmod /bin/busybox && echo escaped-to-the-kernel
echo 0 > $host/sys/fs/selinux/enforce && echo escaped-from-the-policy
busybox chroot $host /usr/bin/systemctl stop apiserver.service && echo escaped-to-units
true
"#;

const DISKS_UNIT: &str = "bootstrap-containers@disks.service";
const KEPT: &str = "/mnt/own/boots";

/// Bootstrap containers run before kubelet does, in three boots.
pub(crate) fn bootstrap_containers(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk, mut registry) = host_beside_registry(stage)?;
    let image = registry.add_tools()?;
    for serial in ["data", "swap"] {
        add_disk(&mut builder, serial)?;
    }
    let container = |name: &str, mode: &str, essential: bool, script: &str| {
        format!(
            "[settings.bootstrap-containers.{name}]\n\
             source = \"{image}\"\n\
             mode = \"{mode}\"\n\
             essential = {essential}\n\
             user-data = \"Zm9yIGl0IGFsb25lCg==\"\n\
             command = [\"/bin/sh\", \"-c\", '''{script}''']\n"
        )
    };
    let count = |name: &str| format!("echo ran >> /.bottlerocket/rootfs/mnt/{name}");
    let user_data = "[settings.kubernetes]\nstandalone-mode = true\n\
                     cluster-domain = \"cluster.local\"\n"
        .to_string()
        + &registry.node_settings()
        + &container("disks", "always", true, DISKS)
        + &container("good", "once", true, &count("good"))
        + &container("bad", "once", false, &(count("bad") + "; exit 7"))
        + &container("unused", "off", true, "exit 1");
    builder.user_data = Some(user_data.into_bytes());

    let mut machine = stage.start(&builder)?;
    let line = machine.wait_for("bootstrap container bad", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    check_boot(&machine, 1)?;
    let said = Host(&machine).journal(&format!("--unit={DISKS_UNIT}"))?;
    check_disks(&said).with_context(|| format!("disks said: {said}"))?;
    machine.power_off(BOOT)?;
    drop(machine);
    stage.note("a disk was formatted and mounted before kubelet started");

    // The images are there, and what was to run once has.
    registry.stop();
    let mut machine = stage.boot(&builder)?;
    check_boot(&machine, 2)?;
    let said = Host(&machine).journal(&format!("--unit={DISKS_UNIT}"))?;
    ensure!(
        !said.contains("makes a file system"),
        "a disk was formatted a second time: {said}"
    );
    let api = Api::at(&machine.api_socket());
    let last = json!({
        "source": image, "mode": "once", "essential": true, "command": ["/bin/sh", "-c", "exit 9"],
    });
    set(&api, &json!({ "bootstrap-containers": { "last": last } }))?;
    machine.power_off(BOOT)?;
    drop(machine);

    // An essential one that fails stops the boot behind the API.
    let mut machine = stage.start(&builder)?;
    machine.wait_for("bootstrap container last: last ended with status 9", BOOT)?;
    let line = machine.wait_for("the boot goes no further", BOOT)?;
    stage.note(format!("the console says: {}", line.text));
    let line = machine.wait_for("boot not complete: ", BOOT)?;
    ensure!(
        line.text.contains("bootstrap-containers.service"),
        "the console says {:?}",
        line.text
    );
    machine.wait_for("going on with image", BOOT)?;
    let host = Host(&machine);
    for unit in ["kubelet.service", "containerd.service"] {
        let state = host.show(unit, "ActiveState")?;
        ensure!(state == "inactive", "{unit} is {state}");
    }
    let api = Api::at(&machine.api_socket());
    ensure!(mode(&api, "last")? == "once", "last is not tried again");
    machine.power_off(BOOT)?;
    drop(machine);
    let journal = stage.journal(&RawDisk::open(disk.path())?)?;
    // What the scripts tried, and the look at what is secret, alone.
    let denied = journal.containing("avc:  denied");
    let unexpected = denied.filter(|entry| {
        let says = |text| entry.message.contains(text);
        !(says(":bootstrap_t:") || says("comm=\"probe\"") && says(":secret_t:"))
    });
    match unexpected.map(|entry| entry.message.as_str()).next() {
        Some(denial) => bail!("the policy refused what it should not: {denial}"),
        None => Ok(()),
    }
}

/// What is so after each boot that gets to its end, of which this is the one with that
/// number.
fn check_boot(machine: &Machine, number: usize) -> Result<()> {
    let host = Host(machine);
    let mut probe = host.probe()?;
    for place in ["/var/lib/kubelet", "/mnt/own"] {
        // By the name that it has in the container.
        let found = mounted_from(&mut probe, place)?;
        ensure!(
            found.starts_with("ext4 ") && found.ends_with("/dev/vdb"),
            "{place} is {found}"
        );
    }
    for place in ["/usr/bin/apiclient", "/var/log/support"] {
        ensure!(
            mounted_from(&mut probe, place).is_err(),
            "what a container has mounted is at {place}"
        );
    }
    for (place, label) in [
        ("/var/lib/kubelet", "kubelet_data_t"),
        (KEPT, "var_t"),
        ("/run/bootstrap-containers/disks.ran", "run_t"),
    ] {
        let found = probe.stat(place)?.label.unwrap_or_default();
        ensure!(found.contains(label), "{place} has the label {found}");
    }
    // What is secret has a label of its own, so that no ordinary service may even look.
    for secret in [
        "/etc/bootstrap-containers/disks.toml",
        "/etc/host-containerd/registries.toml",
    ] {
        ensure!(probe.stat(secret).is_err(), "{secret} can be looked at");
    }
    let kept = probe.read(KEPT)?;
    ensure!(kept == "kept\n".repeat(number), "{KEPT} has {kept:?}");
    let swaps = probe.read("/proc/swaps")?;
    ensure!(swaps.contains("/vdc "), "swap space is not on: {swaps}");
    machine.wait_until("kubelet runs", BOOT, || {
        host.show("kubelet.service", "ActiveState")
            .is_ok_and(|state| state == "active")
    })?;
    let since = |unit: &str, property: &str| -> Result<u64> {
        let text = host.show(unit, property)?;
        text.parse()
            .with_context(|| format!("{property} of {unit} is {text:?}"))
    };
    let prepared = since(
        "bootstrap-containers.service",
        "ExecMainExitTimestampMonotonic",
    )?;
    for unit in ["containerd.service", "kubelet.service"] {
        let started = since(unit, "ExecMainStartTimestampMonotonic")?;
        ensure!(started > prepared, "{unit} has not waited");
    }
    host.wait_until_inactive("host-containerd.service")?;
    let api = Api::at(&machine.api_socket());
    for (name, expected) in [
        ("disks", "always"),
        ("good", "off"),
        ("bad", "once"),
        ("unused", "off"),
    ] {
        let found = mode(&api, name)?;
        ensure!(found == expected, "the mode of {name} is {found}");
    }
    for (name, times) in [("good", 1), ("bad", number)] {
        let runs = probe.read(&format!("/mnt/{name}"))?;
        ensure!(runs == "ran\n".repeat(times), "{name} left {runs:?}");
    }
    // It has failed, and nothing else has.
    let failed = probe.run(&["systemctl", "--failed", "--plain", "--no-legend"])?;
    let failed: Vec<&str> = failed.stdout.lines().collect();
    ensure!(
        matches!(failed[..], [unit] if unit.starts_with("bootstrap-containers@bad.service")),
        "failed units: {failed:?}"
    );
    Ok(())
}

fn mode(api: &Api, name: &str) -> Result<Value> {
    let settings = api.get("/settings?prefix=settings.bootstrap-containers")?;
    Ok(settings["bootstrap-containers"][name]["mode"].clone())
}

fn check_disks(said: &str) -> Result<()> {
    for expected in [
        "makes a file system",
        "user data: for it alone",
        "label: system_u:system_r:bootstrap_t:s0-s0:c0.c1023",
        "CapEff:\t00000000e82535fb",
        "Seccomp:\t2",
        "speaks to the API",
        "loads modules",
        "sets kernel variables",
        "process: sh",
        // The first that a kernel has.
        "namespace of processes: pid:[4026531836]",
        "covers a file",
        "covers a folder",
        "insmod: can't insert '/bin/busybox'",
    ] {
        ensure!(said.contains(expected), "it does not say {expected:?}");
    }
    for forbidden in [ESCAPED, "process: systemd"] {
        ensure!(!said.contains(forbidden), "it says {forbidden:?}");
    }
    Ok(())
}
