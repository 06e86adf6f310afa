//! What a booted image has to do, and the runner that sees whether it does.
//!
//! [`ALL`] is the table: a name, what it is about, its tier and its budget of
//! processor seconds of the emulator. To add a scenario, write its function in
//! the module of [`scenarios`] that it belongs to and give it a line here.
//! [`Stage`] is what a scenario works on: images, disks, machines, and what is
//! read from a disk afterwards.
//!
//! How a machine is run is the crate `test-vm`'s business; where the images and
//! the emulator come from is the caller's, who fills in [`Setup`].

pub mod evidence;
pub mod runner;
mod scenarios;
mod stage;

pub use scenarios::node_update::serve_files_over_tls;
pub use scenarios::slots::next_version;
pub use scenarios::updates::command as update_command;
pub use stage::{Cluster, Setup, Stage, Which};

use anyhow::Result;

/// When a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// With every change.
    One,
    /// Before work is called done.
    Two,
}

impl Tier {
    /// Processor seconds that all scenarios of the tier may take together.
    pub fn limit(self) -> f64 {
        match self {
            Self::One => 25.0 * 60.0,
            Self::Two => 160.0 * 60.0,
        }
    }

    /// As on the command line.
    pub fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// By which it is asked for.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// When it is run.
    pub tier: Tier,
    /// Processor seconds that it may take under software emulation.
    pub budget: f64,
    /// Whether it boots nodes of a Kubernetes cluster instead of the variant's image.
    pub cluster: bool,
    /// What it does.
    pub run: fn(&mut Stage<'_>) -> Result<()>,
}

impl Scenario {
    /// Packages whose programs its containers have, beyond what every cluster has.
    pub fn packages(&self) -> &'static [&'static str] {
        match self.name {
            "agents" => scenarios::agents::PACKAGES,
            "volumes" => scenarios::volumes::PACKAGES,
            _ => &[],
        }
    }

    /// Packages whose programs run beside its machines, beyond what every cluster has.
    pub fn packages_beside(&self) -> &'static [&'static str] {
        match self.name {
            "volumes" => scenarios::volumes::PACKAGES_BESIDE,
            _ => &[],
        }
    }
}

/// Every scenario, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "twin-differs-by-the-door",
        about: "the dev twin differs from its variant by the dev door alone",
        tier: Tier::One,
        budget: 10.0,
        cluster: false,
        run: scenarios::twin::differs_by_the_door,
    },
    Scenario {
        name: "clean-boot",
        about: "firmware to boot complete: Secure Boot, SELinux enforcing, no failed unit, power-off",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::boot::clean_boot,
    },
    Scenario {
        name: "inside",
        about: "the dev twin from the inside: systemd running, mounts, SELinux, lockdown",
        tier: Tier::One,
        budget: 25.0,
        cluster: false,
        run: scenarios::boot::inside,
    },
    Scenario {
        name: "denials",
        about: "SELinux refuses a service of the host what is not its business, and records it",
        tier: Tier::One,
        budget: 25.0,
        cluster: false,
        run: scenarios::boot::denials,
    },
    Scenario {
        name: "settings-survive-reboot",
        about: "settings set by the API restart their unit once and are there after a reboot",
        tier: Tier::One,
        budget: 65.0,
        cluster: false,
        run: scenarios::settings::survive_reboot,
    },
    Scenario {
        name: "network",
        about: "DHCP lease and time from a server named by user data",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::network::lease_and_time,
    },
    Scenario {
        name: "user-data-on-esp",
        about: "user data in a file of the EFI system partition is applied at first boot, and only then",
        tier: Tier::One,
        budget: 110.0,
        cluster: false,
        run: scenarios::user_data::on_esp,
    },
    Scenario {
        name: "user-data-on-config-drive",
        about: "user data on a config drive is applied, on a disc in a CD drive and on a disk",
        tier: Tier::Two,
        budget: 110.0,
        cluster: false,
        run: scenarios::user_data::on_config_drive,
    },
    Scenario {
        name: "broken-user-data",
        about: "a fault in user data costs its setting, and its key is named on the console and by the API",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::user_data::broken,
    },
    Scenario {
        name: "user-data-stops-boot",
        about: "a fault in what decides the host's security stops the boot behind the API until it is corrected",
        tier: Tier::Two,
        budget: 110.0,
        cluster: false,
        run: scenarios::user_data::stops,
    },
    Scenario {
        name: "state-zeroed",
        about: "a state partition of zeros is made again, said so, and does not stop the boot",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::state::zeroed,
    },
    Scenario {
        name: "state-garbage",
        about: "a state partition full of garbage is made again, said so, and does not stop the boot",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::state::garbage,
    },
    Scenario {
        name: "data-grows",
        about: "on a bigger disk the data partition and its file system grow at first boot",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::state::data_grows,
    },
    Scenario {
        name: "flipped-bit",
        about: "a flipped bit in the root resets the machine, which comes up from the other slot",
        tier: Tier::One,
        budget: 140.0,
        cluster: false,
        run: scenarios::slots::flipped_bit,
    },
    Scenario {
        name: "altered-kernel",
        about: "a kernel image altered after signing is refused, the other slot comes up",
        tier: Tier::One,
        budget: 55.0,
        cluster: false,
        run: scenarios::slots::altered_kernel,
    },
    Scenario {
        name: "unsigned-kernel",
        about: "a kernel image without a signature is refused, the other slot comes up",
        tier: Tier::One,
        budget: 55.0,
        cluster: false,
        run: scenarios::slots::unsigned_kernel,
    },
    Scenario {
        name: "new-slot-fails",
        about: "a new slot that never completes a boot is left after its tries",
        tier: Tier::One,
        budget: 120.0,
        cluster: false,
        run: scenarios::slots::abandoned,
    },
    Scenario {
        name: "good-slot-fails",
        about: "a slot that was good once and fails three boots in a row is left",
        tier: Tier::One,
        budget: 190.0,
        cluster: false,
        run: scenarios::slots::blessed_fails,
    },
    Scenario {
        name: "commit-power-cut",
        about: "every flush of a disk that settings are committed to holds an old or a new document",
        tier: Tier::One,
        budget: 50.0,
        cluster: false,
        run: scenarios::power_cut::replay,
    },
    Scenario {
        name: "network-configured",
        about: "a bond of two cards and a VLAN on it, given to the API, hold from the next boot on, and when a cable is cut",
        tier: Tier::Two,
        budget: 100.0,
        cluster: false,
        run: scenarios::network::configured,
    },
    Scenario {
        name: "network-outage",
        about: "a host without a network says on its console what it sees of its cards, and works when the cable is in",
        tier: Tier::Two,
        budget: 80.0,
        cluster: false,
        run: scenarios::network::outage,
    },
    Scenario {
        name: "support-bundle",
        about: "the support bundle comes over the API, and making it is allowed all it needs",
        tier: Tier::Two,
        budget: 60.0,
        cluster: false,
        run: scenarios::diagnostics::support_bundle,
    },
    Scenario {
        name: "commit-killed",
        about: "a machine killed during commits comes up again with an old or a new document",
        tier: Tier::Two,
        budget: 230.0,
        cluster: false,
        run: scenarios::power_cut::killed,
    },
    Scenario {
        name: "state-full",
        about: "a full state partition keeps what was set, and refuses a commit with the reason",
        tier: Tier::Two,
        budget: 60.0,
        cluster: false,
        run: scenarios::state::full,
    },
    Scenario {
        name: "state-read-only",
        about: "a state partition that can only be read keeps what was set, said so, and refuses a commit with the reason",
        tier: Tier::Two,
        budget: 80.0,
        cluster: false,
        run: scenarios::state::read_only,
    },
    Scenario {
        name: "clock-of-1970",
        about: "a clock that has lost its time stops nothing",
        tier: Tier::Two,
        budget: 60.0,
        cluster: false,
        run: scenarios::state::clock_of_1970,
    },
    Scenario {
        name: "kernel-parameters",
        about: "without Secure Boot, kernel parameters of the settings hold from the next boot on",
        tier: Tier::Two,
        budget: 130.0,
        cluster: false,
        run: scenarios::boot::kernel_parameters,
    },
    Scenario {
        name: "update",
        about: "an update by the API boots and keeps the settings; one that does not boot is given up, and the status says so",
        tier: Tier::Two,
        budget: 235.0,
        cluster: false,
        run: scenarios::updates::forward_and_back,
    },
    Scenario {
        name: "update-bad-disk",
        about: "a disk that fails where an update is written, or read back, costs the update alone, and the status says so",
        tier: Tier::Two,
        budget: 60.0,
        cluster: false,
        run: scenarios::updates::bad_disk,
    },
    Scenario {
        name: "update-power-cut",
        about: "whatever a power cut leaves of the disk, from the preparation of an update to its end, a host comes up from it",
        tier: Tier::Two,
        budget: 440.0,
        cluster: false,
        run: scenarios::update_power_cut::power_cut,
    },
    Scenario {
        name: "kubelet-health",
        about: "a node's boot is complete when kubelet is healthy, without its cluster; one that is not is said, and left alone where nothing else could boot",
        tier: Tier::Two,
        budget: 220.0,
        cluster: false,
        run: scenarios::kubelet::has_to_be_healthy,
    },
    Scenario {
        name: "node-update",
        about: "a pod that calls apiclient as the update operator does updates a node over TLS; a version on which kubelet is not healthy is given up, and boots when it is asked for again",
        tier: Tier::Two,
        budget: 850.0,
        cluster: true,
        run: scenarios::node_update::node_update,
    },
    Scenario {
        name: "host-containers",
        about: "host containers come from a registry, see of the host what they should, have commands run in them, keep the API when its server is restarted, and go when disabled",
        tier: Tier::Two,
        budget: 270.0,
        cluster: true,
        run: scenarios::host_containers::host_containers,
    },
    Scenario {
        name: "doors",
        about: "without any registry admin is enabled from control, lets in by SSH who has the key, sees into a pod and the host, and is gone when disabled",
        tier: Tier::Two,
        budget: 240.0,
        cluster: true,
        run: scenarios::doors::doors,
    },
    Scenario {
        name: "image-push",
        about: "the images of admin and control go to a registry with a password as they were built",
        tier: Tier::Two,
        budget: 20.0,
        cluster: true,
        run: scenarios::image_push::image_push,
    },
    Scenario {
        name: "bootstrap-containers",
        about: "bootstrap containers prepare disks before kubelet starts, once or always, and one that is essential and fails stops the boot",
        tier: Tier::Two,
        budget: 220.0,
        cluster: true,
        run: scenarios::bootstrap_containers::bootstrap_containers,
    },
    Scenario {
        name: "node-joins",
        about: "a node joins a cluster by user data alone, runs pods of a private registry, and does so again after a reboot",
        tier: Tier::One,
        budget: 270.0,
        cluster: true,
        run: scenarios::cluster::node_joins,
    },
    Scenario {
        name: "ec2-node-joins",
        about: "an instance of EC2 joins a cluster by its role, with the user data that Karpenter writes",
        tier: Tier::Two,
        budget: 170.0,
        cluster: true,
        run: scenarios::ec2::node_joins,
    },
    Scenario {
        name: "ephemeral-storage",
        about: "disks of the machine become file systems by the API, and nothing else does",
        tier: Tier::Two,
        budget: 80.0,
        cluster: false,
        run: scenarios::storage::ephemeral,
    },
    Scenario {
        name: "instance-store",
        about: "user data of Karpenter puts a node's containers on its own disks, at each boot before anything needs them",
        tier: Tier::Two,
        budget: 170.0,
        cluster: true,
        run: scenarios::storage::instance_store,
    },
    Scenario {
        name: "data-volume",
        about: "a blank second volume takes a node's data and grows; one that holds something else is left alone",
        tier: Tier::Two,
        budget: 180.0,
        cluster: true,
        run: scenarios::storage::data_volume,
    },
    Scenario {
        name: "pods",
        about: "pods of every kind run on a node, outlive kubelet, containerd and settings, and come back after a reboot",
        tier: Tier::Two,
        budget: 1000.0,
        cluster: true,
        run: scenarios::pods::pods,
    },
    Scenario {
        name: "many-pods",
        about: "a node given more pods than fit at once runs those that fit, stays ready, and is still administered",
        tier: Tier::Two,
        budget: 1040.0,
        cluster: true,
        run: scenarios::many_pods::many_pods,
    },
    Scenario {
        name: "agents",
        about: "agents see images, connections and mounts of a node, and a shutdown ends pods in order",
        tier: Tier::Two,
        budget: 480.0,
        cluster: true,
        run: scenarios::agents::agents,
    },
    Scenario {
        name: "volumes",
        about: "volumes of a driver, of disks and of NFS keep what pods write, whatever pod, driver or boot comes next",
        tier: Tier::Two,
        budget: 560.0,
        cluster: true,
        run: scenarios::volumes::volumes,
    },
    Scenario {
        name: "two-nodes",
        about: "pods of two nodes reach each other and their service, by agents that the cluster brings",
        tier: Tier::Two,
        budget: 400.0,
        cluster: true,
        run: scenarios::two_nodes::two_nodes,
    },
    Scenario {
        name: "node-troubles",
        about: "a node says what keeps it from its work, and works again without a reboot when that is over",
        tier: Tier::Two,
        budget: 530.0,
        cluster: true,
        run: scenarios::troubles::node_troubles,
    },
];

/// The scenario called `name`.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_words_without_blanks() {
        let names: BTreeSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(plain), "{}", scenario.name);
            assert!(
                !scenario.about.is_empty() && scenario.budget > 0.0,
                "{}",
                scenario.name
            );
            assert_eq!(
                find(scenario.name).map(|found| found.name),
                Some(scenario.name)
            );
        }
        assert!(find("none").is_none());
    }

    #[test]
    fn budgets_of_a_tier_fit_its_limit() {
        for tier in [Tier::One, Tier::Two] {
            let sum: f64 = ALL
                .iter()
                .filter(|scenario| scenario.tier <= tier)
                .map(|scenario| scenario.budget)
                .sum();
            assert!(
                sum <= tier.limit(),
                "tier {}: {sum} of {} s",
                tier.number(),
                tier.limit()
            );
        }
    }
}
