//! Containers that serve the host, apart from Kubernetes.

use super::{exec, set};
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, bail, ensure};
use apiclient::Client;
use serde_json::json;
use std::sync::Arc;
use test_vm::api::Api;
use test_vm::cluster::{Place, Registry};
use test_vm::disk::RawDisk;
use test_vm::probe::Probe;
use test_vm::{Builder, Machine, Reach, TestNetwork};

/// Processor seconds within which a host container has said what it was asked.
const SAID: f64 = 60.0;

pub(super) const CONTROL: &str = "host-containers@control.service";
pub(super) const ADMIN: &str = "host-containers@admin.service";
pub(super) const RUNTIME: &str = "host-containerd.service";
const API: &str = "apiserver.service";
const BROKEN: &str = "host-containers@broken.service";
const AGENT: &str = "host-containers@agent.service";
/// Where admin sees that the runtime has a folder for each container that has processes, or
/// had.
const BUNDLES: &str =
    "/.bottlerocket/rootfs/run/host-containerd/io.containerd.runtime.v2.task/default";

/// As one with superpowers restarts the server.
const RESTART_API: &str = "busybox chroot /.bottlerocket/rootfs /usr/bin/systemctl restart \
                           apiserver.service";

/// What each container says when it is done, and how it waits then.
const WAIT: &str = "echo all tried; trap exit TERM; sleep 1000000 & wait";

/// What an ordinary container looks at, and then tries. What it must not succeed in ends in
/// a word that begins with `escaped`.
const ORDINARY: &str = r#"
/usr/local/bin/apiclient get os
/usr/local/bin/apiclient get settings.container-registry | grep -q swordfish && echo sees secrets by the API
echo "user data: $(cat /.bottlerocket/host-containers/current/user-data)"
grep -e CapEff -e CapBnd -e NoNewPrivs -e Seccomp: /proc/self/status
echo "label: $(cat /proc/self/attr/current)"
echo "out of memory: $(cat /proc/self/oom_score_adj)"
echo "image: $(ls /srv)"
sed 's/^/mount: /' /proc/self/mounts
echo "variable: $NO_PROXY"
echo "inventory: $(head -c 1 /var/lib/bottlerocket/inventory/application.json)"
cat /etc/hosts /etc/resolv.conf > /dev/null && echo sees names and their servers
grep -q "BEGIN CERTIFICATE" /.bottlerocket/certs/ca-bundle.crt && echo sees authorities
ls /.bottlerocket/support && echo sees bundles
echo "firmware: $(head -c 4 /sys/firmware/acpi/tables/FACP)"
for process in /proc/[0-9]*; do echo "process: $(cat $process/comm)"; done
ls /.bottlerocket/host-containers/current/kept && echo has what it kept
touch /.bottlerocket/host-containers/control/kept

echo x >> /etc/hosts && echo escaped-to-hosts
echo x >> /etc/bottlerocket-release && echo escaped-to-the-image
mount -o remount,rw,bind /etc/hosts && echo escaped-by-remount
mount -o remount,rw /proc/sys && echo escaped-by-proc
mount -t tmpfs none /tmp && echo escaped-by-mount
busybox insmod /bin/busybox
echo 1 > /proc/sys/kernel/panic && echo escaped-to-kernel-variables
echo 0 > /sys/fs/selinux/enforce && echo escaped-from-the-policy
echo $$ > /sys/fs/cgroup/cgroup.procs && echo escaped-to-control-groups
busybox unshare -m true && echo escaped-to-another-namespace
busybox unshare -U true && echo escaped-to-a-namespace-of-users
busybox nsenter -t 1 -m /bin/ls /local && echo escaped-to-the-namespace-of-1
ls /proc/1/root/local && echo escaped-through-proc
for major in 7 8 252 253 254 259; do
    busybox mknod /tmp/device b $major 0 && head -c 1 /tmp/device && echo escaped-to-a-disk
    busybox rm -f /tmp/device
done
dmesg && echo escaped-to-the-kernel-log
ls /var/lib/bulkhead && echo escaped-to-settings
ls /run/host-containerd /run/containerd && echo escaped-to-the-runtime
"#;

/// What root with all capabilities tries who sees the host's root at `$host` and its
/// processes: it changes neither the image, nor `/etc`, nor settings.
pub(super) const ROOT_TRIES: &str = r#"
echo "process 1: $(cat /proc/1/comm)"
head -n 1 /proc/1/maps && echo sees into process 1
true < /proc/1/mem && echo opens the memory of process 1
echo "api: $(busybox nsenter -t 1 -m /usr/bin/systemctl is-active apiserver.service)"
busybox chroot $host /usr/bin/apiclient get os | grep -q variant_id && echo speaks to the API
dmesg > /dev/null && echo reads the log of the kernel
head -c 1 /dev/vda > /dev/null && echo opens a disk
cat /proc/sys/kernel/panic > /proc/sys/kernel/panic && echo sets kernel variables
ls $host/run/containerd/containerd.sock && echo sees a runtime
settings=$(busybox find $host/var/lib/bulkhead -type f)
cat $settings > /dev/null && echo reads the files of settings

touch $host/etc/written && echo escaped-to-etc
touch $host/usr/written && echo escaped-to-the-image
mount -o remount,rw $host; touch $host/usr/written && echo escaped-by-remount
touch $host/var/lib/bulkhead/written && echo escaped-to-settings
for file in $settings; do true >> $file && echo escaped-to-$file; done
for file in /etc/written /usr/written /var/lib/bulkhead/written; do
    touch /proc/1/root$file && echo escaped-through-proc-to$file
done
busybox insmod /bin/busybox
echo 0 > $host/sys/fs/selinux/enforce && echo escaped-from-the-policy
"#;

/// What one with superpowers looks at besides, and then does.
const SUPERPOWERED: &str = r#"
grep CapEff /proc/self/status
echo "label: $(cat /proc/self/attr/current)"
sed 's/^/mount: /' /proc/self/mounts
echo "host: $(grep ^ID= $host/usr/lib/os-release), $(ls $host/var/lib)"
busybox chroot $host /usr/bin/journalctl --boot --lines=1 --quiet && echo reads the journal
mkdir -p $host/mnt/disk && mount -t tmpfs from-admin $host/mnt/disk && echo mounted on the host
touch /usr/src/kernels/headers && echo has a place for headers

busybox chroot $host /usr/bin/systemctl stop containerd.service
own=/.bottlerocket/host-containers/current
if grep -q kill $own/user-data && ! ls $own/killed; then
    touch $own/killed
    busybox chroot $host /usr/bin/systemctl kill --kill-whom=main --signal=KILL host-containerd.service
fi
"#;

/// A host, and a registry in its network.
pub(super) fn host_beside_registry(stage: &Stage<'_>) -> Result<(Builder, RawDisk, Registry)> {
    let parts = stage.cluster()?;
    let setup = stage.setup();
    let network = stage.fresh_folder("network")?;
    let network = Arc::new(TestNetwork::new(&setup.emulator, &network)?);
    let registry = Registry::start(
        &setup.emulator,
        &parts.programs,
        &stage.fresh_folder("registry")?,
        Place::Network(&network),
    )?;
    let (mut builder, disk) = stage.roomy_machine_of(&parts.node, "host")?;
    builder.reach = Reach::Shared { network, index: 0 };
    Ok((builder, disk, registry))
}

/// An ordinary host container and one with superpowers come from a registry that is down
/// at first, see of the host what they should and get no further, and go when they are
/// disabled.
pub(crate) fn host_containers(stage: &mut Stage<'_>) -> Result<()> {
    let (mut builder, disk, mut registry) = host_beside_registry(stage)?;
    let image = registry.add_tools()?;
    let other = registry.add_tools_as("other:1")?;
    // It is down while the host boots, which that must not stop.
    registry.stop();
    let container = |name: &str, superpowered: bool, script: &str| {
        let script = script.to_string() + WAIT;
        format!(
            "[settings.host-containers.{name}]\n\
             enabled = true\n\
             source = \"{image}\"\n\
             superpowered = {superpowered}\n\
             user-data = \"Zm9yIGl0IGFsb25lCg==\"\n\
             command = [\"/bin/sh\", \"-c\", '''{script}''']\n"
        )
    };
    let superpowered = format!("host=/.bottlerocket/rootfs\n{ROOT_TRIES}{SUPERPOWERED}");
    let user_data = registry.node_settings()
        + &container("control", false, ORDINARY)
        + &container("admin", true, &superpowered);
    builder.user_data = Some(user_data.into_bytes());
    let mut machine = stage.boot(&builder)?;
    let host = Host(&machine);
    host.wait_for(CONTROL, "another try")?;
    registry.serve_again()?;

    let said = host.wait_for(CONTROL, "all tried")?;
    check_ordinary(&said).with_context(|| format!("control said: {said}"))?;
    let said = host.wait_for(ADMIN, "all tried")?;
    check_superpowered(&said).with_context(|| format!("admin said: {said}"))?;
    // What one mounts is the host's, too.
    let mounts = host.probe()?.read("/proc/self/mounts")?;
    ensure!(
        mounts.contains("from-admin /mnt/disk tmpfs"),
        "what admin has mounted is not on the host: {mounts}"
    );
    let weight = host
        .probe()?
        .read("/sys/fs/cgroup/host_containers.slice/cpu.weight")?;
    ensure!(weight == "20\n", "host containers weigh {weight}");
    stage.note("control and admin see what they should, and get no further");
    exec::check(&host)?;
    stage.note("commands run in control as if it were here");

    // With Kubernetes' containerd stopped, by admin, another source restarts just the one.
    host.wait_until_inactive("containerd.service")?;
    let api = Api::at(&machine.api_socket());
    let (admin, control) = (host.process(ADMIN)?, host.process(CONTROL)?);
    set(
        &api,
        &json!({"host-containers": {"admin": {"source": other}}}),
    )?;
    machine.wait_until("admin has another source", SAID, || {
        host.process(ADMIN).is_ok_and(|process| process != admin)
    })?;
    host.wait_for(ADMIN, "pulling 10.0.2.2:5000/other:1")?;
    host.wait_for(ADMIN, "all tried")?;
    ensure!(
        host.process(CONTROL)? == control,
        "control was restarted when admin got another source"
    );
    // Back at the one that control has kept, and the other one goes.
    set(
        &api,
        &json!({"host-containers": {"admin": {"source": image}}}),
    )?;
    host.wait_for(
        ADMIN,
        "removed 10.0.2.2:5000/other:1, which admin ran before",
    )?;
    host.wait_for(ADMIN, "all tried")?;
    // Not before: the next server starts containerd again.
    exec::the_server_is_killed(&host)?;
    stage.note("what ran by a server that was killed has ended");
    // What runs loses the API neither by that nor by a restart in order.
    let server = host.process(API)?;
    // Who restarts it goes with it, for that runs by it, too.
    let _ = exec::run_in(&host.client(), "admin", &["sh", "-c", RESTART_API], None);
    machine.wait_until("there is another server", SAID, || {
        host.process(API)
            .is_ok_and(|process| ![server.as_str(), "0"].contains(&process.as_str()))
    })?;
    let ask = ["sh", "-c", "/usr/local/bin/apiclient get os"];
    let (said, status) = exec::run_in(&host.client(), "control", &ask, None)?;
    ensure!(
        status == 0 && said.contains("variant_id"),
        "the API's client in control ended with {status}: {said}"
    );
    stage.note("what ran before it reaches each server that comes after");

    // What the host replaces of its files is new in a container that runs, too.
    set(
        &api,
        &json!({
            "network": { "hosts": [["192.0.2.7", ["added.example"]]] },
            "dns": { "name-servers": ["192.0.2.53"] },
        }),
    )?;
    machine.wait_until("control sees other names and servers", SAID, || {
        let files = ["cat", "/etc/hosts", "/etc/resolv.conf"];
        exec::run_in(&host.client(), "control", &files, None).is_ok_and(|(said, _)| {
            said.contains("added.example") && said.contains("nameserver 192.0.2.53")
        })
    })?;

    // A runtime that dies takes its containers along, and they come back, of the image that
    // has their name by then.
    registry.move_tools()?;
    set(
        &api,
        &json!({"host-containers": {"admin": {"user-data": "a2lsbAo="}}}),
    )?;
    machine.wait_until("control has ended with its runtime", SAID, || {
        host.process(CONTROL)
            .is_ok_and(|process| process != control)
    })?;
    let said = host.wait_for(CONTROL, "all tried")?;
    ensure!(
        said.contains("image: moved"),
        "control runs what its name stood for before: {said}"
    );
    host.wait_for(ADMIN, "all tried")?;
    stage.note("both are back after their runtime has died");

    // One that cannot start leaves nothing, but for a folder of its own.
    let broken = |enabled: bool| {
        let command = ["/srv/nothing"];
        let broken = json!({ "source": image, "enabled": enabled, "command": command });
        set(&api, &json!({ "host-containers": { "broken": broken } }))
    };
    broken(true)?;
    // It has ended by the time that it is asked.
    host.0.wait_until("the broken one says why", SAID, || {
        host.journal(&format!("--unit={BROKEN}"))
            .is_ok_and(|said| said.contains("/srv/nothing"))
    })?;
    broken(false)?;
    host.wait_until_inactive(BROKEN)?;
    let (bundles, _) = exec::run_in(&host.client(), "admin", &["ls", BUNDLES], None)?;
    ensure!(
        bundles.contains("admin") && !bundles.contains("broken"),
        "the runtime has {bundles}"
    );

    let enable = |name: &str, enabled: bool| {
        set(
            &api,
            &json!({"host-containers": {name: {"enabled": enabled}}}),
        )
    };

    // One whose image names a user has what that user may have, and the API by its group.
    let of_a_user = registry.add_tools_of_a_user()?;
    let script = "id; /usr/local/bin/apiclient get os; ".to_string() + WAIT;
    let agent = json!({
        "enabled": true,
        "source": of_a_user,
        "command": ["/bin/sh", "-c", script],
    });
    set(&api, &json!({ "host-containers": { "agent": agent } }))?;
    let said = host.wait_for(AGENT, "all tried")?;
    for expected in ["uid=1000(agent) gid=100(users)", "274(api)", "variant_id"] {
        ensure!(
            said.contains(expected),
            "one of a user does not say {expected:?}: {said}"
        );
    }
    enable("agent", false)?;
    host.wait_until_inactive(AGENT)?;
    // As often as somebody changes something, what comes next is done all the same.
    for number in 0..6 {
        let command = json!(["/bin/sh", "-c", format!("exit {number}")]);
        set(
            &api,
            &json!({ "host-containers": { "agent": { "command": command } } }),
        )?;
    }

    // Disabled, one goes and the other stays; without any, the runtime goes, too.
    let admin = host.process(ADMIN)?;
    enable("control", false)?;
    host.wait_until_inactive(CONTROL)?;
    ensure!(
        host.process(ADMIN)? == admin,
        "admin was restarted when control was disabled"
    );
    enable("admin", false)?;
    for unit in [ADMIN, RUNTIME] {
        host.wait_until_inactive(unit)?;
    }
    let tasks = host.show("host_containers.slice", "TasksCurrent")?;
    ensure!(
        ["0", "[not set]"].contains(&tasks.as_str()),
        "{tasks} tasks of host containers run while none is enabled"
    );
    // Enabled again, it has its folder and its image, of which a registry begins to tell and
    // gets no further.
    set(&api, &registry.start_stalling_mirror()?)?;
    enable("control", true)?;
    let said = host.wait_for(CONTROL, "all tried")?;
    for expected in [
        "no progress for 60 s",
        "the image that is here is run",
        "has what it kept",
    ] {
        ensure!(
            said.contains(expected),
            "control does not say {expected:?}: {said}"
        );
    }
    stage.note("a registry that stalls does not keep shut what is here");
    machine.power_off(BOOT)?;
    drop(machine);
    let journal = stage.journal(&RawDisk::open(disk.path())?)?;
    journal.require("Successfully loaded SELinux policy")?;
    journal.forbid("dependency failed")?;
    // Tries to escape that get as far as the policy: all with superpowers, one without.
    let denied = journal.containing("avc:  denied");
    let unexpected = denied.filter(|entry| {
        let says = |text| entry.message.contains(text);
        !(says(":super_t:") || says(":control_t:") && says("name=\"hosts\""))
    });
    match unexpected.map(|entry| entry.message.as_str()).next() {
        Some(denial) => bail!("the policy refused what it should not: {denial}"),
        None => Ok(()),
    }
}

/// A word that a script says where it got further than it should.
pub(super) const ESCAPED: &str = "escaped";

fn check_ordinary(said: &str) -> Result<()> {
    for expected in [
        "\"variant_id\"",
        "user data: for it alone",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "label: system_u:system_r:control_t:s0-s0:c0.c1023",
        "out of memory: 500",
        "variable: localhost,127.0.0.1",
        "inventory: {",
        "sees names and their servers",
        "sees authorities",
        "sees bundles",
        "firmware: FACP",
        "sees secrets by the API",
        "insmod: can't insert '/bin/busybox': Operation not permitted",
    ] {
        ensure!(said.contains(expected), "it does not say {expected:?}");
    }
    for (place, access) in [
        ("/run/api.sock", "rw"),
        ("/usr/local/bin/apiclient", "ro"),
        ("/etc/bottlerocket-release", "ro"),
        ("/etc/hosts", "ro"),
        ("/etc/resolv.conf", "ro"),
        ("/.bottlerocket/host-containers/current", "rw"),
        ("/.bottlerocket/host-containers/control", "rw"),
        ("/.bottlerocket/certs/ca-bundle.crt", "ro"),
        ("/.bottlerocket/support", "ro"),
        ("/var/lib/bottlerocket/inventory/application.json", "ro"),
        ("/sys", "ro"),
        ("/sys/fs/cgroup", "ro"),
    ] {
        check_mount(said, place, access)?;
    }
    for forbidden in [ESCAPED, "rootfs", "process: systemd"] {
        ensure!(!said.contains(forbidden), "it says {forbidden:?}");
    }
    Ok(())
}

/// What root with all capabilities gets at on the host, and what not.
pub(super) fn check_root(said: &str) -> Result<()> {
    for expected in [
        "process 1: systemd",
        "sees into process 1",
        "opens the memory of process 1",
        "api: active",
        "speaks to the API",
        "reads the log of the kernel",
        "opens a disk",
        "sets kernel variables",
        "sees a runtime",
        "reads the files of settings",
        "insmod: can't insert '/bin/busybox'",
    ] {
        ensure!(said.contains(expected), "it does not say {expected:?}");
    }
    ensure!(!said.contains(ESCAPED), "it says {ESCAPED:?}");
    Ok(())
}

fn check_superpowered(said: &str) -> Result<()> {
    check_root(said)?;
    for expected in [
        "admin runs with superpowers",
        "CapEff:\t000001ffffffffff",
        "label: system_u:system_r:super_t:s0-s0:c0.c1023",
        "host: ID=bulkhead",
        "host-containerd",
        "reads the journal",
        "mounted on the host",
        "has a place for headers",
    ] {
        ensure!(said.contains(expected), "it does not say {expected:?}");
    }
    for (place, access) in [
        ("/.bottlerocket/rootfs", "ro"),
        ("/.bottlerocket/rootfs/mnt", "rw"),
        ("/lib/modules", "ro"),
        ("/usr/src/kernels", "rw"),
        ("/usr/local/sbin/modprobe", "ro"),
        ("/sys/firmware", "rw"),
        ("/sys/kernel/debug", "rw"),
        ("/run/api.sock", "rw"),
    ] {
        check_mount(said, place, access)?;
    }
    let debugger = "debugfs /sys/kernel/debug debugfs rw";
    ensure!(said.contains(debugger), "it does not say {debugger:?}");
    Ok(())
}

/// Whether something is mounted in a container at `place`, and may be written or not.
fn check_mount(said: &str, place: &str, access: &str) -> Result<()> {
    let mounts = said.lines().filter_map(|line| line.strip_prefix("mount: "));
    let options = mounts
        .map(|mount| mount.split_whitespace())
        .filter_map(|mut fields| (fields.nth(1)? == place).then(|| fields.nth(1))?)
        .next_back();
    let options = options.with_context(|| format!("nothing is mounted at {place}"))?;
    ensure!(
        options.starts_with(access),
        "{place} is mounted with {options}"
    );
    Ok(())
}

/// A machine and its host containers, as the probe sees them.
pub(crate) struct Host<'a>(pub(super) &'a Machine);

impl Host<'_> {
    /// The client of its API.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.0.api_socket())
    }

    /// Waits until something is as it should be.
    pub(crate) fn wait(&self, what: &str, is_so: impl FnMut() -> bool) -> Result<()> {
        self.0.wait_until(what, SAID, is_so)
    }

    pub(super) fn probe(&self) -> Result<Probe<std::os::unix::net::UnixStream>> {
        Probe::connect(&self.0.probe_socket())
    }

    /// A property of a unit.
    pub(super) fn show(&self, unit: &str, property: &str) -> Result<String> {
        let show = ["systemctl", "show", "--value", "--property", property, unit];
        Ok(self.probe()?.run(&show)?.stdout.trim().to_string())
    }

    /// The main process of a unit; 0 while it has none.
    fn process(&self, unit: &str) -> Result<String> {
        self.show(unit, "MainPID")
    }

    /// What a unit that runs has written since it was started, once that has `text`.
    pub(super) fn wait_for(&self, unit: &str, text: &str) -> Result<String> {
        let mut said = String::new();
        let waited = self
            .0
            .wait_until(&format!("{unit} says {text:?}"), SAID, || {
                said = self.said(unit).unwrap_or_default();
                said.contains(text)
            });
        waited.with_context(|| {
            let whole = self.journal(&format!("--unit={unit}")).unwrap_or_default();
            format!("{unit} said: {whole}")
        })?;
        Ok(said)
    }

    fn said(&self, unit: &str) -> Result<String> {
        if self.process(unit)? == "0" {
            return Ok(String::new());
        }
        let run = self.show(unit, "InvocationID")?;
        self.journal(&format!("_SYSTEMD_INVOCATION_ID={run}"))
    }

    /// Those texts of the journal that `which` chooses, since the boot.
    pub(super) fn journal(&self, which: &str) -> Result<String> {
        let journal = ["journalctl", "--boot", "--output=cat", which];
        Ok(self.probe()?.run(&journal)?.stdout)
    }

    pub(super) fn wait_until_inactive(&self, unit: &str) -> Result<()> {
        self.0.wait_until(&format!("{unit} is gone"), SAID, || {
            self.show(unit, "ActiveState")
                .is_ok_and(|state| state == "inactive")
        })
    }
}
