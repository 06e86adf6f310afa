//! A repository in a folder: `<variant>/<arch>/` with its metadata, and `targets/`.

use crate::{Keys, MANIFEST, wait_for};
use anyhow::{Context, Result, bail};
use boot_slots::blocks::BlockList;
use jiff::Timestamp;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use sysutil::fs::write_atomic;
use sysutil::time::Time;
use tough::editor::RepositoryEditor;
use tough::schema::{RoleType, Target};
use tough::{ExpirationEnforcement, FilesystemTransport, IntoVec, RepositoryLoader, TargetName};
use update_metadata::{Images, Manifest, Update, Version, Waves};
use url::Url;

const WEEK: u64 = 7 * 86_400;
/// How long what a release changes is good; it has to be renewed before.
const RELEASE_GOOD_FOR: u64 = 2 * WEEK;
/// How long a host may be shown the same state of the repository.
const TIMESTAMP_GOOD_FOR: u64 = WEEK;

/// A repository for one variant and architecture.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
    variant: String,
    arch: String,
    now: Option<Time>,
}

/// A built image, to be released.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Root hash of its root.
    pub root_hash: String,
    /// When each host's turn comes.
    pub waves: Waves,
    /// Its signed kernel image.
    pub boot: PathBuf,
    /// Its root's file system.
    pub root: PathBuf,
    /// Its root's verity tree.
    pub hash: PathBuf,
}

impl Release {
    /// The image whose files lie in `folder`, under the names that a build gives them.
    pub fn in_folder(
        folder: &Path,
        version: &str,
        root_hash: String,
        waves: Waves,
    ) -> Result<Self> {
        let version = version.to_string().try_into();
        Ok(Self {
            version: version.map_err(anyhow::Error::msg)?,
            root_hash,
            waves,
            boot: folder.join("bulkhead.efi"),
            root: folder.join("root.erofs"),
            hash: folder.join("root.verity"),
        })
    }
}

impl Repository {
    /// The repository for a variant and architecture below `folder`.
    pub fn new(folder: &Path, variant: &str, arch: &str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            variant: variant.to_string(),
            arch: arch.to_string(),
            now: None,
        }
    }

    /// The same, changed as if it were `now`.
    pub fn at(self, now: Time) -> Self {
        let now = Some(now);
        Self { now, ..self }
    }

    /// Where its metadata lies.
    pub fn metadata(&self) -> PathBuf {
        self.folder.join(&self.variant).join(&self.arch)
    }

    /// Where its files lie, with those of other variants.
    pub fn targets(&self) -> PathBuf {
        self.folder.join("targets")
    }

    /// Adds a release, and lets all hosts go up to it. The first one makes the repository.
    pub fn add(&self, keys: &Keys, release: &Release) -> Result<()> {
        let staging = tempfile::tempdir().context("cannot make a temporary folder")?;
        let list = staging.path().join("boot.blocks");
        File::open(&release.boot)
            .and_then(|image| fs::write(&list, BlockList::of(&image)?.bytes()))
            .with_context(|| format!("cannot list the blocks of {}", release.boot.display()))?;
        self.edit(keys, |manifest, targets| {
            let boot_blocks = self.target(release, "boot.blocks")?;
            let images = Images {
                boot: self.target(release, "boot.efi")?,
                boot_blocks: Some(boot_blocks.clone()),
                root: self.target(release, "root.erofs")?,
                hash: self.target(release, "root.verity")?,
            };
            for (name, path) in [
                (&images.boot, &release.boot),
                (&boot_blocks, &list),
                (&images.root, &release.root),
                (&images.hash, &release.hash),
            ] {
                targets.push(NewTarget::of(name.as_str(), path)?);
            }
            manifest.release(Update {
                variant: self.variant.clone(),
                arch: self.arch.clone(),
                version: release.version.clone(),
                max_version: release.version.clone(),
                waves: release.waves.clone(),
                images,
                root_hash: Some(release.root_hash.clone()),
            })?;
            Ok(())
        })
        .with_context(|| format!("cannot add version {}", release.version))
    }

    /// Makes `max_version` the newest version that hosts may run: newer ones are recalled.
    pub fn limit(&self, keys: &Keys, max_version: &Version) -> Result<()> {
        self.edit(keys, |manifest, _| {
            if manifest.limit(&self.variant, &self.arch, max_version) == 0 {
                bail!("there is no release of {} for {}", self.variant, self.arch);
            }
            Ok(())
        })
        .with_context(|| format!("cannot make {max_version} the newest version"))
    }

    /// Signs everything anew, so that it is good for another while.
    pub fn refresh(&self, keys: &Keys) -> Result<()> {
        self.edit(keys, |_, _| Ok(()))
            .with_context(|| format!("cannot renew {}", self.metadata().display()))
    }

    fn target(&self, release: &Release, what: &str) -> Result<update_metadata::TargetName> {
        let (variant, arch, version) = (&self.variant, &self.arch, &release.version);
        format!("bulkhead-{variant}-{arch}-{version}-{what}")
            .try_into()
            .map_err(anyhow::Error::msg)
    }

    /// Changes the manifest and what belongs to it. Files come first and the timestamp last,
    /// so that a client sees the old state or the new one.
    fn edit(
        &self,
        keys: &Keys,
        change: impl FnOnce(&mut Manifest, &mut Vec<NewTarget>) -> Result<()>,
    ) -> Result<()> {
        let (metadata, targets) = (self.metadata(), self.targets());
        for folder in [&metadata, &targets] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let locked = File::open(&metadata).and_then(|folder| folder.lock().map(|()| folder));
        let _lock = locked.with_context(|| format!("cannot lock {}", metadata.display()))?;
        wait_for(async {
            let (mut editor, mut manifest, last) = self.open(keys).await?;
            let mut files = Vec::new();
            change(&mut manifest, &mut files)?;
            let staging = tempfile::tempdir().context("cannot make a temporary folder")?;
            let path = staging.path().join(MANIFEST);
            fs::write(&path, manifest.to_json()?)?;
            files.push(NewTarget::of(MANIFEST, &path)?);
            for file in &files {
                file.copy_into(&targets)?;
                editor.add_target(TargetName::new(&file.name)?, file.described.clone())?;
            }
            let now = self.now.unwrap_or_else(Time::now);
            let version =
                NonZeroU64::new(now.0.max(last + 1)).context("the clock says that it is 1970")?;
            let until = |seconds| moment(now.plus(seconds));
            editor.targets_version(version)?;
            editor.targets_expires(until(RELEASE_GOOD_FOR)?)?;
            editor.snapshot_version(version);
            editor.snapshot_expires(until(RELEASE_GOOD_FOR)?);
            editor.timestamp_version(version);
            editor.timestamp_expires(until(TIMESTAMP_GOOD_FOR)?);
            let signed = editor.sign(&keys.release_keys()?).await;
            let signed = signed.context("cannot sign")?;
            let signed_folder = staging.path().join("metadata");
            signed.write(&signed_folder).await?;
            for (name, root) in keys.earlier_roots() {
                fs::write(signed_folder.join(name), root)?;
            }
            publish(&signed_folder, &metadata)?;
            remove_expired(&metadata, now)
        })
    }

    /// What is there already, and its version; nothing is version 0.
    async fn open(&self, keys: &Keys) -> Result<(RepositoryEditor, Manifest, u64)> {
        let root = keys.root_path();
        if !self.metadata().join("timestamp.json").exists() {
            let editor = (RepositoryEditor::new(&root).await)
                .with_context(|| format!("cannot use {}", root.display()))?;
            return Ok((editor, Manifest::default(), 0));
        }
        // From the first, for what is there was signed by keys of its time.
        let bytes = keys.first_root();
        // What has expired is there to be renewed.
        let loaded = RepositoryLoader::new(&bytes, url(&self.metadata())?, url(&self.targets())?)
            .transport(FilesystemTransport)
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .with_context(|| format!("cannot use the repository in {}", self.folder.display()))?;
        let manifest = loaded.read_target(&TargetName::new(MANIFEST)?).await?;
        let manifest = manifest.context("the repository has no manifest.json")?;
        let manifest = Manifest::parse(&manifest.into_vec().await?)?;
        let last = [
            loaded.targets().signed.version,
            loaded.snapshot().signed.version,
            loaded.timestamp().signed.version,
        ];
        let last = last.into_iter().max().map_or(0, NonZeroU64::get);
        Ok((
            RepositoryEditor::from_repo(&root, loaded).await?,
            manifest,
            last,
        ))
    }
}

/// A file that becomes a target.
struct NewTarget {
    name: String,
    path: PathBuf,
    described: Target,
}

impl NewTarget {
    fn of(name: &str, path: &Path) -> Result<Self> {
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut hash = Hashing::default();
        let length = io::copy(&mut file, &mut hash)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let described = serde_json::json!({
            "length": length,
            "hashes": {"sha256": hash.hex()},
        });
        Ok(Self {
            name: name.to_string(),
            path: path.to_path_buf(),
            described: serde_json::from_value(described)?,
        })
    }

    /// Copies it to `<digest>.<name>`, unless it is there.
    fn copy_into(&self, targets: &Path) -> Result<()> {
        let digest = hex::encode(&self.described.hashes.sha256);
        let place = targets.join(format!("{digest}.{}", self.name));
        if place.exists() {
            return Ok(());
        }
        let copied = || -> Result<()> {
            let mut copy = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(targets)?;
            io::copy(&mut File::open(&self.path)?, &mut copy)?;
            copy.as_file().sync_all()?;
            copy.persist(&place)?;
            Ok(File::open(targets)?.sync_all()?)
        };
        copied()
            .with_context(|| format!("cannot copy {} to {}", self.path.display(), place.display()))
    }
}

#[derive(Default)]
struct Hashing(sha2::Sha256);

impl Hashing {
    fn hex(self) -> String {
        hex::encode(sha2::Digest::finalize(self.0))
    }
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each file of metadata, those that others point to first.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let mut names: Vec<String> = (fs::read_dir(from)?)
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let order = [
        RoleType::Root,
        RoleType::Targets,
        RoleType::Snapshot,
        RoleType::Timestamp,
    ];
    let place = |name: &String| {
        let of_role = |role: &RoleType| name.ends_with(&format!("{role}.json"));
        order.iter().position(of_role)
    };
    names.sort_by_key(place);
    for name in &names {
        write_atomic(&to.join(name), &fs::read(from.join(name))?, 0o644)?;
    }
    Ok(())
}

/// Removes metadata of releases that nobody takes any more. What a host may be reading is
/// younger than that, for its timestamp has expired before.
fn remove_expired(metadata: &Path, now: Time) -> Result<()> {
    for file in fs::read_dir(metadata)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let Some((version, "targets.json" | "snapshot.json")) = name.split_once('.') else {
            continue;
        };
        // Versions are the moments at which they were signed.
        let is_old = |signed: u64| signed.saturating_add(RELEASE_GOOD_FOR) < now.0;
        if version.parse().is_ok_and(is_old) {
            fs::remove_file(file.path())
                .with_context(|| format!("cannot remove {}", file.path().display()))?;
        }
    }
    Ok(())
}

pub(crate) fn moment(time: Time) -> Result<Timestamp> {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .context("the clock is beyond all dates")
}

pub(crate) fn url(folder: &Path) -> Result<Url> {
    let absolute = std::path::absolute(folder)?;
    let absolute = absolute.display();
    Url::from_directory_path(absolute.to_string())
        .ok()
        .with_context(|| format!("{absolute} cannot be written as an address"))
}
