//! As many pods as a node may have, all at once.

use super::cluster::{NODE, Node};
use super::set;
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use test_vm::Machine;
use test_vm::api::Api;
use test_vm::cluster::has_condition;

/// What the settings say. kubelet's own limit is 110, for which an emulated node takes
/// forty minutes.
const MAX_PODS: usize = 40;
/// Pods that are asked for: with the agent of the network, a few more than fit.
const ASKED: usize = 45;
/// Processor seconds within which all must run, and be gone.
const ALL: f64 = 600.0;
/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_secs(5);

/// A node that is given more pods than fit at once runs those that fit, stays ready all
/// the time, and is still administered.
pub(crate) fn many_pods(stage: &mut Stage<'_>) -> Result<()> {
    let mut node = Node::new(stage)?;
    node.add_settings(&format!("max-pods = {MAX_PODS}\n"))?;
    let mut machine = stage.start(&node.builder)?;
    node.wait_until_ready(stage, &machine, None)?;
    let plane = &node.cluster.plane;
    let started = machine.cpu_seconds();
    plane.apply(
        &CROWD
            .replace("IMAGE", &node.cluster.tools())
            .replace("ASKED", &ASKED.to_string()),
    )?;

    let mut unready = None;
    until(&machine, "as many pods as fit are ready", || {
        if let Some(fault) = plane.get(&["node", NODE]).ok().and_then(unfit) {
            unready.get_or_insert(fault);
        }
        pods(&node).is_ok_and(|pods| ready(&pods) == MAX_PODS)
    })
    .with_context(|| match pods(&node) {
        Ok(pods) => format!("{} are ready: {pods:#?}", ready(&pods)),
        Err(error) => format!("{error:#}"),
    })?;
    ensure!(unready.is_none(), "on the way the node had {unready:?}");
    stage.note(format!(
        "{MAX_PODS} pods ready {:.0} CPU s after they were asked for",
        machine.cpu_seconds() - started
    ));

    // None of them was started twice, and none beyond those was taken on and failed.
    let all = pods(&node)?;
    for pod in &all {
        let name = &pod["metadata"]["name"];
        let phase = &pod["status"]["phase"];
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        match phase.as_str() {
            Some("Running") => ensure!(restarts == 0, "{name} was started again"),
            Some("Pending") => ensure!(pod["spec"]["nodeName"].is_null(), "{pod:#}"),
            _ => bail!("{name} is {phase}"),
        }
    }
    let api = Api::at(&machine.api_socket());
    set(&api, &json!({ "motd": "crowded" }))?;
    let report = api.get("/report/node?format=json")?;
    ensure!(report["troubles"] == json!([]), "{report:#}");

    plane.kubectl(&["delete", "deployment", "crowd"])?;
    until(&machine, "the pods are gone", || {
        pods(&node).is_ok_and(|pods| pods.len() == 1)
    })?;
    stage.note(format!(
        "all gone {:.0} CPU s after they were asked for",
        machine.cpu_seconds() - started
    ));
    machine.power_off(BOOT)?;
    drop(machine);
    node.check_clean(stage)
}

const CROWD: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: { name: crowd }
spec:
  replicas: ASKED
  progressDeadlineSeconds: 6000
  selector: { matchLabels: { app: crowd } }
  template:
    metadata: { labels: { app: crowd } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: member
        image: IMAGE
        args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
"#;

/// Why a node could be given no pods, if it could not.
fn unfit(node: Value) -> Option<String> {
    const PRESSURES: [&str; 3] = ["MemoryPressure", "DiskPressure", "PIDPressure"];
    if !has_condition(&node, "Ready") {
        return Some("no readiness".to_string());
    }
    let pressure = PRESSURES
        .into_iter()
        .find(|name| has_condition(&node, name));
    pressure.map(str::to_string)
}

/// All pods that there are.
fn pods(node: &Node) -> Result<Vec<Value>> {
    let mut list = node.cluster.plane.get(&["pods", "--all-namespaces"])?;
    match list["items"].take() {
        Value::Array(pods) => Ok(pods),
        other => bail!("the list of pods is {other}"),
    }
}

fn ready(pods: &[Value]) -> usize {
    pods.iter()
        .filter(|pod| has_condition(pod, "Ready"))
        .count()
}

fn until(machine: &Machine, what: &str, mut is: impl FnMut() -> bool) -> Result<()> {
    machine.wait_until(what, ALL, || {
        thread::sleep(PAUSE);
        is()
    })
}
