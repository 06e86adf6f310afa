//! Messages of containerd's API, as far as importing needs them. Numbers are those of
//! its definitions; fields that are not used here are left out.

use prost::Message;
use std::collections::HashMap;

/// Names of labels and other things.
pub type Labels = HashMap<String, String>;

/// `types.Descriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub media_type: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    #[prost(int64, tag = "3")]
    pub size: i64,
    #[prost(map = "string, string", tag = "5")]
    pub annotations: Labels,
}

/// `types.Mount`.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// An answer without content.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// `services.leases`: `CreateRequest`, and `DeleteRequest` as far as it is used.
#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `services.content.WriteContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WriteContent {
    #[prost(int32, tag = "1")]
    pub action: i32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(int64, tag = "3")]
    pub total: i64,
    #[prost(string, tag = "4")]
    pub expected: String,
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    #[prost(map = "string, string", tag = "7")]
    pub labels: Labels,
}

/// `services.content.WriteAction`: write what comes along, verify it, and be done.
pub const COMMIT: i32 = 2;

/// `services.snapshots`: `StatSnapshotRequest` and `RemoveSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

/// `services.snapshots.PrepareSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PrepareSnapshot {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, tag = "3")]
    pub parent: String,
}

/// `services.snapshots.PrepareSnapshotResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub mounts: Vec<Mount>,
}

/// `services.snapshots.CommitSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct CommitSnapshot {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub key: String,
}

/// `services.diff.ApplyRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Apply {
    #[prost(message, optional, tag = "1")]
    pub diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    #[prost(bool, tag = "4")]
    pub sync_fs: bool,
}

/// `services.images.Image`.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: Labels,
    #[prost(message, optional, tag = "3")]
    pub target: Option<Descriptor>,
}

/// `services.images.GetImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct GetImage {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `services.images`: requests and answers that hold an image.
#[derive(Clone, PartialEq, Message)]
pub struct ImageMessage {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}
