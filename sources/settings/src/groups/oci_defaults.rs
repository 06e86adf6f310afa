//! `settings.oci-defaults`.

use crate::model::group;
use crate::types::number_within;
use crate::{Faults, Key, Model, Schema};
use serde_json::{Value, json};

group! {
    /// What containers get that do not ask for something else.
    pub struct OciDefaults {
        /// Linux capabilities.
        "capabilities" => capabilities: Capabilities;
        /// Limits of resources. Each has both a hard and a soft limit.
        "resource-limits" => resource_limits: ResourceLimits;
    }
}

group! {
    /// Linux capabilities. One that is unset is not granted.
    pub struct Capabilities {
        /// Change the kernel's audit.
        "audit-control" => audit_control: bool;
        /// Read the audit log.
        "audit-read" => audit_read: bool;
        /// Write to the audit log.
        "audit-write" => audit_write: bool, default true;
        /// Keep the machine from suspending.
        "block-suspend" => block_suspend: bool;
        /// Use BPF beyond what everybody may.
        "bpf" => bpf: bool;
        /// Checkpoint and restore processes.
        "checkpoint-restore" => checkpoint_restore: bool;
        /// Change owners of files.
        "chown" => chown: bool, default true;
        /// Pass over permissions of files.
        "dac-override" => dac_override: bool, default true;
        /// Pass over permissions for reading files.
        "dac-read-search" => dac_read_search: bool;
        /// Act on files as if their owner.
        "fowner" => fowner: bool, default true;
        /// Keep set-user-ID and set-group-ID bits of changed files.
        "fsetid" => fsetid: bool, default true;
        /// Lock memory.
        "ipc-lock" => ipc_lock: bool;
        /// Pass over permissions of System V IPC.
        "ipc-owner" => ipc_owner: bool;
        /// Send signals to any process.
        "kill" => kill: bool, default true;
        /// Take leases on any file.
        "lease" => lease: bool;
        /// Set files immutable and append-only.
        "linux-immutable" => linux_immutable: bool;
        /// Change the policy of mandatory access control.
        "mac-admin" => mac_admin: bool;
        /// Pass over mandatory access control.
        "mac-override" => mac_override: bool;
        /// Make device nodes.
        "mknod" => mknod: bool, default true;
        /// Configure the network.
        "net-admin" => net_admin: bool;
        /// Listen on ports below 1024.
        "net-bind-service" => net_bind_service: bool, default true;
        /// Broadcast.
        "net-broadcast" => net_broadcast: bool;
        /// Open raw sockets.
        "net-raw" => net_raw: bool, default true;
        /// Use performance monitoring.
        "perfmon" => perfmon: bool;
        /// Change groups of the process.
        "setgid" => setgid: bool, default true;
        /// Set capabilities of files.
        "setfcap" => setfcap: bool, default true;
        /// Drop and pass on capabilities.
        "setpcap" => setpcap: bool, default true;
        /// Change the user of the process.
        "setuid" => setuid: bool, default true;
        /// Nearly everything else that an administrator may.
        "sys-admin" => sys_admin: bool;
        /// Reboot.
        "sys-boot" => sys_boot: bool;
        /// Change the root of the process.
        "sys-chroot" => sys_chroot: bool, default true;
        /// Load kernel modules.
        "sys-module" => sys_module: bool;
        /// Raise priorities.
        "sys-nice" => sys_nice: bool;
        /// Switch process accounting.
        "sys-pacct" => sys_pacct: bool;
        /// Trace any process.
        "sys-ptrace" => sys_ptrace: bool;
        /// Access I/O ports.
        "sys-rawio" => sys_rawio: bool;
        /// Pass over limits of resources.
        "sys-resource" => sys_resource: bool;
        /// Set the clock.
        "sys-time" => sys_time: bool;
        /// Configure terminals.
        "sys-tty-config" => sys_tty_config: bool;
        /// Read the kernel's log.
        "syslog" => syslog: bool;
        /// Set timers that wake the machine.
        "wake-alarm" => wake_alarm: bool;
    }
}

group! {
    /// Limits of resources. Each has both a hard and a soft limit.
    pub struct ResourceLimits {
        /// Bytes of address space (`RLIMIT_AS`).
        "max-address-space" => max_address_space: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of a core dump (`RLIMIT_CORE`).
        "max-core-file-size" => max_core_file_size: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Seconds of processor time (`RLIMIT_CPU`).
        "max-cpu-time" => max_cpu_time: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of data segment (`RLIMIT_DATA`).
        "max-data-size" => max_data_size: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Locks on files (`RLIMIT_LOCKS`).
        "max-file-locks" => max_file_locks: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of a file (`RLIMIT_FSIZE`).
        "max-file-size" => max_file_size: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of locked memory (`RLIMIT_MEMLOCK`).
        "max-locked-memory" => max_locked_memory: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes in POSIX message queues (`RLIMIT_MSGQUEUE`).
        "max-msgqueue-size" => max_msgqueue_size: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Ceiling of the nice value, as 20 less it (`RLIMIT_NICE`).
        "max-nice-priority" => max_nice_priority: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Open files (`RLIMIT_NOFILE`).
        "max-open-files" => max_open_files: ResourceLimit, default { "hard-limit": 1_048_576, "soft-limit": 65_536 }, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Signals that wait (`RLIMIT_SIGPENDING`).
        "max-pending-signals" => max_pending_signals: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Processes of the user (`RLIMIT_NPROC`).
        "max-processes" => max_processes: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Ceiling of the real-time priority (`RLIMIT_RTPRIO`).
        "max-realtime-priority" => max_realtime_priority: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Microseconds of real-time scheduling without a system call (`RLIMIT_RTTIME`).
        "max-realtime-timeout" => max_realtime_timeout: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of resident memory (`RLIMIT_RSS`).
        "max-resident-set" => max_resident_set: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
        /// Bytes of stack (`RLIMIT_STACK`).
        "max-stack-size" => max_stack_size: ResourceLimit, example "{ hard-limit = 1048576, soft-limit = 65536 }";
    }
}

/// A hard and a soft limit of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// How far the soft limit can be raised.
    pub hard: Limit,
    /// What holds.
    pub soft: Limit,
}

group! {
    /// A hard and a soft limit of a resource, as they are written.
    pub struct Limits {
        /// How far the soft limit can be raised.
        "hard-limit" => hard: Limit;
        /// What holds.
        "soft-limit" => soft: Limit;
    }
}

impl Model for ResourceLimit {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let known = faults.len();
        let limits = Limits::read(value, at, faults)?;
        match (limits.hard, limits.soft) {
            (Some(hard), Some(soft)) if soft.bound() <= hard.bound() => Some(Self { hard, soft }),
            (Some(_), Some(_)) => {
                faults.add(at, "the soft limit is above the hard limit");
                None
            }
            (None, None) if value.as_object().is_some_and(serde_json::Map::is_empty) => None,
            _ => {
                if faults.len() == known {
                    faults.add(at, "hard-limit and soft-limit are only taken together");
                }
                None
            }
        }
    }

    fn write(&self) -> Value {
        json!({ "hard-limit": self.hard.write(), "soft-limit": self.soft.write() })
    }

    fn schema() -> Schema {
        Limits::schema()
    }
}

/// A limit; -1, also written "unlimited", is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(i64);

impl Limit {
    /// The limit, if there is one.
    pub fn get(self) -> Option<i64> {
        (self.0 >= 0).then_some(self.0)
    }

    fn bound(self) -> i64 {
        self.get().unwrap_or(i64::MAX)
    }
}

impl Model for Limit {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        if value.as_str() == Some("unlimited") {
            return Some(Self(-1));
        }
        number_within(
            value,
            "a whole number from -1 or \"unlimited\"",
            (-1, i64::MAX),
        )
        .map_err(|reason| faults.add(at, reason))
        .ok()
        .map(Self)
    }

    fn write(&self) -> Value {
        self.0.into()
    }

    fn schema() -> Schema {
        let scalar = |kind, what, choices| Schema::Scalar {
            kind,
            what,
            choices,
            pattern: None,
            range: (kind == "integer").then_some((-1, i64::MAX)),
            example: "65536",
        };
        Schema::Either(Box::new((
            scalar("integer", "a whole number, or -1 for no limit", None),
            scalar("string", "no limit", Some(&["unlimited"])),
        )))
    }
}
