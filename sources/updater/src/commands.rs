//! The update commands.
//!
//! Each holds the lock, reads the record, holds it against the disk, and is admitted or
//! refused; only then does it begin. What it came to is written down with the state, so
//! that whoever waits sees both at once.
//!
//! What is to boot is decided by names on the EFI system partition alone, and whatever a cut
//! of power leaves there is what the next look finds.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use api_types::{
    BOOT_COMPLAINT, UPDATE_LOCK, UPDATE_STATUS, UpdateCommand, UpdateCommandResult,
    UpdateCommandStatus, UpdateImage, UpdateStatus,
};
use boot_slots::entry::compare_versions;
use boot_slots::layout::Role;
use boot_slots::record::BootRecord;
use boot_slots::verity::{RootHash, Tree};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sysutil::fs::{read_limited, read_text_if_present, write_atomic};
use sysutil::os_release::OsRelease;
use sysutil::time::Time;
use tokio::signal::unix::{SignalKind, signal};
use update_metadata::{Host as Chooser, Update, Version, VersionLock};

use crate::connect::Connector;
use crate::kernel_image;
use crate::repository::{self, Repository};
use crate::slot::{self, Disk};
use crate::state::{Facts, Outcome, Record, Refusal, StagedImage};

/// Settings, as the API server renders them.
const SETTINGS: &str = "etc/bulkhead/updates.toml";
/// The image's root of trust.
const TRUST: &str = "usr/share/bulkhead/update-root.json";
/// What was seen last of the repository's metadata.
const SEEN: &str = "var/lib/bulkhead/updates/metadata";
/// The largest of these files.
const LIMIT: u64 = 4 * 1024 * 1024;
/// The largest hash tree: what the partition takes.
const TREE_MAX: u64 = boot_slots::layout::VERITY_SIZE;
/// How often, and how far apart, the lock is tried before another command is said to hold it.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The host that is updated.
pub struct Host<D> {
    /// Its root; `/` but in tests.
    pub root: PathBuf,
    /// Its disk.
    pub disk: D,
    /// How it reaches servers.
    pub connector: Connector,
    /// Version of the image that runs.
    pub version: String,
    /// Root hash of the image that runs.
    pub root_hash: RootHash,
    /// Whether its clock is known to be right.
    pub has_right_clock: bool,
}

/// `settings.updates`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    metadata_base_url: Option<String>,
    targets_base_url: Option<String>,
    seed: u32,
    version_lock: String,
    ignore_waves: bool,
}

/// The file of the state. The API server reads `status` alone.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    record: Record,
    status: S,
}

/// How a command ended that was begun.
pub enum Ended {
    /// It did what it should.
    Done,
    /// It did not; the status says why.
    Failed(anyhow::Error),
}

impl<D: Disk> Host<D> {
    /// Runs a command. `begun` is called once it is admitted, with the reason if it is not.
    pub fn run(
        &self,
        command: UpdateCommand,
        begun: impl FnOnce(Result<(), &Refusal>) -> Result<()>,
    ) -> Result<Result<Ended, Refusal>> {
        let Some(_lock) = self.lock()? else {
            begun(Err(&Refusal::Busy))?;
            return Ok(Err(Refusal::Busy));
        };
        let (mut record, facts) = self.look()?;
        if let Err(refusal) = record.admit(command, &facts) {
            begun(Err(&refusal))?;
            return Ok(Err(refusal));
        }
        begun(Ok(()))?;
        let done = match command {
            UpdateCommand::Refresh => self.refresh(&mut record, &facts),
            UpdateCommand::Prepare => self.prepare(&mut record, &facts),
            UpdateCommand::Activate => self.activate(&mut record),
            UpdateCommand::Deactivate => self.deactivate(&mut record),
        };
        // Whoever settles what a boot has decided may have waited for this command to end.
        let facts = self.facts()?;
        self.reconcile(&mut record, &facts);
        record.last = Some(result(command, &done));
        self.save(&record, &facts)?;
        Ok(Ok(match done {
            Ok(()) => Ended::Done,
            Err(error) => Ended::Failed(error),
        }))
    }

    /// Brings what is told about updates up to date after a boot. Nothing is done where
    /// nobody ever asked for updates, nor while a command is at work, which does the same at
    /// its end.
    pub fn settle(&self) -> Result<()> {
        let Some(_lock) = self.lock()? else {
            return Ok(());
        };
        if !self.root.join(UPDATE_STATUS).exists() {
            return Ok(());
        }
        let (record, facts) = self.look()?;
        self.save(&record, &facts)
    }

    fn refresh(&self, record: &mut Record, facts: &Facts) -> Result<()> {
        let found = self.settings().and_then(|settings| {
            let chooser = self.chooser(&settings, record)?;
            let repository = wait_for(self.repository(&settings))?;
            Ok((repository, chooser))
        });
        let (repository, chooser) = match found {
            Ok(found) => found,
            Err(error) => {
                record.refresh_failed();
                return Err(error);
            }
        };
        let manifest = repository.manifest();
        let available = manifest.available(&chooser);
        let is_offered = |image: &StagedImage| {
            (available.iter()).any(|update| {
                let has_hash = |hash: RootHash| hash.to_string() == image.root_hash;
                update.version == image.version && root_hash(update).is_ok_and(has_hash)
            }) && chooser.lock.allows(&image.version)
        };
        let waiting = record.waiting(facts).filter(|image| !is_offered(image));
        if let Some(version) = waiting.map(|image| image.version.to_string()) {
            self.withdraw(&version)?;
            tracing::warn!(version, "the prepared update is not to be had any more");
            record.staged = None;
        }
        let chosen = manifest.choose(&chooser, Time::now());
        let version = |update: &Update| update.version.clone();
        record.refreshed(
            available.iter().map(|update| version(update)).collect(),
            chosen.map(version),
        );
        Ok(())
    }

    fn prepare(&self, record: &mut Record, facts: &Facts) -> Result<()> {
        let settings = self.settings()?;
        let repository = wait_for(self.repository(&settings))?;
        let update = self.chosen(&repository, &settings, record)?;
        let root_hash = root_hash(&update)?;
        let image = StagedImage {
            version: update.version.clone(),
            root_hash: root_hash.to_string(),
        };
        let version = image.version.to_string();
        ensure!(version != self.version, "version {version} runs already");

        let running = slot::running_slot(&self.disk, &self.root_hash)?;
        let target = running.other();
        if record.staged.as_ref() == Some(&image) {
            let kernel_image = repository.file(&update.images.boot)?;
            let is_whole = slot::holds_whole(&self.disk, target, &root_hash)? && {
                kernel_image::is_here(&self.disk, &version, &kernel_image.digest)?
            };
            if is_whole {
                tracing::info!(version, "it is prepared already");
                return Ok(());
            }
            tracing::warn!(version, "what was prepared is damaged: it is prepared anew");
        }
        let tree = wait_for(repository.read(&update.images.hash, TREE_MAX))?;
        let tree = Tree::read(&tree, &root_hash)
            .with_context(|| format!("checking {}", update.images.hash.as_str()))?;

        // What was in the other slot is no image any more, before its slot is touched.
        record.staged = None;
        self.save(record, facts)?;
        self.forget_others()?;

        let partition = self.disk.partition(Role::Verity(running))?;
        let old = Tree::read(&partition, &self.root_hash);
        if let Err(error) = &old {
            tracing::warn!("no blocks are taken from the running slot: {error}");
        }
        let file = repository.file(&update.images.root)?;
        let filled = wait_for(slot::fill(
            &self.disk,
            target,
            &tree,
            old.as_ref().ok(),
            file,
        ))?;
        tracing::info!(
            version,
            blocks = filled.blocks,
            kept = filled.kept,
            copied = filled.copied,
            fetched = filled.fetched,
            "slot {target} is filled"
        );
        // The trees need room that the kernel image takes now.
        drop((old, tree));

        let release = (version.as_str(), &root_hash);
        let images = &update.images;
        let fetching = kernel_image::fetch(&self.disk, &self.version, &repository, images, release);
        let kernel_image = wait_for(fetching)?;
        self.disk.with_esp(|esp| {
            boot_slots::bless::stage(esp, &version, &kernel_image)?;
            boot_slots::bless::publish(esp, &version)?;
            Ok(())
        })?;
        record.staged = Some(image);
        Ok(())
    }

    fn activate(&self, record: &mut Record) -> Result<()> {
        let image = record.staged.as_ref().context("nothing is prepared")?;
        let version = image.version.to_string();
        self.disk.with_esp(|esp| {
            // An older version comes first only when the running one stands back. That goes
            // before, so that a cut leaves no image with tries that nobody knows of; of two
            // that are withheld the newer one boots.
            if compare_versions(&version, &self.version).is_lt() {
                boot_slots::bless::withhold(esp, &self.version)?;
            }
            boot_slots::bless::activate(esp, &version)?;
            Ok(())
        })
    }

    fn deactivate(&self, record: &mut Record) -> Result<()> {
        let image = record.staged.as_ref().context("nothing is prepared")?;
        self.withdraw(&image.version.to_string())
    }

    /// Has the running version boot next, and not this one.
    fn withdraw(&self, version: &str) -> Result<()> {
        self.disk.with_esp(|esp| {
            boot_slots::bless::withhold(esp, version)?;
            boot_slots::bless::bless(esp, &self.version)?;
            Ok(())
        })
    }

    /// Removes all kernel images but the running one.
    fn forget_others(&self) -> Result<()> {
        self.disk.with_esp(|esp| {
            let entries = boot_slots::bless::list(esp)?;
            let runs = |tries: boot_slots::entry::Tries| !tries.is_exhausted();
            ensure!(
                (entries.iter()).any(|entry| entry.version == self.version && runs(entry.tries)),
                "the running version {} would not boot again: the other slot is left alone",
                self.version
            );
            boot_slots::bless::forget_all_but(esp, &self.version)?;
            Ok(())
        })
    }

    fn chosen(
        &self,
        repository: &Repository,
        settings: &Settings,
        record: &Record,
    ) -> Result<Update> {
        let chosen = record.chosen.as_ref().context("no update is chosen")?;
        let available = repository
            .manifest()
            .available(&self.chooser(settings, record)?);
        let found = available
            .into_iter()
            .find(|update| update.version == *chosen);
        found.cloned().with_context(|| {
            format!("version {chosen} is not offered any more: look for updates again")
        })
    }

    fn chooser(&self, settings: &Settings, record: &Record) -> Result<Chooser> {
        let os = OsRelease::read(&self.root)?;
        let version = |text: &str| {
            let version: Result<Version, String> = text.to_string().try_into();
            version.map_err(anyhow::Error::msg)
        };
        let lock: Result<VersionLock, String> = settings.version_lock.parse();
        let given_up = record.given_up.keys().map(|text| version(text));
        Ok(Chooser {
            variant: os.variant_id().to_string(),
            arch: std::env::consts::ARCH.to_string(),
            version: version(&self.version)?,
            lock: lock
                .map_err(anyhow::Error::msg)
                .context("reading settings.updates.version-lock")?,
            seed: settings.seed,
            ignore_waves: settings.ignore_waves,
            given_up: given_up.collect::<Result<_>>()?,
        })
    }

    async fn repository(&self, settings: &Settings) -> Result<Repository> {
        let (Some(metadata), Some(targets)) =
            (&settings.metadata_base_url, &settings.targets_base_url)
        else {
            bail!(
                "there is no update repository: set settings.updates.metadata-base-url and \
                 settings.updates.targets-base-url"
            );
        };
        let trust = self.root.join(TRUST);
        ensure!(
            trust.exists(),
            "this image trusts no update repository, and takes no updates: it was built where \
             no `bulkhead repo create` had been run before"
        );
        let trust = read_limited(&trust, LIMIT)?;
        let seen = self.root.join(SEEN);
        if self.has_right_clock {
            repository::forget_time_ahead(&seen)?;
        }
        let connector = self.connector.clone();
        Repository::load(connector, &trust, metadata, targets, &seen).await
    }

    fn settings(&self) -> Result<Settings> {
        let path = self.root.join(SETTINGS);
        let text = read_text_if_present(&path, LIMIT)?
            .with_context(|| format!("{} is missing", path.display()))?;
        toml::from_str(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// The record, held against what is there.
    fn look(&self) -> Result<(Record, Facts)> {
        let mut record = self.record()?;
        let facts = self.facts()?;
        self.reconcile(&mut record, &facts);
        Ok((record, facts))
    }

    fn reconcile(&self, record: &mut Record, facts: &Facts) {
        match record.reconcile(facts) {
            None => {}
            Some(Outcome::Done(version)) => tracing::info!(%version, "the update is done"),
            Some(Outcome::Lost(version, why)) => {
                tracing::warn!(%version, "the prepared update is lost: {why}");
            }
            Some(Outcome::GivenUp(version, why)) => {
                let error = anyhow::anyhow!("version {version} did not complete a boot: {why}");
                tracing::error!("{error}");
                record.last = Some(result(UpdateCommand::Activate, &Err(error)));
            }
        }
    }

    fn record(&self) -> Result<Record> {
        let path = self.root.join(UPDATE_STATUS);
        let Some(text) = read_text_if_present(&path, LIMIT)? else {
            return Ok(Record::default());
        };
        match serde_json::from_str::<Stored<IgnoredAny>>(&text) {
            Ok(stored) => Ok(stored.record),
            Err(error) => {
                // What matters lies in the slots, and a refresh finds the rest anew.
                tracing::warn!("{} cannot be read, beginning anew: {error}", path.display());
                Ok(Record::default())
            }
        }
    }

    fn save(&self, record: &Record, facts: &Facts) -> Result<()> {
        let stored: Stored<UpdateStatus> = Stored {
            record: record.clone(),
            status: record.status(facts),
        };
        let path = self.root.join(UPDATE_STATUS);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let json = serde_json::to_vec(&stored).context("writing down the state")?;
        write_atomic(&path, &json, 0o644)
    }

    fn facts(&self) -> Result<Facts> {
        let os = OsRelease::read(&self.root)?;
        let state = self.disk.partition(Role::State)?;
        let boot_record = BootRecord::read(&state).context("reading the boot record")?;
        let running = slot::running_slot(&self.disk, &self.root_hash)?;
        let other = slot::holds(&self.disk, running.other())?;
        let entries = self
            .disk
            .with_esp(|esp| Ok(boot_slots::bless::list(esp)?))?;
        Ok(Facts {
            running: UpdateImage {
                arch: std::env::consts::ARCH.to_string(),
                version: self.version.clone(),
                variant: os.variant_id().to_string(),
            },
            is_blessed: boot_record.is_blessed(&self.root_hash),
            entries,
            other_slot: other.map(|superblock| superblock.uuid.simple().to_string()),
            complaint: self.complaint(),
        })
    }

    fn complaint(&self) -> Option<(String, String)> {
        let text = read_text_if_present(&self.root.join(BOOT_COMPLAINT), LIMIT).ok()??;
        let complaint: api_types::BootComplaint = serde_json::from_str(&text).ok()?;
        Some((complaint.version, complaint.complaint))
    }

    /// One command at a time: the lock, unless another one holds it. It ends with the process,
    /// whatever ends that. Whoever asks whether it is held has it for a moment, too.
    fn lock(&self) -> Result<Option<Flock<File>>> {
        let path = self.root.join(UPDATE_LOCK);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(lock)),
                Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
                Err((_, error)) => {
                    return Err(error).with_context(|| format!("locking {}", path.display()));
                }
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(None)
    }
}

/// The root hash of an update, without which none is taken.
fn root_hash(update: &Update) -> Result<RootHash> {
    let text = (update.root_hash.as_deref())
        .with_context(|| format!("the manifest has no root hash for {}", update.version))?;
    text.parse()
        .with_context(|| format!("the root hash of {}", update.version))
}

fn result(command: UpdateCommand, done: &Result<()>) -> UpdateCommandResult {
    let (cmd_status, exit_status, stderr) = match done {
        Ok(()) => (UpdateCommandStatus::Success, 0, String::new()),
        Err(error) => (UpdateCommandStatus::Failed, 1, format!("{error:#}")),
    };
    UpdateCommandResult {
        cmd_type: command,
        cmd_status,
        timestamp: now(),
        exit_status: Some(exit_status),
        stderr: Some(stderr),
    }
}

/// With fractions of a second: that it changes tells that a command has ended.
fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = Time(since.as_secs()).to_string();
    format!(
        "{}.{:09}Z",
        seconds.trim_end_matches('Z'),
        since.subsec_nanos()
    )
}

/// Does what may take long, unless the process is told to stop: then what it came to is
/// written down like that of any command. All of it is done by one thread, for it is the disk
/// and the network that take the time.
fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate()).context("listening for signals")?;
        tokio::select! {
            done = work => done,
            _ = stop.recv() => bail!(
                "stopped before it was done, as when the host shuts down, or after too long"
            ),
        }
    })
}
