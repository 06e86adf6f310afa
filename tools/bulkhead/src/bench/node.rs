//! A node of a cluster: what it costs from power-on until it is ready and runs a pod,
//! and what memory it has in use by itself.

use super::{Row, boots};
use crate::run::Node;
use crate::vm::{ClusterPrograms, Emulation};
use anyhow::{Result, ensure};
use buildsys::signals;
use std::path::Path;
use std::thread;
use std::time::Duration;
use test_vm::cluster::has_condition;
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine, Reach};

/// Processor seconds that a step may take.
const STEP: f64 = 300.0;
/// Bytes of the node's disk, most of which are never written.
const DISK_SIZE: u64 = 12 << 30;
/// How often the cluster is asked, which costs the machine nothing.
const PERIOD: Duration = Duration::from_millis(250);

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
    builder.user_data = Some(node.user_data(None)?);
    builder.reach = Reach::Workstation;
    builder.forwards = vec![plane.kubelet_forward(0)];
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
    wait(&machine, "the node has registered", || find().is_some())?;
    mark("node: registered", &machine);
    wait(&machine, "the node is ready", || {
        find().is_some_and(|node| has_condition(&node, "Ready"))
    })?;
    mark("node: ready", &machine);

    // The network's agent runs from this image, too, so it is there.
    wait(&machine, "the agents of the cluster run", || {
        is_running(&node, &["--namespace=kube-system"])
    })?;
    let before = (machine.cpu_seconds(), machine.wall_seconds());
    plane.apply(&pod(&node.cluster.tools()))?;
    wait(&machine, "the pod runs", || is_running(&node, &[]))?;
    rows.push(Row::time(
        "node: a pod from an image that is there",
        machine.cpu_seconds() - before.0,
        machine.wall_seconds() - before.1,
    ));

    plane.kubectl(&["delete", "pod", "sleeper"])?;
    plane.kubectl(&["delete", "daemonsets", "--all", "--namespace=kube-system"])?;
    wait(&machine, "no pod is left", || {
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

fn pod(image: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Pod
metadata: {{ name: sleeper }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: sleeper
    image: {image}
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
"#
    )
}

fn wait(machine: &Machine, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let started = machine.cpu_seconds();
    while !is_so() {
        signals::check()?;
        let spent = machine.cpu_seconds() - started;
        ensure!(
            !machine.has_ended() && spent < STEP,
            "after {spent:.0} CPU seconds it is not so that {what}"
        );
        thread::sleep(PERIOD);
    }
    Ok(())
}
