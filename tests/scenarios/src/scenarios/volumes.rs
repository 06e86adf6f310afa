//! Volumes that outlive pods: of a driver by the container storage interface, which runs in
//! pods as its maintainers would publish it, of disks of the node, and of NFS.
//!
//! [`VOLUMES`] has them. One pod writes to all, another one reads from all, before and after
//! a reboot.

use super::boot;
use super::cluster::{NODE, Node};
use super::pods::Pods;
use super::storage::add_disk;
use crate::stage::{BOOT, Stage};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_vm::api::Api;
use test_vm::cluster::{NfsServer, Place, has_condition};
use test_vm::probe::Probe;
use test_vm::{Machine, Reach};

/// Packages with what the driver is made of, and with what serves beside the node.
pub(crate) const PACKAGES: &[&str] = &["csi-example"];
pub(crate) const PACKAGES_BESIDE: &[&str] = &["nfs-server"];

/// A volume with files. `NFS` stands for where the server is.
struct Volume {
    name: &'static str,
    /// What the pod sees mounted: kind and source, as the table of mounts has them.
    mounted: [&'static str; 2],
    /// The source of a persistent volume, as JSON; none for a volume of the pod itself.
    source: Option<&'static str>,
    /// Who may have it at a time.
    access: &'static str,
}

const VOLUMES: &[Volume] = &[
    // Of the driver. With this access, kubelet may have it mounted with the pod's label.
    Volume {
        name: "driven",
        mounted: ["ext4", "/dev/loop"],
        source: Some(
            r#"{ "csi": { "driver": "example.csi.bulkhead", "volumeHandle": "driven", "fsType": "ext4" } }"#,
        ),
        access: "ReadWriteOncePod",
    },
    // Of the driver, for one pod.
    Volume {
        name: "scratch",
        mounted: ["ext4", "/dev/loop"],
        source: None,
        access: "",
    },
    // Of a disk, which kubelet makes a file system on.
    Volume {
        name: "disk",
        mounted: ["xfs", "/dev/vdb"],
        source: Some(
            r#"{ "local": { "path": "/dev/disk/by-id/virtio-pod-files", "fsType": "xfs" } }"#,
        ),
        access: "ReadWriteOnce",
    },
    Volume {
        name: "nfs",
        mounted: ["nfs", "10.0.2.2:/"],
        source: Some(r#"{ "nfs": "NFS" }"#),
        access: "ReadWriteMany",
    },
];

/// Volumes that a container has as devices, by name and source.
const DEVICES: &[(&str, &str)] = &[
    (
        "driven-device",
        r#"{ "csi": { "driver": "example.csi.bulkhead", "volumeHandle": "driven-device" } }"#,
    ),
    (
        "disk-device",
        r#"{ "local": { "path": "/dev/disk/by-id/virtio-pod-device" } }"#,
    ),
];

/// Volumes with files and without, which keep what pods write whatever comes next.
pub(crate) fn volumes(stage: &mut Stage<'_>) -> Result<()> {
    let mut node = Node::new(stage)?;
    for serial in ["pod-files", "pod-device"] {
        add_disk(&mut node.builder, serial)?;
    }
    let nfs = serve_nfs(stage, &node)?;
    let image = node.cluster.add_volume_driver()?;
    let mut machine = stage.start(&node.builder)?;
    let boot_id = node.wait_until_ready(stage, &machine, None)?;
    let plane = &node.cluster.plane;
    plane.apply(&DRIVER.replace("DRIVER", &image))?;
    plane.apply(&persistent_volumes(&nfs)?)?;
    let tools = node.cluster.tools();

    plane.apply(&pod("writer", &tools, &json!({})))?;
    let pods = Pods::on(&node, &machine)?;
    pods.wait_ready("writer")?;
    note(stage, "a pod has all volumes", &machine);
    volumes_are_mounted(&pods, "writer")?;
    files_belong_to_the_group(&pods)?;
    write(&pods, "writer", "first")?;
    let served = nfs.read("file")?;
    ensure!(served == "first\n", "the server of NFS has {served:?}");

    restart_driver(&pods)?;
    note(stage, "the driver is back", &machine);
    read(&pods, "writer", "first", places())?;
    write(&pods, "writer", "second")?;
    pods.delete("writer")?;
    nothing_is_left(&machine)?;
    note(stage, "the pod and its mounts are gone", &machine);

    // With categories of its own choice, none of which the writer had.
    let level = json!({ "seLinuxOptions": { "level": "s0:c1,c2" } });
    plane.apply(&pod("reader", &tools, &level))?;
    pods.wait_ready("reader")?;
    volumes_are_mounted(&pods, "reader")?;
    driven_volume_is_labelled_by_its_mount(&pods)?;
    own_volume_is_empty(&pods, "reader")?;
    let kept = places().filter(|(_, path)| path != "/scratch/file");
    read(&pods, "reader", "second", kept)?;
    write(&pods, "reader", "third")?;
    note(stage, "another pod has read all volumes", &machine);
    drop(pods);

    let api = Api::at(&machine.api_socket());
    boot::restart(&mut machine, &api)?;
    node.wait_until_ready(stage, &machine, Some(&boot_id))?;
    let pods = Pods::on(&node, &machine)?;
    pods.wait("the reader runs again", &["pod", "reader"], |pod| {
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        restarts.as_u64() > Some(0) && has_condition(pod, "Ready")
    })?;
    volumes_are_mounted(&pods, "reader")?;
    read(&pods, "reader", "third", places())?;
    write(&pods, "reader", "fourth")?;
    note(stage, "it has read them after a reboot", &machine);
    drop(pods);
    machine.power_off(BOOT)?;
    drop(machine);
    node.check_clean(stage)
}

fn note(stage: &mut Stage<'_>, what: &str, machine: &Machine) {
    stage.note(format!("{what} after {:.0} CPU s", machine.cpu_seconds()));
}

/// A server of NFS in the node's network.
fn serve_nfs(stage: &Stage<'_>, node: &Node) -> Result<NfsServer> {
    let Reach::Shared { network, .. } = &node.builder.reach else {
        anyhow::bail!("the node is in no network that others share");
    };
    NfsServer::start(
        &stage.setup().emulator,
        &stage.cluster()?.programs,
        &stage.fresh_folder("nfs")?,
        Place::Network(network),
    )
}

/// The driver's pods and object. The containers have the mounts and rights of the driver
/// that Kubernetes is tested with, but for the registrar, which has those of the driver of
/// EBS: it is not privileged.
const DRIVER: &str = r#"apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: { name: example.csi.bulkhead }
spec:
  volumeLifecycleModes: [Persistent, Ephemeral]
  podInfoOnMount: true
  attachRequired: false
  fsGroupPolicy: File
  seLinuxMount: true
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: driver }
spec:
  selector: { matchLabels: { app: driver } }
  template:
    metadata: { labels: { app: driver } }
    spec:
      priorityClassName: system-node-critical
      tolerations: [{ operator: Exists }]
      containers:
      - name: registrar
        image: DRIVER
        args:
        - registrar
        - --csi-address=/csi/csi.sock
        - --kubelet-registration-path=/var/lib/kubelet/plugins/example.csi.bulkhead/csi.sock
        securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true }
        volumeMounts:
        - { name: socket-dir, mountPath: /csi }
        - { name: registration-dir, mountPath: /registration }
      - name: driver
        image: DRIVER
        args: [driver, --endpoint=/csi/csi.sock, --node=$(KUBE_NODE_NAME)]
        env:
        - name: KUBE_NODE_NAME
          valueFrom: { fieldRef: { apiVersion: v1, fieldPath: spec.nodeName } }
        securityContext: { privileged: true }
        volumeMounts:
        - { name: socket-dir, mountPath: /csi }
        - { name: mountpoint-dir, mountPath: /var/lib/kubelet/pods, mountPropagation: Bidirectional }
        - { name: plugins-dir, mountPath: /var/lib/kubelet/plugins, mountPropagation: Bidirectional }
        - { name: csi-data-dir, mountPath: /csi-data-dir }
        - { name: dev-dir, mountPath: /dev }
        # Without these its `mount` would leave labels out.
        - { name: selinux-sysfs, mountPath: /sys/fs/selinux }
        - { name: selinux-config, mountPath: /etc/selinux/config }
      volumes:
      - name: socket-dir
        hostPath: { path: /var/lib/kubelet/plugins/example.csi.bulkhead, type: DirectoryOrCreate }
      - name: mountpoint-dir
        hostPath: { path: /var/lib/kubelet/pods, type: DirectoryOrCreate }
      - name: registration-dir
        hostPath: { path: /var/lib/kubelet/plugins_registry, type: Directory }
      - name: plugins-dir
        hostPath: { path: /var/lib/kubelet/plugins, type: Directory }
      - name: csi-data-dir
        hostPath: { path: /var/lib/csi-example-data/, type: DirectoryOrCreate }
      - name: dev-dir
        hostPath: { path: /dev, type: Directory }
      - name: selinux-sysfs
        hostPath: { path: /sys/fs/selinux, type: Directory }
      - name: selinux-config
        hostPath: { path: /etc/selinux/config, type: File }
"#;

/// The persistent volumes with a claim for each, as JSON in a YAML stream.
fn persistent_volumes(nfs: &NfsServer) -> Result<String> {
    let mut objects = Vec::new();
    let files = VOLUMES
        .iter()
        .filter_map(|volume| Some((volume.name, "Filesystem", volume.access, volume.source?)));
    let devices = DEVICES
        .iter()
        .map(|(name, source)| (*name, "Block", "ReadWriteOnce", *source));
    for (name, mode, access, source) in files.chain(devices) {
        let source = source.replace("\"NFS\"", &nfs.source().to_string());
        let mut volume: Value = serde_json::from_str(&source)
            .with_context(|| format!("the source of the volume {name} is no JSON"))?;
        if volume["local"].is_object() {
            let here =
                json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [NODE] });
            let terms = json!([{ "matchExpressions": [here] }]);
            volume["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": terms } });
        }
        if volume["nfs"].is_object() {
            volume["mountOptions"] = json!(nfs.mount_options());
        }
        volume["capacity"] = json!({ "storage": "64Mi" });
        volume["claimRef"] = json!({ "namespace": "default", "name": name });
        let claim = json!({
            "volumeName": name,
            "resources": { "requests": { "storage": "64Mi" } },
        });
        for (kind, mut spec) in [
            ("PersistentVolume", volume),
            ("PersistentVolumeClaim", claim),
        ] {
            spec["accessModes"] = json!([access]);
            spec["volumeMode"] = json!(mode);
            spec["storageClassName"] = json!("");
            objects.push(object(kind, name, spec));
        }
    }
    Ok(objects.join("---\n"))
}

/// A pod with all volumes: a container that is not root has the files, one that is has the
/// devices, and neither is privileged.
fn pod(name: &str, image: &str, security: &Value) -> String {
    let container = |name: &str, user: u32, key: &str, volumes: Value| {
        json!({
            "name": name,
            "image": image,
            "args": ["-c", "trap exit TERM; sleep 1000000 & wait"],
            "securityContext": { "runAsUser": user },
            key: volumes,
        })
    };
    let files = VOLUMES.iter().map(|volume| volume.name);
    let mounts: Value = files
        .clone()
        .map(|name| json!({ "name": name, "mountPath": format!("/{name}") }))
        .collect();
    let devices = DEVICES.iter().map(|(name, _)| *name);
    let paths: Value = devices
        .clone()
        .map(|name| json!({ "name": name, "devicePath": format!("/dev/{name}") }))
        .collect();
    let claims = files.chain(devices).map(|name| match name {
        "scratch" => json!({ "name": name, "csi": { "driver": "example.csi.bulkhead" } }),
        _ => json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }),
    });
    let mut security = security.clone();
    security["fsGroup"] = json!(GROUP);
    let spec = json!({
        "terminationGracePeriodSeconds": 1,
        "securityContext": security,
        "containers": [
            container("files", USER, "volumeMounts", mounts),
            container("devices", 0, "volumeDevices", paths),
        ],
        "volumes": claims.collect::<Value>(),
    });
    object("Pod", name, spec)
}

/// Who writes files, and to which group they belong.
const USER: u32 = 1000;
const GROUP: u32 = 2000;

fn object(kind: &str, name: &str, spec: Value) -> String {
    let object = json!({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    format!("{object}\n")
}

/// What a pod has is the volume, and not the folder that the volume is mounted on.
fn volumes_are_mounted(pods: &Pods<'_>, pod: &str) -> Result<()> {
    let table = shell(pods, pod, "files", "cat /proc/self/mountinfo")?;
    for volume in VOLUMES {
        let place = format!("/{}", volume.name);
        let line = table
            .lines()
            .find(|line| line.split(' ').nth(4) == Some(&place))
            .with_context(|| format!("{pod} has nothing mounted at {place}"))?;
        let [kind, source] = volume.mounted;
        ensure!(
            line.contains(&format!(" - {kind} {source}")),
            "{pod} has mounted at {place}: {line}"
        );
    }
    Ok(())
}

/// The group of the pod owns the volumes on disks, which its user may write by that alone.
fn files_belong_to_the_group(pods: &Pods<'_>) -> Result<()> {
    for name in ["driven", "scratch", "disk"] {
        let script = format!("touch /{name}/owned && ls -ln /{name}/owned");
        let line = shell(pods, "writer", "files", &script)?;
        let owner: Vec<&str> = line.split_whitespace().skip(2).take(2).collect();
        ensure!(
            owner == [USER.to_string(), GROUP.to_string()],
            "a file on {name} is {line}"
        );
    }
    Ok(())
}

/// Where something is written, by the container that has it.
fn places() -> impl Iterator<Item = (&'static str, String)> {
    let files = VOLUMES
        .iter()
        .map(|volume| ("files", format!("/{}/file", volume.name)));
    let devices = DEVICES
        .iter()
        .map(|(name, _)| ("devices", format!("/dev/{name}")));
    files.chain(devices)
}

fn write(pods: &Pods<'_>, pod: &str, text: &str) -> Result<()> {
    for container in ["files", "devices"] {
        let mut script = "set -e\n".to_string();
        for (_, path) in places().filter(|(of, _)| *of == container) {
            script += &format!("echo {text} > {path}\n");
        }
        shell(pods, pod, container, &(script + "sync"))
            .with_context(|| format!("{pod} cannot write its {container}"))?;
    }
    Ok(())
}

/// What was written last is there.
fn read(
    pods: &Pods<'_>,
    pod: &str,
    text: &str,
    places: impl Iterator<Item = (&'static str, String)>,
) -> Result<()> {
    for (container, path) in places {
        let found = shell(pods, pod, container, &format!("head -n 1 {path}"))
            .with_context(|| format!("{pod} cannot read {path}"))?;
        ensure!(found.trim() == text, "{pod} reads {found:?} from {path}");
    }
    Ok(())
}

/// The volume of a pod itself is a new one.
fn own_volume_is_empty(pods: &Pods<'_>, pod: &str) -> Result<()> {
    let files = shell(pods, pod, "files", "ls /scratch")?;
    ensure!(files == "lost+found\n", "a new volume has {files:?}");
    Ok(())
}

/// The driver's pod is deleted, and another one takes its place.
fn restart_driver(pods: &Pods<'_>) -> Result<()> {
    let before = pods.ready_of("app=driver")?;
    pods.delete(&before)?;
    pods.until("there is another pod of the driver", || {
        Ok(pods.names("app=driver")?.iter().any(|name| *name != before))
    })?;
    let driver = pods.ready_of("app=driver")?;
    pods.until("kubelet knows the driver again", || {
        let log = pods.log_of(&driver, "registrar")?;
        Ok(log.contains("example.csi.bulkhead is registered"))
    })
}

/// With the pod its mounts have gone, and so have a volume that was its own and the devices.
fn nothing_is_left(machine: &Machine) -> Result<()> {
    let mut left = Vec::new();
    let socket = machine.probe_socket();
    let look = || -> Result<Vec<String>> {
        let mut probe = Probe::connect(&socket)?;
        let table = probe.read("/proc/self/mountinfo")?;
        let loops = probe.run(&["losetup", "--list", "--noheadings"])?;
        let mounts = table
            .lines()
            .filter(|line| line.contains("kubernetes.io"))
            .filter(|line| !line.contains("kubernetes.io~projected"));
        Ok(mounts
            .chain(loops.stdout.lines())
            .map(str::to_string)
            .collect())
    };
    machine
        .wait_until("nothing is left of the pod", BOOT, || {
            look().is_ok_and(|found| {
                left = found;
                left.is_empty()
            })
        })
        .with_context(|| left.join("\n"))
}

/// The driver's volume is mounted with the pod's label, since driver and access allow it:
/// no file has to be given one.
fn driven_volume_is_labelled_by_its_mount(pods: &Pods<'_>) -> Result<()> {
    let table = shell(
        pods,
        "reader",
        "files",
        "grep ' /driven ' /proc/self/mountinfo",
    )?;
    ensure!(
        table.contains("context=\"system_u:object_r:container_file_t:s0:c1,c2\""),
        "the volume is mounted so: {table}"
    );
    Ok(())
}

fn shell(pods: &Pods<'_>, pod: &str, container: &str, script: &str) -> Result<String> {
    pods.exec_in(pod, container, &["sh", "-c", script])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_json() {
        let files = VOLUMES.iter().filter_map(|volume| volume.source);
        for source in files.chain(DEVICES.iter().map(|(_, source)| *source)) {
            let source: Value = serde_json::from_str(source).unwrap();
            assert_eq!(source.as_object().map(|source| source.len()), Some(1));
        }
    }
}
