//! Every config file of every package, rendered and compared with what is recorded.
//! With `UPDATE_EXPECT=1` the files are written anew.
//!
//! In `tests/golden/config` lie documents for hosts without Kubernetes, and beside each
//! the files rendered from it. In `tests/golden/kubernetes` are the files of a node,
//! from documents there and from user data of `tests/compat`; what another minor
//! version of Kubernetes makes different is in a folder of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use config_templates::{Catalog, Os, render};
use expect_test::expect_file;
use settings::Document;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The packages that only a Kubernetes node has.
const OF_A_NODE: &[&str] = &["containerd", "ecr-credential-provider", "kubelet"];

/// The `[[config]]` tables of the packages that are `wanted`, as the build would merge
/// them.
fn catalog(wanted: impl Fn(&str) -> bool) -> Catalog {
    let mut files = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(repository().join("packages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    for folder in folders {
        let package = folder.file_name().unwrap().to_str().unwrap();
        if !wanted(package) {
            continue;
        }
        let Ok(text) = fs::read_to_string(folder.join("package.toml")) else {
            continue;
        };
        let manifest: toml::Table = text.parse().unwrap();
        let tables = manifest.get("config").and_then(|tables| tables.as_array());
        for table in tables.into_iter().flatten() {
            let mut table = table.as_table().unwrap().clone();
            let template = table["template"].as_str().unwrap();
            let template = format!("/{package}/{template}");
            table.insert("template".into(), template.into());
            files.push(toml::Value::Table(table));
        }
    }
    let merged = toml::Table::from_iter([("config-file".to_string(), toml::Value::Array(files))]);
    Catalog::parse(&merged.to_string()).unwrap()
}

#[test]
fn every_file_renders_as_recorded() {
    let catalog = catalog(|package| !OF_A_NODE.contains(&package));
    assert!(catalog.files.len() >= 11, "the packages' tables were found");
    let os = Os {
        variant_id: "metal-core".into(),
        version_id: "0.1.0".into(),
        arch: "x86_64".into(),
        cpus: 2,
        data_bytes: 0,
    };
    let golden = repository().join("tests/golden/config");
    let mut cases = 0;
    let mut expected = BTreeSet::new();
    for entry in fs::read_dir(&golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let case = path.with_extension("");
        let text = fs::read_to_string(&path).unwrap();
        let mut settings = Document::defaults_of("metal-core".parse().ok().as_ref());
        settings.merge(&Document::from_toml(&text).unwrap().unwrap());
        let packages = repository().join("packages");
        let rendered = render(&catalog.files, &packages, &settings, &os).unwrap();
        for file in rendered.files() {
            let path = case.join(file.path.trim_start_matches('/'));
            expected.insert(path.clone());
            check(&path, &file.text);
        }
    }
    assert!(cases >= 3, "the documents were found");
    no_others(&golden, &expected);
}

/// A document that a node's files are rendered from: where it lies below `tests`, and
/// the platform.
const NODES: &[(&str, &str)] = &[
    ("golden/kubernetes/defaults", "metal"),
    ("golden/kubernetes/everything", "aws"),
    ("golden/kubernetes/certificates", "vmware"),
    ("compat/userdata/01-karpenter-plain", "aws"),
    ("compat/userdata/02-karpenter-kubelet", "aws"),
    ("compat/userdata/05-karpenter-passthrough", "aws"),
    ("compat/userdata/06-eksctl-unmanaged", "aws"),
    ("compat/userdata/08-self-managed-tls", "metal"),
    ("compat/userdata/09-standalone", "metal"),
];

/// The minor version that is recorded in full.
const RECORDED: u32 = 36;

/// The minor versions that kubelet is built of, the one recorded in full first.
fn minors() -> Vec<u32> {
    let folders = fs::read_dir(repository().join("packages/kubelet/versions")).unwrap();
    let minors = folders.map(|folder| {
        let name = folder.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("1.").unwrap().parse().unwrap()
    });
    let mut minors: Vec<u32> = minors.collect();
    minors.sort_by_key(|minor| (*minor != RECORDED, *minor));
    assert_eq!(minors[0], RECORDED);
    minors
}

/// Defaults of the variants with Kubernetes on `platform`.
fn defaults_of_a_node(platform: &str, minor: u32) -> Document {
    let variant = format!("{platform}-k8s-1.{minor}").parse().unwrap();
    let mut defaults = Document::defaults_of(Some(&variant));
    for name in [
        "core".into(),
        "kubernetes".into(),
        format!("kubernetes-{platform}"),
    ] {
        let path = repository().join(format!("variants/shared/{name}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        defaults.merge(&Document::from_toml(&text).unwrap().unwrap());
    }
    defaults
}

#[test]
fn a_node_renders_as_recorded() {
    let mut catalog = catalog(|package| OF_A_NODE.contains(&package) || package == "host");
    // Of the host's own files, the one that Kubernetes adds to.
    catalog
        .files
        .retain(|file| file.name == "proxy-env" || !file.template.starts_with("/host/"));
    assert!(catalog.files.len() >= 10, "the packages' tables were found");
    let golden = repository().join("tests/golden/kubernetes");
    let mut expected = BTreeSet::new();
    let minors = minors();
    for (document, platform) in NODES {
        let text = repository().join(format!("tests/{document}.toml"));
        let text = fs::read_to_string(&text).expect(document);
        let document = Path::new(document);
        let case = golden.join(document.file_name().unwrap());
        let mut recorded = BTreeMap::new();
        for minor in &minors {
            let mut settings = defaults_of_a_node(platform, *minor);
            settings.merge(&Document::from_toml(&text).unwrap().unwrap_or_default());
            let os = Os {
                variant_id: format!("{platform}-k8s-1.{minor}"),
                version_id: "0.1.0".into(),
                arch: "x86_64".into(),
                cpus: 2,
                data_bytes: 0,
            };
            let packages = repository().join("packages");
            let rendered = render(&catalog.files, &packages, &settings, &os)
                .unwrap_or_else(|error| panic!("{}: {error:#}", document.display()));
            for file in rendered.files() {
                let path = if *minor == RECORDED {
                    recorded.insert(file.path.clone(), file.text.clone());
                    case.join(file.path.trim_start_matches('/'))
                } else if recorded.get(&file.path) == Some(&file.text) {
                    continue;
                } else {
                    case.join(format!("1.{minor}{}", file.path))
                };
                expected.insert(path.clone());
                check(&path, &file.text);
            }
        }
    }
    no_others(&golden, &expected);
}

/// Compares a rendered text with the golden file at `path`, or writes that.
fn check(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    expect_file![path].assert_eq(text);
}

/// The golden files below `golden` are those that templates render; documents that they
/// are rendered from lie directly in it.
fn no_others(golden: &Path, expected: &BTreeSet<PathBuf>) {
    let found = all_files(golden);
    let stale: Vec<_> = found
        .iter()
        .filter(|path| !expected.contains(*path) && path.parent() != Some(golden))
        .collect();
    assert!(stale.is_empty(), "no template renders these: {stale:?}");
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push(path);
        }
    }
    files
}
