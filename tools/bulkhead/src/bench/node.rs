//! A node of a cluster: what it costs from power-on until it is ready and runs a pod,
//! and what memory it has in use by itself.

use super::{Row, boots};
use crate::run::Node;
use crate::vm::{ClusterPrograms, Emulation};
use anyhow::Result;
use std::path::Path;
use test_vm::cluster::{has_condition, sleeper};
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine};

/// Processor seconds that a step may take.
const STEP: f64 = 300.0;
/// Bytes of the node's disk, most of which are never written.
const DISK_SIZE: u64 = 12 << 30;

/// Boots the image in `image` as the first node of a cluster.
pub fn measure(
    emulation: &Emulation,
    image: &Path,
    programs: ClusterPrograms,
    folder: &Path,
) -> Result<Vec<Row>> {
    let folder = folder.join("node");
    let node = Node::start(&emulation.emulator, programs, &folder)?;
    let plane = &node.cluster.plane;
    let mut builder = Builder::new(image, &folder, &emulation.variables, emulation.acceleration);
    builder.disk = Disk::Overlay {
        size: Some(DISK_SIZE),
    };
    node.join(&mut builder)?;
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
        is_running(&node, &["--namespace=kube-system"])
    })?;
    let before = (machine.cpu_seconds(), machine.wall_seconds());
    plane.apply(&sleeper("sleeper", &node.cluster.tools()))?;
    machine.wait_until("the pod runs", STEP, || is_running(&node, &[]))?;
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
    let memory = Probe::connect(&machine.probe_socket())?.meminfo()?;
    rows.push(Row::size(
        "node: memory in use, without pods",
        memory.total - memory.available,
    ));
    machine.power_off(STEP)?;
    Ok(rows)
}

/// Whether there are pods, and all of them are ready.
fn is_running(node: &Node, arguments: &[&str]) -> bool {
    let pods = node.cluster.plane.get(&[&["pods"], arguments].concat());
    pods.is_ok_and(|pods| {
        pods["items"].as_array().is_some_and(|pods| {
            !pods.is_empty() && pods.iter().all(|pod| has_condition(pod, "Ready"))
        })
    })
}
