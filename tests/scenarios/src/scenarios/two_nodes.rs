//! Two nodes of one cluster, which only the cluster's own agents connect.

use super::boot::check_clean;
use super::cluster::Node;
use super::pods::{Pods, WEB};
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, ensure};
use std::cell::RefCell;
use test_vm::Machine;
use test_vm::cluster::has_condition;
use test_vm::disk::RawDisk;

/// The second node's name, by which the network of pods knows its number.
const SECOND: &str = "node-2";

/// The pods that serve their names, one on each node.
fn one_on_each_node(image: &str) -> String {
    WEB.replace("kind: Deployment", "kind: DaemonSet")
        .replace("  replicas: 2\n", "")
        .replace("IMAGE", image)
}

/// A pod on each of two nodes: they reach each other, and both are behind their service,
/// whichever node it is asked from.
pub(crate) fn two_nodes(stage: &mut Stage<'_>) -> Result<()> {
    let node = Node::first_of(stage, 2)?;
    node.cluster.add_service_network()?;
    let peers = one_on_each_node(&node.cluster.tools());
    node.cluster.plane.apply(&peers)?;
    let (second, second_disk) = node.neighbour(stage, 1, SECOND)?;
    let mut machine = stage.start(&node.builder)?;
    let mut neighbour = stage.start(&second)?;
    node.wait_until_ready(stage, &machine, None)?;
    let pods = Pods::on(&node, &machine)?;
    let peers = RefCell::new(Vec::new());
    pods.until("a pod is ready on each node", || {
        // The second node asks for one, too.
        node.cluster.plane.approve_serving_certificates()?;
        *peers.borrow_mut() = ready_peers(&node)?;
        Ok(peers.borrow().len() == 2)
    })
    .with_context(|| format!("only {peers:?} are ready"))?;
    let peers = peers.into_inner();
    for asking in &peers {
        for asked in &peers {
            let url = format!("http://{}:8080/", asked.address);
            let page = pods.exec(&asking.name, &["wget", "-q", "-T", "30", "-O-", &url])?;
            ensure!(
                page.trim() == asked.name,
                "{asking:?} asks {asked:?}, and {page:?} answers"
            );
        }
    }
    note_cost(stage, "pods reach each other", &machine, &neighbour);
    for asking in &peers {
        pods.service_leads_to_all(&asking.name, "web")?;
    }
    note_cost(stage, "their service leads to both", &machine, &neighbour);
    drop(pods);
    machine.power_off(BOOT)?;
    neighbour.power_off(BOOT)?;
    drop((machine, neighbour));
    node.check_clean(stage)?;
    check_clean(&stage.journal(&RawDisk::open(&second_disk)?)?)
}

/// A pod that serves.
#[derive(Debug)]
struct Peer {
    name: String,
    address: String,
}

fn ready_peers(node: &Node) -> Result<Vec<Peer>> {
    let pods = node.cluster.plane.get(&["pods", "--selector=app=web"])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    Ok(pods
        .filter(|pod| has_condition(pod, "Ready"))
        .filter_map(|pod| {
            Some(Peer {
                name: pod["metadata"]["name"].as_str()?.to_string(),
                address: pod["status"]["podIP"].as_str()?.to_string(),
            })
        })
        .collect())
}

fn note_cost(stage: &mut Stage<'_>, what: &str, machine: &Machine, neighbour: &Machine) {
    stage.note(format!(
        "{what} after {:.0} and {:.0} CPU s",
        machine.cpu_seconds(),
        neighbour.cpu_seconds()
    ));
}
