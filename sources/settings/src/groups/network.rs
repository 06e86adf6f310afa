//! `settings.network`.

use crate::model::group;
use crate::types::{Hostname, SingleLine, Url};
use std::net::IpAddr;

group! {
    /// Names and proxies of the network.
    pub struct Network {
        /// The host's name.
        "hostname" => hostname: Hostname, generated "hostname";
        /// Further lines of `/etc/hosts`: pairs of an address and a list of names.
        "hosts" => hosts: Vec<(IpAddr, Vec<Hostname>)>;
        /// Proxy for HTTPS of the host's own services.
        "https-proxy" => https_proxy: Url, secret true;
        /// Hosts and domains that are reached without the proxy.
        "no-proxy" => no_proxy: Vec<SingleLine>;
    }
}
