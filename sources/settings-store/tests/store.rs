//! What the store keeps, in a real folder.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Map, Value, json};
use settings::{Document, Key};
use settings_store::files::{Files, Folder};
use settings_store::migrations::Migration;
use settings_store::{Error, Opened, Origin, Release, Store, Strength};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn document(tree: Value) -> Document {
    Document::from_value(&tree).unwrap()
}

fn release(defaults: Value) -> Release {
    Release::new(document(defaults), None)
}

fn open(folder: &TempDir, defaults: Value) -> Store<Folder> {
    let Opened { store, complaints } = Store::open(
        Folder::new(&folder.path().join("store")).unwrap(),
        release(defaults),
    );
    assert_eq!(complaints, Vec::<String>::new());
    store
}

fn set(store: &mut Store<Folder>, tree: Value) {
    store.set("t", &tree, Strength::Strong).unwrap();
    store.commit("t").unwrap();
}

fn keys(list: &[&str]) -> Vec<Key> {
    list.iter().map(|key| key.parse().unwrap()).collect()
}

#[test]
fn layers_are_kept_apart_and_defaults_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(
        &folder,
        json!({"motd": "default", "ntp": {"options": ["default"]}}),
    );
    set(&mut store, json!({"motd": "user"}));
    store
        .commit_boot(
            None,
            document(json!({"network": {"hostname": "generated"}, "motd": "generated"})),
        )
        .unwrap();
    let store = open(
        &folder,
        json!({"motd": "newer", "ntp": {"options": ["newer"]}}),
    );
    assert_eq!(
        store.effective().to_value(),
        json!({"motd": "user", "ntp": {"options": ["newer"]}, "network": {"hostname": "generated"}})
    );
    let layers = store.layers();
    assert_eq!(layers.user.to_value(), json!({"motd": "user"}));
    assert_eq!(
        layers.generated.to_value(),
        json!({"network": {"hostname": "generated"}, "motd": "generated"})
    );
    let text = fs::read_to_string(folder.path().join("store/current")).unwrap();
    assert!(
        !text.contains("default") && !text.contains("newer"),
        "{text}"
    );
}

#[test]
fn unsetting_uncovers_what_is_below() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({"motd": "default"}));
    store
        .commit_boot(None, document(json!({"motd": "generated"})))
        .unwrap();
    set(
        &mut store,
        json!({"motd": "user", "ntp": {"options": [], "time-servers": []}}),
    );
    store.unset("t", &keys(&["motd", "ntp"])).unwrap();
    assert_eq!(
        store.commit("t").unwrap(),
        keys(&["motd", "ntp.options", "ntp.time-servers"])
    );
    assert_eq!(
        open(&folder, json!({})).effective().to_value(),
        json!({"motd": "generated"})
    );
}

#[test]
fn only_the_owner_can_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    set(&mut open(&folder, json!({})), json!({"motd": "x"}));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("store")), 0o700);
    assert_eq!(mode(&folder.path().join("store/current")), 0o600);
}

#[test]
fn settings_of_another_release_are_parked_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    set(
        &mut open(&folder, json!({})),
        json!({"motd": "x", "ntp": {"options": ["a"]}}),
    );
    // A newer release stored something that this one does not know.
    rewrite(&folder, |stored| {
        stored["user"]["future"] = json!({"key": 1});
        stored["user"]["ntp"]["options"] = json!("now a text");
    });
    let reopen = || {
        Store::open(
            Folder::new(&folder.path().join("store")).unwrap(),
            Release::default(),
        )
    };
    let Opened {
        mut store,
        complaints,
    } = reopen();
    assert_eq!(store.effective().to_value(), json!({"motd": "x"}));
    assert_eq!(
        complaints,
        [
            "stored setting put aside: settings.future: unknown key",
            "stored setting put aside: settings.ntp.options: expected a list, got a string",
        ]
    );
    set(&mut store, json!({"motd": "y", "ntp": {"options": ["b"]}}));
    let stored = rewrite(&folder, |_| {});
    assert_eq!(stored["parked"]["future"], json!({"key": 1}));
    // What was set since wins over what was parked.
    let Opened { store, .. } = reopen();
    assert_eq!(
        store.effective().to_value(),
        json!({"motd": "y", "ntp": {"options": ["b"]}})
    );
}

/// Edits the stored state, checksum and all.
fn rewrite(folder: &TempDir, edit: impl FnOnce(&mut Value)) -> Value {
    use sha2::{Digest, Sha256};
    let path = folder.path().join("store/current");
    let text = fs::read_to_string(&path).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let mut stored: Value = serde_json::from_str(json).unwrap();
    edit(&mut stored);
    let json = stored.to_string();
    let digest = hex::encode(Sha256::digest(&json));
    let text = format!("bulkhead-settings 1 {} {digest}\n{json}", json.len());
    fs::write(&path, text).unwrap();
    stored
}

#[test]
fn what_a_boot_finds_out_is_stored_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({}));
    assert!(!store.user_data_done());
    let user_data = document(json!({"motd": "x"}));
    let generated = document(json!({"network": {"hostname": "g"}}));
    store
        .commit_boot(Some(&user_data), generated.clone())
        .unwrap();
    assert!(!folder.path().join("store/previous").exists(), "one step");
    let mut store = open(&folder, json!({}));
    assert!(store.user_data_done());
    assert_eq!(
        store.effective().to_value(),
        json!({"motd": "x", "network": {"hostname": "g"}})
    );
    // The next boot finds out nothing new and writes nothing.
    store.commit_boot(None, generated).unwrap();
    assert!(!folder.path().join("store/previous").exists());
}

#[test]
fn many_small_changes_do_not_add_up_to_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({}));
    let part = |n: usize, value: &str| {
        let table: Map<String, Value> = (0..4_000)
            .map(|m| (format!("k{n}-{m}"), value.into()))
            .collect();
        json!({ "kernel": { "sysctl": table } })
    };
    set(&mut store, part(0, ""));
    set(&mut store, part(1, ""));
    store.set("t", &part(2, ""), Strength::Strong).unwrap();
    let error = store.commit("t").unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(
        error.to_string().contains("at most 10000 are taken"),
        "{error}"
    );
    assert_eq!(store.drop_transaction("t").len(), 4_000);
    store
        .set("t", &part(0, &"x".repeat(300)), Strength::Strong)
        .unwrap();
    store.commit("t").unwrap();
    store
        .set("t", &part(1, &"x".repeat(300)), Strength::Strong)
        .unwrap();
    let error = store.commit("t").unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[test]
fn a_transaction_ends_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({}));
    store
        .set("t", &json!({"motd": "x"}), Strength::Strong)
        .unwrap();
    assert_eq!(store.pending().names(), ["t"]);
    drop(store);
    assert_eq!(
        open(&folder, json!({})).pending().names(),
        Vec::<String>::new()
    );
}

/// A release with migrations of its own.
fn release_with(migrations: &[Migration]) -> Release {
    Release {
        migrations: migrations.to_vec(),
        ..Release::default()
    }
}

fn reopen(folder: &TempDir, release: Release) -> (Store<Folder>, Vec<String>) {
    let files = Folder::new(&folder.path().join("store")).unwrap();
    let Opened { store, complaints } = Store::open(files, release);
    (store, complaints)
}

fn rename(from: &str, to: &str) -> Migration {
    Migration::Rename {
        from: from.into(),
        to: to.into(),
    }
}

#[test]
fn stored_settings_move_with_migrations_and_back() {
    let folder = tempfile::tempdir().unwrap();
    set(
        &mut open(&folder, json!({})),
        json!({"motd": "x", "ntp": {"options": ["a"]}}),
    );
    // A still newer release stored what this one does not know, in a table that moves.
    rewrite(&folder, |stored| {
        stored["user"]["ntp"]["future"] = json!({"key": 1});
        stored["generated"] = json!({"network": {"hostname": "h"}});
    });
    let moved = [rename("ntp", "clock"), rename("motd", "network.hostname")];
    let (mut store, complaints) = reopen(&folder, release_with(&moved));
    // The table's new name is no setting here, so all of it waits; the text is taken.
    assert_eq!(
        store.layers().user.to_value(),
        json!({"network": {"hostname": "x"}})
    );
    assert_eq!(store.layers().generated.to_value(), json!({"motd": "h"}));
    assert_eq!(
        complaints,
        ["stored setting put aside: settings.clock: unknown key",]
    );
    set(&mut store, json!({"network": {"hostname": "changed"}}));
    let stored = rewrite(&folder, |_| {});
    assert_eq!(
        stored["parked"],
        json!({"clock": {"future": {"key": 1}, "options": ["a"]}})
    );
    assert_eq!(stored["migrations"].as_array().unwrap().len(), 2);

    // The older release knows nothing of these migrations but what the file says.
    let (mut store, complaints) = reopen(&folder, release_with(&[]));
    assert_eq!(
        complaints,
        ["stored setting put aside: settings.ntp.future: unknown key"]
    );
    assert_eq!(
        store.layers().user.to_value(),
        json!({"motd": "changed", "ntp": {"options": ["a"]}})
    );
    // What was before each change has gone the same way.
    store.roll_back(1).unwrap();
    assert_eq!(
        store.layers().user.to_value(),
        json!({"motd": "x", "ntp": {"options": ["a"]}})
    );
    let stored = rewrite(&folder, |_| {});
    assert_eq!(stored["parked"], json!({"ntp": {"future": {"key": 1}}}));
    assert!(stored.get("migrations").is_none(), "{stored}");
}

#[test]
fn a_migration_of_an_unknown_kind_costs_what_it_concerns() {
    let folder = tempfile::tempdir().unwrap();
    set(&mut open(&folder, json!({})), json!({"motd": "x"}));
    rewrite(&folder, |stored| {
        stored["migrations"] = json!([{"kind": "split", "key": "ntp"}]);
        stored["user"]["ntp"] = json!({"split": true});
    });
    let (store, complaints) = reopen(&folder, Release::default());
    assert_eq!(store.effective().to_value(), json!({"motd": "x"}));
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(
        complaints[0].starts_with("1 migrations of a newer release"),
        "{complaints:?}"
    );
}

#[test]
fn settings_that_the_variant_lacks_are_refused_and_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = json!({"motd": "x", "kubernetes": {"cluster-name": "c"}});
    set(&mut open(&folder, json!({})), foreign.clone());
    let core = || Release::new(Document::default(), Some("metal-core".parse().unwrap()));
    let (mut store, complaints) = reopen(&folder, core());
    assert_eq!(store.effective().to_value(), json!({"motd": "x"}));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].contains("settings.kubernetes: unknown key in metal-core"),
        "{complaints:?}"
    );
    let error = store.set("t", &foreign, Strength::Strong).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    set(&mut store, json!({"motd": "y"}));
    let (store, _) = reopen(&folder, release(json!({})));
    assert_eq!(
        store.effective().to_value(),
        json!({"motd": "y", "kubernetes": {"cluster-name": "c"}})
    );
}

#[test]
fn history_and_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({"motd": "default"}));
    store
        .commit_boot(
            Some(&document(json!({"motd": "user data"}))),
            Document::default(),
        )
        .unwrap();
    set(
        &mut store,
        json!({"motd": "one", "ntp": {"options": ["a"]}}),
    );
    store.unset("t", &keys(&["motd"])).unwrap();
    store.commit("t").unwrap();
    let list = |store: &Store<Folder>| -> Vec<(u64, Origin, Vec<String>)> {
        let entries = store.history().entries();
        entries.map(|e| (e.id, e.origin, e.keys.clone())).collect()
    };
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(|n| n.to_string()).collect() };
    let expected = [
        (3, Origin::Api, names(&["settings.motd"])),
        (
            2,
            Origin::Api,
            names(&["settings.motd", "settings.ntp.options"]),
        ),
        (1, Origin::UserData, names(&["settings.motd"])),
    ];
    assert_eq!(list(&store), expected);
    let mut store = open(&folder, json!({"motd": "default"}));
    assert_eq!(list(&store), expected);

    let user = |store: &Store<Folder>| store.layers().user.to_value();
    for (id, expected, touched) in [
        (
            2,
            json!({"motd": "one", "ntp": {"options": ["a"]}}),
            vec!["motd"],
        ),
        (1, json!({"motd": "user data"}), vec!["motd", "ntp.options"]),
        (0, json!({}), vec!["motd"]),
        (3, json!({"ntp": {"options": ["a"]}}), vec!["ntp.options"]),
        // A return can be taken back like any change.
        (
            4,
            json!({"motd": "one", "ntp": {"options": ["a"]}}),
            vec!["motd"],
        ),
    ] {
        assert_eq!(store.roll_back(id).unwrap(), keys(&touched), "{id}");
        assert_eq!(user(&store), expected, "{id}");
    }
    // Nothing changes, so nothing is noted.
    let last = store.history().entries().next().unwrap().id;
    assert_eq!(store.roll_back(last).unwrap(), []);
    assert_eq!(store.history().entries().next().unwrap().id, last);
    for unknown in [last + 1, u64::MAX] {
        let error = store.roll_back(unknown).unwrap_err();
        assert!(
            matches!(error, Error::NoSuchChange(id) if id == unknown),
            "{error}"
        );
    }
}

#[test]
fn the_last_sixteen_changes_are_kept_and_no_more_than_fit() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder, json!({}));
    for n in 0..40 {
        set(&mut store, json!({ "motd": n.to_string() }));
    }
    let ids: Vec<u64> = store.history().entries().map(|entry| entry.id).collect();
    assert_eq!(ids, (25..=40).rev().collect::<Vec<u64>>());
    assert!(store.roll_back(23).is_err());
    store.roll_back(25).unwrap();
    assert_eq!(store.effective().to_value(), json!({"motd": "24"}));
    // Large settings leave room for fewer.
    let options = vec!["x".repeat(1000); 300];
    set(&mut store, json!({"ntp": {"options": options}}));
    for n in 0..16 {
        set(&mut store, json!({ "motd": n.to_string() }));
    }
    assert_eq!(store.history().entries().count(), 3);
    let size = fs::metadata(folder.path().join("store/current"))
        .unwrap()
        .len();
    assert!(size < 2_000_000, "{size}");
    let kept = open(&folder, json!({})).history().clone();
    assert_eq!(&kept, store.history());
}

#[test]
fn a_history_that_cannot_be_read_costs_no_setting() {
    for history in [
        json!(1),
        json!({"last": 1, "entries": [{}]}),
        json!({"last": 0, "entries": [{"id": 0, "time": null, "origin": "api", "keys": [], "before": "{}"}]}),
        json!({"last": 9, "entries": [{"id": 7, "time": null, "origin": "api", "keys": [], "before": "{}"}]}),
    ] {
        let folder = tempfile::tempdir().unwrap();
        set(&mut open(&folder, json!({})), json!({"motd": "x"}));
        rewrite(&folder, |stored| stored["history"] = history);
        let (mut store, complaints) = reopen(&folder, Release::default());
        assert_eq!(store.effective().to_value(), json!({"motd": "x"}));
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with("the history of settings cannot be used: "));
        set(&mut store, json!({"motd": "y"}));
        assert_eq!(store.history().entries().count(), 1);
    }
}

#[test]
fn what_a_release_without_a_history_stored_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    set(&mut open(&folder, json!({})), json!({"motd": "x"}));
    rewrite(&folder, |stored| {
        let stored = stored.as_object_mut().unwrap();
        stored.remove("history");
    });
    let mut store = open(&folder, json!({}));
    set(&mut store, json!({"motd": "y"}));
    // Before the first change that is known, there was something.
    store.roll_back(0).unwrap();
    assert_eq!(store.effective().to_value(), json!({"motd": "x"}));
}

#[test]
fn changes_have_no_time_before_the_clock_is_set() {
    type Clock = fn() -> SystemTime;
    let clocks: [(Clock, Option<u64>); 3] = [
        (|| SystemTime::UNIX_EPOCH + Duration::from_secs(5), None),
        (|| SystemTime::UNIX_EPOCH - Duration::from_secs(5), None),
        (
            || SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000),
            Some(1_764_000_000),
        ),
    ];
    for (clock, expected) in clocks {
        let folder = tempfile::tempdir().unwrap();
        let files = Folder::new(&folder.path().join("store")).unwrap();
        let mut store = Store::open_with_clock(files, Release::default(), clock).store;
        set(&mut store, json!({"motd": "x"}));
        let entry = store.history().entries().next().unwrap().clone();
        assert_eq!(entry.time, expected);
    }
}

/// A folder in which something cannot be done.
struct Ailing {
    folder: Folder,
    ailment: &'static str,
}

impl Ailing {
    fn step(&self, ailment: &str, error: std::io::ErrorKind) -> std::io::Result<()> {
        if self.ailment == ailment {
            return Err(error.into());
        }
        Ok(())
    }
}

impl Files for Ailing {
    fn read(&self, name: &str, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        self.step("unreadable", std::io::ErrorKind::InvalidData)?;
        self.folder.read(name, limit)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.step("read-only", std::io::ErrorKind::ReadOnlyFilesystem)?;
        if self.ailment == "full" {
            // What fits is there.
            self.folder.write(name, &bytes[..bytes.len() / 2])?;
        }
        self.step("full", std::io::ErrorKind::StorageFull)?;
        self.folder.write(name, bytes)
    }

    fn sync(&self, name: &str) -> std::io::Result<()> {
        self.folder.sync(name)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.folder.rename(from, to)
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        self.folder.sync_folder()
    }
}

#[test]
fn an_ailing_disk_is_told_and_lived_with() {
    for (ailment, told, stored) in [
        ("read-only", "read-only filesystem or storage medium", "old"),
        ("full", "no storage space", "old"),
        ("unreadable", "", "new"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        set(&mut open(&folder, json!({})), json!({"motd": "old"}));
        let files = Ailing {
            folder: Folder::new(&folder.path().join("store")).unwrap(),
            ailment,
        };
        let Opened {
            mut store,
            complaints,
        } = Store::open(files, Release::default());
        let unreadable = ailment == "unreadable";
        assert_eq!(complaints.is_empty(), !unreadable, "{complaints:?}");
        let before = store.effective().to_value();
        assert_eq!(before == json!({}), unreadable);
        store
            .set("t", &json!({"motd": "new"}), Strength::Strong)
            .unwrap();
        match store.commit("t") {
            Ok(_) => assert!(unreadable),
            Err(error) => {
                assert_eq!(error.to_string(), "cannot store the settings");
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(cause.contains(told), "{cause}");
                assert_eq!(store.effective().to_value(), before);
                // What a boot finds out holds until the next one.
                let found = document(json!({"network": {"hostname": "h"}}));
                store.commit_boot(None, found).unwrap_err();
                assert_eq!(store.effective().to_value()["network"]["hostname"], "h");
            }
        }
        drop(store);
        let (store, _) = reopen(&folder, Release::default());
        assert_eq!(
            store.effective().to_value(),
            json!({"motd": stored}),
            "{ailment}"
        );
    }
}
