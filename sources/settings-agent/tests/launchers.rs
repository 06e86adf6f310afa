//! User data as launchers write it, from its bytes to rendered files.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::NoUnits;
use early_boot::check;
use early_boot::ec2::Metadata;
use early_boot::fake::Given;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use settings::{Document, Variant};
use settings_agent::{Host, boot, layout, user_data_report};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The documents by their names, without `.toml`.
fn documents() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/userdata");
    let paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// What holds after a first boot, and what is rendered from it.
fn first_boot(variant: &str, user_data: Vec<u8>) -> (Value, String, String) {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("usr/lib/os-release", &format!("VARIANT_ID={variant}\n"));
    put(
        layout::CONFIG_FILES,
        "[[config-file]]\nname = 'a'\npath = '/etc/a'\ntemplate = '/t/a'\n\
         settings = ['kubernetes']\nformat = 'text'\n",
    );
    put("t/a", "{{ settings.kubernetes | tojson }}");
    let host = Host::open(root.path(), Arc::new(NoUnits)).unwrap();
    // Nobody answers there: what a launcher leaves out is not this test's business.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let metadata = Metadata::at(vec![nowhere], false, Duration::ZERO);
    let store = boot(&host, &[Box::new(Given::new(user_data))], &metadata)
        .unwrap()
        .store;
    assert!(store.user_data_done());
    let report = user_data_report(root.path()).unwrap().to_string();
    let rendered = fs::read_to_string(root.path().join("etc/a")).unwrap();
    (store.layers().user.to_value(), report, rendered)
}

#[test]
fn user_data_of_launchers_is_taken_whole_in_every_form() {
    let documents = documents();
    assert_eq!(documents.len(), 9);
    for (name, text) in documents {
        let mut variants = vec!["aws-k8s-1.36"];
        if name.starts_with("08") || name.starts_with("09") {
            variants.push("metal-k8s-1.36-dev");
        }
        let expected = Document::from_toml(&text).unwrap().unwrap().to_value();
        for variant in variants {
            let parsed = Variant::parse(variant).unwrap();
            for bytes in [text.clone().into_bytes(), gzip(&text)] {
                let checked = check(bytes.clone(), &parsed);
                assert_eq!(checked.faults, [], "{name}");
                assert_eq!(checked.document.unwrap().to_value(), expected, "{name}");
                let (user, report, rendered) = first_boot(variant, bytes);
                assert_eq!(user, expected, "{name}");
                assert_eq!(report, "test (given): accepted\n", "{name}");
                // What holds is what was asked for, over defaults.
                let rendered: Value = serde_json::from_str(&rendered).unwrap();
                let asked = expected["kubernetes"].as_object().unwrap();
                for (key, value) in asked.iter().filter(|(_, value)| !value.is_object()) {
                    assert_eq!(&rendered[key], value, "{name}: {key}");
                }
            }
        }
    }
}

#[test]
fn a_setting_of_another_platform_is_told_and_the_cluster_is_joined_all_the_same() {
    let text = &documents()["01-karpenter-plain"];
    let with_more = format!("{text}\n[settings.autoscaling]\nshould-wait = false\n");
    let (user, report, _) = first_boot("metal-k8s-1.36", with_more.into_bytes());
    assert_eq!(user["kubernetes"]["cluster-name"], json!("orchard"));
    assert!(user.get("autoscaling").is_none());
    assert!(report.contains("settings.autoscaling: unknown key in metal-k8s-1.36"));
    assert!(report.contains("[skipped]"), "{report}");
}
