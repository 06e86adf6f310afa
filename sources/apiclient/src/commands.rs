//! The subcommands, one module each: an entry of the table, and what it does.

pub(crate) mod apply;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod complete_key;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod ephemeral_storage;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod lockdown;
pub(crate) mod network;
pub(crate) mod raw;
pub(crate) mod reboot;
pub(crate) mod report;
pub(crate) mod rollback;
pub(crate) mod set;
pub(crate) mod unset;
pub(crate) mod update;

use crate::cli::Subcommand;

/// All subcommands, in the order of help. Those that share their first word
/// stand together.
pub const SUBCOMMANDS: &[&Subcommand] = &[
    &raw::SUBCOMMAND,
    &get::SUBCOMMAND,
    &set::SUBCOMMAND,
    &unset::SUBCOMMAND,
    &apply::SUBCOMMAND,
    &check::SUBCOMMAND,
    &explain::SUBCOMMAND,
    &diff::SUBCOMMAND,
    &history::SUBCOMMAND,
    &rollback::SUBCOMMAND,
    &exec::SUBCOMMAND,
    &update::CHECK,
    &update::APPLY,
    &update::CANCEL,
    &report::SUBCOMMAND,
    &report::CIS,
    &report::CIS_K8S,
    &report::FIPS,
    &ephemeral_storage::INIT,
    &ephemeral_storage::BIND,
    &ephemeral_storage::LIST_DISKS,
    &ephemeral_storage::LIST_EBS_VOLUMES,
    &ephemeral_storage::LIST_DIRS,
    &network::CONFIGURE,
    &lockdown::SUBCOMMAND,
    &reboot::SUBCOMMAND,
    &completions::SUBCOMMAND,
    &complete_key::SUBCOMMAND,
];
