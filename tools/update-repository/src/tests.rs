//! Two releases, made, extended and read again as a client does.

use crate::{
    Holders, Keys, MANIFEST, NewKey, Release, Repository, Role, repository::url, wait_for,
};
use std::fs;
use std::path::Path;
use sysutil::time::Time;
use tough::{FilesystemTransport, IntoVec, RepositoryLoader, TargetName};
use update_metadata::{Manifest, Version, Waves};

struct Fixture {
    folder: tempfile::TempDir,
    keys: Keys,
    repository: Repository,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::create(&folder.path().join("keys"), Time::now().plus(86_400)).unwrap();
    let repository = Repository::new(&folder.path().join("repository"), "v", "x86_64");
    Fixture {
        folder,
        keys,
        repository,
    }
}

impl Fixture {
    fn release(&self, version: &str) -> Release {
        let file = |what: &str| {
            let path = self.folder.path().join(what);
            fs::write(&path, format!("{what} {version}")).unwrap();
            path
        };
        Release {
            version: version.to_string().try_into().unwrap(),
            root_hash: "00".repeat(32),
            waves: Waves::default(),
            boot: file("boot"),
            root: file("root"),
            hash: file("hash"),
        }
    }

    /// Names of all targets' files.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = (fs::read_dir(self.repository.targets()).unwrap())
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn load(&self, keys: &Keys) -> anyhow::Result<(Manifest, Vec<Vec<u8>>, u64)> {
        let (metadata, targets) = (self.repository.metadata(), self.repository.targets());
        let root = keys.root();
        wait_for(async {
            let loaded = RepositoryLoader::new(&root, url(&metadata)?, url(&targets)?)
                .transport(FilesystemTransport)
                .load()
                .await?;
            let read = async |name: &str| {
                let target = loaded.read_target(&TargetName::new(name)?).await?.unwrap();
                anyhow::Ok(target.into_vec().await?)
            };
            let manifest = Manifest::parse(&read(MANIFEST).await?)?;
            let mut contents = Vec::new();
            for update in manifest.updates() {
                contents.push(read(update.images.root.as_str()).await?);
            }
            let version = loaded.timestamp().signed.version.get();
            Ok((manifest, contents, version))
        })
    }
}

fn version(text: &str) -> Version {
    text.to_string().try_into().unwrap()
}

#[test]
fn releases_are_added_and_recalled() {
    let fixture = fixture();
    let (keys, repository) = (&fixture.keys, &fixture.repository);
    repository.add(keys, &fixture.release("1.0.0")).unwrap();
    repository.add(keys, &fixture.release("1.1.0")).unwrap();
    let (manifest, contents, first) = fixture.load(keys).unwrap();
    assert_eq!(contents, [b"root 1.0.0", b"root 1.1.0"]);
    let limits = |manifest: &Manifest| {
        let limit = |update: &update_metadata::Update| update.max_version.to_string();
        manifest.updates().iter().map(limit).collect::<Vec<_>>()
    };
    assert_eq!(limits(&manifest), ["1.1.0", "1.1.0"]);

    repository.limit(keys, &version("1.0.0")).unwrap();
    repository.refresh(keys).unwrap();
    let (manifest, _, last) = fixture.load(keys).unwrap();
    assert_eq!(limits(&manifest), ["1.0.0", "1.0.0"]);
    assert!(
        last >= first + 2,
        "a version for each state: {first}, {last}"
    );
}

#[test]
fn a_version_is_released_once() {
    let fixture = fixture();
    let (keys, repository) = (&fixture.keys, &fixture.repository);
    repository.add(keys, &fixture.release("1.0.0")).unwrap();
    let files = fixture.files();
    let error = (repository.add(keys, &fixture.release("1.0.0"))).unwrap_err();
    assert!(format!("{error:#}").contains("1.0.0"), "{error:#}");
    assert_eq!(fixture.files(), files);
    fixture.load(keys).unwrap();
}

#[test]
fn other_keys_neither_read_nor_extend() {
    let fixture = fixture();
    let repository = &fixture.repository;
    repository
        .add(&fixture.keys, &fixture.release("1.0.0"))
        .unwrap();
    let others = fixture.folder.path().join("others");
    let others = Keys::create(&others, Time::now().plus(86_400)).unwrap();
    assert!(fixture.load(&others).is_err());
    assert!(repository.add(&others, &fixture.release("1.1.0")).is_err());
    fixture.load(&fixture.keys).unwrap();
}

#[test]
fn as_many_keys_sign_releases_as_have_to() {
    for (threshold, without_one) in [(1, true), (2, false)] {
        let fixture = fixture();
        let repository = &fixture.repository;
        let two = Holders::new(vec![NewKey::Drawn, NewKey::Drawn], threshold).unwrap();
        let expires = Time::now().plus(86_400);
        let keys = fixture.keys.rotate(Role::Release, &two, expires).unwrap();
        repository.add(&keys, &fixture.release("1.0.0")).unwrap();
        fixture.load(&keys).unwrap();
        let second = keys.root_path().with_file_name("release-2.key");
        fs::write(&second, "?").unwrap();
        match repository.add(&keys, &fixture.release("1.1.0")) {
            Ok(()) => assert!(without_one),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!without_one, "{error}");
                let parts = [
                    "signatures of 2 keys",
                    "1 of them",
                    "release-2.key holds no key",
                ];
                assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            }
        }
        fixture.load(&keys).unwrap();
    }
}

#[test]
fn keys_are_never_overwritten() {
    let fixture = fixture();
    let folder = fixture.keys.root_path();
    let folder = folder.parent().unwrap_or(Path::new(""));
    assert!(Keys::create(folder, Time::now()).is_err());
    let again = Keys::load_or_create(folder, Time::now()).unwrap();
    assert_eq!(again.root(), fixture.keys.root());
}

#[test]
fn a_recall_wants_a_release() {
    let fixture = fixture();
    let error = (fixture.repository).limit(&fixture.keys, &version("1.0.0"));
    assert!(format!("{:#}", error.unwrap_err()).contains("no release of v"));
}
