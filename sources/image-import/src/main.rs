//! Puts the container images that lie in the root into containerd, so that no pod
//! needs a registry for the image that holds its namespaces.
//!
//!     image-import SOCKET NAMESPACE FOLDER
//!
//! `FOLDER` has a folder for each image, an OCI layout. An image that containerd has
//! already costs two questions. What importing is, `containerd-client` says.

use anyhow::{Context, Result, bail};
use containerd_client::Client;
use containerd_client::import::import;
use containerd_client::layout::{self, Layout};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    sysutil::main_with("image-import", || {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [socket, namespace, folder] = arguments.as_slice() else {
            bail!("usage: image-import SOCKET NAMESPACE FOLDER");
        };
        let layouts = layout::all(Path::new(folder))?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?
            .block_on(import_all(Path::new(socket), namespace, &layouts))
    })
}

/// What says to the Kubernetes part of containerd that an image is one of its own, and
/// that it stays whatever kubelet thinks of free space.
const LABELS: [(&str, &str); 2] = [
    ("io.cri-containerd.image", "managed"),
    ("io.cri-containerd.pinned", "pinned"),
];

async fn import_all(socket: &Path, namespace: &str, layouts: &[Layout]) -> Result<()> {
    let client = Client::connect(socket, namespace).await?;
    for layout in layouts {
        if import(&client, layout, &LABELS).await? {
            tracing::info!(image = layout.name, "imported");
        }
    }
    Ok(())
}
