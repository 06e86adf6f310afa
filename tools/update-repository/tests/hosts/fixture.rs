//! A host and a repository.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use api_types::{UPDATE_STATUS, UpdateCommand, UpdateStatus};
use boot_slots::bless::FOLDER;
use boot_slots::layout::{Role, Slot};
use boot_slots::record::BootRecord;
use boot_slots::verity::{BLOCK_SIZE, RootHash, Verity, build, verify};
use hyper_util::client::proxy::matcher::{Builder, Matcher};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sysutil::time::Time;
use test_vm::files::{Manner, Sent, serve_over};
use tough::editor::RepositoryEditor;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::Target;
use tough::{FilesystemTransport, IntoVec, RepositoryLoader, TargetName};
use update_metadata::Waves;
use update_repository::{Keys, MANIFEST, Release, Repository};
use updater::commands::{Ended, Host};
use updater::connect::{Connector, Trusted};
use updater::slot::Disk;
use updater::state::Refusal;
use url::Url;

pub const ARCH: &str = std::env::consts::ARCH;

/// A disk whose partitions are files.
pub struct Files<'a>(pub &'a Path);

impl Disk for Files<'_> {
    fn partition(&self, role: Role) -> Result<File> {
        let path = self.0.join(role.name());
        Ok(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn with_esp<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        work(&self.0.join("esp"))
    }
}

/// Serves a folder.
pub struct Server {
    pub port: u16,
    sent: Arc<Sent>,
}

impl Server {
    pub fn start(folder: &Path, manner: Manner) -> Self {
        Self::start_over(folder, manner, |stream| stream)
    }

    /// Connections are made into what is spoken over by `begin`.
    pub fn start_over<S: Read + Write>(
        folder: &Path,
        manner: Manner,
        begin: impl Fn(TcpStream) -> S + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::default();
        serve_over(listener, folder, manner, &sent, begin);
        Self { port, sent }
    }

    /// Bytes of roots that were sent.
    pub fn root_bytes(&self) -> u64 {
        self.sent.root_bytes.load(Ordering::SeqCst)
    }

    /// Bytes of kernel images that were sent.
    pub fn kernel_bytes(&self) -> u64 {
        self.sent.kernel_bytes.load(Ordering::SeqCst)
    }

    /// Requests for roots and kernel images.
    pub fn requests(&self) -> u64 {
        self.sent.requests.load(Ordering::SeqCst)
    }

    /// The most requests that waited for their answers at once.
    pub fn at_once(&self) -> u64 {
        self.sent.at_once.load(Ordering::SeqCst)
    }

    /// Requests that were sent elsewhere.
    pub fn moved(&self) -> u64 {
        self.sent.moved.load(Ordering::SeqCst)
    }
}

/// An image whose blocks are filled with these numbers.
pub fn image(blocks: impl Iterator<Item = u32>) -> (Vec<u8>, Verity) {
    let image: Vec<u8> = blocks
        .flat_map(|number| number.to_le_bytes().repeat(BLOCK_SIZE / 4))
        .collect();
    let built = build(&image).unwrap();
    (image, built)
}

/// Bytes of [`kernel`] that are not blocks of numbers.
pub const OWN_BYTES: usize = BLOCK_SIZE + 100;

/// The kernel image of a version and root: a block that is its own, these blocks, and the
/// beginning of another one that is its own.
pub fn kernel(version: &str, root_hash: &RootHash, blocks: impl Iterator<Item = u32>) -> Vec<u8> {
    let line = format!("kernel bulkhead.version={version} bulkhead.root={root_hash} quiet");
    let mut kernel = line.as_bytes().to_vec();
    kernel.resize(BLOCK_SIZE, b' ');
    kernel.extend(image(blocks).0);
    kernel.extend(&line.as_bytes()[..100]);
    kernel
}

/// How a host below `folder` reaches servers.
pub fn connector(folder: &Path, proxies: Builder) -> Connector {
    Connector::new(Trusted::of_host(&folder.join("host")), proxies.build())
}

/// A host that runs 1.0.0 from slot A, and a repository.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub keys: Keys,
    pub running: Verity,
    pub connector: Connector,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let keys = Keys::create(&at("keys"), Time::now().plus(86_400)).unwrap();
        for path in [
            "host/usr/lib",
            "host/usr/share/bulkhead",
            "host/etc/bulkhead",
        ] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::create_dir_all(at("disk/esp").join(FOLDER)).unwrap();
        fs::write(
            at("host/usr/lib/os-release"),
            "VARIANT_ID=v\nVERSION_ID=1.0.0\n",
        )
        .unwrap();
        fs::write(at("host/usr/share/bulkhead/update-root.json"), keys.root()).unwrap();
        let (bytes, running) = image(1..1_000);
        for role in Role::ALL {
            let size = match role {
                Role::Root(_) => 1200 * BLOCK_SIZE as u64,
                _ => 64 * 1024,
            };
            File::create(at("disk").join(role.name()))
                .unwrap()
                .set_len(size)
                .unwrap();
        }
        let disk = Files(&at("disk"));
        let write = |role, bytes: &[u8]| disk.partition(role).unwrap().write_all_at(bytes, 0);
        write(Role::Root(Slot::A), &bytes).unwrap();
        write(Role::Verity(Slot::A), &running.bytes).unwrap();
        let image = kernel("1.0.0", &running.root_hash, 1..100);
        let path = at("disk/esp").join(FOLDER).join("bulkhead_1.0.0.efi");
        fs::write(path, image).unwrap();
        let mut record = BootRecord::default();
        record.bless(&running.root_hash);
        record.write(&disk.partition(Role::State).unwrap()).unwrap();
        Self {
            connector: connector(folder.path(), Matcher::builder()),
            folder,
            keys,
            running,
        }
    }

    pub fn repository(&self) -> Repository {
        Repository::new(&self.repository_folder(), "v", ARCH)
    }

    /// Releases an image of these blocks, with the kernel of the one that runs.
    pub fn release(&self, version: &str, blocks: impl Iterator<Item = u32>) -> RootHash {
        self.release_with(version, blocks, 1..100)
    }

    /// The same, with another kernel.
    pub fn release_with(
        &self,
        version: &str,
        blocks: impl Iterator<Item = u32>,
        kernel_blocks: impl Iterator<Item = u32>,
    ) -> RootHash {
        let (bytes, built) = image(blocks);
        let kernel = kernel(version, &built.root_hash, kernel_blocks);
        let file = |what: &str, bytes: &[u8]| {
            let path = self.folder.path().join(what);
            fs::write(&path, bytes).unwrap();
            path
        };
        let release = Release {
            version: version.to_string().try_into().unwrap(),
            root_hash: built.root_hash.to_string(),
            waves: Waves::default(),
            boot: file("boot", &kernel),
            root: file("root", &bytes),
            hash: file("hash", &built.bytes),
        };
        self.repository().add(&self.keys, &release).unwrap();
        built.root_hash
    }

    /// Signs what was released once more, with another manifest and another list of the
    /// kernel image's blocks.
    pub fn sign_anew(&self, alter: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let (metadata, targets) = (self.repository().metadata(), self.repository().targets());
        let url = |folder: &Path| Url::from_directory_path(folder).unwrap();
        let now = jiff::Timestamp::now();
        let tomorrow = now + Duration::from_secs(86_400);
        let signing = async {
            let root = self.keys.root();
            let loaded = RepositoryLoader::new(&root, url(&metadata), url(&targets))
                .transport(FilesystemTransport)
                .load()
                .await?;
            let read = async |name: &TargetName| {
                let target = loaded.read_target(name).await?.unwrap();
                Ok::<_, anyhow::Error>(target.into_vec().await?)
            };
            let manifest_name = TargetName::new(MANIFEST)?;
            let mut manifest: Value = serde_json::from_slice(&read(&manifest_name).await?)?;
            let list_name = manifest["updates"][0]["images"]["boot_blocks"].as_str();
            let list_name = TargetName::new(list_name.unwrap())?;
            let mut list = read(&list_name).await?;
            alter(&mut manifest, &mut list);
            let last = loaded.timestamp().signed.version;
            let version = last.checked_add(1).unwrap();
            let mut editor = RepositoryEditor::from_repo(self.keys.root_path(), loaded).await?;
            for (name, bytes) in [
                (manifest_name, serde_json::to_vec(&manifest)?),
                (list_name, list),
            ] {
                let digest = hex::encode(Sha256::digest(&bytes));
                let place = targets.join(format!("{digest}.{}", name.raw()));
                fs::write(place, &bytes)?;
                let described = json!({"length": bytes.len(), "hashes": {"sha256": digest}});
                editor.add_target(name, serde_json::from_value::<Target>(described)?)?;
            }
            editor
                .targets_version(version)?
                .targets_expires(tomorrow)?
                .snapshot_version(version)
                .snapshot_expires(tomorrow)
                .timestamp_version(version)
                .timestamp_expires(tomorrow);
            let key = self.folder.path().join("keys/release.key");
            let key: Box<dyn KeySource> = Box::new(LocalKeySource { path: key });
            editor.sign(&[key]).await?.write(&metadata).await?;
            Ok::<_, anyhow::Error>(())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(signing).unwrap();
    }

    /// Serves the repository to the host.
    pub fn serve(&self, manner: Manner) -> Server {
        let server = Server::start(&self.repository_folder(), manner);
        self.look_at(&format!("http://127.0.0.1:{}", server.port));
        server
    }

    pub fn repository_folder(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Has the host look for updates at an address.
    pub fn look_at(&self, url: &str) {
        self.look_for("latest", url);
    }

    /// The same, for what a lock allows.
    pub fn look_for(&self, lock: &str, url: &str) {
        let settings = format!(
            "metadata-base-url = \"{url}/v/{ARCH}\"\ntargets-base-url = \"{url}/targets\"\nseed \
             = 5\nversion-lock = \"{lock}\"\nignore-waves = false\n",
        );
        let path = self.folder.path().join("host/etc/bulkhead/updates.toml");
        fs::write(path, settings).unwrap();
    }

    /// Whom the host trusts.
    pub fn trust(&self, certificate: &str) {
        let folder = self.folder.path().join("host/etc/ssl/certs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca-certificates.crt"), certificate).unwrap();
    }

    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Runs a command while `version` runs.
    pub fn run_in(
        &self,
        (version, root_hash): (&str, RootHash),
        command: UpdateCommand,
    ) -> std::result::Result<Result<()>, Refusal> {
        self.host_in((version, root_hash), command, || {})
    }

    fn host_in(
        &self,
        running: (&str, RootHash),
        command: UpdateCommand,
        meanwhile: impl FnOnce(),
    ) -> std::result::Result<Result<()>, Refusal> {
        let disk = self.disk();
        let host = self.host(running, Files(&disk));
        let ended = host.run(command, |_| {
            meanwhile();
            Ok(())
        });
        Ok(match ended.unwrap()? {
            Ended::Done => Ok(()),
            Ended::Failed(error) => Err(error),
        })
    }

    pub fn host<D: Disk>(&self, (version, root_hash): (&str, RootHash), disk: D) -> Host<D> {
        Host {
            root: self.folder.path().join("host"),
            disk,
            connector: self.connector.clone(),
            version: version.to_string(),
            root_hash,
            has_right_clock: true,
        }
    }

    /// Runs a command that is admitted, with another disk.
    pub fn run_on(&self, disk: impl Disk, command: UpdateCommand) -> Result<()> {
        let host = self.host(("1.0.0", self.running.root_hash), disk);
        match host.run(command, |_| Ok(()))?.unwrap() {
            Ended::Done => Ok(()),
            Ended::Failed(error) => Err(error),
        }
    }

    /// Runs a command, and something else once it has begun.
    pub fn run_while(
        &self,
        command: UpdateCommand,
        meanwhile: impl FnOnce(),
    ) -> std::result::Result<Result<()>, Refusal> {
        let running = ("1.0.0", self.running.root_hash);
        self.host_in(running, command, meanwhile)
    }

    pub fn run(&self, command: UpdateCommand) -> std::result::Result<Result<()>, Refusal> {
        self.run_in(("1.0.0", self.running.root_hash), command)
    }

    /// Runs commands that succeed.
    pub fn done(&self, commands: &[UpdateCommand]) {
        for command in commands {
            self.run(*command).unwrap().unwrap();
        }
    }

    pub fn status(&self) -> UpdateStatus {
        let path = self.folder.path().join("host").join(UPDATE_STATUS);
        let stored: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        serde_json::from_value(stored["status"].clone()).unwrap()
    }

    pub fn kernel_images(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.disk().join("esp").join(FOLDER))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Takes from the disk what an update has put there.
    pub fn forget_update(&self) {
        boot_slots::bless::forget_all_but(&self.disk().join("esp"), "1.0.0").unwrap();
        for role in [Role::Root(Slot::B), Role::Verity(Slot::B)] {
            let disk = self.disk();
            let partition = Files(&disk).partition(role).unwrap();
            let size = partition.metadata().unwrap().len();
            partition.set_len(0).unwrap();
            partition.set_len(size).unwrap();
        }
    }

    /// Versions that the boot loader knows, whether or not it would start them.
    pub fn bootable(&self) -> BTreeSet<String> {
        let entries = boot_slots::bless::list(&self.disk().join("esp")).unwrap();
        entries.into_iter().map(|entry| entry.version).collect()
    }

    /// Whether slot A holds what runs.
    pub fn slot_a_is_whole(&self) -> bool {
        self.slot_holds(Slot::A, &self.running.root_hash)
    }

    /// Whether slot B holds this image.
    pub fn slot_b_holds(&self, root_hash: &RootHash) -> bool {
        self.slot_holds(Slot::B, root_hash)
    }

    fn slot_holds(&self, slot: Slot, root_hash: &RootHash) -> bool {
        let disk = self.disk();
        let partition = |role| Files(&disk).partition(role).unwrap();
        let (root, tree) = (Role::Root(slot), Role::Verity(slot));
        verify(&partition(root), &partition(tree), root_hash).unwrap()
    }

    pub fn slot_b_is_empty(&self) -> bool {
        let mut start = [0; 512];
        let disk = self.disk();
        let partition = Files(&disk).partition(Role::Verity(Slot::B)).unwrap();
        partition.read_exact_at(&mut start, 0).unwrap();
        start == [0; 512]
    }
}
