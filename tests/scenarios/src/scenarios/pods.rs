//! What runs on a node: pods of every kind that users rely on, and what they outlive.
//!
//! Each [`Check`] has a manifest, in which `IMAGE` is the image with small programs.
//! All manifests are applied at once, then each check sees to its own pods.

use super::cluster::{NODE, Node};
use super::host_containers::{ROOT_TRIES, check_root};
use super::troubles::causes;
use super::{boot, set};
use crate::evidence::{Entry, Journal};
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;
use test_vm::Machine;
use test_vm::api::Api;
use test_vm::cluster::has_condition;
use test_vm::disk::RawDisk;
use test_vm::probe::Probe;

/// Processor seconds within which what a check waits for must come. The pods start
/// all at once, so the first check waits for most of them.
const PODS: f64 = 200.0;

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Something that pods do on a node.
struct Check {
    /// What is shown.
    about: &'static str,
    manifest: &'static str,
    see: fn(&Pods<'_>) -> Result<()>,
}

const CHECKS: &[Check] = &[
    Check {
        about: "a Deployment runs two pods, which its Service is answered by",
        manifest: WEB,
        see: service_leads_to_both_pods,
    },
    Check {
        about: "logs come, ports are forwarded, and agents find the log files",
        manifest: "",
        see: logs_and_ports,
    },
    Check {
        about: "ConfigMap and Secret are files of a container",
        manifest: CLIENT,
        see: configuration_is_mounted,
    },
    Check {
        about: "an ordinary container is confined, and writes none of the host's own folders",
        manifest: HOST_PATHS,
        see: host_paths,
    },
    Check {
        about: "a privileged pod gets at the host, but neither at its image, /etc nor settings",
        manifest: ROOT,
        see: root_is_kept_from_what_protects_the_host,
    },
    Check {
        about: "a static pod of the settings runs",
        manifest: "",
        see: static_pod_runs,
    },
    Check {
        about: "a container that takes more memory than it may is killed, and the reason known",
        manifest: HOG,
        see: hog_is_killed,
    },
    Check {
        about: "a container that its liveness probe finds dead is restarted",
        manifest: BRITTLE,
        see: dead_container_is_restarted,
    },
    Check {
        about: "a kernel variable that the settings do not allow is refused",
        manifest: TUNED,
        see: kernel_variable_is_refused,
    },
    Check {
        about: "an emptyDir that outgrows its limit costs the pod",
        manifest: SCRATCH,
        see: scratch_is_evicted,
    },
];

/// A node with pods, as the checks see it.
pub(super) struct Pods<'a> {
    node: &'a Node,
    machine: &'a Machine,
    probe: RefCell<Probe<std::os::unix::net::UnixStream>>,
}

/// Pods of every kind on one node, what ends and what does not end them, and a reboot
/// in the middle.
pub(crate) fn pods(stage: &mut Stage<'_>) -> Result<()> {
    let mut node = Node::new(stage)?;
    node.cluster.add_service_network()?;
    node.add_settings(&static_pod(&node.cluster.tools()))?;
    let mut machine = stage.start(&node.builder)?;
    let boot_id = node.wait_until_ready(stage, &machine, None)?;
    let manifests: Vec<&str> = CHECKS
        .iter()
        .map(|check| check.manifest)
        .filter(|manifest| !manifest.is_empty())
        .collect();
    let manifests = manifests.join("---\n");
    let manifests = manifests.replace("IMAGE", &node.cluster.tools());
    node.cluster.plane.apply(&manifests)?;
    let pods = Pods::on(&node, &machine)?;
    // None depends on another, so that one run tells all that is wrong.
    let mut faults = Vec::new();
    for check in CHECKS {
        let seen =
            (check.see)(&pods).with_context(|| format!("it was to be seen that {}", check.about));
        match seen {
            Ok(()) => stage.note(format!(
                "{} (after {:.0} CPU s)",
                check.about,
                machine.cpu_seconds()
            )),
            Err(error) => faults.push(error),
        }
    }
    faults.extend(pods.outlive(stage).err());
    faults.extend(pods.outlive_settings(stage).err());
    let faults: Vec<String> = faults.iter().map(|fault| format!("{fault:#}")).collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    let before = pods.running()?;
    drop(pods);

    let api = Api::at(&machine.api_socket());
    boot::restart(&mut machine, &api)?;
    node.wait_until_ready(stage, &machine, Some(&boot_id))?;
    let pods = Pods::on(&node, &machine)?;
    pods.come_back(&before)?;
    stage.note(format!(
        "all pods came back after {:.0} CPU s",
        machine.cpu_seconds()
    ));
    drop(pods);
    machine.power_off(BOOT)?;
    drop(machine);
    check_journal(&stage.journal(&RawDisk::open(&node.disk)?)?)
}

/// Two pods that serve their names, and a service before them.
pub(super) const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: IMAGE
        args:
        - -c
        - trap exit TERM; cp /proc/sys/kernel/hostname /tmp/index.html; echo serving; httpd -f -p 8080 -h /tmp & wait
        readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8080 }]
"#;

fn service_leads_to_both_pods(pods: &Pods<'_>) -> Result<()> {
    pods.wait("both pods are ready", &["deployment", "web"], |web| {
        web["status"]["readyReplicas"] == 2
    })?;
    pods.wait_ready("client")?;
    pods.service_leads_to_all("client", "web")
}

fn logs_and_ports(pods: &Pods<'_>) -> Result<()> {
    let plane = &pods.node.cluster.plane;
    let names = pods.names("app=web")?;
    let name = names.first().context("there is no pod of web")?;
    let log = plane.kubectl(&["logs", name])?;
    ensure!(log == "serving\n", "the log of {name} is {log:?}");
    let page = plane.fetch_forwarded(name, 8080, "/")?;
    ensure!(page.trim() == name, "{name} serves {page:?}");
    // An agent has the host's folder at the same place: links in it lead to the files.
    let pattern = format!("cat /var/log/containers/{name}_default_web-*.log");
    let line = pods.exec("host-paths", &["sh", "-c", &pattern])?;
    check_log_line(line.trim_end()).with_context(|| format!("an agent reads {line:?}"))
}

/// A line as the runtime interface defines it: time, stream, whether it is whole, text.
fn check_log_line(line: &str) -> Result<()> {
    let parts: Vec<&str> = line.splitn(4, ' ').collect();
    let [time, stream, whole, text] = parts[..] else {
        bail!("it has {} parts", parts.len());
    };
    ensure!(
        time.contains('T') && time.len() > 20,
        "{time:?} is no time of RFC 3339"
    );
    ensure!((stream, whole, text) == ("stdout", "F", "serving"));
    Ok(())
}

const CLIENT: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: { name: client }
data: { greeting: "good day" }
---
apiVersion: v1
kind: Secret
metadata: { name: client }
stringData: { password: "sesame" }
---
apiVersion: v1
kind: Pod
metadata: { name: client }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: IMAGE
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
    volumeMounts:
    - { name: config, mountPath: /config }
    - { name: secret, mountPath: /secret, readOnly: true }
  volumes:
  - { name: config, configMap: { name: client } }
  - { name: secret, secret: { secretName: client } }
"#;

fn configuration_is_mounted(pods: &Pods<'_>) -> Result<()> {
    let files = ["cat", "/config/greeting", "/secret/password"];
    let text = pods.exec("client", &files)?;
    ensure!(text == "good daysesame", "the files have {text:?}");
    Ok(())
}

const HOST_PATHS: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: host-paths }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: host-paths
    image: IMAGE
    args: ["-c", "trap exit TERM; echo started >> /host/local/starts; sleep 1000000 & wait"]
    volumeMounts:
    - { name: local, mountPath: /host/local }
    - { name: logs, mountPath: /var/log }
    - { name: etc, mountPath: /host/etc }
    - { name: run, mountPath: /host/run }
    - { name: kubelet, mountPath: /host/var/lib/kubelet }
    - { name: containerd, mountPath: /host/var/lib/containerd }
  volumes:
  - { name: local, hostPath: { path: /local/scenario, type: DirectoryOrCreate } }
  - { name: logs, hostPath: { path: /var/log } }
  - { name: etc, hostPath: { path: /etc } }
  - { name: run, hostPath: { path: /run } }
  - { name: kubelet, hostPath: { path: /var/lib/kubelet } }
  - { name: containerd, hostPath: { path: /var/lib/containerd } }
"#;
/// What the container `host-paths` has of the host and must not write.
const FORBIDDEN: [&str; 4] = [
    "/host/etc",
    "/host/run",
    "/host/var/lib/kubelet",
    "/host/var/lib/containerd",
];
/// The program by which it tries to, and nothing else in the scenario does anything.
const TRESPASSER: &str = "touch";

fn host_paths(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready("host-paths")?;
    let label = pods.exec("host-paths", &["cat", "/proc/self/attr/current"])?;
    ensure!(
        label.starts_with("system_u:system_r:container_t:s0:c"),
        "the container runs as {label:?}"
    );
    let file = pods.probe.borrow_mut().read(STARTS)?;
    ensure!(file == "started\n", "{STARTS} has {file:?}");
    for folder in FORBIDDEN {
        let path = format!("{folder}/trespassed");
        match pods.exec("host-paths", &[TRESPASSER, &path]) {
            Ok(_) => bail!("an ordinary container could write {path}"),
            Err(error) => ensure!(
                format!("{error:#}").contains("Permission denied"),
                "{path} could not be written for another reason: {error:#}"
            ),
        }
    }
    Ok(())
}

/// The file on the host that says how often the container has started.
const STARTS: &str = "/local/scenario/starts";

/// Settings with a static pod.
fn static_pod(image: &str) -> String {
    let manifest = STATIC.replace("IMAGE", image);
    format!(
        "static-pods.fixed.enabled = true\nstatic-pods.fixed.manifest = \"{}\"\n",
        STANDARD.encode(manifest)
    )
}

const STATIC: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: fixed }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: fixed
    image: IMAGE
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
"#;

fn static_pod_runs(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready(&format!("fixed-{NODE}"))
}

const HOG: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: hog }
spec:
  restartPolicy: Never
  containers:
  - name: hog
    image: IMAGE
    # The runtime watches for this only from a moment after the start on.
    args: ["-c", "sleep 10; exec tail /dev/zero"]
    resources: { limits: { memory: 32Mi } }
"#;

fn hog_is_killed(pods: &Pods<'_>) -> Result<()> {
    pods.wait("the hog was killed", &["pod", "hog"], |pod| {
        pod["status"]["phase"] == "Failed"
    })?;
    let pod = pods.get(&["pod", "hog"])?;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(
        ended["reason"] == "OOMKilled" && ended["exitCode"] == 137,
        "it ended by {ended}"
    );
    Ok(())
}

const BRITTLE: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: brittle }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: brittle
    image: IMAGE
    args: ["-c", "trap exit TERM; httpd -p 8080 -h /tmp; sleep 1000000 & wait"]
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
    livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 5, failureThreshold: 2 }
"#;

fn dead_container_is_restarted(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready("brittle")?;
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let before = restarts(&pods.get(&["pod", "brittle"])?);
    pods.exec("brittle", &["killall", "httpd"])?;
    pods.wait("it was restarted", &["pod", "brittle"], |pod| {
        restarts(pod) > before && has_condition(pod, "Ready")
    })
}

const TUNED: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: tuned }
spec:
  terminationGracePeriodSeconds: 1
  securityContext:
    sysctls: [{ name: net.core.somaxconn, value: "1234" }]
  containers:
  - name: tuned
    image: IMAGE
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
"#;

fn kernel_variable_is_refused(pods: &Pods<'_>) -> Result<()> {
    pods.wait("the pod is refused", &["pod", "tuned"], |pod| {
        pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "SysctlForbidden"
    })?;
    pods.delete("tuned")
}

const SCRATCH: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: scratch }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: scratch
    image: IMAGE
    args: ["-c", "trap exit TERM; head -c 8000000 /dev/zero > /scratch/file; sleep 1000000 & wait"]
    volumeMounts: [{ name: scratch, mountPath: /scratch }]
  volumes:
  - { name: scratch, emptyDir: { sizeLimit: 1Mi } }
"#;

fn scratch_is_evicted(pods: &Pods<'_>) -> Result<()> {
    pods.wait("the pod is evicted", &["pod", "scratch"], |pod| {
        pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "Evicted"
    })?;
    let pod = pods.get(&["pod", "scratch"])?;
    let message = pod["status"]["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("exceeds the limit"),
        "it was evicted since {message:?}"
    );
    Ok(())
}

/// A pod that is root on the host, by which the scenario does what nobody should.
const ROOT: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: root }
spec:
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: root
    image: IMAGE
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
    securityContext: { privileged: true }
    volumeMounts: [{ name: host, mountPath: /host }]
  volumes: [{ name: host, hostPath: { path: / } }]
"#;
/// Programs by which it tries what is refused.
const ROOT_TRESPASSERS: [&str; 4] = ["busybox", "mount", "sh", TRESPASSER];

fn root_is_kept_from_what_protects_the_host(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready("root")?;
    let script = format!(
        "exec 2>&1; host=/host\n{ROOT_TRIES}\n\
         grep CapEff /proc/self/status; cat /proc/self/attr/current"
    );
    let said = pods.exec("root", &["sh", "-c", &script])?;
    check_root(&said)
        .and_then(|()| {
            for expected in ["CapEff:\t000001ffffffffff", "system_u:system_r:super_t:s0"] {
                ensure!(said.contains(expected), "it does not say {expected:?}");
            }
            Ok(())
        })
        .with_context(|| format!("it said: {said}"))
}

/// A container that runs: what identifies it, when it was started, how often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    id: String,
    started: String,
    restarts: u64,
}

impl<'a> Pods<'a> {
    pub(super) fn on(node: &'a Node, machine: &'a Machine) -> Result<Self> {
        Ok(Self {
            node,
            machine,
            probe: RefCell::new(Probe::connect(&machine.probe_socket())?),
        })
    }

    fn get(&self, object: &[&str]) -> Result<Value> {
        self.node.cluster.plane.get(object)
    }

    /// Waits until an object is as it should be; if it does not become so, says how it is.
    pub(super) fn wait(
        &self,
        what: &str,
        object: &[&str],
        is: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let plane = &self.node.cluster.plane;
        self.look(what, || plane.get(object).is_ok_and(|found| is(&found)))
            .with_context(|| {
                plane
                    .kubectl(&[&["describe"], object].concat())
                    .unwrap_or_else(|error| format!("{error:#}"))
            })
    }

    /// Looks now and then, since each look starts a program, until something is so.
    fn look(&self, what: &str, mut is: impl FnMut() -> bool) -> Result<()> {
        self.machine.wait_until(what, PODS, || {
            is() || {
                thread::sleep(PAUSE);
                false
            }
        })
    }

    pub(super) fn wait_ready(&self, pod: &str) -> Result<()> {
        self.wait(&format!("the pod {pod} is ready"), &["pod", pod], |pod| {
            has_condition(pod, "Ready")
        })
    }

    pub(super) fn names(&self, selector: &str) -> Result<Vec<String>> {
        let pods = self.get(&["pods", "--selector", selector])?;
        let items = pods["items"].as_array().into_iter().flatten();
        Ok(items
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_string))
            .collect())
    }

    /// The pod with the labels `selector`, once there is one and it is ready.
    pub(super) fn ready_of(&self, selector: &str) -> Result<String> {
        let mut names = Vec::new();
        self.look(&format!("there is a pod of {selector}"), || {
            names = self.names(selector).unwrap_or_default();
            !names.is_empty()
        })?;
        self.wait_ready(&names[0])?;
        Ok(names.swap_remove(0))
    }

    /// Waits until something is so.
    pub(super) fn until(&self, what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
        self.look(what, || is().is_ok_and(|is| is))
    }

    /// Deletes a pod and waits until it is gone.
    pub(super) fn delete(&self, pod: &str) -> Result<()> {
        let delete = ["delete", "pod", pod, "--wait"];
        self.node.cluster.plane.kubectl(&delete).map(drop)
    }

    /// What a pod has said.
    pub(super) fn log(&self, pod: &str) -> Result<String> {
        self.node.cluster.plane.kubectl(&["logs", pod])
    }

    /// The same of one of its containers.
    pub(super) fn log_of(&self, pod: &str, container: &str) -> Result<String> {
        self.node.cluster.plane.kubectl(&["logs", pod, container])
    }

    pub(super) fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let arguments = [&["exec", pod, "--"], command].concat();
        self.node.cluster.plane.kubectl(&arguments)
    }

    /// Runs a command in one of a pod's containers.
    pub(super) fn exec_in(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let arguments = [&["exec", pod, "--container", container, "--"], command].concat();
        self.node.cluster.plane.kubectl(&arguments)
    }

    /// Asks the service called `app` from inside the pod `client` until every pod with that
    /// label has answered with its name.
    pub(super) fn service_leads_to_all(&self, client: &str, app: &str) -> Result<()> {
        let service = self.get(&["service", app])?;
        let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
        let url = format!("http://{address}/");
        let expected: BTreeSet<String> = self.names(&format!("app={app}"))?.into_iter().collect();
        let answered = RefCell::new(BTreeSet::new());
        // Which of them answers is chance, and at first nobody, until kube-proxy is there.
        self.until("all have answered", || {
            let page = self.exec(client, &["wget", "-q", "-T", "5", "-O-", &url])?;
            answered.borrow_mut().insert(page.trim().to_string());
            Ok(*answered.borrow() == expected)
        })
        .with_context(|| {
            format!("{client} asked {url}; of the pods {expected:?} there answered {answered:?}")
        })
    }

    /// Every container that runs, by its pod's name.
    fn running(&self) -> Result<BTreeMap<String, Running>> {
        let pods = self.get(&["pods", "--all-namespaces"])?;
        let items = pods["items"].as_array().into_iter().flatten();
        Ok(items
            .filter_map(|pod| {
                let container = &pod["status"]["containerStatuses"][0];
                let started = container["state"]["running"]["startedAt"].as_str()?;
                let running = Running {
                    id: container["containerID"].as_str()?.to_string(),
                    started: started.to_string(),
                    restarts: container["restartCount"].as_u64()?,
                };
                Some((pod["metadata"]["name"].as_str()?.to_string(), running))
            })
            .collect())
    }

    /// The first process of a service.
    fn main_process(&self, unit: &str) -> Result<String> {
        let show = ["systemctl", "show", "--property=MainPID", "--value", unit];
        let ended = self.probe.borrow_mut().run(&show)?;
        ensure!(ended.status == 0, "systemctl says {}", ended.stderr);
        Ok(ended.stdout.trim().to_string())
    }

    /// When the first process of a pod's container was started, in ticks of the kernel:
    /// what no agent's memory of it can be wrong about.
    fn process_start(&self, pod: &str) -> Result<String> {
        let stat = self.exec(pod, &["cat", "/proc/1/stat"])?;
        let start = stat.split_ascii_whitespace().nth(21);
        Ok(start.context("/proc/1/stat is too short")?.to_string())
    }

    /// Kills kubelet and containerd, which costs no pod anything.
    fn outlive(&self, stage: &mut Stage<'_>) -> Result<()> {
        for (program, restarted) in [
            ("kubelet", &["kubelet"][..]),
            ("containerd", &["containerd"]),
        ] {
            self.undisturbed(restarted, || {
                // This very connection may end by it, too.
                let _ = self.exec("root", &["killall", "-9", program]);
                Ok(())
            })
            .with_context(|| format!("{program} was killed"))?;
            stage.note(format!(
                "{program} was killed, the pods run on (after {:.0} CPU s)",
                self.machine.cpu_seconds()
            ));
        }
        self.outlive_a_runtime_that_is_away(stage)?;
        let mut failed = String::new();
        let list = ["systemctl", "--failed", "--no-legend", "--plain"];
        self.look("no unit has failed for good", || {
            let ended = self.probe.borrow_mut().run(&list);
            ended.is_ok_and(|ended| {
                failed = ended.stdout;
                failed.is_empty()
            })
        })
        .with_context(|| failed.clone())
    }

    /// Kubelet does not run without its runtime, which the host says, and is started with it:
    /// by somebody, and when the runtime is back by itself.
    fn outlive_a_runtime_that_is_away(&self, stage: &mut Stage<'_>) -> Result<()> {
        let systemctl = |script: &str| {
            // Its own connection ends by it.
            let script = script.replace("systemctl", "busybox chroot /host /usr/bin/systemctl");
            let script = format!("({script}) > /dev/null 2>&1 &");
            let _ = self.exec("root", &["sh", "-c", &script]);
        };
        let both = ["containerd", "kubelet"];
        self.undisturbed(&both, || {
            systemctl("systemctl stop containerd; sleep 40; systemctl start containerd");
            let api = Api::at(&self.machine.api_socket());
            self.look("the runtime is reported", || {
                let report = api.get("/report/node?format=json");
                report.is_ok_and(|report| causes(&report).iter().any(|cause| cause == "runtime"))
            })
        })
        .context("containerd was stopped and started")?;
        self.undisturbed(&both, || {
            systemctl(
                "systemctl stop kubelet
                 systemctl kill --kill-whom=main --signal=KILL containerd",
            );
            Ok(())
        })
        .context("containerd was killed while kubelet was stopped")?;
        stage.note(format!(
            "kubelet is back with its runtime (after {:.0} CPU s)",
            self.machine.cpu_seconds()
        ));
        Ok(())
    }

    /// Changes settings, which restarts what it must and no pod.
    fn outlive_settings(&self, stage: &mut Stage<'_>) -> Result<()> {
        let api = Api::at(&self.machine.api_socket());
        let containerd = self.main_process("containerd.service")?;
        self.undisturbed(&["kubelet"], || {
            let allowed = json!({ "allowed-unsafe-sysctls": ["net.core.somaxconn"] });
            set(&api, &json!({ "kubernetes": allowed }))
        })
        .context("a setting of kubelet was changed")?;
        ensure!(
            containerd == self.main_process("containerd.service")?,
            "a setting of kubelet has restarted containerd"
        );
        self.node
            .cluster
            .plane
            .apply(&TUNED.replace("IMAGE", &self.node.cluster.tools()))?;
        self.wait_ready("tuned")?;
        let value = self.exec("tuned", &["cat", "/proc/sys/net/core/somaxconn"])?;
        ensure!(value == "1234\n", "the pod's variable is {value:?}");
        self.undisturbed(&["containerd", "kubelet"], || {
            let other = json!({ "max-concurrent-downloads": 5 });
            set(&api, &json!({ "container-runtime": other }))
        })
        .context("a setting of containerd was changed")?;
        self.outlive_managers(&api)?;
        stage.note(format!(
            "settings were changed, the pods run on (after {:.0} CPU s)",
            self.machine.cpu_seconds()
        ));
        Ok(())
    }

    /// Gives kubelet other managers of CPUs and memory, and its own again. It starts with
    /// none of what the ones before have kept.
    fn outlive_managers(&self, api: &Api) -> Result<()> {
        // All that is reserved: what kubelet evicts pods for by itself.
        let memory = |enabled: bool| json!({ "0": { "enabled": enabled, "memory": "100Mi" } });
        for (cpu, memory, kept) in [
            ("static", memory(true), ["static", "Static"]),
            ("none", memory(false), ["none", "None"]),
        ] {
            self.undisturbed(&["kubelet"], || {
                let policies = json!({
                    "cpu-manager-policy": cpu,
                    "memory-manager-policy": "Static",
                    "memory-manager-reserved-memory": memory,
                });
                set(api, &json!({ "kubernetes": policies }))
            })
            .with_context(|| format!("the policy of CPUs has become {cpu}"))?;
            for (manager, policy) in ["cpu", "memory"].into_iter().zip(kept) {
                let path = format!("/host/var/lib/kubelet/{manager}_manager_state");
                let state = self.exec("root", &["cat", &path])?;
                ensure!(
                    state.contains(&format!("\"policyName\":\"{policy}\"")),
                    "{path} says {state}"
                );
            }
        }
        Ok(())
    }

    /// Does something that restarts `units`, and sees that it restarts no container.
    fn undisturbed(&self, units: &[&str], act: impl FnOnce() -> Result<()>) -> Result<()> {
        let state = || -> Result<_> {
            let client = self.process_start("client")?;
            Ok((self.running()?, client))
        };
        let processes = || -> Result<Vec<String>> {
            let units = units.iter();
            units
                .map(|unit| self.main_process(&format!("{unit}.service")))
                .collect()
        };
        let (before, old) = (state()?, processes()?);
        act()?;
        self.look(&format!("{} runs anew", units.join(" and ")), || {
            processes().is_ok_and(|new| {
                let mut pairs = new.iter().zip(&old);
                pairs.all(|(new, old)| new != old && new != "0")
            })
        })?;
        self.look("kubelet serves", || self.exec("client", &["true"]).is_ok())?;
        let after = state()?;
        ensure!(
            after == before,
            "before, there ran\n{before:#?}\nand after it\n{after:#?}"
        );
        Ok(())
    }

    /// After a reboot, sees that every pod that ran does so again, anew.
    fn come_back(&self, before: &BTreeMap<String, Running>) -> Result<()> {
        let mut missing = Vec::new();
        self.look("all pods run again", || {
            let Ok(now) = self.running() else {
                return false;
            };
            let anew = |name: &str, old: &Running| {
                now.get(name).is_some_and(|new| new.started > old.started)
            };
            missing = before
                .iter()
                .filter(|(name, old)| !anew(name, old))
                .map(|(name, _)| name.clone())
                .collect();
            missing.is_empty()
        })
        .with_context(|| format!("{} do not", missing.join(", ")))?;
        for pod in ["client", "host-paths"] {
            self.wait_ready(pod)?;
        }
        service_leads_to_both_pods(self)?;
        let starts = self.probe.borrow_mut().read(STARTS)?;
        ensure!(
            starts == "started\nstarted\n",
            "after a reboot, {STARTS} has {starts:?}"
        );
        Ok(())
    }
}

/// What the boots have left in the journal: no failure and no refusal but those that
/// the scenario has caused.
fn check_journal(journal: &Journal) -> Result<()> {
    let refusals = journal.containing("avc:  denied");
    let is_caused = |entry: &&Entry| {
        let of = |program: &str| entry.message.contains(&format!("comm=\"{program}\""));
        of(TRESPASSER)
            || entry.message.contains(":super_t:") && ROOT_TRESPASSERS.into_iter().any(of)
    };
    let failures = journal.containing("Failed with result");
    let caused = [
        "kubelet.service: Failed with result 'signal'",
        "containerd.service: Failed with result 'signal'",
        "import-images.service: Failed with result 'exit-code'",
        ".scope: Failed with result 'oom-kill'",
    ];
    let odd: Vec<&str> = refusals
        .filter(|entry| !is_caused(entry))
        .chain(failures.filter(|entry| !caused.iter().any(|text| entry.message.contains(text))))
        .map(|entry| entry.message.as_str())
        .collect();
    ensure!(
        odd.is_empty(),
        "the journal says\n    {}",
        odd.join("\n    ")
    );
    journal.forbid("dependency failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_have_four_parts() {
        check_log_line("2026-01-02T03:04:05.678901234Z stdout F serving").unwrap();
        for bad in [
            "serving",
            "2026-01-02T03:04:05.678901234Z stderr F serving",
            "2026-01-02T03:04:05.678901234Z stdout P serving",
            "now stdout F serving",
        ] {
            assert!(check_log_line(bad).is_err(), "{bad:?}");
        }
    }
}
