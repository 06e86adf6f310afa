//! Importing one image: its parts, what its layers hold, then its name.
//!
//! Each step may find its result there, from an import that was cut off. The name
//! comes last, so an image that has one is complete; files of layers are on the disk
//! before containerd's database knows of them, which it does not see to by itself.
//!
//! One program imports at a time from a folder of images: what is on the way has the same
//! names for all of them, so that whoever comes next finds what a cut has left, and ends
//! it.

use crate::api::{
    Apply, COMMIT, CommitSnapshot, Descriptor, Labels, Lease, Mounts, Nothing, PrepareSnapshot,
    Snapshot, WRITE, WriteContent,
};
use crate::grpc::{Answer, Client};
use crate::layout::{Layer, Layout};
use crate::{SNAPSHOTTER, image};
use anyhow::{Context, Result};
use std::fs::{File, TryLockError};
use std::time::Duration;

/// What keeps parts from being collected as garbage until the image has its name.
const LEASE: &str = "image-import";

/// Bytes that one request writes: containerd takes no message of more than 16 MiB.
const PIECE: usize = 4 << 20;

/// How often it is tried to be the only one that imports.
const PAUSE: Duration = Duration::from_millis(100);

/// Imports the image of `layout`, whose name gets `labels`, while no other program imports
/// one from the folder that it lies in. Returns whether it was not there.
pub async fn import(client: &Client, layout: &Layout, labels: &[(&str, &str)]) -> Result<bool> {
    import_alone(client, layout, labels)
        .await
        .with_context(|| format!("cannot import the image {}", layout.name))
}

async fn import_alone(client: &Client, layout: &Layout, labels: &[(&str, &str)]) -> Result<bool> {
    let _alone = wait_to_be_alone(layout).await?;
    let known = image::find(client, &layout.name).await?;
    let target = known.as_ref().and_then(|image| image.target.as_ref());
    let is_there = target.is_some_and(|target| target.digest == layout.manifest.digest);
    let lease = Lease {
        id: LEASE.to_string(),
    };
    if !is_there {
        // One that is there is what a cut has left.
        client
            .ask::<Nothing>("leases.v1.Leases/Create", None, &lease)
            .await?;
        write_parts(client, layout).await?;
        unpack(client, layout).await?;
        let target = layout.manifest.clone();
        image::name(client, Some(LEASE), &layout.name, target, labels).await?;
    }
    // Also one that a cut has left of an image that nobody wants any more: it would keep its
    // parts for ever.
    client
        .ask::<Nothing>("leases.v1.Leases/Delete", None, &lease)
        .await?;
    Ok(!is_there)
}

/// Waits until no other program imports from the folder of images that `layout` is in. None
/// does until what is returned is dropped; of a program that is killed, the kernel sees to
/// that. The lock is on the folder itself, so it takes no right but to read.
async fn wait_to_be_alone(layout: &Layout) -> Result<File> {
    let path = layout.shelf();
    let shelf = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    loop {
        match shelf.try_lock() {
            Ok(()) => return Ok(shelf),
            // Waiting for the lock itself would hold up everything else here, such as signals.
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Writes manifest, configuration and layers, with the labels by which containerd
/// knows what belongs together.
async fn write_parts(client: &Client, layout: &Layout) -> Result<()> {
    const CONTENT: &str = "containerd.io/gc.ref.content";
    let mut of_manifest = Labels::new();
    of_manifest.insert(format!("{CONTENT}.config"), layout.config.digest.clone());
    for (index, layer) in layout.layers.iter().enumerate() {
        let digest = layer.archive.digest.clone();
        of_manifest.insert(format!("{CONTENT}.l.{index}"), digest);
        write(client, layout, &layer.archive, Labels::new()).await?;
    }
    let top = layout.layers.last().map(|layer| layer.chain.clone());
    let snapshot = format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}");
    let of_config = top.map(|top| (snapshot, top)).into_iter().collect();
    write(client, layout, &layout.config, of_config).await?;
    write(client, layout, &layout.manifest, of_manifest).await
}

async fn write(client: &Client, layout: &Layout, part: &Descriptor, labels: Labels) -> Result<()> {
    for request in pieces(part, &layout.content(part)?, &labels)? {
        let written = client
            .ask::<Nothing>("content.v1.Content/Write", Some(LEASE), &request)
            .await?;
        if let Answer::AlreadyExists = written {
            break;
        }
    }
    Ok(())
}

/// The requests by which a part is written. The first begins anew whatever a cut has left.
fn pieces(part: &Descriptor, data: &[u8], labels: &Labels) -> Result<Vec<WriteContent>> {
    let mut requests = Vec::new();
    let mut offset = 0;
    let mut rest = data;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(PIECE));
        let request = WriteContent {
            action: if behind.is_empty() { COMMIT } else { WRITE },
            name: format!("{LEASE}-{}", part.digest),
            total: part.size,
            expected: part.digest.clone(),
            offset: i64::try_from(offset).context("it is too large")?,
            data: piece.to_vec(),
            labels: labels.clone(),
        };
        requests.push(request);
        if behind.is_empty() {
            return Ok(requests);
        }
        offset += piece.len();
        rest = behind;
    }
}

/// Unpacks the layers, each over those below it.
async fn unpack(client: &Client, layout: &Layout) -> Result<()> {
    let mut parent = "";
    for layer in &layout.layers {
        let made = Snapshot::of(&layer.chain);
        let found = client
            .ask::<Nothing>("snapshots.v1.Snapshots/Stat", None, &made)
            .await?;
        if !matches!(found, Answer::Done(_)) {
            unpack_layer(client, layer, parent).await?;
        }
        parent = &layer.chain;
    }
    Ok(())
}

async fn unpack_layer(client: &Client, layer: &Layer, parent: &str) -> Result<()> {
    let key = format!("{LEASE} {}", layer.chain);
    // Whatever a cut has left of it is not to be trusted.
    client
        .ask::<Nothing>("snapshots.v1.Snapshots/Remove", None, &Snapshot::of(&key))
        .await?;
    let prepare = PrepareSnapshot {
        snapshotter: SNAPSHOTTER.to_string(),
        key: key.clone(),
        parent: parent.to_string(),
    };
    let mounts: Mounts = client
        .call("snapshots.v1.Snapshots/Prepare", Some(LEASE), &prepare)
        .await?;
    let apply = Apply {
        diff: Some(layer.archive.clone()),
        mounts: mounts.mounts,
        sync_fs: true,
    };
    client
        .call::<Nothing>("diff.v1.Diff/Apply", Some(LEASE), &apply)
        .await?;
    let commit = CommitSnapshot {
        snapshotter: SNAPSHOTTER.to_string(),
        name: layer.chain.clone(),
        key,
    };
    client
        .call::<Nothing>("snapshots.v1.Snapshots/Commit", Some(LEASE), &commit)
        .await
        .map(drop)
}

impl Snapshot {
    fn of(key: &str) -> Self {
        Self {
            snapshotter: SNAPSHOTTER.to_string(),
            key: key.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
