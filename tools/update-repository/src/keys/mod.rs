//! The keys of a repository, and `root.json`, by which hosts know them.
//!
//! They lie in a folder. A key's file, such as `root.key`, `root-2.key` or `release.key`,
//! holds the key, or the address at which it is. Those of a `root.json` that waits for
//! signatures have `.new` after their names until it has them.

mod aws;
mod draft;
mod folder;
mod profiles;
mod source;
#[cfg(test)]
mod tests;

pub use draft::{Draft, Lack};
pub use source::{NewKey, Source, public_key};

use anyhow::{Context, Result, bail, ensure};
use folder::{DRAFT, KeyFolder, ROOT};
use std::fs::{self, DirBuilder};
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sysutil::time::Time;
use tough::key_source::KeySource;
use tough::schema::{RoleType, Root};

/// What keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// They sign `root.json` only: they can stay where no network is.
    Root,
    /// They sign releases, and the metadata that is renewed every few days.
    Release,
}

/// The keys of a role, and how many of them have to sign.
#[derive(Clone)]
pub struct Holders {
    keys: Vec<NewKey>,
    threshold: NonZeroU64,
}

/// A folder with keys and the `root.json` that they belong to.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: KeyFolder,
    root: Vec<u8>,
    /// Those before it, oldest first.
    earlier: Vec<Vec<u8>>,
}

/// What signing a draft has led to.
#[derive(Debug)]
pub enum Progress {
    /// It is the `root.json` of the folder.
    Taken(Keys),
    /// It lacks signatures.
    Waits(Box<Draft>),
}

impl Role {
    const ALL: [Self; 2] = [Self::Root, Self::Release];

    /// The roles that `root.json` has for it.
    fn parts(self) -> &'static [RoleType] {
        match self {
            Self::Root => &[RoleType::Root],
            Self::Release => &[RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Release => "release",
        }
    }
}

impl Default for Holders {
    /// A single key, which is drawn.
    fn default() -> Self {
        Self {
            keys: vec![NewKey::Drawn],
            threshold: NonZeroU64::MIN,
        }
    }
}

impl Holders {
    /// These keys, or a single one that is drawn if there are none. `threshold` of them have
    /// to sign.
    pub fn new(keys: Vec<NewKey>, threshold: u64) -> Result<Self> {
        let keys = match keys.is_empty() {
            true => vec![NewKey::Drawn],
            false => keys,
        };
        let count = keys.len() as u64;
        ensure!(
            (1..=count).contains(&threshold),
            "{threshold} signatures cannot be asked for where there are {count} keys"
        );
        let threshold = NonZeroU64::new(threshold).context("no signature is asked for")?;
        Ok(Self { keys, threshold })
    }
}

impl Keys {
    /// The keys in `folder`. Those of the root need not be there: only [`Keys::rotate`]
    /// wants them.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::open(KeyFolder::new(folder))
    }

    fn open(folder: KeyFolder) -> Result<Self> {
        folder.finish()?;
        let root = folder.read(ROOT).with_context(|| match folder.has(DRAFT) {
            true => format!("{} waits for signatures", folder.path(DRAFT).display()),
            false => "there are no keys".to_string(),
        })?;
        let newest = draft::parse(&root)?;
        let earlier = (1..newest.signed.version.get())
            .map(|version| folder.read(&numbered(version)))
            .collect::<Result<Vec<_>>>()?;
        // By hosts it would not be taken otherwise.
        let path = folder.path(ROOT);
        let judge = |root: &Root| {
            (root.verify_role(&newest)).with_context(|| {
                let (path, version) = (path.display(), root.version);
                format!("{path} lacks signatures by the root keys of version {version}")
            })
        };
        if let Some(before) = earlier.last() {
            judge(&draft::parse(before)?.signed)?;
        }
        judge(&newest.signed)?;
        Ok(Self {
            folder,
            root,
            earlier,
        })
    }

    /// Makes keys in `folder`, which must not exist, and a `root.json` that is good until
    /// `expires`. The folder appears whole or not at all.
    pub fn create(folder: &Path, expires: Time) -> Result<Self> {
        let one = Holders::default();
        match Self::make(folder, (&one, &one), expires, false)? {
            Progress::Taken(keys) => Ok(keys),
            Progress::Waits(_) => bail!("nobody has signed root.json"),
        }
    }

    /// The same with these keys. When not all sign who have to, nothing is made, or what there
    /// is waits for them if it `may_wait`.
    pub fn make(
        folder: &Path,
        (root, release): (&Holders, &Holders),
        expires: Time,
        may_wait: bool,
    ) -> Result<Progress> {
        if folder.exists() {
            bail!(
                "{} exists already, and keys are never overwritten: `repo add` signs with \
                 them. Scenarios make them, too, when there are none; to have others, move the \
                 folder away and build the images again that are to trust them",
                folder.display()
            );
        }
        let folder = std::path::absolute(folder).context("there is no working folder")?;
        let parent = (folder.parent()).context("the folder for the keys has no parent")?;
        let making = || format!("cannot make keys in {}", folder.display());
        fs::create_dir_all(parent).with_context(making)?;
        let staging = parent.join(format!(".update-keys-{}", std::process::id()));
        (DirBuilder::new().mode(0o700).create(&staging)).with_context(making)?;
        let placed = || -> Result<Option<Draft>> {
            let staging = KeyFolder::new(&staging);
            let drafted = draft::first(crate::moment(expires)?);
            let waits = staging.draft(
                drafted,
                &[(Role::Root, root), (Role::Release, release)],
                may_wait,
            )?;
            fs::rename(staging.path(""), &folder)?;
            fs::File::open(parent)?.sync_all()?;
            Ok(waits)
        };
        let placed = placed();
        if placed.is_err() {
            // Best effort: the error that is returned says more.
            let _ = fs::remove_dir_all(&staging);
        }
        match placed.with_context(making)? {
            Some(draft) => Ok(Progress::Waits(Box::new(draft))),
            None => Self::load(&folder).map(Progress::Taken),
        }
    }

    /// As [`Keys::load`]; makes keys when there is no such folder.
    pub fn load_or_create(folder: &Path, expires: Time) -> Result<Self> {
        if folder.exists() {
            Self::load(folder)
        } else {
            Self::create(folder, expires)
        }
    }

    /// Gives a role other keys, in a `root.json` that is good until `expires` and that the
    /// keys of the root sign, both those that it names and those of the one before. Hosts
    /// that know an earlier one follow; what the old keys sign is nothing to them from then
    /// on. When not all sign who have to, everything stays as it is.
    pub fn rotate(&self, role: Role, holders: &Holders, expires: Time) -> Result<Self> {
        match self.replace(role, holders, expires, false)? {
            Progress::Taken(keys) => Ok(keys),
            Progress::Waits(_) => bail!("nobody has signed root.json"),
        }
    }

    /// The same; what lacks signatures waits for them if it `may_wait`.
    pub fn replace(
        &self,
        role: Role,
        holders: &Holders,
        expires: Time,
        may_wait: bool,
    ) -> Result<Progress> {
        let _lock = self.folder.lock()?;
        let draft = self.folder.path(DRAFT);
        ensure!(
            !draft.exists(),
            "{} waits for signatures already: have it signed, or give it up",
            draft.display()
        );
        // Of one that was killed.
        self.folder.give_up()?;
        let before = draft::parse(&self.root)?;
        let next = draft::after(before, crate::moment(expires)?)?;
        let drafted = self.folder.draft(next, &[(role, holders)], may_wait);
        if drafted.is_err() {
            // Best effort: the error that is returned says more.
            let _ = self.folder.give_up();
        }
        match drafted? {
            Some(draft) => Ok(Progress::Waits(Box::new(draft))),
            None => Self::open(self.folder.clone()).map(Progress::Taken),
        }
    }

    /// Has the keys that are in `folder` sign its draft, and takes that as `root.json` when
    /// it has all signatures.
    pub fn sign_draft(folder: &Path) -> Result<Progress> {
        let folder = KeyFolder::new(folder);
        let _lock = folder.lock()?;
        folder.finish()?;
        let path = folder.path(DRAFT);
        let before = folder.has(ROOT).then(|| folder.path(ROOT));
        let mut draft = Draft::read(&path, before.as_deref())?;
        let (keys, troubles) = folder.keys(Role::Root);
        draft.sign(&keys)?;
        draft.write(&path)?;
        match draft.lacks().is_empty() {
            true => {
                folder.take(&draft)?;
                Self::open(folder).map(Progress::Taken)
            }
            false => {
                folder::report(&troubles);
                Ok(Progress::Waits(Box::new(draft)))
            }
        }
    }

    /// Removes the draft in `folder`, and the keys that were made for it.
    pub fn give_up_draft(folder: &Path) -> Result<()> {
        let folder = KeyFolder::new(folder);
        let _lock = folder.lock()?;
        let path = folder.path(DRAFT);
        ensure!(path.exists(), "there is no {}", path.display());
        folder.give_up()
    }

    /// Where the draft of a `root.json` lies that waits for signatures, in `folder`.
    pub fn draft_path(folder: &Path) -> PathBuf {
        folder.join(DRAFT)
    }

    /// What hosts have to know: `root.json`.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Where `root.json` lies.
    pub fn root_path(&self) -> PathBuf {
        self.folder.path(ROOT)
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

    /// Those that sign releases: as many as have to, or more.
    pub(crate) fn release_keys(&self) -> Result<Vec<Box<dyn KeySource>>> {
        let root = draft::parse(&self.root)?.signed;
        let role = root.roles.get(&RoleType::Targets);
        let role = role.context("root.json has no keys of releases")?;
        let (mut keys, troubles) = self.folder.keys(Role::Release);
        keys.retain(|key| (root.key_id(key.as_ref())).is_some_and(|id| role.keyids.contains(&id)));
        let threshold = role.threshold;
        if (keys.len() as u64) < threshold.get() {
            let error = folder::all(troubles)
                .unwrap_or_else(|| anyhow::anyhow!("is release.key the one that root.json names?"));
            let count = keys.len();
            return Err(error.context(format!(
                "releases take the signatures of {threshold} keys that root.json names, and {count} of \
                 them can be used"
            )));
        }
        folder::report(&troubles);
        let ready = |key| Box::new(source::Ready(Arc::from(key))) as Box<dyn KeySource>;
        Ok(keys.into_iter().map(ready).collect())
    }
}

fn numbered(version: u64) -> String {
    format!("{version}.{ROOT}")
}
