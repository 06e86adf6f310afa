//! Messages of containerd's API, as far as they are used here. Numbers are those of its
//! definitions; fields that are not used are left out.

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
    #[prost(int64, tag = "5")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    #[prost(map = "string, string", tag = "7")]
    pub labels: Labels,
}

/// `services.content.WriteAction`: write what comes along; the same, then verify all, and
/// be done.
pub const WRITE: i32 = 1;
pub const COMMIT: i32 = 2;

/// `services.snapshots`: `StatSnapshotRequest` and `RemoveSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

/// `services.snapshots`: `PrepareSnapshotRequest` and `ViewSnapshotRequest`.
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

/// An image that containerd has: its `services.images.Image`.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// Its whole name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What else is known of it.
    #[prost(map = "string, string", tag = "2")]
    pub(crate) labels: Labels,
    #[prost(message, optional, tag = "3")]
    pub(crate) target: Option<Descriptor>,
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

/// `services.images.UpdateImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateImage {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub fields: Option<Fields>,
}

/// `google.protobuf.FieldMask`: what of a message is meant.
#[derive(Clone, PartialEq, Message)]
pub struct Fields {
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

/// `services.images.ListImagesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Images {
    #[prost(message, repeated, tag = "1")]
    pub images: Vec<Image>,
}

/// `services.images.DeleteImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteImage {
    #[prost(string, tag = "1")]
    pub name: String,
    /// The answer comes when what only this image kept is gone, too.
    #[prost(bool, tag = "2")]
    pub sync: bool,
}

/// `services.content.ReadContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ReadContent {
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// `services.content.ReadContentResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Content {
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// `google.protobuf.Any`: a message, or what another format holds, and what it is.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Any {
    /// A message under its full name.
    pub fn of(kind: &str, message: &impl Message) -> Self {
        Self {
            kind: kind.to_string(),
            value: message.encode_to_vec(),
        }
    }
}

/// `services.transfer.TransferRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Transfer {
    #[prost(message, optional, tag = "1")]
    pub source: Option<Any>,
    #[prost(message, optional, tag = "2")]
    pub destination: Option<Any>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<TransferOptions>,
}

/// `services.transfer.TransferOptions`.
#[derive(Clone, PartialEq, Message)]
pub struct TransferOptions {
    /// The stream on which it says how far it is.
    #[prost(string, tag = "1")]
    pub progress_stream: String,
}

/// `types.transfer.OCIRegistry`.
#[derive(Clone, PartialEq, Message)]
pub struct Registry {
    #[prost(string, tag = "1")]
    pub reference: String,
    #[prost(message, optional, tag = "2")]
    pub resolver: Option<Resolver>,
}

/// `types.transfer.RegistryResolver`.
#[derive(Clone, PartialEq, Message)]
pub struct Resolver {
    /// The stream on which it asks for credentials.
    #[prost(string, tag = "1")]
    pub auth_stream: String,
    /// The folder with a folder for each registry that has mirrors.
    #[prost(string, tag = "3")]
    pub host_dir: String,
}

/// `types.transfer.ImageStore`.
#[derive(Clone, PartialEq, Message)]
pub struct ImageStore {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "3")]
    pub platforms: Vec<Platform>,
    #[prost(message, repeated, tag = "10")]
    pub unpacks: Vec<Unpack>,
}

/// `types.transfer.UnpackConfiguration`.
#[derive(Clone, PartialEq, Message)]
pub struct Unpack {
    #[prost(message, optional, tag = "1")]
    pub platform: Option<Platform>,
    #[prost(string, tag = "2")]
    pub snapshotter: String,
}

/// `types.Platform`.
#[derive(Clone, PartialEq, Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub os: String,
    #[prost(string, tag = "2")]
    pub architecture: String,
}

/// `services.streaming`: `StreamInit`.
#[derive(Clone, PartialEq, Message)]
pub struct StreamInit {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `types.transfer.AuthRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct AuthRequest {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(string, tag = "2")]
    pub reference: String,
}

/// `types.transfer.AuthResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct AuthResponse {
    /// One of the `AUTH_` constants.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub secret: String,
    #[prost(string, tag = "3")]
    pub username: String,
}

/// `types.transfer.AuthType`: nothing, a user's password, a token to get others with.
pub const AUTH_NONE: i32 = 0;
pub const AUTH_CREDENTIALS: i32 = 1;
pub const AUTH_REFRESH: i32 = 2;

/// `services.containers.Container`.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: Labels,
    #[prost(string, tag = "3")]
    pub image: String,
    #[prost(message, optional, tag = "4")]
    pub runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    pub spec: Option<Any>,
    #[prost(string, tag = "6")]
    pub snapshotter: String,
    #[prost(string, tag = "7")]
    pub snapshot_key: String,
}

/// `services.containers.Container.Runtime`.
#[derive(Clone, PartialEq, Message)]
pub struct Runtime {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `services.containers`: requests and answers that hold a container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerMessage {
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

/// `services.containers`: `GetContainerRequest` and `DeleteContainerRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerId {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `services.tasks.CreateTaskRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct CreateTask {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    #[prost(string, tag = "4")]
    pub stdin: String,
    #[prost(string, tag = "5")]
    pub stdout: String,
    #[prost(string, tag = "6")]
    pub stderr: String,
    #[prost(bool, tag = "7")]
    pub terminal: bool,
}

/// `services.tasks.ExecProcessRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ExecProcess {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub stdin: String,
    #[prost(string, tag = "3")]
    pub stdout: String,
    #[prost(string, tag = "4")]
    pub stderr: String,
    #[prost(bool, tag = "5")]
    pub terminal: bool,
    #[prost(message, optional, tag = "6")]
    pub spec: Option<Any>,
    #[prost(string, tag = "7")]
    pub exec_id: String,
}

/// `services.tasks`: requests about a process of a container, its first one if
/// `exec_id` is empty. Get, Start, Wait, DeleteProcess and, without the second field,
/// Delete.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessId {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

/// `services.tasks.KillRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Kill {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(uint32, tag = "3")]
    pub signal: u32,
    #[prost(bool, tag = "4")]
    pub all: bool,
}

/// `services.tasks.ResizePtyRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ResizePty {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(uint32, tag = "3")]
    pub width: u32,
    #[prost(uint32, tag = "4")]
    pub height: u32,
}

/// `services.tasks.CloseIORequest`.
#[derive(Clone, PartialEq, Message)]
pub struct CloseInput {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(bool, tag = "3")]
    pub stdin: bool,
}

/// `services.tasks.WaitResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Waited {
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
}

/// `services.tasks.StartResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Started {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// `services.tasks.GetResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Found {
    #[prost(message, optional, tag = "1")]
    pub process: Option<FoundProcess>,
}

/// `types.Process`.
#[derive(Clone, PartialEq, Message)]
pub struct FoundProcess {
    /// 0 for one that was not started.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}
