//! What the host asks of containerd: images, containers and their processes.
//!
//! [`Client`] calls, over HTTP/2 on a Unix socket; `api` has the messages, as few as
//! are needed. Images come from a folder ([`import`]) or a registry ([`pull`]);
//! [`image`] says what is in them, [`task`] runs them.

mod api;
mod grpc;
pub mod image;
pub mod import;
pub mod layout;
pub mod pull;
pub mod task;

pub use api::Image;
pub use grpc::Client;

/// The containerd that is for host containers alone, and what it has them under.
pub const HOST_SOCKET: &str = "/run/host-containerd/containerd.sock";
/// The namespace in which they are.
pub const HOST_NAMESPACE: &str = "default";

/// What keeps layers of images and roots of containers.
pub const SNAPSHOTTER: &str = "overlayfs";
