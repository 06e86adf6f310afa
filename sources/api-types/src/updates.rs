//! Updates, as the update operator of Bottlerocket knows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /updates/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// How far an update is.
    pub update_state: UpdateState,
    /// Versions for this variant and architecture, newest first.
    #[serde(default)]
    pub available_updates: Vec<String>,
    /// The one that would be downloaded.
    pub chosen_update: Option<UpdateImage>,
    /// What runs.
    pub active_partition: Option<SlotStatus>,
    /// What was downloaded.
    pub staging_partition: Option<SlotStatus>,
    /// What was done last, and how it went.
    pub most_recent_command: Option<UpdateCommandResult>,
    /// Versions that did not complete a boot here, and what the boot complained of. Not a
    /// field of Bottlerocket's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given_up: BTreeMap<String, String>,
}

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// There is none.
    Idle,
    /// There is one.
    Available,
    /// It is downloaded.
    Staged,
    /// It boots next.
    Ready,
}

/// An image of some version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateImage {
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The version, without a leading `v`.
    pub version: String,
    /// The variant's name.
    pub variant: String,
}

/// What lies in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The image.
    pub image: UpdateImage,
    /// Whether it is what the next boot boots.
    pub next_to_boot: bool,
}

/// How an update command went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCommandResult {
    /// Which one.
    pub cmd_type: UpdateCommand,
    /// How it went.
    pub cmd_status: UpdateCommandStatus,
    /// When it ended, by RFC 3339. That it changes is how clients see that a
    /// command has ended.
    pub timestamp: String,
    /// Its exit status; nothing if a signal ended it.
    pub exit_status: Option<i32>,
    /// What it had to say.
    pub stderr: Option<String>,
}

/// An update command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateCommand {
    /// Look for updates.
    Refresh,
    /// Download one.
    Prepare,
    /// Boot it next.
    Activate,
    /// Do not boot it next.
    Deactivate,
}

/// How an update command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateCommandStatus {
    /// It did what it should.
    Success,
    /// It did not.
    Failed,
    /// Nobody can tell.
    Unknown,
}

/// Where the updater keeps its state, below the root: JSON whose `status` is an
/// [`UpdateStatus`].
pub const UPDATE_STATUS: &str = "var/lib/bulkhead/updates/status.json";
/// Held while an update command is at work, below the root.
pub const UPDATE_LOCK: &str = "run/bulkhead/update.lock";
/// Where the updater says whether it begins, as an [`UpdateAnswer`], below the root.
pub const UPDATE_ANSWER: &str = "run/bulkhead/update-answer.json";

/// Whether the updater begins with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateAnswer {
    /// It does.
    Begun,
    /// It does not.
    Refused {
        /// What the API answers with.
        status: u16,
        /// Why.
        why: String,
    },
}

/// Why a boot on trial was given up, for the image that comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootComplaint {
    /// The version that was on trial.
    pub version: String,
    /// What was wrong.
    pub complaint: String,
}
/// Where it lies, below the root.
pub const BOOT_COMPLAINT: &str = "var/lib/bulkhead/boot-complaint.json";
