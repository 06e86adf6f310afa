//! Hostile metadata, and servers that never end: what a host's `updater` makes of them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use sysutil::time::Time;
use tough::editor::signed::SignedRole;
use tough::key_source::{KeySource, LocalKeySource};
use tough::schema::{KeyHolder, RoleType, Root, Signed};
use update_metadata::Waves;
use update_repository::{
    Draft, Holders, Keys, NewKey, Release, Repository, Role, Source, validate,
};
use updater::connect::Connector;

const DAY: u64 = 86_400;
const MIB: u64 = 1024 * 1024;

/// A repository with version 1.0.0 in it, and what a host that reads it keeps.
struct Fixture {
    folder: tempfile::TempDir,
    keys: Keys,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::create(&folder.path().join("keys"), Time::now().plus(DAY)).unwrap();
        let fixture = Self { folder, keys };
        fixture.release(&fixture.repository(), "1.0.0");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.path("repository"), "v", "x86_64")
    }

    fn release(&self, repository: &Repository, version: &str) {
        let file = |what: &str| {
            fs::write(self.path(what), version).unwrap();
            self.path(what)
        };
        let release = Release {
            version: version.to_string().try_into().unwrap(),
            root_hash: "00".repeat(32),
            waves: Waves::default(),
            boot: file("boot"),
            root: file("root"),
            hash: file("hash"),
        };
        repository.add(&self.keys, &release).unwrap();
    }

    /// What a host sees that starts from `root`.
    fn load(&self, root: &[u8], server: &Server) -> Result<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (metadata, targets) = (server.url("v/x86_64/"), server.url("targets/"));
        let seen = self.path("seen");
        let connector = Connector::of_host(&self.path("host"));
        let loading =
            updater::repository::Repository::load(connector, root, &metadata, &targets, &seen);
        Ok(runtime.block_on(loading)?.manifest().updates().len())
    }

    /// Has the host refuse it, and say why.
    #[track_caller]
    fn refused(&self, server: &Server, says: &str) {
        let error = format!("{:#}", self.load(self.keys.root(), server).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

/// What a server does for files that end in some text.
#[derive(Clone, Copy)]
enum Manner {
    Honest,
    Endless(&'static str),
}

struct Server {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn start(folder: PathBuf, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever does not want more hangs up.
                let _ = answer(stream, &folder, manner, &counter);
            }
        });
        Self { port, sent }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

fn answer(mut stream: TcpStream, folder: &Path, manner: Manner, sent: &AtomicU64) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().context("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).context("no path")?;
    if let Manner::Endless(name) = manner
        && path.ends_with(name)
    {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 4096])?;
            sent.fetch_add(4096, Ordering::SeqCst);
        }
    }
    let close = "Connection: close\r\n";
    match fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(body) => {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{close}Content-Length: {length}\r\n\r\n"
            )?;
            stream.write_all(&body)?;
        }
        Err(_) => {
            write!(
                stream,
                "HTTP/1.1 404 Not Found\r\n{close}Content-Length: 0\r\n\r\n"
            )?;
        }
    }
    Ok(())
}

fn honest(fixture: &Fixture) -> Server {
    Server::start(fixture.path("repository"), Manner::Honest)
}

/// The file of a role in `folder` that was written last.
fn newest(folder: &Path, role: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let of_role = |path: &PathBuf| path.to_string_lossy().ends_with(&format!(".{role}.json"));
    files.filter(of_role).max().unwrap()
}

#[test]
fn an_honest_repository_is_read() {
    let fixture = Fixture::new();
    let seen = fixture
        .load(fixture.keys.root(), &honest(&fixture))
        .unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn attack_expired_metadata() {
    let fixture = Fixture::new();
    let past = Time(Time::now().0 - 8 * DAY);
    let folder = fixture.path("repository");
    fs::remove_dir_all(&folder).unwrap();
    fixture.release(&fixture.repository().at(past), "1.0.0");
    let server = honest(&fixture);
    fixture.refused(&server, "expired");
    // Nobody has to start anew: it is renewed.
    fixture.repository().refresh(&fixture.keys).unwrap();
    assert_eq!(fixture.load(fixture.keys.root(), &server).unwrap(), 1);
}

#[test]
fn attack_roles_of_two_states_mixed() {
    let fixture = Fixture::new();
    let metadata = fixture.repository().metadata();
    let old = fs::read(newest(&metadata, "targets")).unwrap();
    fixture.release(&fixture.repository(), "1.1.0");
    fs::write(newest(&metadata, "targets"), old).unwrap();
    fixture.refused(&honest(&fixture), "targets");
}

#[test]
fn attack_threshold_not_met() {
    let fixture = Fixture::new();
    let mut root: Signed<Root> = serde_json::from_slice(fixture.keys.root()).unwrap();
    // Of two keys, both have to sign; the repository is signed by one.
    let other = root.signed.roles[&RoleType::Root].keyids[0].clone();
    let role = root.signed.roles.get_mut(&RoleType::Timestamp).unwrap();
    role.keyids.push(other);
    role.threshold = 2.try_into().unwrap();
    let key = LocalKeySource {
        path: fixture.path("keys/root.key"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let strict = runtime.block_on(async {
        let holder = KeyHolder::Root(root.signed.clone());
        let keys: [Box<dyn KeySource>; 1] = [Box::new(key)];
        SignedRole::new(root.signed, &holder, &keys, &SystemRandom::new()).await
    });
    let strict = strict.unwrap();
    // The host starts from it; the server has what was signed before.
    let error = fixture
        .load(strict.buffer(), &honest(&fixture))
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("threshold") && error.contains("timestamp"),
        "{error}"
    );
}

#[test]
fn attack_endless_metadata() {
    for name in ["2.root.json", "timestamp.json"] {
        let fixture = Fixture::new();
        let server = Server::start(fixture.path("repository"), Manner::Endless(name));
        fixture.refused(&server, "exceeded");
        let sent = server.sent.load(Ordering::SeqCst);
        // What a host takes, and what lies in the buffers of both sides.
        assert!(sent < 16 * MIB, "{name}: {sent} bytes");
    }
}

#[test]
fn attack_an_endless_manifest() {
    let fixture = Fixture::new();
    let server = Server::start(
        fixture.path("repository"),
        Manner::Endless(".manifest.json"),
    );
    fixture.refused(&server, "manifest.json");
    assert!(server.sent.load(Ordering::SeqCst) < 16 * MIB);
}

#[test]
fn attack_a_manifest_that_was_changed() {
    let fixture = Fixture::new();
    let targets = fixture.repository().targets();
    for file in fs::read_dir(targets).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().ends_with(".manifest.json") {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("1.0.0", "6.6.6")).unwrap();
        }
    }
    fixture.refused(&honest(&fixture), "manifest.json");
}

#[test]
fn hosts_follow_to_another_key_of_releases() {
    let fixture = Fixture::new();
    let server = honest(&fixture);
    let first = fixture.keys.root().to_vec();
    assert_eq!(fixture.load(&first, &server).unwrap(), 1);
    let keys = fixture.path("keys");
    let stolen = fs::read(keys.join("release.key")).unwrap();
    // Twice: hosts that know the first of three get to the third.
    let expires = Time::now().plus(DAY);
    let other = Holders::default();
    let once = (fixture.keys.rotate(Role::Release, &other, expires)).unwrap();
    let twice = once.rotate(Role::Release, &other, expires).unwrap();
    assert_eq!(twice.root(), Keys::load(&keys).unwrap().root());
    fixture.repository().refresh(&twice).unwrap();
    for root in [&first[..], once.root(), twice.root()] {
        assert_eq!(fixture.load(root, &server).unwrap(), 1);
        fs::remove_dir_all(fixture.path("seen")).unwrap();
    }
    // A host that has seen the old key's metadata follows, too.
    fixture.load(&first, &server).unwrap();

    // Whoever has the old key can make what looks right to hosts that know no later
    // root.json, and they get those from what was published.
    fs::write(keys.join("release.key"), stolen).unwrap();
    fs::write(keys.join("root.json"), &first).unwrap();
    let forged = Repository::new(&fixture.path("forged"), "v", "x86_64");
    fixture.release(&forged, "6.6.6");
    let server = Server::start(fixture.path("forged"), Manner::Honest);
    fs::remove_dir_all(fixture.path("seen")).unwrap();
    assert_eq!(fixture.load(&first, &server).unwrap(), 1);
    for later in ["2.root.json", "3.root.json"] {
        let published = fixture.repository().metadata().join(later);
        fs::copy(published, forged.metadata().join(later)).unwrap();
    }
    fixture.refused(&server, "timestamp");
}

#[test]
fn hosts_follow_to_another_key_of_the_root() {
    let fixture = Fixture::new();
    let server = honest(&fixture);
    let first = fixture.keys.root().to_vec();
    assert_eq!(fixture.load(&first, &server).unwrap(), 1);
    let root_key = fixture.path("keys/root.key");
    let stolen = fs::read(&root_key).unwrap();
    let expires = Time::now().plus(DAY);
    let other = Holders::default();
    let once = fixture.keys.rotate(Role::Root, &other, expires).unwrap();
    let twice = once.rotate(Role::Root, &other, expires).unwrap();
    // The one after that is signed by the new key alone.
    let last = twice.rotate(Role::Release, &other, expires).unwrap();
    fixture.repository().refresh(&last).unwrap();
    for root in [&first[..], once.root(), twice.root(), last.root()] {
        assert_eq!(fixture.load(root, &server).unwrap(), 1);
        fs::remove_dir_all(fixture.path("seen")).unwrap();
    }

    // The old key names itself for what comes after the first successor: that leads nowhere.
    let path = fixture.repository().metadata().join("3.root.json");
    let mut forged: Signed<Root> = serde_json::from_slice(&first).unwrap();
    forged.signed.version = 3.try_into().unwrap();
    forged.signatures.clear();
    fs::write(&path, serde_json::to_vec(&forged).unwrap()).unwrap();
    fs::write(&root_key, stolen).unwrap();
    let mut forged = Draft::read(&path, None).unwrap();
    let key = Source::named(root_key.to_str().unwrap()).unwrap();
    assert_eq!(forged.sign(&[key.signer().unwrap()]).unwrap(), 1);
    forged.write(&path).unwrap();
    fixture.refused(&server, "threshold");
}

/// A root that takes two of two signatures follows the first one, published with one.
#[test]
fn attack_threshold_not_met_by_root_json() {
    let fixture = Fixture::new();
    let server = honest(&fixture);
    let two = Holders::new(vec![NewKey::Drawn, NewKey::Drawn], 2).unwrap();
    let expires = Time::now().plus(DAY);
    let first = fixture.keys.root().to_vec();
    let keys = fixture.keys.rotate(Role::Root, &two, expires).unwrap();
    fixture.repository().refresh(&keys).unwrap();
    assert_eq!(fixture.load(&first, &server).unwrap(), 1);
    assert_eq!(fixture.load(keys.root(), &server).unwrap(), 1);

    let whole: Signed<Root> = serde_json::from_slice(keys.root()).unwrap();
    assert_eq!(
        whole.signatures.len(),
        3,
        "both of its own, and the old key"
    );
    for gone in 0..3 {
        let mut short = whole.clone();
        short.signatures.remove(gone);
        let short = serde_json::to_vec(&short).unwrap();
        let metadata = fixture.repository().metadata();
        fs::write(metadata.join("2.root.json"), &short).unwrap();
        let seen = fixture.path("seen");
        // A host may have been shown it before.
        fs::remove_dir_all(&seen).unwrap();
        let hosts = format!("{:#}", fixture.load(&first, &server).unwrap_err());
        assert!(hosts.contains("threshold"), "{hosts}");
        let (metadata, targets) = (server.url("v/x86_64/"), server.url("targets/"));
        let validated = validate(&first, &metadata, &targets).unwrap_err();
        assert!(format!("{validated:#}").contains("threshold"));
        // Whoever publishes cannot do it by mistake.
        fs::write(keys.root_path(), &short).unwrap();
        let error = Keys::load(&fixture.path("keys")).unwrap_err();
        assert!(format!("{error:#}").contains("lacks signatures"));
    }
}

#[test]
fn metadata_that_nobody_takes_any_more_is_removed() {
    let fixture = Fixture::new();
    let metadata = fixture.repository().metadata();
    let count = || fs::read_dir(&metadata).unwrap().count();
    let week = 7 * DAY;
    let at = |weeks: u64| fixture.repository().at(Time::now().plus(weeks * week));
    assert_eq!(count(), 4);
    at(1).refresh(&fixture.keys).unwrap();
    assert_eq!(count(), 6, "hosts may still read what was there");
    at(4).refresh(&fixture.keys).unwrap();
    assert_eq!(count(), 4);
}
