//! A node of a cluster: what it costs from power-on until it is ready and runs a pod,
//! and what memory it has in use by itself.

use super::{Row, boots};
use crate::vm::Emulation;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use test_vm::cluster::{Cluster, ControlPlane, Place, Programs, has_condition, sleeper};
use test_vm::probe::Probe;
use test_vm::{Builder, Disk, Machine, Reach, TestNetwork};

/// Processor seconds that a step may take.
pub const STEP: f64 = 300.0;
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

/// A machine that becomes the first node of a cluster of its own.
pub struct Node {
    /// The machine.
    pub machine: Machine,
    /// The cluster.
    pub cluster: Cluster,
    /// Both are in it.
    _network: Arc<TestNetwork>,
}

impl Node {
    /// Starts both; the machine is at its power-on when this returns.
    pub fn start(
        emulation: &Emulation,
        candidate: &Candidate<'_>,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self> {
        let folder = folder.join(candidate.name);
        let network = folder.join("network");
        fs::create_dir_all(&network)
            .with_context(|| format!("cannot create {}", network.display()))?;
        let network = Arc::new(TestNetwork::new(&emulation.emulator, &network)?);
        let cluster = Cluster::start(
            &emulation.emulator,
            programs,
            &folder.join("cluster"),
            Place::Network(&network),
            1,
        )?;
        let mut builder = Builder::new(
            candidate.image,
            &folder,
            candidate.variables,
            emulation.acceleration,
        );
        builder.disk = Disk::Overlay {
            size: Some(DISK_SIZE),
        };
        builder.forwards = vec![cluster.plane.kubelet_forward(0)];
        builder.reach = Reach::Shared {
            network: Arc::clone(&network),
            index: 0,
        };
        (candidate.join)(&cluster, &mut builder)?;
        Ok(Self {
            machine: builder.start(&emulation.emulator)?,
            cluster,
            _network: network,
        })
    }

    /// What the cluster says of it, once it has registered.
    pub fn object(&self) -> Option<Value> {
        let nodes = self.cluster.plane.get(&["nodes"]).ok()?;
        nodes["items"].get(0).cloned()
    }

    /// What the clocks show.
    pub fn now(&self) -> Clocks {
        Clocks {
            cpu: self.machine.cpu_seconds(),
            wall: self.machine.wall_seconds(),
        }
    }
}

/// A point in time of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    cpu: f64,
    wall: f64,
}

impl Clocks {
    /// Power-on.
    const START: Self = Self {
        cpu: 0.0,
        wall: 0.0,
    };

    /// The time from then until `end`.
    pub fn until(self, end: Self, name: &str) -> Row {
        Row::time(name, end.cpu - self.cpu, end.wall - self.wall)
    }
}

/// Boots a candidate as the first node of a cluster; the rows are called after what was
/// measured alone, and the same for each candidate.
pub fn measure(
    emulation: &Emulation,
    candidate: &Candidate<'_>,
    programs: &Programs,
    folder: &Path,
) -> Result<Vec<Row>> {
    let mut node = Node::start(emulation, candidate, programs, folder)?;
    let (plane, machine) = (&node.cluster.plane, &node.machine);
    let mut rows = Vec::new();
    machine.wait_until("the node has registered", STEP, || node.object().is_some())?;
    rows.push(Clocks::START.until(node.now(), "node: registered"));
    machine.wait_until("the node is ready", STEP, || {
        node.object()
            .is_some_and(|node| has_condition(&node, "Ready"))
    })?;
    rows.push(Clocks::START.until(node.now(), "node: ready"));

    // The network's agent runs from this image, too, so it is there.
    machine.wait_until("the agents of the cluster run", STEP, || {
        is_running(plane, &["--namespace=kube-system"])
    })?;
    let before = node.now();
    plane.apply(&sleeper("sleeper", &node.cluster.tools()))?;
    machine.wait_until("the pod runs", STEP, || is_running(plane, &[]))?;
    rows.push(before.until(node.now(), "node: a pod from an image that is there"));

    plane.kubectl(&["delete", "pod", "sleeper"])?;
    plane.kubectl(&["delete", "daemonsets", "--all", "--namespace=kube-system"])?;
    machine.wait_until("no pod is left", STEP, || {
        plane
            .get(&["pods", "--all-namespaces"])
            .is_ok_and(|pods| pods["items"].as_array().is_some_and(Vec::is_empty))
    })?;
    let before = node.now();
    boots::wait(machine, boots::SETTLED)?;
    rows.push(before.until(node.now(), "node: idle, without pods"));
    rows.push(Row::size(
        "node: memory in use, without pods",
        (candidate.memory)(&mut node.machine)?,
    ));
    node.machine.power_off(STEP)?;
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
