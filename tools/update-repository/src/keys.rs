//! The keys of a repository, and `root.json`, by which hosts know them.

use anyhow::{Context, Result, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use sysutil::fs::write_atomic;
use sysutil::time::Time;
use tough::editor::signed::SignedRole;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::{KeyHolder, Root};
use tough::sign::Sign;

/// Signs `root.json` only: it can stay where no network is.
const ROOT_KEY: &str = "root.key";
/// Signs releases, and the metadata that is renewed every few days.
const RELEASE_KEY: &str = "release.key";
const ROOT: &str = "root.json";

/// A folder with keys and the `root.json` that they belong to.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
    root: Vec<u8>,
}

impl Keys {
    /// The keys in `folder`. The key of the root need not be there: only
    /// [`Keys::create`] wants it.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(ROOT);
        let root = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            root,
        })
    }

    /// Makes keys in `folder`, which must not exist, and a `root.json` that is good until
    /// `expires`. The folder appears whole or not at all.
    pub fn create(folder: &Path, expires: Time) -> Result<Self> {
        if folder.exists() {
            bail!(
                "{} exists already; keys are never overwritten",
                folder.display()
            );
        }
        let parent = (folder.parent()).context("the folder for the keys has no parent")?;
        let making = || format!("cannot make keys in {}", folder.display());
        fs::create_dir_all(parent).with_context(making)?;
        let staging = parent.join(format!(".update-keys-{}", std::process::id()));
        (DirBuilder::new().mode(0o700).create(&staging)).with_context(making)?;
        let placed = fill(&staging, expires).and_then(|()| {
            fs::rename(&staging, folder)?;
            fs::File::open(parent)?.sync_all()?;
            Ok(())
        });
        if placed.is_err() {
            // Best effort: the error that is returned says more.
            let _ = fs::remove_dir_all(&staging);
        }
        placed.with_context(making)?;
        Self::load(folder)
    }

    /// As [`Keys::load`]; makes keys when there is no such folder.
    pub fn load_or_create(folder: &Path, expires: Time) -> Result<Self> {
        if folder.exists() {
            Self::load(folder)
        } else {
            Self::create(folder, expires)
        }
    }

    /// What hosts have to know: `root.json`.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Where `root.json` lies.
    pub fn root_path(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    pub(crate) fn release_keys(&self) -> Vec<Box<dyn KeySource>> {
        vec![source(&self.folder, RELEASE_KEY)]
    }
}

fn source(folder: &Path, name: &str) -> Box<dyn KeySource> {
    Box::new(LocalKeySource {
        path: folder.join(name),
    })
}

fn fill(folder: &Path, expires: Time) -> Result<()> {
    let root_key = draw(&folder.join(ROOT_KEY))?.tuf_key();
    let release_key = draw(&folder.join(RELEASE_KEY))?.tuf_key();
    let id = |key: &tough::schema::key::Key| Ok::<_, anyhow::Error>(hex::encode(key.key_id()?));
    let (root_id, release_id) = (id(&root_key)?, id(&release_key)?);
    let role = |id: &String| json!({"keyids": [id], "threshold": 1});
    let root: Root = serde_json::from_value(json!({
        "_type": "root",
        "spec_version": "1.0.0",
        "consistent_snapshot": true,
        "version": 1,
        "expires": expires.to_string(),
        "keys": {root_id.clone(): root_key, release_id.clone(): release_key},
        "roles": {
            "root": role(&root_id),
            "targets": role(&release_id),
            "snapshot": role(&release_id),
            "timestamp": role(&release_id),
        },
    }))?;
    let signed = crate::wait_for(async {
        let holder = KeyHolder::Root(root.clone());
        let keys = [source(folder, ROOT_KEY)];
        Ok(SignedRole::new(root, &holder, &keys, &SystemRandom::new()).await?)
    })?;
    write_atomic(&folder.join(ROOT), signed.buffer(), 0o644)
}

fn draw(path: &Path) -> Result<Ed25519KeyPair> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .ok()
        .context("cannot draw a key")?;
    write_atomic(path, document.as_ref(), 0o600)?;
    Ed25519KeyPair::from_pkcs8(document.as_ref())
        .ok()
        .context("cannot use the key that was drawn")
}
