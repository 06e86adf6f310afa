//! `settings.dns`.

use crate::model::group;
use crate::types::Hostname;
use std::net::IpAddr;

group! {
    /// Name resolution. What is unset comes from the DHCP lease.
    pub struct Dns {
        /// Addresses of name servers.
        "name-servers" => name_servers: Vec<IpAddr>;
        /// Domains in which short names are looked up.
        "search-list" => search_list: Vec<Hostname>;
    }
}
