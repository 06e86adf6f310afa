//! What DaemonSets that clusters really run ask of a node: folders of the host, some of
//! which only a link of ours makes writable, labels, and the network plugins.
//!
//! Each row of [`DAEMONS`] has the paths and the security context of one of them; in its
//! container, which has nothing of it but the small programs, the host's paths lie below
//! `/host`. What it does with them by its installer and at work is its script.

use super::pods::Pods;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// One container of a DaemonSet as its maintainers publish it: its paths and rights.
struct Daemon {
    name: &'static str,
    /// Paths of the host, and the type that the volume has; empty for none.
    paths: &'static [(&'static str, &'static str)],
    /// The container's security context, as YAML, of which JSON is a part.
    security: &'static str,
    /// What it does, in a shell.
    script: &'static str,
    /// What the script prints.
    said: &'static str,
}

const DAEMONS: &[Daemon] = &[
    // What every cluster of EKS has unless told otherwise: an ordinary container.
    Daemon {
        name: "aws-node",
        paths: &[
            ("/etc/cni/net.d", ""),
            ("/opt/cni/bin", ""),
            ("/run/xtables.lock", "FileOrCreate"),
            ("/var/log/aws-routed-eni", "DirectoryOrCreate"),
            ("/var/run/aws-node", "DirectoryOrCreate"),
        ],
        security: r#"{ "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } }"#,
        script: "grep -q :container_t: /proc/self/attr/current && echo confined
            cp /bin/busybox /host/opt/cni/bin/aws-cni
            echo '{}' > /host/etc/cni/net.d/10-aws.conflist.tmp
            echo '{}' > /host/var/run/aws-node/ipam.json
            echo started >> /host/var/log/aws-routed-eni/ipamd.log
            # The kernel loads a module for it.
            busybox ip link add scenario type dummy && busybox ip link delete scenario && echo added
            exec 9> /host/run/xtables.lock && echo locked",
        said: "confined\nadded\nlocked\n",
    },
    // Beside a driver of volumes that is privileged runs what tells kubelet of it, which is not.
    Daemon {
        name: "csi-registrar",
        paths: &[
            ("/var/lib/kubelet/plugins/ebs.csi.aws.com", "DirectoryOrCreate"),
            ("/var/lib/kubelet/plugins_registry", "Directory"),
            ("/var/lib/kubelet/pod-resources", "Directory"),
        ],
        security: r#"{ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true }"#,
        script: "cd /host/var/lib/kubelet
            for folder in plugins/ebs.csi.aws.com plugins_registry; do
                busybox mkfifo $folder/socket && busybox rm $folder/socket && echo $folder
            done
            # kubelet has another service there, and says so.
            crictl --runtime-endpoint=unix://$PWD/pod-resources/kubelet.sock --timeout=2m version 2>&1 |
                grep -o 'unknown service' | busybox head -n 1",
        said: "plugins/ebs.csi.aws.com\nplugins_registry\nunknown service\n",
    },
    Daemon {
        name: "node-exporter",
        paths: &[("/proc", ""), ("/sys", "")],
        security: r#"{
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65534
        }"#,
        script: "grep -c ' /var ' /host/proc/1/mountinfo",
        said: "1\n",
    },
    // Reads logs, keeps beside them how far it is, and asks the runtime whose they are.
    Daemon {
        name: "log-agent",
        paths: &[("/run/containerd/containerd.sock", "Socket"), ("/var/log", "")],
        security: "{}",
        script: "echo 1 > /host/var/log/flb_kube.db && busybox rm /host/var/log/flb_kube.db && echo kept
            crictl --runtime-endpoint=unix:///host/run/containerd/containerd.sock --timeout=2m version 2>&1 |
                grep -o containerd",
        said: "kept\ncontainerd\n",
    },
    // Neither privileged nor ordinary: a type of its own and some capabilities. Its first
    // container copies a program to the host and starts it in the host's mounts.
    Daemon {
        name: "cilium",
        paths: &[
            ("/etc/cni/net.d", "DirectoryOrCreate"),
            ("/lib/modules", ""),
            ("/opt/cni/bin", "DirectoryOrCreate"),
            ("/proc", "Directory"),
            ("/run/cilium/cgroupv2", "DirectoryOrCreate"),
            ("/run/xtables.lock", "FileOrCreate"),
            ("/sys/fs/bpf", "DirectoryOrCreate"),
            ("/var/run/cilium", "DirectoryOrCreate"),
            ("/var/run/netns", "DirectoryOrCreate"),
        ],
        security: r#"{
            "seLinuxOptions": { "level": "s0", "type": "spc_t" },
            "capabilities": {
                "add": [
                    "CHOWN", "KILL", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "SYS_ADMIN", "SYS_CHROOT",
                    "SYS_PTRACE", "SYS_RESOURCE", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"
                ],
                "drop": ["ALL"]
            }
        }"#,
        script: "cat /proc/self/attr/current; echo
            plugins=/host/opt/cni/bin
            cp /bin/busybox $plugins/busybox-mount
            busybox nsenter --mount=/host/proc/1/ns/mnt /opt/cni/bin/busybox-mount \
                echo in the mounts of the host
            busybox rm $plugins/busybox-mount
            mkdir /host/sys/fs/bpf/cilium
            echo state > /host/var/run/cilium/state
            echo '{}' > /host/etc/cni/net.d/05-cilium.conflist.cilium_bak",
        said: "system_u:system_r:super_t:s0\nin the mounts of the host\n",
    },
    Daemon {
        name: "calico",
        paths: &[
            ("/etc/cni/net.d", "DirectoryOrCreate"),
            ("/opt/cni/bin", "DirectoryOrCreate"),
            (
                "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/nodeagent~uds",
                "DirectoryOrCreate",
            ),
            ("/var/lib/calico", "DirectoryOrCreate"),
            ("/var/log/calico/cni", "DirectoryOrCreate"),
            ("/var/run/calico", "DirectoryOrCreate"),
            ("/var/run/nodeagent", "DirectoryOrCreate"),
        ],
        security: r#"{ "privileged": true }"#,
        script: "cp /bin/busybox '/host/usr/libexec/kubernetes/kubelet-plugins/volume/exec/nodeagent~uds/uds'
            cp /bin/busybox /host/opt/cni/bin/calico.tmp
            busybox mv /host/opt/cni/bin/calico.tmp /host/opt/cni/bin/calico
            ls '/host/usr/libexec/kubernetes/kubelet-plugins/volume/exec/nodeagent~uds'",
        said: "uds\n",
    },
    Daemon {
        name: "efs-csi",
        paths: &[
            ("/etc/amazon/efs", "DirectoryOrCreate"),
            ("/var/amazon/efs", "DirectoryOrCreate"),
            ("/var/lib/kubelet", "Directory"),
            ("/var/lib/kubelet/plugins/efs.csi.aws.com", "DirectoryOrCreate"),
            ("/var/lib/kubelet/plugins_registry", "Directory"),
            ("/var/run/efs", "DirectoryOrCreate"),
        ],
        security: r#"{ "privileged": true }"#,
        script: "echo '[mount]' > /host/etc/amazon/efs/efs-utils.conf
            cat /host/etc/amazon/efs/efs-utils.conf",
        said: "[mount]\n",
    },
    // Has no right but to look, and is not root.
    Daemon {
        name: "node-feature-discovery",
        paths: &[
            ("/boot", ""),
            ("/etc/kubernetes/node-feature-discovery/features.d", ""),
            ("/etc/kubernetes/node-feature-discovery/source.d", ""),
            ("/etc/os-release", ""),
            ("/lib", ""),
            ("/proc/swaps", ""),
            ("/sys", ""),
            ("/usr/lib", ""),
        ],
        security: r#"{
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532
        }"#,
        script: "cd /host/etc/kubernetes/node-feature-discovery
            ls /host/boot features.d source.d
            grep -c ^ID= /host/etc/os-release",
        said: "/host/boot:\n\nfeatures.d:\n\nsource.d:\n1\n",
    },
    // Calls other plugins where it looks for all of them, and has its own among them.
    Daemon {
        name: "multus",
        paths: &[
            ("/", ""),
            ("/run/k8s.cni.cncf.io", "DirectoryOrCreate"),
            ("/run/netns", "DirectoryOrCreate"),
            ("/var/lib/cni/multus", "DirectoryOrCreate"),
        ],
        security: r#"{ "privileged": true }"#,
        script: r#"plugins=/opt/cni/bin
            version() {
                echo '{"cniVersion":"1.0.0"}' | CNI_COMMAND=VERSION busybox chroot /host $plugins/$1 |
                    grep -q supportedVersions && echo $1
            }
            for plugin in bridge host-local ipvlan static; do version $plugin; done
            # Installers write over a plugin, or put theirs in its place.
            cp /bin/busybox /host$plugins/loopback
            cp /bin/busybox /host$plugins/new
            busybox mv /host$plugins/new /host$plugins/portmap
            busybox cmp /bin/busybox /host$plugins/loopback && busybox cmp /bin/busybox /host$plugins/portmap
            # Which is nothing to the image.
            busybox cmp -s /bin/busybox /host/usr/libexec/cni/loopback || echo kept"#,
        said: "bridge\nhost-local\nipvlan\nstatic\nkept\n",
    },
    // Providers of the driver for secrets meet in a folder that only a link leads to.
    Daemon {
        name: "secrets-store",
        paths: &[("/etc/kubernetes/secrets-store-csi-providers", "DirectoryOrCreate")],
        security: r#"{ "privileged": true }"#,
        script: "cd /host/etc/kubernetes/secrets-store-csi-providers && touch provider && ls",
        said: "provider\n",
    },
];

/// The pods of all of them, as JSON in a YAML stream.
pub(super) fn manifests(image: &str) -> Result<Vec<String>> {
    DAEMONS
        .iter()
        .map(|daemon| manifest(daemon, image))
        .collect()
}

fn manifest(daemon: &Daemon, image: &str) -> Result<String> {
    let security: Value = serde_json::from_str(daemon.security)
        .with_context(|| format!("the security context of {} is no JSON", daemon.name))?;
    let paths = || daemon.paths.iter().enumerate();
    let volumes: Vec<Value> = paths()
        .map(|(index, (path, kind))| {
            json!({ "name": format!("v{index}"), "hostPath": { "path": path, "type": kind } })
        })
        .collect();
    let mounts: Vec<Value> = paths()
        .map(|(index, (path, _))| {
            let place = format!("/host{}", path.trim_end_matches('/'));
            json!({ "name": format!("v{index}"), "mountPath": place })
        })
        .collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": daemon.name },
        "spec": {
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "daemon",
                "image": image,
                "args": ["-c", "trap exit TERM; sleep 1000000 & wait"],
                "securityContext": security,
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    });
    Ok(format!("{pod}\n"))
}

/// Each has come up and does its work. None depends on another, so one run tells all that
/// is wrong.
pub(super) fn do_their_work(pods: &Pods<'_>) -> Result<()> {
    let faults: Vec<String> = DAEMONS
        .iter()
        .filter_map(|daemon| works(pods, daemon).err())
        .map(|fault| format!("{fault:#}"))
        .collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    Ok(())
}

fn works(pods: &Pods<'_>, daemon: &Daemon) -> Result<()> {
    let run = || {
        pods.wait_ready(daemon.name)?;
        let script = format!("exec 2>&1\n{}", daemon.script);
        // What a step of it says is wanted, whatever the last one's status is.
        pods.exec(daemon.name, &["sh", "-c", &format!("{script}\ntrue")])
    };
    let said = run().with_context(|| format!("the DaemonSet {} does not work", daemon.name))?;
    ensure!(
        said.replace('\0', "") == daemon.said,
        "the DaemonSet {} says {said:?}",
        daemon.name
    );
    Ok(())
}
