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

/// What keeps layers of images and roots of containers.
pub const SNAPSHOTTER: &str = "overlayfs";
