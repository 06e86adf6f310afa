//! Messages of the container storage interface, and of kubelet's registration of plugins, as
//! far as they are used here. Numbers are those of their definitions.

use prost::Message;
use std::collections::HashMap;

/// A request or an answer without content.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// `csi.v1.GetPluginInfoResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DriverInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `csi.v1.NodeGetInfoResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct NodeInfo {
    #[prost(string, tag = "1")]
    pub node_id: String,
}

/// `csi.v1.NodeGetCapabilitiesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Capabilities {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<Capability>,
}

/// `csi.v1.NodeServiceCapability`.
#[derive(Clone, PartialEq, Message)]
pub struct Capability {
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<Rpc>,
}

/// `csi.v1.NodeServiceCapability.RPC`.
#[derive(Clone, PartialEq, Message)]
pub struct Rpc {
    #[prost(int32, tag = "1")]
    pub kind: i32,
}

/// `STAGE_UNSTAGE_VOLUME`: volumes are mounted once on the node, and from there for each pod.
pub const STAGES: i32 = 1;

/// `csi.v1.VolumeCapability`: how a volume is wanted, as a device or as files.
#[derive(Clone, PartialEq, Message)]
pub struct Access {
    #[prost(message, optional, tag = "1")]
    pub block: Option<Nothing>,
    #[prost(message, optional, tag = "2")]
    pub mount: Option<MountAccess>,
}

/// `csi.v1.VolumeCapability.MountVolume`.
#[derive(Clone, PartialEq, Message)]
pub struct MountAccess {
    #[prost(string, tag = "1")]
    pub fs_type: String,
    #[prost(string, repeated, tag = "2")]
    pub flags: Vec<String>,
}

/// `csi.v1.NodeStageVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Stage {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "3")]
    pub staging: String,
    #[prost(message, optional, tag = "4")]
    pub access: Option<Access>,
}

/// `csi.v1.NodeUnstageVolumeRequest`, and `NodeUnpublishVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Undo {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "2")]
    pub place: String,
}

/// `csi.v1.NodePublishVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Publish {
    #[prost(string, tag = "1")]
    pub volume_id: String,
    #[prost(string, tag = "3")]
    pub staging: String,
    #[prost(string, tag = "4")]
    pub target: String,
    #[prost(message, optional, tag = "5")]
    pub access: Option<Access>,
    #[prost(bool, tag = "6")]
    pub read_only: bool,
    #[prost(map = "string, string", tag = "8")]
    pub context: HashMap<String, String>,
}

/// `pluginregistration.PluginInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct PluginInfo {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub versions: Vec<String>,
}

/// `pluginregistration.RegistrationStatus`.
#[derive(Clone, PartialEq, Message)]
pub struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub registered: bool,
    #[prost(string, tag = "2")]
    pub error: String,
}
