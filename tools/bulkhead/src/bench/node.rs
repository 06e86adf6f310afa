//! A node of a cluster: what it costs from power-on until it is ready and runs a pod,
//! and what memory it has in use by itself.

use super::{Row, boots};
use crate::vm::Emulation;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use test_vm::cluster::{Cluster, ControlPlane, Place, Programs, has_condition, sleeper};
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine, Reach, TestNetwork};

/// Processor seconds that a step may take.
const STEP: f64 = 300.0;
/// Bytes of the node's disk, most of which are never written.
const DISK_SIZE: u64 = 12 << 30;

/// The node's name, by which the network of pods knows it.
pub const NODE: &str = "node-1";

/// What becomes a node.
pub struct Candidate<'a> {
    /// What it is called in the table.
    pub name: &'a str,
    /// The folder of its image.
    pub image: &'a Path,
    /// The firmware's variables.
    pub variables: &'a Path,
    /// Has a machine of it come up as the node of a cluster.
    pub join: &'a dyn Fn(&Cluster, &mut Builder) -> Result<()>,
    /// The bytes of memory that are in use.
    pub memory: &'a dyn Fn(&mut Machine) -> Result<u64>,
}

/// Boots a candidate as the first node of a cluster; the rows are called after what was
/// measured alone, and the same for each candidate.
pub fn measure(
    emulation: &Emulation,
    candidate: &Candidate<'_>,
    programs: &Programs,
    folder: &Path,
) -> Result<Vec<Row>> {
    let folder = folder.join(candidate.name);
    let network = folder.join("network");
    fs::create_dir_all(&network).with_context(|| format!("cannot create {}", network.display()))?;
    let network = Arc::new(TestNetwork::new(&emulation.emulator, &network)?);
    let cluster = Cluster::start(
        &emulation.emulator,
        programs,
        &folder.join("cluster"),
        Place::Network(&network),
        1,
    )?;
    let plane = &cluster.plane;
    let mut builder = Builder::new(
        candidate.image,
        &folder,
        candidate.variables,
        emulation.acceleration,
    );
    builder.disk = Disk::Overlay {
        size: Some(DISK_SIZE),
    };
    builder.forwards = vec![plane.kubelet_forward(0)];
    builder.reach = Reach::Shared { network, index: 0 };
    (candidate.join)(&cluster, &mut builder)?;
    let mut machine = builder.start(&emulation.emulator)?;
    let mut rows = Vec::new();
    let find = || {
        let nodes = plane.get(&["nodes"]).ok()?;
        nodes["items"].get(0).cloned()
    };
    let mut mark = |name: &str, machine: &Machine| {
        rows.push(Row::time(
            name,
            machine.cpu_seconds(),
            machine.wall_seconds(),
        ));
    };
    machine.wait_until("the node has registered", STEP, || find().is_some())?;
    mark("node: registered", &machine);
    machine.wait_until("the node is ready", STEP, || {
        find().is_some_and(|node| has_condition(&node, "Ready"))
    })?;
    mark("node: ready", &machine);

    // The network's agent runs from this image, too, so it is there.
    machine.wait_until("the agents of the cluster run", STEP, || {
        is_running(plane, &["--namespace=kube-system"])
    })?;
    let before = (machine.cpu_seconds(), machine.wall_seconds());
    plane.apply(&sleeper("sleeper", &cluster.tools()))?;
    machine.wait_until("the pod runs", STEP, || is_running(plane, &[]))?;
    rows.push(Row::time(
        "node: a pod from an image that is there",
        machine.cpu_seconds() - before.0,
        machine.wall_seconds() - before.1,
    ));

    plane.kubectl(&["delete", "pod", "sleeper"])?;
    plane.kubectl(&["delete", "daemonsets", "--all", "--namespace=kube-system"])?;
    machine.wait_until("no pod is left", STEP, || {
        plane
            .get(&["pods", "--all-namespaces"])
            .is_ok_and(|pods| pods["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    let before = (machine.cpu_seconds(), machine.wall_seconds());
    boots::wait(&machine, boots::SETTLED)?;
    rows.push(Row::time(
        "node: idle, without pods",
        machine.cpu_seconds() - before.0,
        machine.wall_seconds() - before.1,
    ));
    rows.push(Row::size(
        "node: memory in use, without pods",
        (candidate.memory)(&mut machine)?,
    ));
    machine.power_off(STEP)?;
    Ok(rows)
}

/// Whether there are pods, and all of them are ready.
fn is_running(plane: &ControlPlane, arguments: &[&str]) -> bool {
    let pods = plane.get(&[&["pods"], arguments].concat());
    pods.is_ok_and(|pods| {
        pods["items"].as_array().is_some_and(|pods| {
            !pods.is_empty() && pods.iter().all(|pod| has_condition(pod, "Ready"))
        })
    })
}

/// Has a machine of ours come up as the node of a cluster.
pub fn join(cluster: &Cluster, builder: &mut Builder) -> Result<()> {
    builder.user_data = Some(cluster.node_user_data(NODE).into_bytes());
    Ok(())
}

/// The bytes of memory that are in use in a machine of a dev twin.
pub fn memory_in_use(machine: &mut Machine) -> Result<u64> {
    let memory = Probe::connect(&machine.probe_socket())?.meminfo()?;
    Ok(memory.total - memory.available)
}
