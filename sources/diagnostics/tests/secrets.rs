//! No secret of the settings is in a support bundle, whatever has told it: the
//! settings, a config file that was rendered from it, a log.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config_templates::{Catalog, Os, render};
use diagnostics::bundle::{Host, write};
use serde_json::Value;
use settings::planted::{self, Planted};
use settings::{Document, Model, Settings};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// The `[[config]]` tables of all packages as the build would merge them.
fn catalog(packages: &Path) -> Catalog {
    let mut catalog = Catalog::default();
    for entry in fs::read_dir(packages).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(folder.join("package.toml")) else {
            continue;
        };
        let mut manifest: toml::Table = text.parse().unwrap();
        let Some(files) = manifest.remove("config") else {
            continue;
        };
        let merged = toml::Table::from_iter([("config-file".to_string(), files)]);
        let mut files: Catalog = toml::from_str(&merged.to_string()).unwrap();
        for file in &mut files.files {
            let package = folder.file_name().unwrap().to_str().unwrap();
            file.template = format!("/{package}/{}", file.template);
        }
        catalog.files.extend(files.files);
    }
    catalog
}

/// The files of a bundle.
fn unpack(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    });
    files.collect()
}

#[test]
fn nothing_planted_is_found() {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packages");
    let catalog = catalog(&packages);
    for planted in planted::all() {
        let files = bundle_of(&packages, &catalog, &planted);
        for (name, expected) in [
            ("settings.json", "a text that is to be found"),
            ("settings.json", settings::secret::INSTEAD),
            ("journal/this-boot", "a line that is to be found"),
            ("config-files/etc/motd", "a text that is to be found"),
            ("config-files/etc/network/proxy.env", "left out"),
            ("os-release", "this could not be had"),
        ] {
            let content = String::from_utf8_lossy(&files[&format!("bulkhead-logs/{name}")]);
            assert!(content.contains(expected), "{name}: {content}");
        }
        let (secret, encoded) = (&planted.secret, base64(&planted.secret));
        for (name, content) in &files {
            let content = String::from_utf8_lossy(content);
            let key = &planted.key;
            assert!(!content.contains(secret), "{name} has {secret} of {key}");
            assert!(!content.contains(&encoded), "{name} has {encoded} of {key}");
        }
    }
}

/// The bundle of a host with a secret in its settings, whose config files were all
/// rendered from them, and whose logs have said all of it, in every way.
fn bundle_of(packages: &Path, catalog: &Catalog, planted: &Planted) -> BTreeMap<String, Vec<u8>> {
    let mut settings = Document::defaults();
    let motd = "[settings]\nmotd = 'a text that is to be found'";
    settings.merge(&Document::from_toml(motd).unwrap().unwrap());
    settings.merge(&planted.settings);
    let tree = settings.to_value();
    let (_, secrets) = Settings::schema().without_secrets(&tree);

    let root = tempfile::tempdir().unwrap();
    let os = Os {
        variant_id: "metal-core".into(),
        version_id: "0.1.0".into(),
        arch: "x86_64".into(),
        cpus: 1,
        data_bytes: 0,
    };
    let mut failed = Vec::new();
    render(&catalog.files, packages, &settings, &os)
        .unwrap()
        .write(root.path(), &mut failed);
    assert!(failed.is_empty(), "{failed:?}");
    let share = root.path().join("usr/share/bulkhead");
    fs::create_dir_all(&share).unwrap();
    fs::write(
        share.join("config-files.toml"),
        toml::to_string(catalog).unwrap(),
    )
    .unwrap();

    let mut log = String::from("a line that is to be found\n");
    let whole = secrets.iter().map(|secret| match secret {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    for text in whole.chain([planted.secret.clone()]) {
        log.push_str(&format!("said {text}, or {}\n", base64(&text)));
    }
    let bundle = root.path().join(api_types::SUPPORT_BUNDLE);
    let host = Host {
        root: root.path(),
        api: &|uri| match uri {
            "/settings" => Ok(tree.to_string().into_bytes()),
            _ => Ok(log.clone().into_bytes()),
        },
        program: &|_| Ok(log.clone().into_bytes()),
    };
    write(&host, &bundle).unwrap();
    unpack(&bundle)
}

#[test]
fn a_host_without_its_api_has_a_bundle_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let bundle = root.path().join(api_types::SUPPORT_BUNDLE);
    let host = Host {
        root: root.path(),
        api: &|_| anyhow::bail!("nobody answers"),
        program: &|_| Ok(b"output".to_vec()),
    };
    write(&host, &bundle).unwrap();
    let files = unpack(&bundle);
    let settings = &files["bulkhead-logs/settings.json"];
    assert_eq!(settings, b"this could not be had: nobody answers\n");
    assert_eq!(files["bulkhead-logs/journal/this-boot"], b"output");
    // A second one replaces it, and nothing is left beside it.
    write(&host, &bundle).unwrap();
    let folder = bundle.parent().unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
}
