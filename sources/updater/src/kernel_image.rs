//! The kernel image of an update.
//!
//! Most of it is the kernel, which two releases share more often than not. So what the image
//! that runs has, too, is copied from there, block by block as for a root. It is put together
//! in memory: the EFI system partition is mounted for moments only, and gets it whole.

use std::io;

use anyhow::{Context, Result, ensure};
use boot_slots::bless;
use boot_slots::blocks::BlockList;
use boot_slots::verity::{BLOCK_SIZE, DIGEST_SIZE, RootHash};
use sha2::{Digest, Sha256};
use update_metadata::Images;

use crate::fill::{Filled, Filling};
use crate::repository::{self, Repository};
use crate::slot::Disk;

/// The largest kernel image: twice that and the boot loader fit the ESP.
const IMAGE_MAX: u64 = 60 * 1024 * 1024;
/// The list of its blocks.
const LIST_MAX: u64 = IMAGE_MAX / BLOCK_SIZE as u64 * DIGEST_SIZE as u64;

/// Fetches it, where the image of version `running` runs. It is the one that was signed, and
/// says that it belongs to this version and root.
pub async fn fetch(
    disk: &impl Disk,
    running: &str,
    repository: &Repository,
    images: &Images,
    (version, root_hash): (&str, &RootHash),
) -> Result<Vec<u8>> {
    let name = images.boot.as_str();
    let image = match &images.boot_blocks {
        // A release made before there were such lists.
        None => repository.read(&images.boot, IMAGE_MAX).await?,
        Some(list) => {
            let blocks = repository.read(list, LIST_MAX).await?;
            let blocks =
                BlockList::parse(blocks).with_context(|| format!("checking {}", list.as_str()))?;
            let file = repository.file(&images.boot)?;
            let (image, filled) = by_blocks(disk, running, file, &blocks)
                .await
                .with_context(|| format!("fetching {name}"))?;
            tracing::info!(
                version,
                blocks = filled.blocks,
                copied = filled.copied,
                fetched = filled.fetched,
                "the kernel image is here"
            );
            image
        }
    };
    check(&image, version, root_hash).with_context(|| format!("checking {name}"))?;
    Ok(image)
}

/// Whether the one of a version is there, with this digest.
pub fn is_here(disk: &impl Disk, version: &str, digest: &[u8]) -> Result<bool> {
    disk.with_esp(|esp| {
        let mut hash = Sha256::new();
        let read = bless::open(esp, version)
            .map_err(anyhow::Error::from)
            .and_then(|mut file| Ok(io::copy(&mut file, &mut hash)?));
        if let Err(error) = read {
            tracing::warn!("the kernel image of {version}: {error:#}");
            return Ok(false);
        }
        Ok(hash.finalize().as_slice() == digest)
    })
}

async fn by_blocks(
    disk: &impl Disk,
    running: &str,
    mut file: repository::File,
    blocks: &BlockList,
) -> Result<(Vec<u8>, Filled)> {
    ensure!(
        file.length <= IMAGE_MAX,
        "it has {} bytes, and {IMAGE_MAX} are the most that it may have",
        file.length
    );
    let room = usize::try_from(file.length).context("making room for it")?;
    let filling = disk.with_esp(|esp| {
        let here = bless::open(esp, running).map_err(anyhow::Error::from);
        let here = here.and_then(|image| {
            let blocks = BlockList::of(&image).context("reading it")?;
            Ok((image, blocks))
        });
        let known = (here.iter()).flat_map(|(_, blocks)| blocks.digests());
        let mut filling = Filling::new(vec![0; room], file.length, blocks.digests(), known)?;
        match &here {
            Ok((image, _)) => filling.copy(image)?,
            Err(error) => {
                tracing::warn!("no blocks are taken from the running kernel image: {error:#}");
            }
        }
        Ok(filling)
    })?;
    filling.fetch(&mut file.server).await?;
    let (image, filled) = filling.done();
    ensure!(
        Sha256::digest(&image).as_slice() == file.digest,
        "the list of its blocks is of another file than the one that was signed"
    );
    Ok((image, filled))
}

/// A kernel image of another release would start and not find its root.
fn check(image: &[u8], version: &str, root_hash: &RootHash) -> Result<()> {
    for argument in [
        format!("bulkhead.root={root_hash}"),
        format!("bulkhead.version={version}"),
    ] {
        let wanted = argument.as_bytes();
        let is_there = (image.windows(wanted.len() + 1)).any(|window| {
            window.strip_prefix(wanted).is_some_and(|rest| {
                rest.iter()
                    .all(|byte| byte.is_ascii_whitespace() || *byte == 0)
            })
        });
        ensure!(
            is_there,
            "the kernel image does not have the argument {argument}"
        );
    }
    Ok(())
}
