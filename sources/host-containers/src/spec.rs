//! What the runtime is told of a container: what it sees of the host, and what it may
//! do there. The form is that of the OCI runtime specification.
//!
//! A container that serves the host shares its network and has the API's socket; it sees
//! neither the host's files nor its processes, and has the rights of an ordinary
//! container. One with superpowers is root on the host in all but its own root file
//! system, and nothing but the policy ([`SUPER_LABEL`]) keeps it from settings, `/etc` and
//! the image. A bootstrap container sees the host's files and devices, so that it can
//! prepare disks; the policy keeps it from the host's processes.

use crate::config::Kind;
use crate::users::User;
use containerd_client::image::ImageConfig;
use serde_json::{Value, json};
use std::path::Path;

/// Labels of processes, and that of the container's own files, which no pod may touch.
const LABEL: &str = "system_u:system_r:control_t:s0-s0:c0.c1023";
const SUPER_LABEL: &str = "system_u:system_r:super_t:s0-s0:c0.c1023";
const BOOTSTRAP_LABEL: &str = "system_u:system_r:bootstrap_t:s0-s0:c0.c1023";
const FILES_LABEL: &str = "system_u:object_r:host_container_file_t:s0";

/// Where the host's things are seen; tools expect them there.
const HOST: &str = "/.bottlerocket";

/// What the image is made of, on the host and in a container.
const INVENTORY: (&str, &str) = (
    "/usr/share/bulkhead/application-inventory.json",
    "/var/lib/bottlerocket/inventory/application.json",
);

/// Whom the host trusts. A link in some hosts, so that its folder would not do.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where images look for programs that name no folder.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an ordinary container may do.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// What a bootstrap container may do besides.
const BOOTSTRAP_CAPABILITIES: [&str; 4] = [
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_SYS_MODULE",
    "CAP_AUDIT_CONTROL",
];
/// What one with superpowers may do besides: all that Linux 6.12 has.
const MORE_CAPABILITIES: [&str; 27] = [
    "CAP_DAC_READ_SEARCH",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_LEASE",
    "CAP_AUDIT_CONTROL",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];
/// Files of `/proc` that tell of the host.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
/// What the firmware says of the hardware. On the host its variables are mounted below it, for
/// those that see the host.
const FIRMWARE: &str = "/sys/firmware";
/// Files by which the host is changed.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Calls that no container without superpowers makes, and that the kernel has had the most
/// faults in or that reach beyond a container. All else is let through: what the missing
/// capabilities and the policy refuse needs no second list, which would have to follow
/// each release of the kernel.
const REFUSED_CALLS: [&str; 18] = [
    "acct",
    "add_key",
    "bpf",
    "fanotify_init",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "open_by_handle_at",
    "perf_event_open",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "reboot",
    "request_key",
    "userfaultfd",
];
/// Those that prepare a host: file systems, swap space, kernel modules. An ordinary
/// container is refused these, too.
const PREPARING_CALLS: [&str; 16] = [
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "setns",
    "swapoff",
    "swapon",
    "umount2",
];

/// Folders in which what a container mounts is mounted on the host, too.
const SHARED: [&str; 1] = ["/mnt"];
/// The same for a bootstrap container, which may put what pods need on disks.
pub const BOOTSTRAP_SHARED: [&str; 3] = ["/mnt", "/var/lib/containerd", "/var/lib/kubelet"];

/// What says of a mount that it is more than the container's own.
const PROPAGATIONS: [&str; 2] = ["rshared", "rslave"];

/// How soon a container's processes are ended where memory is short, from -1000 to 1000:
/// before those of pods that have what they asked for, and after those that asked for
/// nothing. The host's own services are far below.
const OUT_OF_MEMORY: i32 = 500;

/// What a container may do on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Powers {
    /// Speak to the API.
    Ordinary,
    /// Prepare the host before its services start.
    Bootstrap,
    /// Nearly everything that the host may.
    Super,
}

/// What is particular to a container.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    /// Of which kind it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// What it may do.
    pub powers: Powers,
    /// What is run instead of what the image names.
    pub command: &'a [String],
    /// How the image wants to be run.
    pub image: &'a ImageConfig,
    /// Whom it is run as.
    pub user: &'a User,
    /// Its own folder on the host.
    pub folder: &'a Path,
    /// Its copies of the host's files: where they are in it, and where they lie.
    pub copies: &'a [(&'a str, &'a Path)],
    /// Variables by which programs find the host's proxy.
    pub proxy: &'a [String],
    /// Its control group, from the root of all on.
    pub cgroup: &'a str,
}

impl Container<'_> {
    /// The whole specification.
    pub fn spec(&self) -> Value {
        let mut namespaces = vec!["ipc", "uts", "mount"];
        // The kernel takes rules of its audit from the host's own namespace of processes
        // alone, so a bootstrap container has that; the policy keeps it from processes.
        if self.powers == Powers::Ordinary {
            namespaces.push("pid");
        }
        let namespaces: Vec<Value> = namespaces
            .into_iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        let mut linux = json!({
            "namespaces": namespaces,
            "cgroupsPath": self.cgroup,
            "mountLabel": FILES_LABEL,
            "resources": { "devices": self.devices() },
        });
        if self.powers != Powers::Ordinary {
            linux["rootfsPropagation"] = json!("shared");
        }
        let refused = match self.powers {
            Powers::Super => vec![],
            Powers::Bootstrap => REFUSED_CALLS.to_vec(),
            Powers::Ordinary => [REFUSED_CALLS.as_slice(), &PREPARING_CALLS].concat(),
        };
        if !refused.is_empty() {
            linux["maskedPaths"] = json!(MASKED);
            linux["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{
                    "names": refused,
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": nix::libc::EPERM,
                }],
            });
        }
        if self.powers == Powers::Ordinary {
            linux["readonlyPaths"] = json!(READ_ONLY);
        }
        json!({
            "ociVersion": "1.1.0",
            "process": self.process(),
            "root": { "path": "rootfs" },
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    fn process(&self) -> Value {
        let (more, label) = match self.powers {
            Powers::Ordinary => (&[][..], LABEL),
            Powers::Bootstrap => (&BOOTSTRAP_CAPABILITIES[..], BOOTSTRAP_LABEL),
            Powers::Super => (&MORE_CAPABILITIES[..], SUPER_LABEL),
        };
        let capabilities = [&CAPABILITIES, more].concat();
        let arguments: Vec<&String> = match self.command {
            [] => self
                .image
                .entrypoint
                .iter()
                .chain(&self.image.arguments)
                .collect(),
            command => command.iter().collect(),
        };
        let mut environment = self.image.environment.clone();
        if !environment
            .iter()
            .any(|variable| variable.starts_with("PATH="))
        {
            environment.push(DEFAULT_PATH.to_string());
        }
        environment.extend_from_slice(self.proxy);
        let folder = match self.image.working_folder.as_str() {
            "" => "/",
            folder => folder,
        };
        json!({
            "args": arguments,
            "env": environment,
            "cwd": folder,
            "user": {
                "uid": self.user.user,
                "gid": self.user.group,
                "additionalGids": self.user.more,
            },
            "oomScoreAdj": OUT_OF_MEMORY,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "noNewPrivileges": self.powers != Powers::Super,
            "selinuxLabel": label,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 1024 }],
        })
    }

    /// Which devices may be used.
    fn devices(&self) -> Value {
        if self.powers != Powers::Ordinary {
            return json!([{ "allow": true, "access": "rwm" }]);
        }
        let character = |major: u32, minor: Option<u32>| {
            let mut device = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
            if let Some(minor) = minor {
                device["minor"] = json!(minor);
            }
            device
        };
        json!([
            { "allow": false, "access": "rwm" },
            // null, zero, full, random, urandom; tty, console, ptmx and terminals
            character(1, Some(3)),
            character(1, Some(5)),
            character(1, Some(7)),
            character(1, Some(8)),
            character(1, Some(9)),
            character(5, Some(0)),
            character(5, Some(1)),
            character(5, Some(2)),
            character(136, None),
        ])
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![file_system("proc", "/proc", &["nosuid", "noexec", "nodev"])];
        let sees_host = self.powers != Powers::Ordinary;
        if sees_host {
            mounts.push(bind("/dev", "/dev", &["rbind", "rw"]));
        } else {
            mounts.extend([
                file_system(
                    "tmpfs",
                    "/dev",
                    &["nosuid", "strictatime", "mode=755", "size=65536k"],
                ),
                file_system(
                    "devpts",
                    "/dev/pts",
                    &[
                        "nosuid",
                        "noexec",
                        "newinstance",
                        "ptmxmode=0666",
                        "mode=0620",
                        "gid=5",
                    ],
                ),
                file_system(
                    "tmpfs",
                    "/dev/shm",
                    &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
                ),
                file_system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            ]);
        }
        let changes = if sees_host { "rw" } else { "ro" };
        let own = format!("{HOST}/{}", self.kind.word());
        let folder = self.folder.to_string_lossy();
        mounts.extend([
            file_system("sysfs", "/sys", &["nosuid", "noexec", "nodev", changes]),
            file_system(
                "cgroup",
                "/sys/fs/cgroup",
                &["nosuid", "noexec", "nodev", "ro"],
            ),
            file_system(
                "tmpfs",
                "/run",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            bind("/run/api.sock", "/run/api.sock", &["bind", "rw"]),
            bind(
                "/usr/bin/apiclient",
                "/usr/local/bin/apiclient",
                &["bind", "ro"],
            ),
            bind(
                "/usr/lib/os-release",
                "/etc/bottlerocket-release",
                &["bind", "ro"],
            ),
            bind(INVENTORY.0, INVENTORY.1, &["bind", "ro"]),
            bind(
                CERTIFICATES,
                &format!("{HOST}/certs/ca-bundle.crt"),
                &["bind", "ro"],
            ),
            bind(
                "/var/log/support",
                &format!("{HOST}/support"),
                &["bind", "ro"],
            ),
            bind(&folder, &format!("{own}/current"), &["bind", "rw"]),
            bind(&folder, &format!("{own}/{}", self.name), &["bind", "rw"]),
        ]);
        let copies = self.copies.iter();
        mounts.extend(
            copies.map(|(place, path)| bind(&path.to_string_lossy(), place, &["bind", "ro"])),
        );
        if sees_host {
            let root = format!("{HOST}/rootfs");
            mounts.push(bind("/", &root, &["rbind", "ro", "rslave"]));
            let shared = match self.powers {
                Powers::Bootstrap => &BOOTSTRAP_SHARED[..],
                _ => &SHARED[..],
            };
            mounts.extend(shared.iter().map(|place| {
                let seen = format!("{root}{place}");
                bind(place, &seen, &["rbind", "rw", "rshared"])
            }));
            mounts.extend([
                bind("/usr/lib/modules", "/lib/modules", &["bind", "ro"]),
                // Where tools put the kernel's headers; the host has none.
                file_system(
                    "tmpfs",
                    "/usr/src/kernels",
                    &["nosuid", "nodev", "mode=755"],
                ),
                bind("/usr/bin/kmod", "/usr/local/sbin/modprobe", &["bind", "ro"]),
                bind(FIRMWARE, FIRMWARE, &["rbind", "rw"]),
                bind("/sys/kernel/debug", "/sys/kernel/debug", &["rbind", "rw"]),
            ]);
        }
        mounts
    }
}

fn file_system(kind: &str, place: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": kind, "destination": place, "options": options })
}

/// A part of the host. Unless `options` say how, what the container mounts on or below it
/// is not mounted on the host: the root of a container that sees the host is shared, and
/// all in it would be.
fn bind(from: &str, place: &str, options: &[&str]) -> Value {
    let mut options = options.to_vec();
    if !options.iter().any(|option| PROPAGATIONS.contains(option)) {
        options.push("rprivate");
    }
    json!({ "type": "bind", "source": from, "destination": place, "options": options })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(powers: Powers) -> Value {
        let image = ImageConfig {
            entrypoint: vec!["/start".to_string()],
            arguments: vec!["now".to_string()],
            ..ImageConfig::default()
        };
        let kind = match powers {
            Powers::Bootstrap => Kind::Bootstrap,
            _ => Kind::Host,
        };
        Container {
            kind,
            name: "admin",
            powers,
            command: &[],
            image: &image,
            user: &User {
                user: 1000,
                group: 100,
                more: vec![274],
            },
            folder: Path::new("/local/host-containers/admin"),
            copies: &[("/etc/hosts", Path::new("/run/copy/hosts"))],
            proxy: &["HTTPS_PROXY=p".to_string()],
            cgroup: "/group",
        }
        .spec()
    }

    fn places(spec: &Value) -> Vec<&str> {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn the_image_says_what_is_run_unless_the_settings_do() {
        let own = spec(Powers::Ordinary);
        assert_eq!(own["process"]["args"], json!(["/start", "now"]));
        assert_eq!(
            own["process"]["env"],
            json!([DEFAULT_PATH, "HTTPS_PROXY=p"])
        );
        assert_eq!(own["process"]["cwd"], "/");
        let user = json!({ "uid": 1000, "gid": 100, "additionalGids": [274] });
        assert_eq!(own["process"]["user"], user);
        let image = ImageConfig::default();
        let container = Container {
            kind: Kind::Host,
            name: "a",
            powers: Powers::Ordinary,
            command: &["/bin/sh".to_string()],
            image: &image,
            user: &User::default(),
            folder: Path::new("/a"),
            copies: &[],
            proxy: &[],
            cgroup: "/group",
        };
        assert_eq!(container.spec()["process"]["args"], json!(["/bin/sh"]));
    }

    #[test]
    fn an_ordinary_one_sees_the_api_and_no_files_of_the_host() {
        let spec = spec(Powers::Ordinary);
        let places = places(&spec);
        for place in [
            "/run/api.sock",
            "/usr/local/bin/apiclient",
            "/etc/hosts",
            "/.bottlerocket/host-containers/current",
            "/.bottlerocket/host-containers/admin",
            "/.bottlerocket/certs/ca-bundle.crt",
            "/.bottlerocket/support",
            "/var/lib/bottlerocket/inventory/application.json",
        ] {
            assert!(places.contains(&place), "{place}");
        }
        assert!(
            !places
                .iter()
                .any(|place| place.starts_with("/.bottlerocket/rootfs"))
        );
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert!(spec["linux"]["namespaces"].to_string().contains("pid"));
        let bounding = spec["process"]["capabilities"]["bounding"].to_string();
        assert!(!bounding.contains("CAP_SYS_ADMIN"), "{bounding}");
        let refused = spec["linux"]["seccomp"]["syscalls"][0]["names"].to_string();
        assert!(refused.contains("\"mount\"") && refused.contains("\"bpf\""));
    }

    #[test]
    fn one_with_superpowers_sees_the_host() {
        let spec = spec(Powers::Super);
        let places = places(&spec);
        for place in [
            "/.bottlerocket/rootfs",
            "/.bottlerocket/rootfs/mnt",
            "/lib/modules",
            "/usr/src/kernels",
            "/usr/local/sbin/modprobe",
            "/sys/firmware",
            "/sys/kernel/debug",
        ] {
            assert!(places.contains(&place), "{place}");
        }
        assert!(!spec["linux"]["namespaces"].to_string().contains("pid"));
        assert!(spec["linux"].get("seccomp").is_none());
        assert_eq!(spec["process"]["selinuxLabel"], SUPER_LABEL);
        let bounding = spec["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(bounding, 41);
    }

    #[test]
    fn one_of_the_boot_prepares_the_host() {
        let spec = spec(Powers::Bootstrap);
        let places = places(&spec);
        for place in [
            "/.bottlerocket/rootfs",
            "/.bottlerocket/rootfs/mnt",
            "/.bottlerocket/rootfs/var/lib/containerd",
            "/.bottlerocket/rootfs/var/lib/kubelet",
            "/.bottlerocket/bootstrap-containers/current",
            "/.bottlerocket/bootstrap-containers/admin",
            "/run/api.sock",
        ] {
            assert!(places.contains(&place), "{place}");
        }
        assert!(!spec["linux"]["namespaces"].to_string().contains("pid"));
        assert_eq!(spec["linux"]["rootfsPropagation"], "shared");
        let shared: Vec<&str> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .filter(|mount| !mount["options"].to_string().contains("rprivate"))
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(
            shared,
            [
                "/.bottlerocket/rootfs",
                "/.bottlerocket/rootfs/mnt",
                "/.bottlerocket/rootfs/var/lib/containerd",
                "/.bottlerocket/rootfs/var/lib/kubelet",
            ]
        );
        let refused = spec["linux"]["seccomp"]["syscalls"][0]["names"].to_string();
        for (call, expected) in [("mount", false), ("swapon", false), ("bpf", true)] {
            assert_eq!(refused.contains(&format!("\"{call}\"")), expected, "{call}");
        }
        let bounding = spec["process"]["capabilities"]["bounding"].to_string();
        for (capability, expected) in [("SYS_ADMIN", true), ("SYS_PTRACE", false)] {
            assert_eq!(bounding.contains(capability), expected, "{capability}");
        }
        assert_eq!(spec["process"]["selinuxLabel"], BOOTSTRAP_LABEL);
    }
}
