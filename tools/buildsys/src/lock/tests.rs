use super::*;
use crate::fetch::Fetcher;
use crate::fetch::server::{Fault, Server};
use crate::fetch::tests::{CONFIG, project};
use crate::mirror::Mirrors;
use crate::progress::Progress;
use crate::project::Config;
use deb::testing::{TestKey, compress};
use std::time::Duration;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

/// One package of the test's archive: "name version suite architecture" and
/// fields such as "; needs: x".
struct Offered {
    name: String,
    version: String,
    suite: String,
    architecture: String,
    fields: String,
}

impl Offered {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
        let [name, version, suite, architecture] = words[..] else {
            panic!("{text}")
        };
        let fields = parts
            .map(|part| {
                let (field, value) = part.split_once(": ").unwrap();
                let field = if field == "needs" {
                    "Depends"
                } else {
                    "Source"
                };
                format!("{field}: {value}\n")
            })
            .collect();
        Self {
            name: name.to_string(),
            version: version.to_string(),
            suite: suite.to_string(),
            architecture: architecture.to_string(),
            fields,
        }
    }

    fn path(&self) -> String {
        format!(
            "pool/{}_{}_{}.deb",
            self.name, self.version, self.architecture
        )
    }

    fn content(&self) -> Vec<u8> {
        format!("{} {} {}", self.name, self.version, self.architecture)
            .repeat(50)
            .into_bytes()
    }

    fn stanza(&self) -> String {
        let Self {
            name,
            version,
            architecture,
            fields,
            ..
        } = self;
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n{fields}\
             Filename: {}\nSize: {}\nSHA256: {}\n\n",
            self.path(),
            self.content().len(),
            Sha256Digest::of(&self.content())
        )
    }
}

/// A project, a mirror and a key to sign its indexes with.
struct Setting {
    folder: tempfile::TempDir,
    server: Server,
    key: TestKey,
}

const MANIFEST: &str = r#"
[package]
name = "p"
description = "test"
[debian]
take = { "lib" = ["*"] }
take_x86_64 = { "kernel-amd64" = ["*"] }
follow = { "kernel-amd64" = "kernel-*-amd64" }
"#;

const FIRST: [&str; 7] = [
    "tool 1 trixie amd64; needs: helper (= 1), base; source: tools",
    "helper 1 trixie all; source: tools",
    "base 1 trixie amd64",
    "lib 1 trixie amd64",
    "lib 1 trixie arm64",
    "kernel-amd64 1 trixie amd64; needs: kernel-1.0-amd64 (= 1); source: kernel",
    "kernel-1.0-amd64 1 trixie amd64; source: kernel",
];

/// The security archive replaces both binaries of one source; the new version
/// needs something more.
const SECOND: [&str; 10] = [
    "tool 2 trixie-security amd64; needs: helper (= 2), base, extra; source: tools",
    "helper 2 trixie-security all; source: tools",
    "extra 1 trixie amd64",
    "base 1 trixie amd64",
    "base 2 trixie-security amd64",
    "lib 1 trixie amd64",
    "lib 1 trixie arm64",
    "kernel-amd64 2 trixie-security amd64; needs: kernel-2.0-amd64 (= 2); source: kernel",
    "kernel-2.0-amd64 2 trixie-security amd64; source: kernel",
    "kernel-1.0-amd64 1 trixie amd64; source: kernel",
];

impl Setting {
    fn new(packages: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("project/packages/p");
        fs::create_dir_all(&manifest).unwrap();
        fs::write(manifest.join("package.toml"), MANIFEST).unwrap();
        let key = TestKey::new(7, (NOW - 100 * DAY) as u32, 0);
        let setting = Self {
            folder,
            server: Server::start(),
            key,
        };
        setting.publish(packages, NOW - 2 * DAY);
        setting
    }

    fn project(&self) -> Project {
        project(self.folder.path())
    }

    /// Publishes exactly these packages, all suites dated `date`.
    fn publish(&self, packages: &[&str], date: i64) {
        let packages: Vec<Offered> = packages.iter().map(|text| Offered::parse(text)).collect();
        for suite in &self.project().config.debian.suites {
            let archive = if suite.ends_with("-security") {
                "debian-security"
            } else {
                "debian"
            };
            let mut files = String::new();
            for architecture in ["amd64", "arm64"] {
                let offered = packages.iter().filter(|package| {
                    package.suite == *suite
                        && [architecture, "all"].contains(&package.architecture.as_str())
                });
                let index: String = offered
                    .map(|package| {
                        self.server
                            .put(&format!("/{archive}/{}", package.path()), package.content());
                        package.stanza()
                    })
                    .collect();
                let packed = compress(index.as_bytes());
                let digest = Sha256Digest::of(&packed);
                let folder = format!("main/binary-{architecture}");
                files.push_str(&format!(
                    " {digest} {} {folder}/Packages.xz\n",
                    packed.len()
                ));
                let base = format!("/{archive}/dists/{suite}/{folder}");
                self.server
                    .put(&format!("{base}/by-hash/SHA256/{digest}"), packed);
            }
            let release = format!(
                "Codename: {suite}\nDate: {}\nValid-Until: {}\nAcquire-By-Hash: yes\n\
                 Architectures: all amd64 arm64\nNo-Support-for-Architecture-all: Packages\nSHA256:\n{files}",
                mail_date(date),
                mail_date(date + 7 * DAY)
            );
            self.put_release(suite, &release);
        }
    }

    fn put_release(&self, suite: &str, release: &str) {
        let archive = if suite.ends_with("-security") {
            "debian-security"
        } else {
            "debian"
        };
        let signed = self.key.sign(release, NOW as u32 - 60, 0);
        self.server
            .put(&format!("/{archive}/dists/{suite}/InRelease"), signed);
    }

    fn drop_file(&self, text: &str) {
        let package = Offered::parse(text);
        let archive = if package.suite.ends_with("-security") {
            "debian-security"
        } else {
            "debian"
        };
        self.server
            .remove(&format!("/{archive}/{}", package.path()));
    }

    fn sources(&self) -> Sources {
        let mirrors = Mirrors::at(&[self.server.base()], "the test").unwrap();
        let fetcher = Fetcher::from_mirrors(&self.project(), mirrors, &Progress::silent())
            .pausing(Duration::from_millis(1));
        Sources {
            fetcher,
            keyring: self.key.keyring(),
            now: Timestamp::from_unix(NOW),
        }
    }

    fn lock_all(&self) -> Result<(Lock, Vec<Change>)> {
        lock_all(&self.project(), &self.sources(), &Progress::silent())
    }

    /// Fetches everything, as a build does.
    fn fetch(&self, lock: &mut Lock, locked: bool) -> Result<Vec<Change>> {
        let wants = [
            Want::Toolchain("sdk", Arch::X86_64),
            Want::Package("lib", Arch::X86_64),
            Want::Package("lib", Arch::Aarch64),
            Want::Package("kernel-amd64", Arch::X86_64),
        ];
        let options = FetchOptions { locked };
        fetch_locked_from(
            &self.sources(),
            &self.project(),
            lock,
            &wants,
            options,
            &Progress::silent(),
        )
    }
}

fn mail_date(unix: i64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = Timestamp::from_unix(unix).to_string();
    let month = MONTHS[text[5..7].parse::<usize>().unwrap() - 1];
    format!(
        "Thu, {} {month} {} {} UTC",
        &text[8..10],
        &text[..4],
        &text[11..19]
    )
}

/// "name version suite: uses" of each archive.
fn list(lock: &Lock) -> Vec<String> {
    lock.archives
        .iter()
        .map(|archive| {
            let uses: Vec<String> = archive.uses.iter().map(Use::to_string).collect();
            let name = match &archive.stands_for {
                Some(asked) => format!("{asked}={}", archive.name),
                None => archive.name.clone(),
            };
            format!(
                "{name} {} {}: {}",
                archive.version,
                archive.suite,
                uses.join(" ")
            )
        })
        .collect()
}

fn say(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

fn text_of<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("it fails"))
}

#[test]
fn everything_asked_for_is_locked() {
    let setting = Setting::new(&FIRST);
    let (lock, changes) = setting.lock_all().unwrap();
    assert_eq!(
        list(&lock),
        [
            "base 1 trixie: sdk-x86_64",
            "helper 1 trixie: sdk-x86_64",
            "kernel-amd64=kernel-1.0-amd64 1 trixie: image-x86_64",
            "lib 1 trixie: image-x86_64",
            "lib 1 trixie: image-aarch64",
            "tool 1 trixie: sdk-x86_64",
        ]
    );
    assert!(say(&changes).contains(&"lib 1 (new) for image-x86_64, image-aarch64".to_string()));
    assert_eq!(
        Lock::load(&setting.project()).unwrap(),
        lock,
        "it reads back"
    );
    check(&setting.project(), &lock).unwrap();
    assert_eq!(
        lock.package("kernel-amd64", Arch::X86_64).unwrap().name,
        "kernel-1.0-amd64"
    );
    assert!(text_of(lock.package("kernel-amd64", Arch::Aarch64)).contains("run `bulkhead lock`"));
    let x86 = Arch::X86_64;
    assert_eq!(lock.toolchain("sdk", x86, x86).unwrap().len(), 3);
    assert!(text_of(lock.toolchain("sdk", x86, Arch::Aarch64)).contains("no toolchain sdk"));
    // Nothing moved but the date: nothing is written, nothing is said.
    setting.publish(&FIRST, NOW - DAY);
    assert_eq!(setting.lock_all().unwrap(), (lock.clone(), Vec::new()));
    assert_eq!(Lock::load(&setting.project()).unwrap(), lock);
}

/// A toolchain for images of another architecture has what the plain one has, its own
/// programs with what they depend on, and libraries of that architecture without.
#[test]
fn a_toolchain_may_have_more_for_another_architecture() {
    let mut offered = FIRST.to_vec();
    offered.extend([
        "cross 1 trixie amd64; needs: cross-base",
        "cross-base 1 trixie amd64",
        "std 2 trixie-backports arm64; needs: nothing-there-is",
        "std 2 trixie-backports amd64",
    ]);
    let setting = Setting::new(&offered);
    let mut project = setting.project();
    let table = "[toolchains.sdk.for.aarch64]\n\
                 packages = ['cross']\nforeign = ['std/trixie-backports']\n";
    project.config = Config::parse(&format!("{CONFIG}{table}")).unwrap();
    let lock = lock_all(&project, &setting.sources(), &Progress::silent())
        .unwrap()
        .0;
    check(&project, &lock).unwrap();
    let names = |target| -> Vec<String> {
        lock.toolchain("sdk", target, Arch::X86_64)
            .unwrap()
            .into_iter()
            .map(|archive| format!("{}:{}", archive.name, archive.architecture))
            .collect()
    };
    assert_eq!(
        names(Arch::X86_64),
        ["base:amd64", "helper:all", "tool:amd64"]
    );
    assert_eq!(
        names(Arch::Aarch64),
        [
            "base:amd64",
            "cross:amd64",
            "cross-base:amd64",
            "helper:all",
            "tool:amd64",
            "std:arm64",
        ]
    );
    // A lock without it is not complete.
    let before = setting.lock_all().unwrap().0;
    let lacks = text_of(check(&project, &before));
    assert!(lacks.contains("sdk-for-aarch64-x86_64"), "{lacks}");
    assert!(
        lacks.contains("std/trixie-backports for sdk-foreign-aarch64"),
        "{lacks}"
    );
}

#[test]
fn locking_anew_says_what_changed() {
    let setting = Setting::new(&FIRST);
    setting.lock_all().unwrap();
    setting.publish(&SECOND, NOW - DAY);
    let (lock, changes) = setting.lock_all().unwrap();
    assert_eq!(
        say(&changes),
        [
            "base 1 → 2 for sdk-x86_64",
            "extra 1 (new) for sdk-x86_64",
            "helper 1 → 2 for sdk-x86_64",
            "kernel-amd64 1 → 2 for image-x86_64",
            "tool 1 → 2 for sdk-x86_64",
        ]
    );
    assert_eq!(
        lock.package("kernel-amd64", Arch::X86_64).unwrap().name,
        "kernel-2.0-amd64"
    );
}

#[test]
fn one_package_moves_with_its_source_and_what_it_needs() {
    let setting = Setting::new(&FIRST);
    setting.lock_all().unwrap();
    setting.publish(&SECOND, NOW - DAY);
    let update = |name: &str| {
        lock_one(
            &setting.project(),
            &setting.sources(),
            name,
            &Progress::silent(),
        )
    };
    let (lock, changes) = update("helper").unwrap();
    assert_eq!(
        say(&changes),
        [
            "extra 1 (new) for sdk-x86_64",
            "helper 1 → 2 for sdk-x86_64",
            "tool 1 → 2 for sdk-x86_64",
        ],
        "base stays, for the version that is there will do"
    );
    let find = |name: &str| {
        lock.archives
            .iter()
            .find(|archive| archive.name == name)
            .unwrap()
    };
    let newer = Some(Timestamp::from_unix(NOW - DAY));
    assert_eq!(
        (find("tool").published, find("base").published),
        (newer, None)
    );
    assert_eq!(lock.suites["trixie-security"].unix(), NOW - 2 * DAY);
    let (_, changes) = update("kernel-amd64").unwrap();
    assert_eq!(say(&changes), ["kernel-amd64 1 → 2 for image-x86_64"]);
    assert!(text_of(update("nothing")).contains("has no package nothing"));
}

#[test]
fn others_move_along_when_versions_must_fit() {
    let setting = Setting::new(&FIRST);
    setting.lock_all().unwrap();
    let mut packages = SECOND;
    packages[0] = "tool 2 trixie-security amd64; needs: helper (= 2), base (>= 2); source: tools";
    setting.publish(&packages, NOW - DAY);
    let (_, changes) = lock_one(
        &setting.project(),
        &setting.sources(),
        "tools",
        &Progress::silent(),
    )
    .unwrap();
    assert_eq!(
        say(&changes),
        [
            "base 1 → 2 for sdk-x86_64",
            "helper 1 → 2 for sdk-x86_64",
            "tool 1 → 2 for sdk-x86_64"
        ]
    );
    // A binary package that is no more: the toolchain is worked out again.
    packages[0] = "tool 3 trixie-security amd64; needs: base; source: tools";
    packages[1] = "unrelated 1 trixie all";
    setting.publish(&packages, NOW - DAY + 1);
    let (_, changes) = lock_one(
        &setting.project(),
        &setting.sources(),
        "tools",
        &Progress::silent(),
    )
    .unwrap();
    assert_eq!(
        say(&changes),
        [
            "helper 2 (gone) for sdk-x86_64",
            "tool 2 → 3 for sdk-x86_64"
        ]
    );
}

#[test]
fn a_mirror_that_moved_on_is_followed() {
    let setting = Setting::new(&FIRST);
    let (mut lock, _) = setting.lock_all().unwrap();
    // Still there: nothing changes, though the index has moved on.
    setting.publish(&SECOND, NOW - DAY);
    assert_eq!(setting.fetch(&mut lock, true).unwrap(), []);
    // Dropped, but still in the cache.
    setting.drop_file(FIRST[0]);
    setting.drop_file(FIRST[6]);
    assert_eq!(setting.fetch(&mut lock, true).unwrap(), []);

    fs::remove_dir_all(setting.project().cache_dir()).unwrap();
    let before = fs::read_to_string(path_of(&setting.project())).unwrap();
    let error = text_of(setting.fetch(&mut lock, true));
    assert!(error.contains("no mirror has pool/"), "{error}");
    assert!(
        error.contains("run `bulkhead lock update kernel` and commit Bulkhead.lock"),
        "{error}"
    );
    assert_eq!(
        fs::read_to_string(path_of(&setting.project())).unwrap(),
        before
    );

    let changes = setting.fetch(&mut lock, false).unwrap();
    assert_eq!(
        say(&changes),
        [
            "extra 1 (new) for sdk-x86_64",
            "helper 1 → 2 for sdk-x86_64",
            "kernel-amd64 1 → 2 for image-x86_64",
            "tool 1 → 2 for sdk-x86_64",
        ]
    );
    assert_eq!(
        Lock::load(&setting.project()).unwrap(),
        lock,
        "the lock is written"
    );
    // All of it is in the cache now; the mirror is not asked again.
    setting.server.requests();
    assert_eq!(setting.fetch(&mut lock, true).unwrap(), []);
    assert_eq!(setting.server.requests(), [""; 0]);
}

#[test]
fn a_mirror_that_lacks_what_it_offers_is_named() {
    let setting = Setting::new(&FIRST);
    let (mut lock, _) = setting.lock_all().unwrap();
    setting.drop_file(FIRST[3]);
    let error = text_of(setting.fetch(&mut lock, false));
    assert!(
        error.contains("no mirror of the test has pool/lib_1_amd64.deb"),
        "{error}"
    );
    assert!(error.contains("signed index offers it"), "{error}");
}

#[test]
fn what_definitions_add_is_locked_and_the_rest_stays() {
    let setting = Setting::new(&FIRST);
    let (lock, _) = setting.lock_all().unwrap();
    setting.publish(&SECOND, NOW - DAY);
    let manifest = setting
        .folder
        .path()
        .join("project/packages/p/package.toml");
    let more = MANIFEST.replace("\"lib\" = [\"*\"]", "\"lib\" = [\"*\"], \"base\" = [\"*\"]");
    fs::write(
        &manifest,
        more.replace("take = ", "take_x86_64.base = [\"*\"]\ntake = ")
            .replace(
                "take_x86_64 = { \"kernel-amd64\" = [\"*\"] }",
                "take_x86_64.kernel-amd64 = [\"*\"]",
            )
            .replace(", \"base\" = [\"*\"]", ""),
    )
    .unwrap();
    let project = setting.project();
    let error = text_of(check(&project, &lock));
    assert!(error.contains("base for image-x86_64"), "{error}");
    assert!(
        error.contains("packages/p/package.toml asks for"),
        "{error}"
    );
    let load = |locked: bool| {
        load_complete_from(
            || Ok(setting.sources()),
            &project,
            FetchOptions { locked },
            &Progress::silent(),
        )
    };
    assert_eq!(text_of(load(true)), error);
    let newer = load(false).unwrap();
    assert_eq!(
        say(&lock.changes(&newer)),
        ["base 2 (new) for image-x86_64"],
        "the toolchain keeps its own version"
    );
    check(&project, &newer).unwrap();
}

#[test]
fn a_project_without_a_lock_gets_one_unless_it_must_not() {
    let setting = Setting::new(&FIRST);
    let project = setting.project();
    let load = |locked: bool| {
        load_complete_from(
            || Ok(setting.sources()),
            &project,
            FetchOptions { locked },
            &Progress::silent(),
        )
    };
    assert!(text_of(load(true)).contains("there is no Bulkhead.lock"));
    assert!(text_of(Lock::load(&project)).contains("run `bulkhead lock` to make it"));
    assert_eq!(load(false).unwrap().archives.len(), 6);
    assert_eq!(load(true).unwrap().archives.len(), 6);
}

#[test]
fn bad_indexes_are_refused() {
    const IN_RELEASE: &str = "/debian/dists/trixie/InRelease";
    let refused = |spoil: &dyn Fn(&Setting), expected: &[&str]| {
        let setting = Setting::new(&FIRST);
        spoil(&setting);
        let error = text_of(setting.lock_all());
        for text in expected {
            assert!(error.contains(text), "expected {text:?}, got {error:?}");
        }
        assert!(!path_of(&setting.project()).exists(), "no lock is written");
    };
    let release = "Codename: trixie\nDate: Thu, 14 Jan 2027 08:00:00 UTC\nSHA256:\n";
    refused(
        &|setting| {
            let other = TestKey::new(8, NOW as u32 - 1000, 0);
            setting
                .server
                .put(IN_RELEASE, other.sign(release, NOW as u32 - 60, 0));
        },
        &[
            "no mirror of the test gives a good index of trixie",
            IN_RELEASE,
            "no key in the keyring",
        ],
    );
    refused(
        &|setting| {
            let signed = setting.key.sign(release, NOW as u32 - 60, 0);
            let altered = String::from_utf8(signed)
                .unwrap()
                .replace("14 Jan", "15 Jan");
            setting.server.put(IN_RELEASE, altered);
        },
        &["does not match the text, so it was altered"],
    );
    refused(
        &|setting| setting.server.put(IN_RELEASE, release),
        &["carries no readable signature"],
    );
    refused(
        &|setting| setting.server.remove(IN_RELEASE),
        &["there is no http://127.0.0.1"],
    );
    refused(
        &|setting| setting.server.fail(IN_RELEASE, &[Fault::Status(403)]),
        &["the server answered 403"],
    );
    refused(
        &|setting| setting.publish(&FIRST, NOW - 8 * DAY),
        &["it was valid until 2027-01-14", "clock is wrong"],
    );
    refused(
        &|setting| setting.put_release("trixie", &release.replace("trixie", "bookworm")),
        &["it is the index of \"bookworm\", not of \"trixie\""],
    );
    refused(
        &|setting| setting.put_release("trixie", &release.replace("SHA256:\n", "SHA256:\n \n")),
        &["names no main/binary-amd64/Packages.xz"],
    );
    refused(
        &|setting| {
            // The signed index is of another index than the mirror has.
            let digest = Sha256Digest::of(b"else");
            let lines: String = ["amd64", "arm64"]
                .map(|arch| format!(" {digest} 4 main/binary-{arch}/Packages.xz\n"))
                .concat();
            setting.put_release("trixie", &format!("{release}{lines}"));
            for arch in ["amd64", "arm64"] {
                setting.server.put(
                    &format!("/debian/dists/trixie/main/binary-{arch}/Packages.xz"),
                    *b"evil",
                );
            }
        },
        &[
            "cannot download dists/trixie/main/binary-a",
            "its SHA-256 is",
        ],
    );
}

#[test]
fn a_mirror_does_not_lead_back() {
    let setting = Setting::new(&FIRST);
    setting.lock_all().unwrap();
    setting.publish(&FIRST, NOW - 3 * DAY);
    let error = text_of(setting.lock_all());
    assert!(error.contains("older than the index of"), "{error}");
    assert!(error.contains("the mirror is behind"), "{error}");
}

#[test]
fn what_cannot_be_locked_is_named() {
    let refused = |packages: &[&str], expected: &[&str]| {
        let error = text_of(Setting::new(packages).lock_all());
        for text in expected {
            assert!(error.contains(text), "expected {text:?}, got {error:?}");
        }
    };
    let without = |name: &str| -> Vec<&str> {
        FIRST
            .into_iter()
            .filter(|text| !text.starts_with(name))
            .collect()
    };
    refused(
        &without("helper "),
        &[
            "cannot lock the toolchain sdk-x86_64",
            "tool 1 depends on helper (= 1)",
        ],
    );
    refused(
        &without("lib "),
        &[
            "cannot lock lib for image-",
            "packages/p/package.toml",
            "no suite that is locked offers lib",
        ],
    );
    refused(
        &without("kernel-1.0"),
        &["kernel-1.0-amd64 (= 1), which kernel-amd64 leads to"],
    );
    let mut packages = FIRST;
    packages[5] = "kernel-amd64 1 trixie amd64; needs: lib";
    refused(
        &packages,
        &[
            "0 of the dependencies of kernel-amd64 1 match",
            "they are: lib",
        ],
    );
}

#[test]
fn the_format_is_strict() {
    let setting = Setting::new(&FIRST);
    let (lock, _) = setting.lock_all().unwrap();
    let text = lock.render().unwrap();
    assert_eq!(Lock::parse(&text).unwrap(), lock);
    assert!(!text.contains("127.0.0.1"), "no host is named");
    let refused = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from} in {text}");
        let error = text_of(Lock::parse(&text.replacen(from, to, 1)));
        assert!(
            error.contains(expected),
            "expected {expected:?}, got {error:?}"
        );
    };
    refused("format = 1", "format = 2", "its format is 2");
    refused("path = \"pool/", "path = \"../", "no relative path");
    refused("path = \"pool/", "path = \"http://x/", "no relative path");
    refused("for = [\"sdk-x86_64\"]", "for = []", "there for nothing");
    refused(
        "for = [\"sdk-x86_64\"]",
        "for = [\"sdk\"]",
        "no use of an archive",
    );
    refused(
        "for = [\"sdk-x86_64\"]",
        "for = [\"sdk-aarch64\"]",
        "cannot be for sdk-aarch64",
    );
    refused(
        "name = \"helper\"",
        "name = \"base\"",
        "base is there twice for sdk-x86_64",
    );
    refused(
        "name = \"base\"",
        "name = \"Base\"",
        "not the name of a package",
    );
    refused("size = ", "length = ", "length");
    refused("sha256 = \"", "sha256 = \"x", "not a SHA-256 digest");
}
