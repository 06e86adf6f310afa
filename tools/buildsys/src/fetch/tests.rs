use super::server::{Fault, Server};
use super::*;
use crate::lock::Use;
use crate::project::{Arch, Config, Folders};
use std::collections::BTreeSet;

pub(crate) const CONFIG: &str = r#"
[release]
version = "0.1.0"
default-variant = "v"
[debian]
components = ["main"]
suites = ["trixie", "trixie-security", "trixie-backports"]
[toolchains.sdk]
packages = ["tool"]
"#;

pub(crate) fn project(folder: &Path) -> Project {
    Project {
        root: folder.join("project"),
        config: Config::parse(CONFIG).unwrap(),
        repositories: Vec::new(),
        folders: Folders {
            cache: folder.join("cache"),
            data: folder.join("data"),
        },
    }
}

fn archive(name: &str, content: &[u8]) -> LockedArchive {
    LockedArchive {
        name: name.to_string(),
        stands_for: None,
        source: format!("{name}-source"),
        version: "1.0".parse().unwrap(),
        architecture: "all".to_string(),
        suite: "trixie".to_string(),
        published: None,
        path: format!("pool/{name}_1.0_all.deb"),
        size: content.len() as u64,
        sha256: Sha256Digest::of(content),
        uses: BTreeSet::from([Use::image(Arch::X86_64)]),
    }
}

/// Bytes that are no repetition, so that a part in the wrong place shows.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i / 7 + i) as u8).collect()
}

struct Setting {
    folder: tempfile::TempDir,
    server: Server,
}

impl Setting {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            server: Server::start(),
        }
    }

    fn fetcher(&self) -> Fetcher {
        self.fetcher_of(Mirrors::at(&[self.server.base()], "the test").unwrap())
    }

    fn fetcher_of(&self, mirrors: Mirrors) -> Fetcher {
        Fetcher::from_mirrors(&project(self.folder.path()), mirrors, &Progress::silent())
            .pausing(Duration::from_millis(1))
    }

    /// Fetches one archive of the given content and tells what was requested.
    fn fetch(&self, content: &[u8]) -> (Result<Vec<u8>, String>, Vec<String>) {
        let archive = archive("a", content);
        let result = self
            .fetcher()
            .fetch_all(&[&archive])
            .map(|paths| fs::read(&paths[0]).unwrap())
            .map_err(|error| format!("{error:#}"));
        (result, self.server.requests())
    }
}

const A: &str = "/debian/pool/a_1.0_all.deb";

#[test]
fn archives_arrive_once() {
    let setting = Setting::new();
    let archives: Vec<LockedArchive> = (0..30)
        .map(|i| archive(&format!("p{i}"), &content(i * 1000)))
        .collect();
    for (i, archive) in archives.iter().enumerate() {
        setting
            .server
            .put(&format!("/debian/{}", archive.path), content(i * 1000));
    }
    let wanted: Vec<&LockedArchive> = archives.iter().collect();
    for expected_requests in [30, 0] {
        let paths = setting.fetcher().fetch_all(&wanted).unwrap();
        for (i, path) in paths.iter().enumerate() {
            assert_eq!(
                fs::read(path).unwrap(),
                content(i * 1000),
                "in the order asked for"
            );
        }
        assert_eq!(setting.server.requests().len(), expected_requests);
    }
    let left = fs::read_dir(setting.folder.path().join("cache/archives"))
        .unwrap()
        .count();
    assert_eq!(left, 30, "no parts are left");
}

#[test]
fn what_was_cut_off_goes_on() {
    let check = |faults: &[Fault], expected: &[&str]| {
        let setting = Setting::new();
        let whole = content(100_000);
        setting.server.put(A, whole.clone());
        setting.server.fail(A, faults);
        let (result, requests) = setting.fetch(&whole);
        assert_eq!(result.as_ref(), Ok(&whole), "{faults:?}");
        let expected: Vec<String> = expected.iter().map(|tail| format!("{A}{tail}")).collect();
        assert_eq!(requests, expected, "{faults:?}");
    };
    check(&[], &[""]);
    check(&[Fault::CutAfter(70_000)], &["", " from 70000"]);
    // As often as it gets further.
    let cuts = [Fault::CutAfter(10_000); 7];
    check(
        &cuts,
        &[
            "",
            " from 10000",
            " from 20000",
            " from 30000",
            " from 40000",
            " from 50000",
            " from 60000",
            " from 70000",
        ],
    );
    check(
        &[Fault::CutAfter(70_000), Fault::IgnoreRange],
        &["", " from 70000"],
    );
    check(
        &[Fault::CutAfter(70_000), Fault::WrongPart],
        &["", " from 70000", ""],
    );
    check(&[Fault::Status(503), Fault::Status(429)], &["", "", ""]);
}

#[test]
fn a_part_of_an_earlier_run_is_used() {
    let setting = Setting::new();
    let whole = content(50_000);
    setting.server.put(A, whole.clone());
    let part = setting
        .folder
        .path()
        .join(format!("cache/archives/{}.part", Sha256Digest::of(&whole)));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, &whole[..30_000]).unwrap();
    assert_eq!(
        setting.fetch(&whole),
        (Ok(whole.clone()), vec![format!("{A} from 30000")])
    );

    // One that does not belong to it costs a second download, no more.
    let other = content(50_001);
    let part = setting
        .folder
        .path()
        .join(format!("cache/archives/{}.part", Sha256Digest::of(&other)));
    fs::write(&part, vec![0; 30_000]).unwrap();
    setting.server.put(A, other.clone());
    assert_eq!(
        setting.fetch(&other),
        (Ok(other), vec![format!("{A} from 30000"), A.to_string()])
    );
}

#[test]
fn a_damaged_file_in_the_cache_is_fetched_again() {
    let setting = Setting::new();
    let whole = content(1000);
    setting.server.put(A, whole.clone());
    setting.fetch(&whole).0.unwrap();
    let path = setting.fetcher().archive_path(&archive("a", &whole));
    fs::write(&path, b"damaged").unwrap();
    assert_eq!(setting.fetch(&whole), (Ok(whole), vec![A.to_string()]));
}

#[test]
fn each_failure_says_what_it_is() {
    let check = |served: Option<Vec<u8>>, faults: &[Fault], requests: usize, expected: &[&str]| {
        let setting = Setting::new();
        if let Some(served) = served {
            setting.server.put(A, served);
        }
        setting.server.fail(A, faults);
        let (result, found) = setting.fetch(&content(1000));
        let error = result.unwrap_err();
        for text in expected {
            assert!(error.contains(text), "expected {text:?}, got {error:?}");
        }
        assert_eq!(found.len(), requests, "{error}: {found:?}");
    };
    check(
        None,
        &[],
        1,
        &[
            "no mirror has pool/a_1.0_all.deb",
            "bulkhead lock update a-source",
        ],
    );
    let address = "cannot fetch http://127.0.0.1";
    let wrong = vec![1; 1000];
    check(
        Some(wrong.clone()),
        &[],
        2,
        &[
            "cannot download a_1.0_all.deb",
            address,
            "its SHA-256 is",
            &Sha256Digest::of(&wrong).to_string(),
        ],
    );
    check(Some(content(1001)), &[], 1, &["longer than the 1000 bytes"]);
    // Once whole, once for the rest that is not there, and so on.
    let cut = content(999);
    check(
        Some(cut),
        &[],
        4,
        &["cannot fetch", "it ends after 999 of 1000 bytes"],
    );
    check(
        Some(content(1000)),
        &[Fault::CutAfter(0); 9],
        4,
        &["cannot fetch"],
    );
    check(
        Some(content(1000)),
        &[Fault::Status(500); 9],
        4,
        &["the server answered 500"],
    );
    check(
        Some(content(1000)),
        &[Fault::Status(403); 9],
        1,
        &["the server answered 403"],
    );
}

#[test]
fn an_unreachable_mirror_is_named() {
    let setting = Setting::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let base = format!("http://127.0.0.1:{port}/debian");
    let mirrors = Mirrors::at(std::slice::from_ref(&base), "the test").unwrap();
    let error = setting
        .fetcher_of(mirrors)
        .fetch_all(&[&archive("a", b"a")])
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains(&format!("cannot fetch {base}/pool/a_1.0_all.deb")),
        "{error}"
    );
    assert!(error.to_lowercase().contains("refused"), "{error}");
}

#[test]
fn further_mirrors_are_asked() {
    let setting = Setting::new();
    let second = Server::start();
    let whole = content(1000);
    second.put(A, whole.clone());
    let mirrors = Mirrors::at(&[setting.server.base(), second.base()], "the test").unwrap();
    let wanted = archive("a", &whole);
    // Not there, and there but broken.
    for broken in [None, Some(vec![2; 1000])] {
        if let Some(broken) = broken {
            setting.server.put(A, broken);
        }
        let paths = setting
            .fetcher_of(mirrors.clone())
            .fetch_all(&[&wanted])
            .unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), whole);
        fs::remove_file(&paths[0]).unwrap();
    }
    assert_eq!(second.requests().len(), 2);
}

#[test]
fn the_dated_archive_is_the_last_resort() {
    let setting = Setting::new();
    let whole = content(1000);
    let wanted = archive("a", &whole);
    let dated = "/archive/debian/20260102T030405Z/pool/a_1.0_all.deb";
    setting.server.put(dated, whole.clone());
    let published: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let suites = BTreeMap::from([("trixie".to_string(), published)]);
    let address = setting.server.base().replace("/debian", "/archive");
    let mirrors = Mirrors::at(&[setting.server.base()], "the test")
        .unwrap()
        .with_dated_archive(&address)
        .unwrap();
    let fetcher = || {
        setting
            .fetcher_of(mirrors.clone())
            .asking_dated_archive(suites.clone())
    };

    let fetched = fetcher().fetch_present(&[&wanted]).unwrap();
    assert_eq!(fs::read(&fetched.paths[0]).unwrap(), whole);
    assert_eq!(setting.server.requests(), [A, dated]);

    // It has none, or it fails: the file counts as dropped either way, and a
    // failing one is asked only once.
    let others = [archive("b", b"b"), archive("c", b"c")];
    let dropped: Vec<&LockedArchive> = others.iter().collect();
    let fetched = fetcher().fetch_present(&dropped).unwrap();
    assert_eq!(fetched.dropped, dropped);
    assert_eq!(setting.server.requests().len(), 4);
    let dead = setting
        .fetcher_of(
            Mirrors::at(&[setting.server.base()], "the test")
                .unwrap()
                .with_dated_archive("http://127.0.0.1:1/archive")
                .unwrap(),
        )
        .asking_dated_archive(suites.clone());
    assert_eq!(dead.fetch_present(&dropped).unwrap().dropped, dropped);
    assert!(dead.dated_is_unreachable.load(Ordering::Relaxed));
}

#[test]
fn two_builds_share_a_download() {
    let setting = Setting::new();
    let whole = content(300_000);
    setting.server.put(A, whole.clone());
    let wanted = archive("a", &whole);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let paths = setting.fetcher().fetch_all(&[&wanted]).unwrap();
                assert_eq!(fs::read(&paths[0]).unwrap(), whole);
            });
        }
    });
    assert_eq!(setting.server.requests(), [A]);
}
