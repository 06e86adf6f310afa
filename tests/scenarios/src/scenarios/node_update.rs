//! Updates of a node, through what a cluster runs on it for that.
//!
//! The update operator of Bottlerocket has an agent on each node, whose image has nothing
//! but itself. It calls the host's own `apiclient`, which is mounted into it, and judges by
//! what that prints. The pod here has less: it is of the image that holds pods' namespaces,
//! so that whatever runs in it is the host's. The repository is served over TLS by somebody
//! whom only the settings make the host trust.

use super::cluster::Node;
use super::pods::Pods;
use super::set;
use super::slots::kernel_with;
use super::updates::{Updates, time_of_last};
use crate::stage::{BOOT, Stage, marks};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use boot_slots::bless::FOLDER;
use boot_slots::entry::{Entry, Tries};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use test_vm::api::Api;
use test_vm::disk::RawDisk;
use test_vm::files::{self, Manner};
use test_vm::{Machine, Services, Wait};
use tls_client::fake::{self, Authority};

/// Processor seconds within which an update command ends.
const COMMAND: f64 = 300.0;
const AGENT: &str = "app=update-agent";
/// Processor seconds of a boot in which kubelet is waited for in vain.
const UNWELL: f64 = 200.0;
/// What such a boot is complained of with.
const COMPLAINT: &str = "kubelet is not healthy";
/// An argument of the kernel, and what the new version has in its place. Without the CPU
/// that it is told to keep for the host, kubelet does not start.
const ONE_CPU: (&str, &str) = ("slab_nomerge", "nr_cpus=1");
const SETTINGS: &str = r#"
reserved-cpus = "1"
node-labels."bottlerocket.aws/updater-interface-version" = "2.0.0"
"#;

/// What the operator asks of a node, as it asks for it, but for the image and the limit of
/// processor time, which an emulated machine would need all day with.
const MANIFEST: &str = r#"apiVersion: apps/v1
kind: DaemonSet
metadata: { name: update-agent }
spec:
  selector: { matchLabels: { app: update-agent } }
  template:
    metadata: { labels: { app: update-agent } }
    spec:
      nodeSelector: { bottlerocket.aws/updater-interface-version: "2.0.0" }
      terminationGracePeriodSeconds: 1
      containers:
      - name: agent
        image: localhost/kubernetes/pause:0.1.0
        imagePullPolicy: Never
        resources: { limits: { memory: 50Mi } }
        securityContext:
          runAsUser: 0
          seLinuxOptions: { user: system_u, role: system_r, type: super_t, level: s0 }
        volumeMounts:
        - { name: socket, mountPath: /run/api.sock }
        - { name: client, mountPath: /bin/apiclient }
      volumes:
      - { name: socket, hostPath: { path: /run/api.sock, type: Socket } }
      - { name: client, hostPath: { path: /bin/apiclient, type: File } }
"#;

/// The agent has an update installed on which kubelet does not become healthy: the host gives
/// it up by itself, says why, and is a node again. Asked for once more, with settings that
/// suit it, the update completes its boot while no API server of the cluster answers.
pub(crate) fn node_update(stage: &mut Stage<'_>) -> Result<()> {
    let cluster = stage.cluster()?;
    let next = (cluster.next_node)()?;
    let mut updates = Updates::between(stage, &cluster.node, &next)?;
    updates.new.boot = stage.folder().join("one-cpu.efi");
    let kernel = kernel_with(&next, ONE_CPU, &stage.setup().signer)?;
    fs::write(&updates.new.boot, kernel).context("cannot write the kernel image")?;
    let (old, new) = (updates.old.version.clone(), updates.new.version.clone());
    let mut node = Node::new(stage)?;
    node.add_settings(SETTINGS)?;
    let authority = Authority::generate();
    let mut settings = updates.settings("https");
    settings["pki"] = json!({ "updates": {
        "data": BASE64_STANDARD.encode(authority.certificate()),
        "trusted": true,
    } });
    node.add_tables(&json!({ "settings": settings }))?;
    node.builder.services = Services {
        files: Some(updates.folder().to_path_buf()),
        files_identity: Some(authority.identity("10.0.2.2")),
        ..Services::default()
    };

    let mut machine = stage.start(&node.builder)?;
    let first_boot = node.wait_until_ready(stage, &machine, None)?;
    node.cluster.plane.apply(MANIFEST)?;
    let api = Api::at(&machine.api_socket());
    let agent = Agent::on(&node, &machine)?;
    let refused = agent.call("POST", "/actions/prepare-update").err();
    let refused = refused.map(|error| format!("{error:#}"));
    ensure!(
        (refused.as_ref()).is_some_and(|text| text.contains("Status 409 when POSTing")),
        "the agent reads {refused:?} when there is nothing to prepare"
    );
    updates.release(&updates.new)?;
    lock(&api, &format!("v{old}"))?;
    agent.is_offered_but_not_chosen(&api, &new)?;
    lock(&api, "latest")?;
    agent.prepared(stage, &api, &new)?;
    drop(agent);

    machine.power_off(BOOT)?;
    drop(machine);
    try_once(&node, &new)?;
    let mut machine = stage.start(&node.builder)?;
    machine.wait_for(&format!("boot not complete: {COMPLAINT}"), UNWELL)?;
    machine.wait(&Wait::line(marks::BOOT_COMPLETE, UNWELL).across_resets())?;
    ensure!(machine.resets() == 1, "{} resets", machine.resets());
    let second_boot = node.wait_until_ready(stage, &machine, Some(&first_boot))?;
    let api = Api::at(&machine.api_socket());
    let agent = Agent::on(&node, &machine)?;
    let os = agent.json("/os")?;
    ensure!(os["version_id"] == old.as_str(), "the agent reads {os}");
    machine.wait_until("the update is settled", BOOT, || {
        (api.get("/updates/status")).is_ok_and(|status| status["update_state"] == "Idle")
    })?;
    // It looks for updates before it asks for the status, each time.
    agent.is_offered_but_not_chosen(&api, &new)?;
    let status = agent.json("/updates/status")?;
    let why = status["given_up"][&new].as_str().unwrap_or_default();
    ensure!(
        why.contains(COMPLAINT),
        "the status does not say why: {status:#}"
    );
    stage.note(format!("given up: {why}"));
    drop(agent);

    lock(&api, &format!("v{new}"))?;
    api.json(
        "DELETE",
        "/settings?tx=scenario&keys=settings.kubernetes.reserved-cpus",
        None,
    )?;
    api.json("POST", "/tx/commit_and_apply?tx=scenario&wait=true", None)?;
    let agent = Agent::on(&node, &machine)?;
    agent.prepared(stage, &api, &new)?;
    // Its own connection may end by it.
    let rebooting = agent.call("POST", "/actions/reboot");
    drop(agent);
    node.cluster.plane.stop_api_server();
    machine
        .wait(&Wait::line(marks::BOOT_COMPLETE, 2.0 * BOOT).across_resets())
        .with_context(|| format!("the agent asked for a reboot and read {rebooting:?}"))?;
    node.cluster.plane.start_api_server()?;
    node.wait_until_ready(stage, &machine, Some(&second_boot))?;
    let agent = Agent::on(&node, &machine)?;
    let os = agent.json("/os")?;
    ensure!(os["version_id"] == new.as_str(), "the agent reads {os}");
    let status = agent.json("/updates/status")?;
    ensure!(
        status["update_state"] == "Idle"
            && status["active_partition"]["image"]["version"] == new.as_str(),
        "the agent reads {status:#}"
    );
    drop(agent);
    machine.power_off(BOOT)?;
    drop(machine);
    stage
        .journal(&RawDisk::open(&node.disk)?)?
        .forbid("avc:  denied")
}

fn lock(api: &Api, version: &str) -> Result<()> {
    set(api, &json!({ "updates": { "version-lock": version } }))
}

/// Leaves the image that is to boot next its last try.
fn try_once(node: &Node, version: &str) -> Result<()> {
    let entry = Entry::blessed(version);
    let last = Tries::Counting { left: 1, done: 2 };
    let [new, last] = [Tries::NEW, last].map(|tries| entry.with_tries(tries).to_string());
    let esp = RawDisk::open(&node.disk)?.esp()?;
    esp.rename(&format!("{FOLDER}/{new}"), &format!("{FOLDER}/{last}"))
}

/// Serves a folder for machines that trust the authority of this certificate, whose key
/// follows it.
pub fn serve_files_over_tls(listener: TcpListener, folder: &Path, identity: &str) -> Result<()> {
    let config = fake::server(identity, identity)?;
    let begin = move |stream| fake::begin(&config, stream);
    files::serve_over(listener, folder, Manner::Ranges, &Arc::default(), begin);
    Ok(())
}

/// The pod that calls `apiclient`.
struct Agent<'a> {
    pods: Pods<'a>,
    machine: &'a Machine,
    name: String,
}

impl<'a> Agent<'a> {
    /// Once it runs since the machine was started last.
    fn on(node: &'a Node, machine: &'a Machine) -> Result<Self> {
        let pods = Pods::on(node, machine)?;
        let agent = Self {
            name: pods.ready_of(AGENT)?,
            pods,
            machine,
        };
        // A pod of before the last boot says that it is ready for a while.
        agent.pods.until("the agent can call the host", || {
            agent.json("/os").map(|os| os.is_object())
        })?;
        Ok(agent)
    }

    /// Sends a request as the operator's agent does; what it prints.
    fn call(&self, method: &str, path: &str) -> Result<String> {
        let command = ["/bin/apiclient", "raw", "-m", method, "-u", path];
        self.pods.exec(&self.name, &command)
    }

    fn json(&self, path: &str) -> Result<Value> {
        let text = self.call("GET", path)?;
        serde_json::from_str(&text).with_context(|| format!("{path} is {text:?}"))
    }

    /// Looks for updates: there is one, which this host does not take.
    fn is_offered_but_not_chosen(&self, api: &Api, version: &str) -> Result<()> {
        let status = self.run(api, "refresh")?;
        ensure!(
            status["chosen_update"].is_null() && status["available_updates"] == json!([version]),
            "{version} was to be offered and not to be chosen: {status:#}"
        );
        Ok(())
    }

    /// Has an update chosen, put into the other slot, and made the next to boot.
    fn prepared(&self, stage: &mut Stage<'_>, api: &Api, version: &str) -> Result<()> {
        let status = self.run(api, "refresh")?;
        ensure!(
            status["update_state"] == "Available" && status["chosen_update"]["version"] == version,
            "the update is not chosen: {status:#}"
        );
        let (cpu, clock) = (self.machine.cpu_seconds(), self.machine.wall_seconds());
        let status = self.run(api, "prepare")?;
        ensure!(status["update_state"] == "Staged", "not staged: {status:#}");
        stage.note(format!(
            "prepared in {:.0} CPU s, {:.0} s on the clock",
            self.machine.cpu_seconds() - cpu,
            self.machine.wall_seconds() - clock
        ));
        let status = self.run(api, "activate")?;
        ensure!(
            status["update_state"] == "Ready"
                && status["staging_partition"]["next_to_boot"] == true,
            "not ready: {status:#}"
        );
        Ok(())
    }

    /// Has the host do something and waits until it has; the status that the agent reads
    /// then, in the form that it insists on.
    fn run(&self, api: &Api, kind: &str) -> Result<Value> {
        let action = match kind {
            "refresh" => "refresh-updates".to_string(),
            kind => format!("{kind}-update"),
        };
        let before = time_of_last(api);
        let said = self.call("POST", &format!("/actions/{action}"))?;
        ensure!(said.trim().is_empty(), "{kind} is answered with {said:?}");
        // By the door, for each call of the agent costs as much as a step of the work.
        let ends = format!("{kind} ends");
        self.machine.wait_until(&ends, COMMAND, || {
            let last = time_of_last(api);
            last.is_some() && last != before
        })?;
        let status = self.json("/updates/status")?;
        let last = &status["most_recent_command"];
        ensure!(
            last["cmd_type"] == kind
                && last["cmd_status"] == "Success"
                && last["exit_status"] == 0
                && last["stderr"].is_string(),
            "{kind} failed: {status:#}"
        );
        Ok(status)
    }
}
