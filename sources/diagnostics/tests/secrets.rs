//! No secret of the settings is in a support bundle, whatever has told it: the
//! settings, a config file that was rendered from it, a log.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config_templates::{Catalog, Os, render};
use diagnostics::bundle::{Host, write};
use serde_json::Value;
use settings::{Document, Model, Schema, Settings};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// What is planted, and nobody may find.
const PLANTED: &[&str] = &[
    "planted-aws-config",
    "planted-aws-credentials",
    "planted-bootstrap-user-data",
    "planted-registry-password",
    "pl4nt3.d0b00tstrapt0ken",
    "planted-proxy-password",
];

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn server_key() -> String {
    let der = [&[0x30, 0x16][..], b"planted-key-of-kubelet"].concat();
    let der = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
}

fn settings() -> Document {
    let text = format!(
        r#"
[settings]
motd = "a text that is to be found"

[settings.aws]
config = "{}"
credentials = "{}"

[settings.bootstrap-containers.b]
user-data = "{}"

[settings.container-registry]
credentials = [{{ registry = "r.example.com", username = "u", password = "planted-registry-password" }}]

[settings.host-containers.admin]
user-data = "{}"

[settings.kubernetes]
bootstrap-token = "pl4nt3.d0b00tstrapt0ken"
server-key = "{}"

[settings.network]
https-proxy = "http://user:planted-proxy-password@proxy.example.com:3128"
"#,
        base64("[default]\nregion = planted-aws-config\n"),
        base64("[default]\naws_secret_access_key = planted-aws-credentials\n"),
        base64("planted-bootstrap-user-data"),
        base64(HOST_USER_DATA),
        base64(&server_key()),
    );
    let mut settings = Document::defaults();
    settings.merge(&Document::from_toml(&text).unwrap().unwrap());
    settings
}

const HOST_USER_DATA: &str = r#"{"ssh": {"authorized-keys": ["planted-host-user-data"]}}"#;

/// How many secrets the model knows.
fn marked(schema: &Schema) -> usize {
    match schema {
        Schema::Table { fields, others, .. } => {
            let fields = fields.iter().map(|field| match field.secret {
                true => 1,
                false => marked(&field.schema),
            });
            fields.sum::<usize>() + others.as_deref().map_or(0, marked)
        }
        Schema::Map { value, .. } => marked(value),
        Schema::List(inner) => marked(inner),
        Schema::Pair(both) | Schema::Either(both) => marked(&both.0) + marked(&both.1),
        Schema::Scalar { .. } => 0,
    }
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
    let settings = settings();
    let tree = Value::Object(settings.tree().clone());
    let schema = Settings::schema();
    let (_, secrets) = schema.without_secrets(&tree);
    assert_eq!(
        secrets.len(),
        marked(&schema),
        "every setting that is marked secret has one planted here"
    );

    // A host whose files were all rendered from them.
    let root = tempfile::tempdir().unwrap();
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packages");
    let catalog = catalog(&packages);
    let os = Os {
        variant_id: "metal-core".into(),
        version_id: "0.1.0".into(),
        arch: "x86_64".into(),
    };
    let mut failed = Vec::new();
    render(&catalog.files, &packages, &settings, &os)
        .unwrap()
        .write(root.path(), &mut failed);
    assert!(failed.is_empty(), "{failed:?}");
    let share = root.path().join("usr/share/bulkhead");
    fs::create_dir_all(&share).unwrap();
    fs::write(
        share.join("config-files.toml"),
        toml::to_string(&catalog).unwrap(),
    )
    .unwrap();

    // Logs that have said all of it, in every way.
    let mut said: Vec<String> = PLANTED.iter().map(|text| text.to_string()).collect();
    said.extend([server_key(), HOST_USER_DATA.to_string()]);
    said.extend(secrets.iter().map(|secret| match secret {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }));
    let mut log = String::from("a line that is to be found\n");
    for text in &said {
        log.push_str(&format!("said {text}, or {}\n", base64(text)));
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

    let files = unpack(&bundle);
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
    let mut hidden: Vec<String> = PLANTED.iter().map(|text| text.to_string()).collect();
    hidden.extend([HOST_USER_DATA.to_string(), server_key()]);
    hidden.extend(server_key().lines().nth(1).map(str::to_string));
    hidden.extend(
        secrets
            .iter()
            .filter_map(|secret| Some(secret.as_str()?.to_string())),
    );
    for (name, content) in &files {
        let content = String::from_utf8_lossy(content);
        for secret in &hidden {
            assert!(!content.contains(secret), "{name} has {secret}");
            let encoded = base64(secret);
            assert!(!content.contains(&encoded), "{name} has {secret} in base64");
        }
    }
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
