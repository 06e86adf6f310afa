//! `settings.bootstrap-containers`.

use crate::model::group;
use crate::types::{Argument, Base64, Identifier, RunMode, Url};
use std::collections::BTreeMap;

/// Bootstrap containers by name.
pub type BootstrapContainers = BTreeMap<Identifier, BootstrapContainer>;

group! {
    /// A container that runs at boot, before the services of the host.
    pub struct BootstrapContainer {
        /// Its image.
        "source" => source: Url, example "\"registry.example.com/bootstrap:v1\"";
        /// When it runs; unset is `off`. Once it has run with success, `once` becomes `off`.
        "mode" => mode: RunMode;
        /// Bytes that the container finds in the file `user-data` of its folder.
        "user-data" => user_data: Base64, secret true;
        /// Whether the boot stops if it fails.
        "essential" => essential: bool;
        /// What is run in it instead of what the image names.
        "command" => command: Vec<Argument>, example "[\"/usr/bin/prepare\", \"--disks\"]",
            secret true;
    }
}
