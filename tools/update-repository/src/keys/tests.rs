//! Folders of keys, and people who sign one after the other.

use super::source::pem;
use super::{Draft, Holders, Keys, NewKey, Progress, Role, Source, public_key};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use sysutil::time::Time;

/// What a folder holds after its first rotation.
const ROTATED: [&str; 5] = [
    "1.root.json",
    "2.root.json",
    "release.key",
    "root.json",
    "root.key",
];

struct Fixture(tempfile::TempDir);

fn fixture() -> Fixture {
    Fixture(tempfile::tempdir().unwrap())
}

fn until() -> Time {
    Time::now().plus(86_400)
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keys(&self) -> Keys {
        Keys::create(&self.path("keys"), until()).unwrap()
    }

    /// Somebody's key, which lies outside of the folder, and its public half.
    fn person(&self, name: &str) -> NewKey {
        let (private, public) = (self.path(name), self.path(&format!("{name}.pub")));
        let text = public_key(private.to_str().unwrap(), true).unwrap();
        fs::write(&public, text).unwrap();
        public.to_str().unwrap().parse().unwrap()
    }

    /// Has the root get a key of its own and somebody's, who has not signed yet.
    fn draft(&self, keys: &Keys) {
        let two = Holders::new(vec![NewKey::Drawn, self.person("ada")], 2).unwrap();
        waits(keys.replace(Role::Root, &two, until(), true).unwrap());
    }

    /// Has somebody sign a draft. Says how many signatures that gave.
    fn signs(&self, name: &str, draft: &Path, after: Option<&Path>) -> usize {
        let mut read = Draft::read(draft, after).unwrap();
        let key = Source::named(self.path(name).to_str().unwrap()).unwrap();
        let count = read.sign(&[key.signer().unwrap()]).unwrap();
        read.write(draft).unwrap();
        count
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.path("keys")).unwrap();
        let files = files.map(|file| file.unwrap());
        let named = |file: fs::DirEntry| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        };
        files.map(named).collect()
    }

    fn names(&self) -> Vec<String> {
        self.content().into_keys().collect()
    }

    fn write(&self, content: &BTreeMap<String, Vec<u8>>) {
        let folder = self.path("keys");
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        for (name, bytes) in content {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

fn waits(progress: Progress) -> Draft {
    match progress {
        Progress::Waits(draft) => *draft,
        Progress::Taken(_) => panic!("it was taken"),
    }
}

fn taken(progress: Progress) -> Keys {
    match progress {
        Progress::Taken(keys) => keys,
        Progress::Waits(draft) => panic!("it lacks {:?}", draft.lacks()),
    }
}

fn lacks(draft: &Draft) -> Vec<(u64, u64, u64)> {
    let lacks = draft.lacks().into_iter();
    lacks
        .map(|lack| (lack.of, lack.have, lack.threshold))
        .collect()
}

#[test]
fn each_role_gets_another_key() {
    for role in [Role::Root, Role::Release] {
        let fixture = fixture();
        let keys = fixture.keys();
        let before = fixture.content();
        keys.rotate(role, &Holders::default(), until()).unwrap();
        let after = fixture.content();
        assert_eq!(fixture.names(), ROTATED);
        assert_eq!(after["1.root.json"], before["root.json"]);
        assert_eq!(after["2.root.json"], after["root.json"]);
        for (name, of) in [("root.key", Role::Root), ("release.key", Role::Release)] {
            assert_eq!(after[name] != before[name], of == role, "{name}");
        }
    }
}

#[test]
fn who_fails_to_rotate_leaves_everything_as_it_was() {
    for role in [Role::Root, Role::Release] {
        let fixture = fixture();
        let keys = fixture.keys();
        fs::remove_file(fixture.path("keys/root.key")).unwrap();
        let before = fixture.content();
        let error = keys.rotate(role, &Holders::default(), until()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("is root.key there?"), "{error}");
        assert_eq!(fixture.content(), before);
        // One that is no key, or that is there and cannot be used, is named.
        fs::write(fixture.path("keys/root.key"), "?").unwrap();
        let before = fixture.content();
        let error = keys.rotate(role, &Holders::default(), until()).unwrap_err();
        assert!(format!("{error:#}").contains("keys/root.key holds no key"));
        let odd = NewKey::At("file:///nowhere/key".parse().unwrap());
        let odd = Holders::new(vec![NewKey::Drawn, odd], 1).unwrap();
        let error = keys.rotate(role, &odd, until()).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/key"), "{error:#}");
        assert_eq!(fixture.content(), before);
    }
}

#[test]
fn what_a_killed_rotation_leaves_is_finished_or_removed() {
    let fixture = fixture();
    let keys = fixture.keys();
    let before = fixture.content();
    keys.rotate(Role::Root, &Holders::default(), until())
        .unwrap();
    let after = fixture.content();

    // Before root.json was there: the old one holds, and it is done anew.
    let mut killed = before.clone();
    for (name, of) in [
        ("root.key.new", "root.key"),
        ("1.root.json", "1.root.json"),
        ("2.root.json", "2.root.json"),
    ] {
        killed.insert(name.to_string(), after[of].clone());
    }
    fixture.write(&killed);
    let keys = Keys::load(&fixture.path("keys")).unwrap();
    assert_eq!(keys.root(), before["root.json"]);
    keys.rotate(Role::Release, &Holders::default(), until())
        .unwrap();
    assert_eq!(fixture.names(), after.keys().cloned().collect::<Vec<_>>());
    assert_eq!(fixture.content()["root.key"], before["root.key"]);

    // After that: the new key gets its place.
    killed.insert("root.json".to_string(), after["root.json"].clone());
    killed.insert("draft.root.json".to_string(), after["root.json"].clone());
    fixture.write(&killed);
    Keys::load(&fixture.path("keys")).unwrap();
    assert_eq!(fixture.content(), after);
}

#[test]
fn two_of_three_people_sign_one_after_the_other() {
    let fixture = fixture();
    let people = ["ada", "bea", "cid"].map(|name| fixture.person(name));
    let root = Holders::new(people.to_vec(), 2).unwrap();
    let folder = fixture.path("keys");
    let one = Holders::default();
    // Nobody of them is here.
    let made = Keys::make(&folder, (&root, &one), until(), false);
    assert!(format!("{:#}", made.unwrap_err()).contains("0 of 2"));
    assert!(!folder.exists());
    let draft = waits(Keys::make(&folder, (&root, &one), until(), true).unwrap());
    assert_eq!(lacks(&draft), [(1, 0, 2)]);
    let path = Keys::draft_path(&folder);
    assert_eq!(fixture.names(), ["draft.root.json", "release.key.new"]);
    let error = Keys::load(&folder).unwrap_err();
    assert!(format!("{error:#}").contains("waits for signatures"));

    assert_eq!(fixture.signs("ada", &path, None), 1);
    assert_eq!(
        fixture.signs("ada", &path, None),
        0,
        "twice is no second one"
    );
    fixture.person("eve");
    assert_eq!(fixture.signs("eve", &path, None), 0, "a stranger");
    let draft = waits(Keys::sign_draft(&folder).unwrap());
    assert_eq!(lacks(&draft), [(1, 1, 2)]);
    assert_eq!(draft.lacks()[0].unsigned.len(), 2);
    assert!(Keys::load(&folder).is_err());
    fixture.signs("cid", &path, None);
    taken(Keys::sign_draft(&folder).unwrap());
    assert_eq!(fixture.names(), ["release.key", "root.json"]);

    // Two of them hand over to a single other key: both sides sign.
    let keys = Keys::load(&folder).unwrap();
    let draft = waits(keys.replace(Role::Root, &one, until(), true).unwrap());
    assert_eq!(lacks(&draft), [(1, 0, 2)]);
    let again = keys.replace(Role::Root, &one, until(), true).unwrap_err();
    assert!(format!("{again:#}").contains("waits for signatures already"));
    let root = folder.join("root.json");
    fixture.signs("bea", &path, Some(&root));
    waits(Keys::sign_draft(&folder).unwrap());
    fixture.signs("ada", &path, Some(&root));
    taken(Keys::sign_draft(&folder).unwrap());
    assert_eq!(fixture.names(), ROTATED);
}

#[test]
fn a_draft_is_given_up_with_its_keys() {
    let fixture = fixture();
    let keys = fixture.keys();
    let before = fixture.content();
    fixture.draft(&keys);
    assert_ne!(fixture.content(), before);
    assert_eq!(
        Keys::load(&fixture.path("keys")).unwrap().root(),
        keys.root()
    );
    Keys::give_up_draft(&fixture.path("keys")).unwrap();
    assert_eq!(fixture.content(), before);
    assert!(Keys::give_up_draft(&fixture.path("keys")).is_err());
}

#[test]
fn a_draft_that_was_changed_is_signed_by_nobody() {
    let fixture = fixture();
    let keys = fixture.keys();
    fixture.draft(&keys);
    let path = Keys::draft_path(&fixture.path("keys"));
    let text = fs::read_to_string(&path).unwrap();
    let root = keys.root_path();
    let signed = Draft::read(&path, Some(&root)).unwrap();
    assert_eq!(lacks(&signed), [(2, 1, 2)]);
    fs::write(&path, text.replace("\"threshold\": 2", "\"threshold\": 1")).unwrap();
    let changed = Draft::read(&path, Some(&root)).unwrap();
    assert_eq!(lacks(&changed), [(1, 0, 1), (2, 0, 1)]);
}

#[test]
fn keys_that_there_are_go_on_beside_others() {
    let fixture = fixture();
    let keys = fixture.keys();
    let path = fixture.path("keys/root.key");
    let before = fs::read(&path).unwrap();
    let mine: NewKey = path.to_str().unwrap().parse().unwrap();
    let two = Holders::new(vec![mine.clone(), NewKey::Drawn], 2).unwrap();
    let keys = keys.rotate(Role::Root, &two, until()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(fixture.names().contains(&"root-2.key".to_string()));
    // One key less: its file goes, too.
    let keys = keys
        .rotate(Role::Root, &Holders::default(), until())
        .unwrap();
    assert!(!fixture.names().contains(&"root-2.key".to_string()));
    assert_ne!(fs::read(&path).unwrap(), before);

    let there = NewKey::At(format!("file://{}", path.display()).parse().unwrap());
    let there = Holders::new(vec![there], 1).unwrap();
    let error = keys.rotate(Role::Root, &there, until()).unwrap_err();
    assert!(format!("{error:#}").contains("is in the folder itself"));
    let twice = Holders::new(vec![mine.clone(), mine], 1).unwrap();
    let error = keys.rotate(Role::Root, &twice, until()).unwrap_err();
    assert!(format!("{error:#}").contains("is there twice"), "{error:#}");
}

#[test]
fn a_key_may_lie_elsewhere() {
    let fixture = fixture();
    fixture.person("ada");
    let there = format!("file://{}", fixture.path("ada").display());
    let there = Holders::new(vec![there.parse().unwrap()], 1).unwrap();
    let one = Holders::default();
    let folder = fixture.path("keys");
    let keys = taken(Keys::make(&folder, (&there, &one), until(), false).unwrap());
    let held = fs::read_to_string(folder.join("root.key")).unwrap();
    assert!(held.starts_with("file:///"), "{held}");
    keys.rotate(Role::Release, &one, until()).unwrap();
}

#[test]
fn thresholds_can_be_met() {
    for (keys, threshold, is_good) in [
        (0, 1, true),
        (2, 2, true),
        (0, 0, false),
        (0, 2, false),
        (3, 4, false),
    ] {
        let keys = vec![NewKey::Drawn; keys];
        assert_eq!(Holders::new(keys, threshold).is_ok(), is_good);
    }
}

#[test]
fn addresses_of_keys() {
    for text in [
        "file:///media/stick/root.key",
        "aws-kms:///alias/root",
        "aws-kms://fleet/1234abcd-12ab-34cd-56ef-1234567890ab",
        "aws-kms:///arn:aws:kms:eu-south-2:111122223333:key/1234",
        "aws-ssm:///keys/root",
        "aws-ssm://fleet/keys/root",
    ] {
        let source: Source = text.parse().unwrap();
        assert_eq!(source.to_string(), text);
    }
    let read = |text: &str| text.parse::<Source>();
    assert_eq!(
        read("aws-ssm://fleet/root?kms-key-id=x").unwrap(),
        Source::Ssm {
            profile: Some("fleet".to_string()),
            parameter: "/root".to_string(),
        }
    );
    for text in [
        "file://host/x",
        "https://example.com/key",
        "aws-kms://fleet",
        "aws-kms:///",
        "aws-ssm://fleet/",
        "root.key",
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{text} is no address of a key")));
    }
}

/// The identity of a key is that of its text, and PEM has many.
#[test]
fn a_public_half_is_the_same_key_however_it_is_written() {
    let fixture = fixture();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let private = pem("PRIVATE KEY", private.as_ref());
    fs::write(fixture.path("p"), private).unwrap();
    let signer = Source::named(fixture.path("p").to_str().unwrap()).unwrap();
    let signer = signer.signer().unwrap();

    let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
    let public = pem("PUBLIC KEY", public.as_ref());
    for text in [public.clone(), public.replace('\n', "\r\n")] {
        fs::write(fixture.path("pub"), text).unwrap();
        let NewKey::Public(key) = fixture.path("pub").to_str().unwrap().parse().unwrap() else {
            panic!("it is no public half");
        };
        assert_eq!(key.key_id().unwrap(), signer.tuf_key().key_id().unwrap());
    }
}
