//! What the machine does as a node of a Kubernetes cluster.

use super::boot::check_clean;
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use test_vm::cluster::{Cluster, Place, has_condition};
use test_vm::disk::RawDisk;
use test_vm::{Builder, Machine, Reach, TestNetwork};

/// The node's name.
pub(super) const NODE: &str = "node-1";
/// Processor seconds from power-on within which a node must have registered.
const REGISTERED: f64 = 150.0;
/// Processor seconds within which a pod must run.
const POD: f64 = 60.0;

/// A cluster and its only node, in one network.
pub(super) struct Node {
    pub(super) cluster: Cluster,
    pub(super) builder: Builder,
    pub(super) disk: PathBuf,
}

impl Node {
    /// Everything but the node runs when this returns.
    pub(super) fn new(stage: &Stage<'_>) -> Result<Self> {
        Self::first_of(stage, 1)
    }

    /// The same, in a cluster that will have as many as `nodes` of them.
    pub(super) fn first_of(stage: &Stage<'_>, nodes: u8) -> Result<Self> {
        let parts = stage.cluster()?;
        let setup = stage.setup();
        let network = stage.fresh_folder("network")?;
        let network = Arc::new(TestNetwork::new(&setup.emulator, &network)?);
        let cluster = Cluster::start(
            &setup.emulator,
            &parts.programs,
            &stage.fresh_folder("cluster")?,
            Place::Network(&network),
            nodes,
        )?;
        let (mut builder, disk) = machine(stage, &cluster, network, 0, NODE)?;
        builder.neighbours = nodes > 1;
        Ok(Self {
            cluster,
            builder,
            disk,
        })
    }

    /// A machine that becomes a further node of the cluster, and its disk.
    pub(super) fn neighbour(
        &self,
        stage: &Stage<'_>,
        index: u8,
        name: &str,
    ) -> Result<(Builder, PathBuf)> {
        let Reach::Shared { network, .. } = &self.builder.reach else {
            bail!("a node that is in no network of others has no neighbours");
        };
        let network = Arc::clone(network);
        let (mut builder, disk) = machine(stage, &self.cluster, network, index, name)?;
        builder.neighbours = self.builder.neighbours;
        Ok((builder, disk))
    }

    /// Adds settings of `settings.kubernetes`, tables of TOML among them, to those that
    /// make it a node.
    pub(super) fn add_settings(&mut self, settings: &str) -> Result<()> {
        const TABLE: &str = "[settings.kubernetes]\n";
        let user_data = self.builder.user_data.take().unwrap_or_default();
        let text = String::from_utf8(user_data).context("the user data is no text")?;
        ensure!(text.contains(TABLE), "the user data has no line {TABLE:?}");
        let text = text.replacen(TABLE, &format!("{TABLE}{settings}"), 1);
        self.builder.user_data = Some(text.into_bytes());
        Ok(())
    }

    /// Adds tables to the user data, which has none of these.
    pub(super) fn add_tables(&mut self, tables: &Value) -> Result<()> {
        let tables = toml::to_string(tables).context("the settings are no TOML")?;
        let user_data = self.builder.user_data.get_or_insert_default();
        user_data.extend(format!("\n{tables}").into_bytes());
        Ok(())
    }

    /// Waits until the node is ready since the boot that `boot_id` is not the
    /// identity of; returns that identity.
    pub(super) fn wait_until_ready(
        &self,
        stage: &mut Stage<'_>,
        machine: &Machine,
        boot_id: Option<&str>,
    ) -> Result<String> {
        let mut found = None;
        machine.wait_until("the node has registered", REGISTERED, || {
            found = self.boot_id().filter(|id| Some(id.as_str()) != boot_id);
            found.is_some()
        })?;
        stage.note(format!(
            "registered after {:.1} CPU s",
            machine.cpu_seconds()
        ));
        machine.wait_until("the node is ready", POD, || {
            // Whoever runs a cluster approves these.
            let _ = self.cluster.plane.approve_serving_certificates();
            self.object()
                .is_ok_and(|node| has_condition(&node, "Ready"))
        })?;
        stage.note(format!("ready after {:.1} CPU s", machine.cpu_seconds()));
        found.context("the node has no identity of its boot")
    }

    /// What its boots have left in the journal, when it is off. The partitions have
    /// grown, so they are looked for anew.
    pub(super) fn check_clean(&self, stage: &Stage<'_>) -> Result<()> {
        check_clean(&stage.journal(&RawDisk::open(&self.disk)?)?)
    }

    fn object(&self) -> Result<Value> {
        self.cluster.plane.get(&["node", NODE])
    }

    fn boot_id(&self) -> Option<String> {
        let node = self.object().ok()?;
        Some(node["status"]["nodeInfo"]["bootID"].as_str()?.to_string())
    }

    /// Waits until a pod is ready.
    fn wait_for_pod(&self, machine: &Machine, name: &str) -> Result<()> {
        machine
            .wait_until(&format!("the pod {name} is ready"), POD, || {
                self.cluster
                    .plane
                    .get(&["pod", name])
                    .is_ok_and(|pod| has_condition(&pod, "Ready"))
            })
            .with_context(
                || match self.cluster.plane.kubectl(&["describe", "pod", name]) {
                    Ok(text) => text,
                    Err(error) => format!("{error:#}"),
                },
            )
    }
}

/// A machine that becomes the node called `name`, the one with this `index` in the
/// network, and its disk.
fn machine(
    stage: &Stage<'_>,
    cluster: &Cluster,
    network: Arc<TestNetwork>,
    index: u8,
    name: &str,
) -> Result<(Builder, PathBuf)> {
    let (mut builder, disk) = stage.roomy_machine_of(&stage.cluster()?.node, name)?;
    builder.reach = Reach::Shared { network, index };
    builder.forwards = vec![cluster.plane.kubelet_forward(index)];
    builder.user_data = Some(cluster.node_user_data(name).into_bytes());
    Ok((builder, disk.path().to_path_buf()))
}

/// A pod that says hello, and then serves a page.
fn greeter(image: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata:
  name: greeter
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: greeter
    image: {image}
    args:
    - -c
    - trap exit TERM; echo hello from $(cat /proc/sys/kernel/hostname); echo page > /tmp/index.html; httpd -f -p 8080 -h /tmp & wait
    readinessProbe:
      tcpSocket: {{ port: 8080 }}
      periodSeconds: 1
"#
    )
}

/// A node joins a cluster by user data alone and runs what the cluster gives it.
pub(crate) fn node_joins(stage: &mut Stage<'_>) -> Result<()> {
    let node = Node::new(stage)?;
    let mut machine = stage.start(&node.builder)?;
    let boot_id = node.wait_until_ready(stage, &machine, None)?;
    let object = node.object()?;
    let runtime = object["status"]["nodeInfo"]["containerRuntimeVersion"]
        .as_str()
        .unwrap_or_default();
    ensure!(runtime.starts_with("containerd://2."), "{object:#}");
    let version = object["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .unwrap_or_default();
    ensure!(version.starts_with("v1."), "{object:#}");

    let plane = &node.cluster.plane;
    plane.apply(&greeter(&node.cluster.tools()))?;
    node.wait_for_pod(&machine, "greeter")?;
    stage.note(format!(
        "first pod ready after {:.1} CPU s",
        machine.cpu_seconds()
    ));
    let log = plane.kubectl(&["logs", "greeter"])?;
    ensure!(log == "hello from greeter\n", "the pod's log is {log:?}");
    let page = plane.kubectl(&[
        "exec",
        "greeter",
        "--",
        "wget",
        "-q",
        "-O-",
        "http://127.0.0.1:8080/",
    ])?;
    ensure!(page == "page\n", "the pod serves {page:?}");

    machine.power_off(BOOT)?;
    drop(machine);
    node.check_clean(stage)?;
    let mut machine = stage.start(&node.builder)?;
    node.wait_until_ready(stage, &machine, Some(&boot_id))?;
    node.wait_for_pod(&machine, "greeter")?;
    machine.power_off(BOOT)?;
    drop(machine);
    node.check_clean(stage)
}
