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
use tough::schema::{KeyHolder, RoleType, Root, Signed};
use tough::sign::Sign;

/// Signs `root.json` only: it can stay where no network is.
const ROOT_KEY: &str = "root.key";
/// Signs releases, and the metadata that is renewed every few days.
const RELEASE_KEY: &str = "release.key";
/// The one that images trust from now on. Once it was followed by another, every one is
/// there as `<version>.root.json`, too, by which hosts get from theirs to this one.
const ROOT: &str = "root.json";

/// A folder with keys and the `root.json` that they belong to.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
    root: Vec<u8>,
    /// Those before it, oldest first.
    earlier: Vec<Vec<u8>>,
}

impl Keys {
    /// The keys in `folder`. The key of the root need not be there: only
    /// [`Keys::rotate`] wants it.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let root = read(ROOT)?;
        let earlier = (1..parse(&root)?.version.get()).map(|version| read(&numbered(version)));
        Ok(Self {
            folder: folder.to_path_buf(),
            earlier: earlier.collect::<Result<_>>()?,
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

    /// Draws another key for releases, and has the key of the root sign the `root.json` that
    /// says so, which is good until `expires`. Hosts that know an earlier one follow; what the
    /// old key signs is nothing to them from then on.
    pub fn rotate(&self, expires: Time) -> Result<Self> {
        let folder = &self.folder;
        let drawn = folder.join(format!("{RELEASE_KEY}.new"));
        let release_key = draw(&drawn)?.tuf_key();
        let mut root = parse(&self.root)?;
        let version = root.version;
        let releases = [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];
        let id = release_key.key_id()?;
        for role in releases {
            let keys = (root.roles.get_mut(&role)).context("root.json lacks a role")?;
            keys.keyids = vec![id.clone()];
        }
        let named: Vec<_> = (root.roles.values())
            .flat_map(|role| role.keyids.clone())
            .collect();
        root.keys.retain(|id, _| named.contains(id));
        root.keys.insert(id, release_key);
        root.version = version.checked_add(1).context("too many root.json")?;
        root.expires = crate::moment(expires)?;
        let next = numbered(root.version.get());
        let signed = sign(folder, root).context("cannot sign; is root.key there?")?;
        // The new root.json comes last: until then the old one holds, and this can be done again.
        write_atomic(&folder.join(numbered(version.get())), &self.root, 0o644)?;
        write_atomic(&folder.join(next), &signed, 0o644)?;
        fs::rename(&drawn, folder.join(RELEASE_KEY)).context("cannot put the new key in place")?;
        write_atomic(&folder.join(ROOT), &signed, 0o644)?;
        Self::load(folder)
    }

    /// What hosts have to know: `root.json`.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Where `root.json` lies.
    pub fn root_path(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    /// The oldest `root.json`, from which every later one is reached.
    pub(crate) fn first_root(&self) -> &[u8] {
        self.earlier.first().unwrap_or(&self.root)
    }

    /// The names and contents of the `root.json` before the newest one.
    pub(crate) fn earlier_roots(&self) -> impl Iterator<Item = (String, &[u8])> {
        (1..)
            .map(numbered)
            .zip(self.earlier.iter().map(Vec::as_slice))
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
    write_atomic(&folder.join(ROOT), &sign(folder, root)?, 0o644)
}

fn sign(folder: &Path, root: Root) -> Result<Vec<u8>> {
    let signed = crate::wait_for(async {
        let holder = KeyHolder::Root(root.clone());
        let keys = [source(folder, ROOT_KEY)];
        Ok(SignedRole::new(root, &holder, &keys, &SystemRandom::new()).await?)
    })?;
    Ok(signed.buffer().to_vec())
}

fn parse(root: &[u8]) -> Result<Root> {
    let signed: Signed<Root> = serde_json::from_slice(root).context("cannot parse root.json")?;
    Ok(signed.signed)
}

fn numbered(version: u64) -> String {
    format!("{version}.{ROOT}")
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
