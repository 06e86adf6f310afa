//! What goes into a bundle.

/// Where something comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The settings, without their secrets.
    Settings,
    /// The config files that hold no secret.
    ConfigFiles,
    /// An answer of the API.
    Api(&'static str),
    /// What a program writes.
    Program(&'static [&'static str]),
    /// A file, by its path below the root.
    File(&'static str),
    /// All files below a folder.
    Folder(&'static str),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its path in the archive.
    pub name: &'static str,
    /// Where it comes from.
    pub source: Source,
}

const fn request(name: &'static str, source: Source) -> Request {
    Request { name, source }
}

use Source::{Api, ConfigFiles, File, Folder, Program, Settings};

/// Everything, the most asked for first.
pub const ALL: &[Request] = &[
    request("os-release", File("usr/lib/os-release")),
    request("settings.json", Settings),
    request("config-files", ConfigFiles),
    request("reports/boot", Api("/report/boot?format=text")),
    request("reports/node", Api("/report/node?format=text")),
    request("reports/user-data", Api("/report/user-data?format=text")),
    request("updates.json", Api("/updates/status")),
    request(
        "units/all",
        Program(&[
            "/usr/bin/systemctl",
            "list-units",
            "--all",
            "--full",
            "--plain",
            "--no-legend",
        ]),
    ),
    request(
        "units/failed",
        Program(&[
            "/usr/bin/systemctl",
            "list-units",
            "--failed",
            "--full",
            "--plain",
            "--no-legend",
        ]),
    ),
    request(
        "units/jobs",
        Program(&["/usr/bin/systemctl", "list-jobs", "--full", "--no-legend"]),
    ),
    request(
        "units/timers",
        Program(&["/usr/bin/systemctl", "list-timers", "--all", "--full"]),
    ),
    request(
        "journal/this-boot",
        Program(&[
            "/usr/bin/journalctl",
            "--boot=0",
            "--output=short-precise",
            "--lines=30000",
            "--no-hostname",
        ]),
    ),
    request(
        "journal/previous-boot",
        Program(&[
            "/usr/bin/journalctl",
            "--boot=-1",
            "--output=short-precise",
            "--lines=30000",
            "--no-hostname",
        ]),
    ),
    request(
        "journal/boots",
        Program(&["/usr/bin/journalctl", "--list-boots"]),
    ),
    request(
        "journal/kernel",
        Program(&[
            "/usr/bin/journalctl",
            "--dmesg",
            "--output=short-monotonic",
            "--lines=30000",
        ]),
    ),
    request("kernel/command-line", File("proc/cmdline")),
    request("kernel/version", File("proc/version")),
    request("kernel/modules", File("proc/modules")),
    request("kernel/lockdown", File("sys/kernel/security/lockdown")),
    request("kernel/selinux-enforcing", File("sys/fs/selinux/enforce")),
    request("machine/processors", File("proc/cpuinfo")),
    request("machine/memory", File("proc/meminfo")),
    request("machine/load", File("proc/loadavg")),
    request("machine/uptime", File("proc/uptime")),
    request("machine/pressure", Folder("proc/pressure")),
    request("storage/mounts", File("proc/self/mountinfo")),
    request("storage/partitions", File("proc/partitions")),
    request("storage/disk-statistics", File("proc/diskstats")),
    request("storage/problems", File("run/bulkhead/storage-problems")),
    request("network/interfaces", File("proc/net/dev")),
    request("network/ipv4-addresses", File("proc/net/fib_trie")),
    request("network/ipv4-routes", File("proc/net/route")),
    request("network/ipv6-addresses", File("proc/net/if_inet6")),
    request("network/ipv6-routes", File("proc/net/ipv6_route")),
    request("network/neighbours", File("proc/net/arp")),
    request("network/sockets", File("proc/net/sockstat")),
    request("network/manager", Folder("run/systemd/netif")),
    request("network/resolver", File("run/resolv.conf")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_paths_lie_below_the_root() {
        let names: BTreeSet<&str> = ALL.iter().map(|request| request.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Request { name, source } in ALL {
            assert!(!name.starts_with('/') && !name.contains(".."), "{name}");
            match source {
                File(path) | Folder(path) => assert!(!path.starts_with('/'), "{path}"),
                Api(uri) => assert!(uri.starts_with('/'), "{uri}"),
                Program(words) => assert!(words[0].starts_with("/usr/bin/"), "{words:?}"),
                Settings | ConfigFiles => {}
            }
        }
    }
}
