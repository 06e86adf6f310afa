//! What the store keeps, in a real folder.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Map, Value, json};
use settings::{Document, Key};
use settings_store::files::Folder;
use settings_store::{Error, Opened, Store, Strength};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

fn document(tree: Value) -> Document {
    Document::from_value(&tree).unwrap()
}

fn open(folder: &TempDir, defaults: Value) -> Store<Folder> {
    let Opened { store, complaints } = Store::open(
        Folder::new(&folder.path().join("store")).unwrap(),
        document(defaults),
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
            Document::default(),
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
