//! Every config file of every package, rendered from each document in
//! `tests/golden/config` and compared with the files beside it. With
//! `UPDATE_EXPECT=1` the files are written anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use config_templates::{Catalog, Os, render};
use expect_test::expect_file;
use settings::Document;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The `[[config]]` tables of all packages as the build would merge them.
fn catalog() -> Catalog {
    let mut files = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(repository().join("packages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    for folder in folders {
        let package = folder.file_name().unwrap().to_str().unwrap();
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
    let catalog = catalog();
    assert!(catalog.files.len() >= 11, "the packages' tables were found");
    let os = Os {
        variant_id: "metal-core".into(),
        version_id: "0.1.0".into(),
        arch: "x86_64".into(),
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
        let mut settings = Document::defaults();
        settings.merge(&Document::from_toml(&text).unwrap().unwrap());
        let packages = repository().join("packages");
        let rendered = render(&catalog.files, &packages, &settings, &os).unwrap();
        for file in rendered.files() {
            let path = case.join(file.file.path.trim_start_matches('/'));
            expected.insert(path.clone());
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            expect_file![path].assert_eq(&file.text);
        }
    }
    assert!(cases >= 3, "the documents were found");
    let found = all_files(&golden);
    let stale: Vec<_> = found
        .iter()
        .filter(|path| !expected.contains(*path) && path.parent() != Some(&golden))
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
