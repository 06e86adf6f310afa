//! Agents on a node, which look into the host or serve other pods, and a shutdown under
//! way of which they and all others are ended in order.

use super::cluster::Node;
use super::daemonsets;
use super::pods::Pods;
use crate::stage::Stage;
use anyhow::{Context, Result, bail, ensure};
use boot_slots::layout::Role;
use std::fs;
use test_vm::cluster::has_condition;
use test_vm::disk::RawDisk;

/// Packages with what agents are made of.
pub(crate) const PACKAGES: &[&str] = &["cri-tools", "ebpf-example", "ebpf-guard"];

/// Seconds that the node gives its pods before a shutdown, and of these the critical ones.
const SHUTDOWN: &str =
    "shutdown-grace-period = \"20s\"\nshutdown-grace-period-for-critical-pods = \"10s\"\n";
/// Processor seconds from the power button on within which the machine must be off,
/// although a pod does not want to end.
const OFF: f64 = 100.0;

/// Agents of every kind, and a shutdown by the power button in their presence.
pub(crate) fn agents(stage: &mut Stage<'_>) -> Result<()> {
    let mut node = Node::new(stage)?;
    let image = node.cluster.add_agents()?;
    node.add_settings(SHUTDOWN)?;
    let mut machine = stage.start(&node.builder)?;
    node.wait_until_ready(stage, &machine, None)?;
    let manifests = [
        LISTER, TRACER, GUARD, DRIVER, READER, ORDINARY, STUBBORN, CRITICAL,
    ]
    .join("---\n");
    let manifests = manifests
        .replace("TOOLS", &node.cluster.tools())
        .replace("AGENTS", &image);
    let daemons = daemonsets::manifests(&image)?;
    let manifests = [manifests, daemons.join("---\n")].join("---\n");
    node.cluster.plane.apply(&manifests)?;
    let pods = Pods::on(&node, &machine)?;
    images_are_listed(&pods)?;
    connections_are_traced(&pods)?;
    log_is_guarded(&pods)?;
    mounts_are_seen(&pods)?;
    daemonsets::do_their_work(&pods)?;
    for pod in ["ordinary", "stubborn"] {
        pods.wait_ready(pod)?;
    }
    pods.wait(
        "the critical pod is ready",
        &["pod", "critical", "--namespace=kube-system"],
        |pod| has_condition(pod, "Ready"),
    )?;
    stage.note(format!(
        "all agents were seen after {:.0} CPU s",
        machine.cpu_seconds()
    ));
    drop(pods);

    let (cpu, clock) = (machine.cpu_seconds(), machine.wall_seconds());
    machine.request_power_off()?;
    machine.wait_for_end(OFF)?;
    stage.note(format!(
        "off {:.1} CPU s after the power button, {:.0} s on the clock",
        machine.cpu_seconds() - cpu,
        machine.wall_seconds() - clock
    ));
    drop(machine);
    node.check_clean(stage)?;
    let order = ended(stage, &RawDisk::open(&node.disk)?)?;
    ensure!(
        order == "ordinary\ncritical\n",
        "before the machine was off, these pods have ended in this order: {order:?}"
    );
    Ok(())
}

/// Looks at images and containers through the runtime's socket, and at the host's files,
/// as agents do that look for what is vulnerable.
const LISTER: &str = r#"apiVersion: apps/v1
kind: DaemonSet
metadata: { name: lister }
spec:
  selector: { matchLabels: { app: lister } }
  template:
    metadata: { labels: { app: lister } }
    spec:
      hostPID: true
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      tolerations: [{ operator: Exists }]
      containers:
      - name: lister
        image: AGENTS
        args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
        securityContext: { privileged: true }
        volumeMounts:
        - { name: root, mountPath: /host, readOnly: true, mountPropagation: HostToContainer }
        - { name: runtime, mountPath: /var/run/containerd/containerd.sock }
        - { name: images, mountPath: /var/lib/containerd, readOnly: true }
        - { name: pods, mountPath: /var/lib/kubelet/pods, readOnly: true }
      volumes:
      - { name: root, hostPath: { path: / } }
      - { name: runtime, hostPath: { path: /run/containerd/containerd.sock, type: Socket } }
      - { name: images, hostPath: { path: /var/lib/containerd } }
      - { name: pods, hostPath: { path: /var/lib/kubelet/pods } }
"#;

fn images_are_listed(pods: &Pods<'_>) -> Result<()> {
    let lister = pods.ready_of("app=lister")?;
    let list = |what: &str| {
        let endpoint = "--runtime-endpoint=unix:///var/run/containerd/containerd.sock";
        // By itself it waits two seconds, which is little for a processor that is emulated.
        pods.exec(&lister, &["crictl", endpoint, "--timeout=2m", what])
    };
    let images = list("images")?;
    for name in ["tools", "agents", "kubernetes/pause"] {
        ensure!(images.contains(name), "an agent sees the images\n{images}");
    }
    let containers = list("ps")?;
    ensure!(
        containers.contains("lister"),
        "an agent sees the containers\n{containers}"
    );
    let release = pods.exec(&lister, &["cat", "/host/usr/lib/os-release"])?;
    ensure!(
        release.contains("ID="),
        "an agent reads of the host {release:?}"
    );
    let process = pods.exec(&lister, &["cat", "/proc/1/comm"])?;
    ensure!(
        process == "systemd\n",
        "the host's first process is {process:?}"
    );
    Ok(())
}

/// Sees every connection that is made on the node, by a program in the kernel.
const TRACER: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: tracer }
spec:
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers:
  - name: tracer
    image: AGENTS
    command: ["trace-connections"]
    securityContext: { privileged: true }
"#;

fn connections_are_traced(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready("tracer")?;
    pods.wait_ready("ordinary")?;
    pods.until("a connection of a pod is traced", || {
        // Nobody answers there, which the agent sees all the same.
        let _ = pods.exec("ordinary", &["nc", "-w", "1", "127.0.0.1", "9"]);
        let log = pods.log("tracer")?;
        Ok(log.lines().any(is_traced))
    })
    .with_context(|| format!("the tracer says {:?}", pods.log("tracer")))
}

/// Decides beside the security modules who may do what, by a program in the kernel: while
/// it runs, nobody reads the kernel's log.
const GUARD: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: guard }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: guard
    image: AGENTS
    command: ["ebpf-guard"]
    securityContext: { privileged: true }
"#;

fn log_is_guarded(pods: &Pods<'_>) -> Result<()> {
    let lister = pods.ready_of("app=lister")?;
    let read = || pods.exec(&lister, &["dmesg"]);
    pods.until("the guard is at its post", || {
        Ok(pods.log("guard")? == "the kernel's log is guarded\n")
    })
    .with_context(|| format!("the guard says {:?}", pods.log("guard")))?;
    match read() {
        Ok(_) => bail!("the kernel's log could be read past the guard"),
        Err(error) => ensure!(
            format!("{error:#}").contains("Operation not permitted"),
            "the kernel's log could not be read for another reason: {error:#}"
        ),
    }
    pods.delete("guard")?;
    ensure!(
        read()?.contains("Linux version"),
        "the kernel's log is empty"
    );
    Ok(())
}

/// Whether a line of the tracer is about the connection above: date and time, the
/// program's name with zeros behind it, the ends.
fn is_traced(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(2);
    words
        .next()
        .is_some_and(|name| name.trim_end_matches('\0') == "nc")
}

/// Mounts something for other pods, as a driver of volumes does.
const DRIVER: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: driver }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: driver
    image: TOOLS
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
    securityContext: { privileged: true }
    volumeMounts:
    - { name: volumes, mountPath: /volumes, mountPropagation: Bidirectional }
  volumes:
  - { name: volumes, hostPath: { path: /local/volumes, type: DirectoryOrCreate } }
"#;

/// Runs already when that is mounted.
const READER: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: reader }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: reader
    image: TOOLS
    args: ["-c", "trap exit TERM; sleep 1000000 & wait"]
    volumeMounts:
    - { name: volumes, mountPath: /volumes, mountPropagation: HostToContainer }
  volumes:
  - { name: volumes, hostPath: { path: /local/volumes, type: DirectoryOrCreate } }
"#;

fn mounts_are_seen(pods: &Pods<'_>) -> Result<()> {
    pods.wait_ready("driver")?;
    pods.wait_ready("reader")?;
    let script =
        "mkdir /volumes/one && mount -t tmpfs none /volumes/one && echo kept > /volumes/one/file";
    pods.exec("driver", &["sh", "-c", script])?;
    let text = pods.exec("reader", &["cat", "/volumes/one/file"])?;
    ensure!(text == "kept\n", "the other pod reads {text:?}");
    pods.exec("reader", &["sh", "-c", "echo more >> /volumes/one/file"])?;
    pods.exec("driver", &["umount", "/volumes/one"])?;
    let left = pods.exec("reader", &["ls", "/volumes/one"])?;
    ensure!(
        left.is_empty(),
        "without the mount, the other pod sees {left:?}"
    );
    Ok(())
}

/// Ends in its own time, and says so.
const ORDINARY: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: ordinary }
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: ordinary
    image: TOOLS
    args: ["-c", "trap 'sleep 2; echo ordinary >> /order/pods; exit' TERM; sleep 1000000 & wait"]
    volumeMounts: [{ name: order, mountPath: /order }]
  volumes:
  - { name: order, hostPath: { path: /local/order, type: DirectoryOrCreate } }
"#;

/// Does not end at all when asked to, and would like to be waited for.
const STUBBORN: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: stubborn }
spec:
  terminationGracePeriodSeconds: 3600
  containers:
  - name: stubborn
    image: TOOLS
    args: ["-c", "exec sleep 1000000"]
"#;

/// Ends after all others, and only if there still is a network.
const CRITICAL: &str = r#"apiVersion: v1
kind: Pod
metadata: { name: critical, namespace: kube-system }
spec:
  priorityClassName: system-node-critical
  terminationGracePeriodSeconds: 30
  containers:
  - name: critical
    image: TOOLS
    args: ["-c", "trap 'nc -w 5 10.0.2.2 5000 < /dev/null && echo critical >> /order/pods; exit' TERM; sleep 1000000 & wait"]
    volumeMounts: [{ name: order, mountPath: /order }]
  volumes:
  - { name: order, hostPath: { path: /local/order, type: DirectoryOrCreate } }
"#;

/// What pods have written while they ended, from the disk of the machine that is off.
fn ended(stage: &Stage<'_>, disk: &RawDisk) -> Result<String> {
    let folder = stage.fresh_folder("order")?;
    disk.extract(Role::Data, &folder.join("data.img"))?;
    stage.dump(&folder, "data.img", &["/order"], "order")?;
    let path = folder.join("order/pods");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traced_connections_are_told_by_their_program() {
        let line = |name: &str| {
            format!(
                "2026/01/02 03:04:05 {name:\0<16} 127.0.0.1       49540  -> 127.0.0.1       9     "
            )
        };
        assert!(is_traced(&line("nc")));
        assert!(!is_traced(&line("ncat")));
        assert!(!is_traced("2026/01/02 03:04:05 Comm"));
        assert!(!is_traced(""));
    }
}
