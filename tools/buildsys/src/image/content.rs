//! Files of the image that are made from the definitions: os-release, settings
//! defaults, and the catalogue of configuration files.

use crate::manifest::{Definitions, Package, Variant};
use crate::project::Arch;
use anyhow::{Context, Result, bail};
use config_templates::Catalog;
use std::fs;
use toml::{Table, Value};

/// Folder of Bulkhead's own data in the image.
pub const SHARE: &str = "usr/share/bulkhead";

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

/// The variant's settings defaults: its files merged, later ones winning key by
/// key, as one document with a `settings` table.
pub fn settings_defaults(definitions: &Definitions, variant: &Variant) -> Result<Table> {
    let mut merged = Table::new();
    for file in &variant.manifest.variant.defaults {
        let path = definitions.variants_folder().join(file);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}, a file of defaults of the variant {}",
                path.display(),
                variant.name
            )
        })?;
        let document: Table =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        if let Some(other) = document.keys().find(|key| *key != "settings") {
            bail!(
                "{} has the table {other}: it may have none but settings",
                path.display()
            );
        }
        merge(&mut merged, document);
    }
    Ok(merged)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(there)), Value::Table(new)) => merge(there, new),
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
                    "packages/{}/package.toml: the template {:?} must lie in templates/",
                    package.name(),
                    config.template
                );
            };
            let mut file = config.clone();
            file.template = format!("/{SHARE}/templates/{}/{template}", package.name());
            catalog.files.push(file);
        }
    }
    Ok(catalog)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_defaults_win_key_by_key() {
        let mut merged: Table =
            toml::from_str("[settings]\nmotd = 'a'\n[settings.ntp]\noptions = ['x']\n")
                .expect("TOML");
        let later = toml::from_str("[settings]\nmotd = 'b'\n[settings.ntp]\ntime-servers = []\n");
        merge(&mut merged, later.expect("TOML"));
        let settings = merged["settings"].as_table().expect("table");
        assert_eq!(settings["motd"].as_str(), Some("b"));
        assert_eq!(settings["ntp"].as_table().map(Table::len), Some(2));
    }
}
