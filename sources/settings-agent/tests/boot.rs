//! Booting with things in the way: whatever is broken, the machine comes up.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::NoUnits;
use early_boot::Source;
use early_boot::ec2::Metadata;
use early_boot::fake::Given;
use serde_json::{Value, json};
use settings_agent::{Host, boot, layout, user_data_report};
use settings_store::{Store, files::Folder};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

fn put(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn machine() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    put(&root, "usr/lib/os-release", "VARIANT_ID=test\n");
    put(
        &root,
        layout::CONFIG_FILES,
        "[[config-file]]\nname = 'a'\npath = '/etc/a'\ntemplate = '/t/a'\nsettings = ['motd']\n\
         format = 'text'\nrestart = ['a.service']\n\
         [[config-file]]\nname = 'b'\npath = '/etc/b'\ntemplate = '/t/b'\nsettings = ['ntp']\n\
         format = 'text'\n",
    );
    put(&root, "t/a", "{{ settings.motd }}");
    put(&root, "t/b", "{{ settings.ntp.options | join(' ') }}");
    root
}

fn host(root: &TempDir) -> Host {
    Host::open(root.path(), Arc::new(NoUnits)).unwrap()
}

fn booted(root: &TempDir, user_data: &[Result<&'static str, &'static str>]) -> Store<Folder> {
    let sources: Vec<Box<dyn Source>> = user_data
        .iter()
        .map(|user_data| match user_data {
            Ok(text) => Given::new(*text),
            Err(reason) => Given::failing(reason),
        })
        .map(|given| Box::new(given) as Box<dyn Source>)
        .collect();
    boot(&host(root), &sources, &Metadata::of(root.path()))
        .unwrap()
        .store
}

fn motd(store: &Store<Folder>) -> Value {
    store.effective().to_value()["motd"].clone()
}

fn read(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

const USER_DATA: Result<&str, &str> = Ok("[settings]\nmotd = 'from user data'");

#[test]
fn a_first_boot_renders_user_data() {
    let root = machine();
    let store = booted(&root, &[USER_DATA]);
    assert_eq!(motd(&store), "from user data");
    assert_eq!(read(&root, "etc/a"), "from user data");
    assert_eq!(read(&root, "etc/b"), "iburst");
    assert!(store.user_data_done());
}

fn is_stopped(root: &TempDir) -> bool {
    root.path().join(layout::STOPPED_BY_USER_DATA).exists()
}

/// What a reboot leaves of the machine.
fn restarted(root: &TempDir) {
    fs::remove_dir_all(root.path().join("run")).unwrap();
}

#[test]
fn a_fault_that_is_skipped_costs_its_setting_alone_and_is_remembered() {
    let root = machine();
    let text = "[settings]\nmotd = 'from user data'\n[settings.ntp]\noptoins = ['x']";
    let store = booted(&root, &[Ok(text)]);
    assert_eq!(motd(&store), "from user data");
    assert_eq!(read(&root, "etc/b"), "iburst");
    assert!(store.user_data_done() && !is_stopped(&root));
    let told = "test (given): accepted in part\n  line 4: settings.ntp.optoins: unknown key; \
                did you mean settings.ntp.options? [skipped]\n";
    let report = user_data_report(root.path()).unwrap();
    assert_eq!(report.to_string(), told);

    restarted(&root);
    booted(&root, &[Ok("[settings]\nmotd = 'not looked at'")]);
    let report = user_data_report(root.path()).unwrap();
    let before = "user data was taken at an earlier boot\n";
    assert_eq!(report.to_string(), format!("{before}{told}"));
}

#[test]
fn kernel_parameters_under_secure_boot_are_a_fault_that_the_host_lives_with() {
    let root = machine();
    let variable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    put(&root, variable, "\u{6}\0\0\0\u{1}");
    let text = "[settings]\nmotd = 'from user data'\n[settings.boot]\n\
                reboot-to-reconcile = true\nkernel-parameters = { quiet = [] }";
    let store = booted(&root, &[Ok(text)]);
    assert!(store.user_data_done() && !is_stopped(&root));
    assert_eq!(
        store.layers().user.to_value(),
        json!({"motd": "from user data", "boot": {"reboot-to-reconcile": true}})
    );
    let report = user_data_report(root.path()).unwrap().to_string();
    let told = "test (given): accepted in part\n  \
                line 5: settings.boot.kernel: under Secure Boot the kernel's command line is \
                part of the signed image: build the variant with the parameter in [kernel] \
                arguments [skipped]\n";
    assert_eq!(report, told);
}

#[test]
fn what_decides_something_and_is_faulty_stops_the_boot_until_it_is_corrected() {
    for faulty in [
        Ok("[settings]\nmotd = 'x'\npki.corp.trusted = 1"),
        Ok("[settings]\nmotd = 'x'\nuser-data-policy = 'strict'\nmtod = 1"),
        Ok("no TOML"),
        Err("no such device"),
    ] {
        let root = machine();
        let store = booted(&root, &[USER_DATA, faulty]);
        assert!(is_stopped(&root), "{faulty:?}");
        assert!(!store.user_data_done());
        // Nothing of it was taken, and the API has its files all the same.
        assert_eq!(motd(&store), "Welcome to Bulkhead!");
        assert_eq!(read(&root, "etc/a"), "Welcome to Bulkhead!");
        let report = user_data_report(root.path()).unwrap();
        assert!(
            report.stopped && report.to_string().contains("[fatal]"),
            "{report}"
        );

        // The server alone is started again: the boot stays as it is.
        let store = booted(&root, &[USER_DATA]);
        assert!(is_stopped(&root) && !store.user_data_done());
        assert_eq!(user_data_report(root.path()).unwrap(), report);

        restarted(&root);
        let store = booted(&root, &[USER_DATA]);
        assert!(!is_stopped(&root) && store.user_data_done());
        assert_eq!(motd(&store), "from user data");
    }
}

#[test]
fn whoever_sets_something_on_a_stopped_machine_takes_over() {
    let root = machine();
    let mut store = booted(&root, &[Err("no such device")]);
    store
        .set("t", &json!({"motd": "by hand"}), Default::default())
        .unwrap();
    store.commit("t").unwrap();
    restarted(&root);
    let store = booted(&root, &[USER_DATA]);
    assert!(!is_stopped(&root) && store.user_data_done());
    assert_eq!(motd(&store), "by hand");
    let report = user_data_report(root.path()).unwrap();
    assert_eq!(
        report.to_string(),
        "user data was taken at an earlier boot\n"
    );
}

#[test]
fn a_store_that_is_damaged_gives_way_to_the_one_before_it() {
    let root = machine();
    let mut store = booted(&root, &[USER_DATA]);
    store
        .set("t", &json!({"motd": "changed"}), Default::default())
        .unwrap();
    store.commit("t").unwrap();
    for name in ["current", "previous"] {
        put(&root, &format!("{}/{name}", layout::STORE), "garbage");
        let store = booted(&root, &[Ok("[settings]\nmotd = 'asked again'")]);
        let expected = match name {
            "current" => "from user data",
            // Nothing is left, so this is a first boot once more.
            _ => "asked again",
        };
        assert_eq!(motd(&store), expected);
        assert_eq!(read(&root, "etc/a"), expected);
        // What is generated was stored; it is garbage again for the next round.
        put(&root, &format!("{}/current", layout::STORE), "garbage");
    }
}

#[test]
fn without_a_place_to_store_settings_the_machine_still_has_them() {
    // A file where a folder should be: it cannot be made.
    let root = machine();
    put(&root, "var/lib/bulkhead", "");
    let store = booted(&root, &[USER_DATA]);
    assert_eq!(motd(&store), "from user data");
    assert!(
        root.path()
            .join(layout::VOLATILE_STORE)
            .join("current")
            .exists()
    );

    // A folder where a file should be: it cannot be written.
    let root = machine();
    fs::create_dir_all(root.path().join(layout::STORE).join("next")).unwrap();
    let mut store = booted(&root, &[USER_DATA]);
    assert_eq!(motd(&store), "from user data");
    assert_eq!(read(&root, "etc/a"), "from user data");
    // Whoever sets something learns that it cannot be stored; once it can be,
    // nothing has been lost.
    store
        .set("t", &json!({"ntp": {"options": ["x"]}}), Default::default())
        .unwrap();
    assert!(store.commit("t").is_err());
    fs::remove_dir(root.path().join(layout::STORE).join("next")).unwrap();
    store.commit("t").unwrap();
    let store = booted(&root, &[]);
    assert_eq!(motd(&store), "from user data");
    assert_eq!(read(&root, "etc/b"), "x");
}

#[test]
fn a_template_that_fails_costs_its_file_alone() {
    let root = machine();
    put(&root, "t/a", "{{ nothing }}");
    booted(&root, &[USER_DATA]);
    assert!(!root.path().join("etc/a").exists());
    assert_eq!(read(&root, "etc/b"), "iburst");
}

#[test]
fn a_faulty_image_is_an_error() {
    for (path, text, reason) in [
        (
            layout::DEFAULTS,
            "[settings]\nmtod = 1",
            "/usr/share/bulkhead/defaults.toml: line 2: settings.mtod",
        ),
        (
            layout::CONFIG_FILES,
            "x",
            "/usr/share/bulkhead/config-files.toml: parse",
        ),
    ] {
        let root = machine();
        put(&root, path, text);
        let error = match Host::open(root.path(), Arc::new(NoUnits)) {
            Ok(_) => panic!("{path} was accepted"),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.starts_with(reason), "{error}");
    }
}
