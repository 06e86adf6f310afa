//! Ephemeral storage.

use serde::{Deserialize, Serialize};

/// Body of `POST /actions/ephemeral-storage/init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralStorageInit {
    /// The kind of file system; the server's default if there is none.
    pub filesystem: Option<FileSystem>,
    /// Disks by path; all ephemeral ones if there are none.
    pub disks: Option<Vec<String>>,
    /// EBS volumes by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_volumes: Option<Vec<String>>,
    /// What to take where neither disks nor volumes are named, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<Vec<StoragePreference>>,
}

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSystem {
    /// XFS.
    Xfs,
    /// ext4.
    Ext4,
}

/// Kinds of disks to take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePreference {
    /// Disks of the machine itself.
    pub ephemeral_disk: bool,
    /// EBS volumes.
    pub ebs_volume: bool,
}

/// Body of `POST /actions/ephemeral-storage/bind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralStorageBind {
    /// Directories; those of the variant if there are none.
    pub targets: Vec<String>,
}
