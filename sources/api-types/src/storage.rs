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

/// Where the API server puts an [`EphemeralStorageWork`], below the root, for the
/// service that does it.
pub const EPHEMERAL_STORAGE_WORK: &str = "run/bulkhead/ephemeral-storage-work.json";
/// Where that service answers with an [`EphemeralStorageDone`].
pub const EPHEMERAL_STORAGE_DONE: &str = "run/bulkhead/ephemeral-storage-done.json";

/// What is to be done or told about ephemeral storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EphemeralStorageWork {
    /// `POST /actions/ephemeral-storage/init`.
    Init(EphemeralStorageInit),
    /// `POST /actions/ephemeral-storage/bind`.
    Bind(EphemeralStorageBind),
    /// `GET /actions/ephemeral-storage/list-disks`.
    ListDisks,
    /// `GET /actions/ephemeral-storage/list-ebs-volumes`.
    ListEbsVolumes,
    /// `GET /actions/ephemeral-storage/list-dirs`.
    ListDirs,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EphemeralStorageDone {
    /// It is done; a list if one was asked for.
    Done(Vec<String>),
    /// It was not, and why.
    Refused(String),
}
