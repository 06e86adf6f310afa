//! The groups of settings, one file each, and the document they make up.

pub mod dns;
pub mod kernel;
pub mod motd;
pub mod network;
pub mod ntp;
pub mod pki;

use crate::model::group;

group! {
    /// Settings of a Bulkhead host.
    pub struct Settings {
        /// Message of the day, shown to whoever opens a terminal in a host container.
        "motd" => motd: motd::Motd, default "Welcome to Bulkhead!";
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
    }
}
