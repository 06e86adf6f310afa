//! Hosts and a repository: what `updater` does with what this crate makes.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use api_types::{UPDATE_STATUS, UpdateCommand, UpdateState, UpdateStatus};
use boot_slots::bless::FOLDER;
use boot_slots::layout::{Role, Slot};
use boot_slots::record::BootRecord;
use boot_slots::verity::{BLOCK_SIZE, RootHash, Verity, build, verify};
use sysutil::time::Time;
use test_vm::files::{Manner, serve};
use update_metadata::Waves;
use update_repository::{Keys, Release, Repository};
use updater::commands::{Ended, Host};
use updater::slot::Disk;
use updater::state::Refusal;

const ARCH: &str = std::env::consts::ARCH;

/// A disk whose partitions are files.
struct Files<'a>(&'a Path);

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
struct Server {
    port: u16,
    root_bytes: Arc<AtomicU64>,
}

impl Server {
    fn start(folder: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let root_bytes = Arc::default();
        serve(listener, folder, manner, &root_bytes);
        Self { port, root_bytes }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Bytes of roots that were sent.
    fn root_bytes(&self) -> u64 {
        self.root_bytes.load(Ordering::SeqCst)
    }
}

/// An image whose blocks are filled with these numbers.
fn image(blocks: impl Iterator<Item = u32>) -> (Vec<u8>, Verity) {
    let image: Vec<u8> = blocks
        .flat_map(|number| number.to_le_bytes().repeat(BLOCK_SIZE / 4))
        .collect();
    let built = build(&image).unwrap();
    (image, built)
}

/// A host that runs 1.0.0 from slot A, and a repository.
struct Fixture {
    folder: tempfile::TempDir,
    keys: Keys,
    running: Verity,
}

impl Fixture {
    fn new() -> Self {
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
        fs::write(at("disk/esp").join(FOLDER).join("bulkhead_1.0.0.efi"), "1").unwrap();
        let mut record = BootRecord::default();
        record.bless(&running.root_hash);
        record.write(&disk.partition(Role::State).unwrap()).unwrap();
        Self {
            folder,
            keys,
            running,
        }
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.folder.path().join("repository"), "v", ARCH)
    }

    /// Releases an image of these blocks.
    fn release(&self, version: &str, blocks: impl Iterator<Item = u32>) -> RootHash {
        let (bytes, built) = image(blocks);
        let kernel = format!(
            "kernel bulkhead.version={version} bulkhead.root={} quiet",
            built.root_hash
        );
        let file = |what: &str, bytes: &[u8]| {
            let path = self.folder.path().join(what);
            fs::write(&path, bytes).unwrap();
            path
        };
        let release = Release {
            version: version.to_string().try_into().unwrap(),
            root_hash: built.root_hash.to_string(),
            waves: Waves::default(),
            boot: file("boot", kernel.as_bytes()),
            root: file("root", &bytes),
            hash: file("hash", &built.bytes),
        };
        self.repository().add(&self.keys, &release).unwrap();
        built.root_hash
    }

    fn serve(&self, manner: Manner) -> Server {
        let server = Server::start(&self.folder.path().join("repository"), manner);
        let settings = format!(
            "metadata-base-url = {:?}\ntargets-base-url = {:?}\nseed = 5\nversion-lock = \
             \"latest\"\nignore-waves = false\n",
            server.url(&format!("v/{ARCH}")),
            server.url("targets"),
        );
        fs::write(
            self.folder.path().join("host/etc/bulkhead/updates.toml"),
            settings,
        )
        .unwrap();
        server
    }

    fn disk(&self) -> std::path::PathBuf {
        self.folder.path().join("disk")
    }

    /// Runs a command in the boot `boot` of `version`.
    fn run_in(
        &self,
        (version, root_hash): (&str, RootHash),
        boot: &str,
        command: UpdateCommand,
    ) -> std::result::Result<Result<()>, Refusal> {
        let disk = self.disk();
        let host = Host {
            root: self.folder.path().join("host"),
            disk: Files(&disk),
            version: version.to_string(),
            root_hash,
            boot_id: boot.to_string(),
        };
        let ended = host.run(command, |_| Ok(())).unwrap()?;
        Ok(match ended {
            Ended::Done => Ok(()),
            Ended::Failed(error) => Err(error),
        })
    }

    fn run(&self, command: UpdateCommand) -> std::result::Result<Result<()>, Refusal> {
        self.run_in(("1.0.0", self.running.root_hash), "first", command)
    }

    /// Runs commands that succeed.
    fn done(&self, commands: &[UpdateCommand]) {
        for command in commands {
            self.run(*command).unwrap().unwrap();
        }
    }

    fn status(&self) -> UpdateStatus {
        let path = self.folder.path().join("host").join(UPDATE_STATUS);
        let stored: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        serde_json::from_value(stored["status"].clone()).unwrap()
    }

    fn kernel_images(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.disk().join("esp").join(FOLDER))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Whether slot B holds this image.
    fn slot_b_holds(&self, root_hash: &RootHash) -> bool {
        let disk = self.disk();
        let partition = |role| Files(&disk).partition(role).unwrap();
        let (root, tree) = (Role::Root(Slot::B), Role::Verity(Slot::B));
        verify(&partition(root), &partition(tree), root_hash).unwrap()
    }

    fn slot_b_is_empty(&self) -> bool {
        let mut start = [0; 512];
        let disk = self.disk();
        let partition = Files(&disk).partition(Role::Verity(Slot::B)).unwrap();
        partition.read_exact_at(&mut start, 0).unwrap();
        start == [0; 512]
    }
}

use UpdateCommand::{Activate, Deactivate, Prepare, Refresh};

#[test]
fn an_update_from_looking_to_booting() {
    let fixture = Fixture::new();
    // Half of it is new, at its end.
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    assert_eq!(fixture.run(Prepare).unwrap_err().http_status(), 404);
    fixture.done(&[Refresh]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Available);
    assert_eq!(status.available_updates, ["2.0.0"]);
    assert_eq!(server.root_bytes(), 0);
    fixture.done(&[Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(
        server.root_bytes(),
        100 * BLOCK_SIZE as u64,
        "only what is new"
    );
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0-3.efi"]
    );
    fixture.done(&[Activate]);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+3.efi"]
    );
    fixture.done(&[Deactivate]);
    assert_eq!(
        fixture.kernel_images(),
        ["bulkhead_1.0.0.efi", "bulkhead_2.0.0+0-3.efi"]
    );
    assert_eq!(fixture.run(Deactivate).unwrap_err().http_status(), 409);
    fixture.done(&[Activate]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Ready);
    assert!(status.staging_partition.unwrap().next_to_boot);
    assert!(!status.active_partition.unwrap().next_to_boot);

    // It boots and is blessed.
    let disk = fixture.disk();
    boot_slots::bless::bless(&disk.join("esp"), "2.0.0").unwrap();
    let state = Files(&disk).partition(Role::State).unwrap();
    let mut record = BootRecord::read(&state).unwrap();
    record.bless(&root);
    record.write(&state).unwrap();
    fixture
        .run_in(("2.0.0", root), "second", Refresh)
        .unwrap()
        .unwrap();
    let status = fixture.status();
    assert_eq!(
        (status.update_state, status.chosen_update),
        (UpdateState::Idle, None)
    );
    assert_eq!(status.active_partition.unwrap().image.version, "2.0.0");
}

#[test]
fn scattered_changes_are_fetched_and_nothing_else() {
    let fixture = Fixture::new();
    let scattered = (1..1_000).map(|block| {
        if block % 40 == 0 {
            block + 5_000
        } else {
            block
        }
    });
    let root = fixture.release("2.0.0", scattered);
    let server = fixture.serve(Manner::Ranges);
    let started = std::time::Instant::now();
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 24 * BLOCK_SIZE as u64);
    let seconds = started.elapsed().as_secs();
    assert!(
        seconds < 10,
        "no request waits for another try: {seconds} s"
    );
}

#[test]
fn an_image_that_did_not_boot_is_given_up() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh, Prepare, Activate]);
    boot_slots::bless::demote(&fixture.disk().join("esp"), "2.0.0").unwrap();
    fs::write(
        fixture
            .folder
            .path()
            .join("host")
            .join(api_types::BOOT_COMPLAINT),
        r#"{"version": "2.0.0", "complaint": "failed: a.service"}"#,
    )
    .unwrap();
    let running = ("1.0.0", fixture.running.root_hash);
    fixture.run_in(running, "second", Refresh).unwrap().unwrap();
    let status = fixture.status();
    assert_eq!(status.available_updates, ["2.0.0"]);
    assert_eq!(
        (status.update_state, status.chosen_update),
        (UpdateState::Idle, None)
    );
    fixture.release("2.0.1", 501..1_100);
    fixture.run_in(running, "second", Refresh).unwrap().unwrap();
    assert_eq!(fixture.status().chosen_update.unwrap().version, "2.0.1");
}

#[test]
fn a_server_without_ranges_sends_the_whole_file() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Whole);
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 600 * BLOCK_SIZE as u64);
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::CutAfter(70 * BLOCK_SIZE + 100));
    fixture.done(&[Refresh, Prepare]);
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 100 * BLOCK_SIZE as u64 + 100);
}

#[test]
fn attack_a_range_answer_with_wrong_bytes() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::WrongBytes);
    fixture.done(&[Refresh]);
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("not what the hash tree says"),
        "{error:#}"
    );
    assert!(fixture.slot_b_is_empty());
    assert_eq!(fixture.kernel_images(), ["bulkhead_1.0.0.efi"]);
    let status = fixture.status();
    assert_eq!(status.update_state, UpdateState::Available);
    let last = status.most_recent_command.unwrap();
    assert_eq!(last.exit_status, Some(1));
    assert!(last.stderr.unwrap().contains("not what the hash tree says"));
}

#[test]
fn attack_a_root_image_larger_than_the_slot() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 1..1_300);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("the image needs"),
        "{error:#}"
    );
}

#[test]
fn attack_a_version_that_was_recalled() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let one = "1.0.0".to_string().try_into().unwrap();
    fixture.repository().limit(&fixture.keys, &one).unwrap();
    let error = fixture.run(Prepare).unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("not offered any more"),
        "{error:#}"
    );
}

#[test]
fn attack_metadata_rolled_back() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let old = fixture.folder.path().join("old");
    let metadata = fixture.repository().metadata();
    let _server = fixture.serve(Manner::Ranges);
    fs::create_dir(&old).unwrap();
    for file in fs::read_dir(&metadata).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), old.join(file.file_name())).unwrap();
    }
    fixture.release("2.0.1", 501..1_100);
    fixture.done(&[Refresh]);
    assert_eq!(fixture.status().chosen_update.unwrap().version, "2.0.1");
    for file in fs::read_dir(&old).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), metadata.join(file.file_name())).unwrap();
    }
    fixture.run(Refresh).unwrap().unwrap_err();
    let status = fixture.status();
    assert_eq!(
        (status.update_state, status.chosen_update),
        (UpdateState::Idle, None)
    );
}

#[test]
fn attack_signed_by_another_key() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let other = Keys::create(
        &fixture.folder.path().join("other"),
        Time::now().plus(86_400),
    );
    let trust = fixture
        .folder
        .path()
        .join("host/usr/share/bulkhead/update-root.json");
    fs::write(trust, other.unwrap().root()).unwrap();
    let _server = fixture.serve(Manner::Ranges);
    fixture.run(Refresh).unwrap().unwrap_err();
}

#[test]
fn two_updaters_at_once() {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    let disk = fixture.disk();
    let host = Host {
        root: fixture.folder.path().join("host"),
        disk: Files(&disk),
        version: "1.0.0".into(),
        root_hash: fixture.running.root_hash,
        boot_id: "first".into(),
    };
    let first = host.run(Refresh, |_| {
        assert_eq!(fixture.run(Refresh).unwrap_err(), Refusal::Busy);
        Ok(())
    });
    assert!(matches!(first, Ok(Ok(Ended::Done))));
}
