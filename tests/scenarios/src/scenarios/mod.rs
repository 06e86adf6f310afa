//! The scenarios, by subject.

pub(crate) mod agents;
pub(crate) mod boot;
pub(crate) mod bootstrap_containers;
pub(crate) mod cluster;
mod daemonsets;
pub(crate) mod debugging;
pub(crate) mod diagnostics;
pub(crate) mod doors;
pub(crate) mod ec2;
pub(crate) mod exec;
pub(crate) mod host_containers;
pub(crate) mod image_push;
pub(crate) mod kubelet;
pub(crate) mod many_pods;
pub(crate) mod network;
pub(crate) mod node_update;
pub(crate) mod pods;
pub(crate) mod power_cut;
pub(crate) mod settings;
pub(crate) mod slots;
pub(crate) mod state;
pub(crate) mod storage;
pub(crate) mod troubles;
pub(crate) mod twin;
pub(crate) mod two_nodes;
pub(crate) mod update_power_cut;
pub(crate) mod updates;
pub(crate) mod user_data;
pub(crate) mod volumes;

use anyhow::Result;
use serde_json::Value;
use test_vm::api::Api;

/// Commits and applies settings.
pub(crate) fn set(api: &Api, settings: &Value) -> Result<()> {
    api.json("PATCH", "/settings?tx=scenario", Some(settings))?;
    api.json("POST", "/tx/commit_and_apply?tx=scenario", None)?;
    Ok(())
}
