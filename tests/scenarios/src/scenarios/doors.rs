//! The doors to a host that has no registry, and no room on its disk: the images of control
//! and admin that lie in its root.

use super::debugging::Doors;
use super::exec::run_in;
use super::host_containers::{ADMIN, CONTROL, Host, RUNTIME};
use super::set;
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use test_vm::api::Api;
use test_vm::disk::RawDisk;

/// A container beside the two, from which somebody logs in: a machine of the network would
/// reach no other server.
const CLIENT: &str = "client";
const CLIENT_UNIT: &str = "host-containers@client.service";
/// One that starts with it, of the same image.
const TWIN: &str = "twin";
const TWIN_UNIT: &str = "host-containers@twin.service";
const USER: &str = "jo";

/// A folder of control's on the data partition itself.
const FOLDER: &str = "/.bottlerocket/host-containers/current";
/// Takes all room there that is not kept for the host.
const FILL: &str = "busybox fallocate -l $(df -P -k . | awk 'END { print $4 * 1024 }') most; \
                    cat /dev/zero > rest; ! echo more > more";
/// It is still taken; now it is given back.
const EMPTY: &str = "! echo more > more && rm -f most rest more";

/// What admin has done over SSH: a look into a pod's process, and into the host.
const LOOK: &str = r#"
set -- $(pidof pause)
echo "pod: $(timeout 10 strace -p $1 2>&1 | head -c 400)"
sheltie -c '
echo "process 1: $(cat /proc/1/comm)"
echo "kubelet: $(systemctl is-active kubelet.service)"
echo "journal: $(journalctl --boot --lines=1 --quiet --unit=kubelet.service)"
echo "local: $(ls /local)"
exit 7'
echo "status: $?"
echo "no proxy: $NO_PROXY, $no_proxy"
sudo tcpdump --version 2>&1 | head -n 1
"#;

/// By which the client knows the host as `node`.
const SSH_CONFIG: &str = "Host node\n  HostName 127.0.0.1\n  User jo\n  BatchMode yes\n";

/// Admin is enabled from control, used over SSH, and disabled again.
pub(crate) fn doors(stage: &mut Stage<'_>) -> Result<()> {
    let parts = stage.cluster()?;
    let (mut builder, disk) = stage.roomy_machine_of(&parts.node, "host")?;
    let pod = STANDARD.encode(
        "apiVersion: v1\nkind: Pod\nmetadata: { name: watched }\nspec:\n  \
         hostNetwork: true\n  containers:\n  \
         - { name: watched, image: 'localhost/kubernetes/pause:0.1.0', imagePullPolicy: Never }\n",
    );
    // With a key that there is not, of which the host tells.
    let user_data = format!(
        "[settings.ntp]\ntime-server = [\"10.0.2.2\"]\n\
         [settings.kubernetes]\nstandalone-mode = true\ncluster-domain = \"cluster.local\"\n\
         [settings.kubernetes.static-pods.watched]\nenabled = true\nmanifest = \"{pod}\"\n"
    );
    builder.user_data = Some(user_data.into_bytes());
    let mut machine = stage.start(&builder)?;
    machine.wait_for(marks::BOOT_COMPLETE, BOOT)?;
    let host = Host(&machine);
    let api = Api::at(&machine.api_socket());
    for unit in [CONTROL, ADMIN, RUNTIME] {
        let state = host.show(unit, "ActiveState")?;
        ensure!(state == "inactive", "{unit} is {state} by default");
    }

    let admin_image = api.get("/settings?prefix=settings.host-containers.admin.source")?;
    let admin_image = &admin_image["host-containers"]["admin"]["source"];
    let client = json!({
        "enabled": true,
        "source": admin_image,
        "command": ["/usr/bin/bash", "-c", "trap exit TERM; sleep 1000000 & wait"],
    });
    let control = json!({ "enabled": true });
    set(&api, &json!({ "host-containers": { "control": control } }))?;
    host.wait_for(CONTROL, "comes from the root")?;
    host.wait_for(CONTROL, "control runs")?;
    let calls = host.client();
    let run = |container: &str, script: &str| -> Result<String> {
        let (said, status) = run_in(&calls, container, &["sh", "-c", script], None)?;
        ensure!(
            status == 0,
            "in {container} {script:?} ended with {status}: {said}"
        );
        Ok(said)
    };
    run("control", &format!("cd {FOLDER} && {FILL}"))?;
    // Both want their images imported at once, which are the same.
    set(
        &api,
        &json!({ "host-containers": { CLIENT: client, TWIN: client } }),
    )?;
    let mut imports = 0;
    for (unit, runs) in [(CLIENT_UNIT, "client runs"), (TWIN_UNIT, "twin runs")] {
        let said = host.wait_for(unit, runs)?;
        imports += usize::from(said.contains("comes from the root"));
        let starts = host.show(unit, "NRestarts")?;
        ensure!(starts == "0", "{unit} was started {starts} times more");
    }
    ensure!(
        imports == 1,
        "the image of two was imported {imports} times"
    );
    set(
        &api,
        &json!({ "host-containers": { TWIN: { "enabled": false } } }),
    )?;
    stage.note("two containers were imported and run with a full data partition");
    run("control", &format!("cd {FOLDER} && {EMPTY}"))?;
    let key = run(
        CLIENT,
        "mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && \
         cat /root/.ssh/id_ed25519.pub",
    )?;
    let user_data = json!({ "user": USER, "ssh": { "authorized-keys": [key.trim()] } });
    let user_data = STANDARD.encode(user_data.to_string());
    set(
        &api,
        &json!({ "host-containers": { "admin": { "user-data": user_data } } }),
    )?;
    run("control", "enable-admin-container")?;
    host.wait_for(ADMIN, "Server listening on")?;
    stage.note("admin was enabled from control, without a registry");

    // Who has not the key is not let in.
    let ssh = format!("ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new {USER}@127.0.0.1");
    let (said, status) = run_in(
        &calls,
        CLIENT,
        &[
            "sh",
            "-c",
            &format!("{ssh} -o PubkeyAuthentication=no true"),
        ],
        None,
    )?;
    ensure!(
        status != 0 && said.contains("Permission denied"),
        "without the key ssh says, with {status}: {said}"
    );
    machine.wait_until("the pod runs", BOOT, || run("admin", "pidof pause").is_ok())?;
    let said = run(CLIENT, &format!("{ssh} <<'end'\n{LOOK}\nend"))?;
    for expected in [
        "attached",
        "rt_sigtimedwait(",
        "process 1: systemd",
        "kubelet: active",
        "host-containers",
        "status: 7",
        "no proxy: localhost,127.0.0.1,.cluster.local, localhost,127.0.0.1,.cluster.local",
        "tcpdump version",
    ] {
        ensure!(said.contains(expected), "{expected:?} is not in {said}");
    }
    let journal = said.lines().find_map(|line| line.strip_prefix("journal: "));
    ensure!(
        journal.is_some_and(|line| line.contains("kubelet")),
        "the journal is not read: {said}"
    );
    stage.note("over SSH, admin has traced a pod's process and entered the host");

    // Disabled, nothing of it is left but its folder, by which it is known again.
    run("control", "disable-admin-container")?;
    host.wait_until_inactive(ADMIN)?;
    let closed = format!("! {ssh} true 2>&1");
    let said = run(CLIENT, &closed)?;
    ensure!(said.contains("Connection refused"), "ssh says {said}");
    let mounts = host.probe()?.read("/proc/self/mounts")?;
    ensure!(
        !mounts.contains("default/admin/"),
        "something of admin is mounted: {mounts}"
    );
    let stories = Doors {
        host: &host,
        client: CLIENT,
        pod: "pause",
    };
    stories.run_all(|| {
        let strict = ssh.replace("accept-new", "yes");
        run(CLIENT, &format!("{strict} true"))?;
        run(
            CLIENT,
            &format!("cat > /root/.ssh/config <<'end'\n{SSH_CONFIG}end"),
        )?;
        Ok(())
    })?;
    stage.note("the commands of the page on debugging do what it says");
    machine.power_off(BOOT)?;
    drop(machine);

    let journal = stage.journal(&RawDisk::open(disk.path())?)?;
    journal.require("Successfully loaded SELinux policy")?;
    journal.forbid("avc:  denied")
}
