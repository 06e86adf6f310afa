//! Whether a repository is what a host can be updated from, as a host sees it.

use anyhow::{Context, Result, ensure};
use boot_slots::blocks::BlockList;
use boot_slots::verity::{self, RootHash};
use hyper_util::client::proxy::matcher::Matcher;
use std::path::Path;
use update_metadata::{TargetName, Update};
use updater::connect::{Connector, Trusted};
use updater::repository::Repository;

/// The largest file that is read: more than fits into a slot.
const LARGEST: u64 = 2 * 1024 * 1024 * 1024;

/// A release that was fetched and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the manifest says of it.
    pub update: Update,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Fetches everything from the addresses of the folders of metadata and files, and checks it:
/// signatures and dates as a host does that knows `root`, each file's digest, that root and tree
/// have the root hash of the manifest, that the kernel image names it and the version, and that
/// the list of its blocks is right.
pub fn validate(root: &[u8], metadata: &str, targets: &str) -> Result<Vec<Checked>> {
    // A host that has seen nothing yet.
    let seen = tempfile::tempdir().context("cannot make a temporary folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let connector = Connector::new(trusted(), Matcher::from_env());
        let loading = Repository::load(connector, root, metadata, targets, seen.path());
        let repository = loading.await?;
        let mut checked = Vec::new();
        for update in repository.manifest().updates() {
            let (version, variant, arch) = (&update.version, &update.variant, &update.arch);
            let bytes = check(&repository, update)
                .await
                .with_context(|| format!("version {version} of {variant} for {arch}"))?;
            let update = update.clone();
            checked.push(Checked { update, bytes });
        }
        Ok(checked)
    })
}

/// Whom this machine trusts, where that is not in the file of a host.
fn trusted() -> Trusted {
    match tls_client::trusting(rustls_native_certs::load_native_certs().certs) {
        Ok(config) => Trusted::These(config),
        // Said when somebody has to be trusted.
        Err(_) => Trusted::of_host(Path::new("/")),
    }
}

async fn check(repository: &Repository, update: &Update) -> Result<u64> {
    let read = async |name: &TargetName| repository.read(name, LARGEST).await;
    let (boot, root, hash) = (
        read(&update.images.boot).await?,
        read(&update.images.root).await?,
        read(&update.images.hash).await?,
    );
    let root_hash = update.root_hash.as_deref();
    let root_hash = root_hash.context("the manifest has no root hash, which hosts ask for")?;
    let root_hash: RootHash = root_hash.parse().context("the manifest's root hash")?;
    ensure!(
        verity::verify(&root, &hash, &root_hash)?,
        "root and tree do not have the root hash {root_hash}"
    );
    for argument in [
        format!("bulkhead.version={}", update.version),
        format!("bulkhead.root={root_hash}"),
    ] {
        let argument = argument.as_bytes();
        ensure!(
            boot.windows(argument.len()).any(|part| part == argument),
            "the kernel image's command line does not have {}",
            String::from_utf8_lossy(argument)
        );
    }
    let mut bytes: u64 = [&boot, &root, &hash]
        .map(|file| file.len() as u64)
        .iter()
        .sum();
    if let Some(name) = &update.images.boot_blocks {
        let list = read(name).await?;
        ensure!(
            list == BlockList::of(&boot)?.bytes(),
            "{} does not list the blocks of the kernel image",
            name.as_str()
        );
        bytes += list.len() as u64;
    }
    Ok(bytes)
}
