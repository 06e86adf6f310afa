//! What keeps a node from its work is said by the host itself, and is over without a
//! reboot once its cause is.

use super::cluster::{NODE, Node};
use super::{debugging, set};
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use test_vm::api::Api;
use test_vm::cluster::{has_condition, sleeper};
use test_vm::disk::RawDisk;
use test_vm::probe::Probe;
use test_vm::{Machine, Services};

/// When the certificates of servers are over, and systemd believes a clock.
const LATER: &str = "2036-06-01T00:00:00";
/// Processor seconds within which the host says what is wrong, and that it is over.
const SAID: f64 = 90.0;
/// How long to wait between two looks, since each makes the report anew.
const PAUSE: Duration = Duration::from_secs(3);

/// The host names each trouble in its report and on the console, and works again when
/// the trouble is over, with all that it was told.
pub(crate) fn node_troubles(stage: &mut Stage<'_>) -> Result<()> {
    let mut node = Node::new(stage)?;
    let certificate = node.cluster.plane.certificate();
    let user_data = node.builder.user_data.take().unwrap_or_default();
    let user_data = String::from_utf8(user_data).context("the user data is no text")?;
    let of_another = node.cluster.registry.certificate();
    let user_data = user_data.replace(&certificate, &of_another) + SOON_OVER;
    let (user_data, kubernetes) = without_cluster(&user_data)?;
    node.builder.user_data = Some(user_data.into_bytes());
    node.builder.clock = Some(LATER);
    node.builder.services = Services {
        ntp: Some(0),
        ..Services::default()
    };
    node.cluster.plane.expire_token()?;

    let mut machine = stage.start(&node.builder)?;
    // Nobody asks for a report: the host says this by itself.
    machine.wait_for("bulkhead: node: no cluster is configured", BOOT + SAID)?;
    let mut host = Host::of(&mut machine, stage);
    host.has("no-cluster")?;
    set(&host.api, &kubernetes)?;
    host.has("clock")?;
    set(
        &host.api,
        &json!({ "ntp": { "time-servers": ["10.0.2.2"] } }),
    )?;
    host.has("authority")?;
    debugging::refused(&mut Probe::connect(&host.machine.probe_socket())?)?;
    let right = json!({ "kubernetes": { "cluster-certificate": certificate } });
    set(&host.api, &right)?;
    host.has("credentials")?;
    node.cluster.plane.let_nodes_join()?;
    node.wait_until_ready(host.stage, host.machine, None)?;
    host.has_none()?;

    node.cluster.plane.stop_api_server();
    host.has("api-server")?;
    node.cluster.plane.start_api_server()?;
    host.has_none()?;

    let image = node.cluster.registry.add_tools_as("dropped:1")?;
    node.cluster.registry.drop_connections()?;
    node.cluster.plane.apply(&sleeper("dropped", &image))?;
    host.has("registry")?;
    node.cluster.registry.serve_again()?;
    host.runs(&node, "pod/dropped")?;

    let image = node.cluster.registry.add_tools_as("altered:1")?;
    node.cluster.registry.flip_bit_of("altered:1")?;
    node.cluster.plane.apply(&sleeper("altered", &image))?;
    host.has("image-content")?;
    node.cluster.registry.flip_bit_of("altered:1")?;
    host.runs(&node, "pod/altered")?;
    host.has_none()?;

    node.cluster.plane.apply(&FILLER.replace("IMAGE", &image))?;
    host.has("data-partition")?;
    // kubelet makes room by evicting who has taken it.
    let evicted = |pod: &Value| pod["status"]["reason"] == "Evicted";
    host.until(&node, "pod/filler", "is evicted", evicted)?;
    host.has_none()?;
    let with_room =
        |node: &Value| has_condition(node, "Ready") && !has_condition(node, "DiskPressure");
    host.until(&node, &format!("node/{NODE}"), "has room", with_room)?;
    for pod in ["pod/dropped", "pod/altered"] {
        host.runs(&node, pod)?;
    }
    node.cluster.plane.apply(&sleeper("afterwards", &image))?;
    host.runs(&node, "pod/afterwards")?;

    let told = host
        .api
        .get("/settings?keys=settings.kubernetes.cluster-certificate")?;
    ensure!(told == right, "the settings have {told}");
    machine.power_off(BOOT)?;
    drop(machine);
    let journal = stage.journal(&RawDisk::open(&node.disk)?)?;
    journal.forbid("avc:  denied")?;
    for said in CONSOLE {
        ensure!(
            journal.containing(said).next().is_some(),
            "the console was not told {said:?}"
        );
    }
    Ok(())
}

/// What the console was told when nobody may have been able to ask.
pub(super) const CONSOLE: [&str; 8] = [
    "node: no more of this: no cluster is configured, so kubelet does not run",
    "node: no more of this: the clock is wrong",
    "node: the API server's certificate is of another authority",
    "node: the API server refuses the node's credentials",
    "node: the API server does not answer",
    "node: a registry drops or refuses connections",
    "node: an image is not what its digest says",
    "node: the data partition is full",
];

/// A node that has been short of something says so for five minutes by default.
const SOON_OVER: &str = "[settings.kubelet-configuration]\n\
                         evictionPressureTransitionPeriod = \"5s\"\n";

/// User data without what says which cluster the node is of, and that as settings.
fn without_cluster(user_data: &str) -> Result<(String, Value)> {
    let mut document: toml::Table = user_data.parse().context("reading the user data")?;
    let settings = document
        .get_mut("settings")
        .and_then(toml::Value::as_table_mut);
    let kubernetes = settings
        .and_then(|settings| settings.remove("kubernetes"))
        .context("the user data does not say which cluster the node is of")?;
    let kubernetes = serde_json::to_value(kubernetes).context("writing the settings as JSON")?;
    Ok((document.to_string(), json!({ "kubernetes": kubernetes })))
}

/// Takes the room of the data partition but for a few percent.
const FILLER: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: filler }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: filler
    image: IMAGE
    args:
    - -c
    - busybox fallocate -l $(busybox df -P -k /fill | busybox awk 'END { print $4 * 1000 }') /fill/file; sleep 1000000
    volumeMounts: [{ name: fill, mountPath: /fill }]
  volumes: [{ name: fill, emptyDir: {} }]
"#;

/// A machine that is asked what is wrong.
pub(super) struct Host<'a, 'b> {
    machine: &'a mut Machine,
    stage: &'a mut Stage<'b>,
    api: Api,
}

impl<'a, 'b> Host<'a, 'b> {
    pub(super) fn of(machine: &'a mut Machine, stage: &'a mut Stage<'b>) -> Self {
        Self {
            api: Api::at(&machine.api_socket()),
            machine,
            stage,
        }
    }

    /// Waits until the report says that this is wrong.
    pub(super) fn has(&mut self, cause: &str) -> Result<()> {
        self.reports(&format!("{cause} is reported"), |causes| {
            causes.iter().any(|found| found == cause)
        })
    }

    /// Waits until the report says that nothing is wrong.
    fn has_none(&mut self) -> Result<()> {
        self.reports("nothing is reported", |causes| causes.is_empty())
    }

    fn reports(&mut self, what: &str, is: impl Fn(&[String]) -> bool) -> Result<()> {
        let mut last = Value::Null;
        let waited = self.machine.wait_until(what, SAID, || {
            thread::sleep(PAUSE);
            let Ok(report) = self.api.get("/report/node?format=json") else {
                return false;
            };
            let causes = causes(&report);
            last = report;
            is(&causes)
        });
        waited.with_context(|| format!("the last report is {last:#}"))?;
        let cpu = self.machine.cpu_seconds();
        self.stage.note(format!("{what} (after {cpu:.0} CPU s)"));
        Ok(())
    }

    /// Waits until a pod is ready.
    fn runs(&mut self, node: &Node, pod: &str) -> Result<()> {
        self.until(node, pod, "is ready", |pod| has_condition(pod, "Ready"))
    }

    /// Waits until an object of the cluster is as it should be.
    fn until(
        &mut self,
        node: &Node,
        object: &str,
        state: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let plane = &node.cluster.plane;
        let what = format!("{object} {state}");
        let waited = self.machine.wait_until(&what, SAID, || {
            thread::sleep(PAUSE);
            plane.get(&[object]).is_ok_and(|found| is(&found))
        });
        waited.with_context(|| {
            plane
                .kubectl(&["describe", object])
                .unwrap_or_else(|error| format!("{error:#}"))
        })
    }
}

/// What a node report says is wrong.
pub(super) fn causes(report: &Value) -> Vec<String> {
    let troubles = report["troubles"].as_array().into_iter().flatten();
    troubles
        .filter_map(|trouble| trouble["cause"].as_str().map(str::to_string))
        .collect()
}
