//! The groups of settings, one file each, and the document they make up.

pub mod autoscaling;
pub mod cloudformation;
pub mod dns;
pub mod kernel;
pub mod motd;
pub mod network;
pub mod ntp;
pub mod pki;
pub mod user_data;

use crate::model::group;
use crate::{Model, Schema, Variant};

group! {
    /// Settings of a Bulkhead host.
    pub struct Settings {
        /// Message of the day, shown to whoever opens a terminal in a host container.
        "motd" => motd: motd::Motd, default "Welcome to Bulkhead!";
        /// What a fault in user data costs: `lenient` leaves a faulty setting at its
        /// default unless it decides the host's identity, its cluster or its
        /// security; with `strict` any fault stops the boot.
        "user-data-policy" => user_data_policy: user_data::UserDataPolicy, default "lenient";
        /// Names and proxies of the network.
        "network" => network: network::Network;
        /// Time synchronisation.
        "ntp" => ntp: ntp::Ntp;
        /// Name resolution.
        "dns" => dns: dns::Dns;
        /// The Linux kernel at run time.
        "kernel" => kernel: kernel::Kernel;
        /// Certificates that the host trusts, by name of a bundle.
        "pki" => pki: pki::Pki;
        /// The signal to AWS CloudFormation that a resource has come up.
        "cloudformation" => cloudformation: cloudformation::Cloudformation, only Aws;
        /// EC2 Auto Scaling.
        "autoscaling" => autoscaling: autoscaling::Autoscaling, only AwsKubernetes;
    }
}

impl Settings {
    /// The settings that `variant` has. [`Model::schema`] has those of all.
    pub fn schema_for(variant: &Variant) -> Schema {
        Self::schema().for_variant(variant)
    }
}
