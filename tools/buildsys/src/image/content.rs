//! Files of the image that are made from the definitions: os-release, settings
//! defaults, the schema of settings, and the catalogue of configuration files.

use crate::manifest::{Definitions, Package, Variant};
use crate::project::Arch;
use anyhow::{Context, Result, bail};
use config_templates::Catalog;
use settings::{Document, Model, Settings};
use std::fs;
use toml::{Table, Value};

/// Folder of Bulkhead's own data in the image.
pub const SHARE: &str = "usr/share/bulkhead";

/// Name of the schema of user data in an image's folder.
pub const SETTINGS_SCHEMA: &str = "settings.schema.json";

/// Name of the volume for data in an image's folder, where the variant has one.
pub const DATA_VOLUME: &str = "data.img";

/// What os-release says about the image.
pub struct Identity<'a> {
    /// Name of the variant.
    pub variant: &'a str,
    /// Release version.
    pub version: &'a str,
    /// Eight hex digits that stand for everything the image was built from.
    pub build_id: &'a str,
    /// Architecture.
    pub arch: Arch,
}

/// The text of `/usr/lib/os-release`, which the kernel image carries too.
///
/// systemd-boot orders its entries by `IMAGE_ID` and `IMAGE_VERSION`.
pub fn os_release(identity: &Identity<'_>) -> String {
    let Identity {
        variant,
        version,
        build_id,
        arch,
    } = identity;
    format!(
        "NAME=Bulkhead\n\
         ID=bulkhead\n\
         PRETTY_NAME=\"Bulkhead OS {version} ({variant})\"\n\
         VARIANT_ID={variant}\n\
         VERSION=\"{version} ({variant})\"\n\
         VERSION_ID={version}\n\
         BUILD_ID={build_id}\n\
         IMAGE_ID=bulkhead\n\
         IMAGE_VERSION={version}\n\
         ARCHITECTURE={arch}\n"
    )
}

/// What a variant says about settings.
#[derive(Debug)]
pub struct VariantSettings {
    /// Its defaults, as one document with a `settings` table.
    pub defaults: Table,
    /// The JSON Schema of user data for it.
    pub schema: Vec<u8>,
}

impl VariantSettings {
    /// Reads the variant's files of defaults, later ones winning key by key. They are
    /// checked, so that a fault is told before anything is built.
    pub fn read(definitions: &Definitions, variant: &Variant) -> Result<Self> {
        let mut defaults = Table::new();
        for file in &variant.manifest.variant.defaults {
            let path = definitions.variants_file(file);
            let text = fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}, a file of defaults of the variant {}",
                    path.display(),
                    variant.name
                )
            })?;
            let document =
                defaults_in(&text).with_context(|| format!("{} is not valid", path.display()))?;
            lay_over(&mut defaults, document);
        }
        let schema = settings_schema(variant.name.as_str(), &defaults)?;
        Ok(Self { defaults, schema })
    }
}

/// A file of defaults: settings and nothing else.
fn defaults_in(text: &str) -> Result<Table> {
    let document: Table = toml::from_str(text)?;
    if let Some(other) = document.keys().find(|key| *key != "settings") {
        bail!("it has the table {other}: it may have none but settings");
    }
    Document::from_toml(text)?;
    Ok(document)
}

/// The JSON Schema of user data for the variant `name`, with its `defaults`. A
/// variant whose name says neither platform nor orchestrator has every setting.
fn settings_schema(name: &str, defaults: &Table) -> Result<Vec<u8>> {
    let variant = settings::Variant::parse(name).ok();
    let own = Document::from_toml(&defaults.to_string())
        .with_context(|| format!("the defaults of {name} are not settings"))?
        .unwrap_or_default();
    let mut defaults = Document::defaults_of(variant.as_ref());
    let schema = match variant {
        Some(variant) => {
            let foreign = own.foreign_to(&variant);
            if !foreign.is_empty() {
                bail!("the defaults of {name} set what it does not have: {foreign}");
            }
            Settings::schema_for(&variant)
        }
        None => Settings::schema(),
    };
    defaults.merge(&own);
    let schema = schema.document_schema(&format!("User data of Bulkhead, {name}"), &defaults);
    let mut text = serde_json::to_vec_pretty(&schema).context("cannot write the schema")?;
    text.push(b'\n');
    Ok(text)
}

/// Lays one document over another: tables are merged, everything else is replaced.
pub fn lay_over(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(new)) => lay_over(there, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The catalogue of configuration files that the packages declare, with templates
/// where the image has them.
pub fn config_files(packages: &[&Package]) -> Result<Catalog> {
    let mut catalog = Catalog::default();
    for package in packages {
        for config in &package.manifest.config {
            let Some(template) = config.template.strip_prefix("templates/") else {
                bail!(
                    "{}: the template {:?} must lie in templates/",
                    package.manifest_path(),
                    config.template
                );
            };
            let mut file = config.clone();
            file.template = format!("/{SHARE}/templates/{}/{template}", package.software());
            catalog.files.push(file);
        }
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faulty_defaults_are_told_with_their_lines() {
        for (text, reason) in [
            (
                "[settings]\n\nmotdd = 'x'",
                "line 3: settings.motdd: unknown key",
            ),
            ("[settings]\nmotd = 1", "line 2: settings.motd: expected"),
            ("[other]", "it has the table other"),
            ("[settings", "TOML parse error"),
        ] {
            let error = defaults_in(text).expect_err(text);
            let told = format!("{error:#}");
            assert!(told.contains(reason), "{text}: {told}");
        }
    }

    #[test]
    fn the_schema_is_that_of_the_variant() {
        let defaults: Table = toml::from_str(
            "[settings]\nmotd = 'Hello'\n[settings.ntp]\ntime-servers = ['192.0.2.1']",
        )
        .unwrap();
        for (name, kubernetes, waits) in [
            ("aws-k8s-1.36", true, true),
            ("metal-k8s-1.36-dev", true, false),
            ("metal-core", false, false),
            ("a-name-of-ones-own", true, true),
        ] {
            let text = settings_schema(name, &defaults).unwrap();
            assert_eq!(text, settings_schema(name, &defaults).unwrap());
            let schema: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let at = |pointer: &str| {
                schema.pointer(&format!("/properties/settings/properties/{pointer}"))
            };
            assert_eq!(at("kubernetes").is_some(), kubernetes, "{name}");
            assert_eq!(at("autoscaling").is_some(), waits, "{name}");
            assert_eq!(at("motd/default").unwrap(), "Hello");
            assert_eq!(
                at("ntp/properties/time-servers/default/0").unwrap(),
                "192.0.2.1"
            );
            assert_eq!(at("ntp/properties/options/default/0").unwrap(), "iburst");
        }
        for (text, reason) in [
            (
                "[settings.autoscaling]\nshould-wait = true",
                "set what it does not have",
            ),
            ("[settings]\nmotd = 1", "are not settings"),
        ] {
            let defaults: Table = toml::from_str(text).unwrap();
            let error = settings_schema("metal-core", &defaults)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn tables_are_merged_and_all_else_replaced() {
        let table = |text: &str| -> Table { toml::from_str(text).expect("TOML") };
        let mut document = table("[a]\nx = 1\nlist = [1]\n[a.b]\ny = 2");
        let over = table("[a]\nx = 3\nlist = [2]\n[a.b]\nz = 4\n[c]\nw = 5");
        lay_over(&mut document, over);
        let expected = "[a]\nx = 3\nlist = [2]\n[a.b]\ny = 2\nz = 4\n[c]\nw = 5";
        assert_eq!(document, table(expected));
    }

    #[test]
    fn later_defaults_win_key_by_key() {
        let mut merged: Table =
            toml::from_str("[settings]\nmotd = 'a'\n[settings.ntp]\noptions = ['x']\n")
                .expect("TOML");
        let later = toml::from_str("[settings]\nmotd = 'b'\n[settings.ntp]\ntime-servers = []\n");
        lay_over(&mut merged, later.expect("TOML"));
        let settings = merged["settings"].as_table().expect("table");
        assert_eq!(settings["motd"].as_str(), Some("b"));
        assert_eq!(settings["ntp"].as_table().map(Table::len), Some(2));
    }
}
