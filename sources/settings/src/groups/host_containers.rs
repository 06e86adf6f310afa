//! `settings.host-containers`.

use crate::model::group;
use crate::types::{Argument, Base64, Identifier, Url};
use std::collections::BTreeMap;

/// Host containers by name.
pub type HostContainers = BTreeMap<Identifier, HostContainer>;

group! {
    /// A container that serves the host and not a workload.
    pub struct HostContainer {
        /// Its image.
        "source" => source: Url, example "\"registry.example.com/admin:v1\"";
        /// Whether it runs.
        "enabled" => enabled: bool;
        /// Whether it may do nearly everything that the host may, for debugging.
        "superpowered" => superpowered: bool;
        /// Bytes that the container finds in the file `user-data` of its folder.
        "user-data" => user_data: Base64, secret true;
        /// What is run in it instead of what the image names.
        "command" => command: Vec<Argument>, example "[\"/usr/bin/agent\", \"--verbose\"]",
            secret true;
    }
}
