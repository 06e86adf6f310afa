//! Which files there are.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use settings::Key;
use std::collections::BTreeSet;

/// All rendered files of an image, as in `config-files.toml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Catalog {
    /// The files, in the order in which they are written.
    #[serde(default, rename = "config-file")]
    pub files: Vec<ConfigFile>,
}

/// One rendered file, as a package's manifest declares it and the image lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    /// Its name in the API.
    pub name: String,
    /// Where it lies, absolute. With `folder`, the folder that its files lie in.
    pub path: String,
    /// Where its template lies: below the package's folder in a manifest, absolute
    /// in the image.
    pub template: String,
    /// Settings that the template reads, as keys or tables of keys.
    pub settings: Vec<String>,
    /// Units that are restarted when it has changed.
    #[serde(default)]
    pub restart: Vec<String>,
    /// Units that are reloaded when it has changed, or restarted if they cannot.
    #[serde(default)]
    pub reload: Vec<String>,
    /// What the text must parse as.
    pub format: Format,
    /// What the template is written in, where that is another format: what it
    /// renders is read as this and written anew as `format`.
    #[serde(default)]
    pub from: Option<Format>,
    /// A table of settings that is laid over what the template says, key by key:
    /// the door for fields that have no setting of their own.
    #[serde(default)]
    pub overlay: Option<String>,
    /// Whether the template makes a folder of files, whose names it gives with
    /// `file(…)`. Files of that folder which it does not name are removed.
    #[serde(default)]
    pub folder: bool,
    /// Permissions, in octal.
    #[serde(default = "default_mode")]
    pub mode: String,
}

fn default_mode() -> String {
    "0644".to_string()
}

/// What a rendered text must parse as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A TOML document.
    Toml,
    /// A JSON document.
    Json,
    /// `KEY=value` lines as systemd's `EnvironmentFile=` reads them.
    Env,
    /// Lines of text, without control characters.
    Text,
    /// Anything.
    None,
}

impl Catalog {
    /// Reads `config-files.toml` and checks what it says.
    pub fn parse(text: &str) -> Result<Self> {
        let catalog: Self = toml::from_str(text).context("parse the list of config files")?;
        let mut names = BTreeSet::new();
        let mut paths = BTreeSet::new();
        for file in &catalog.files {
            file.check()
                .with_context(|| format!("config file {:?}", file.name))?;
            ensure!(
                names.insert(&file.name),
                "two config files are named {:?}",
                file.name
            );
            ensure!(
                paths.insert(&file.path),
                "two config files have the path {}",
                file.path
            );
        }
        Ok(catalog)
    }

    /// The files that read a setting which lies at, above or below one of `keys`.
    pub fn affected_by<'c>(&'c self, keys: &'c [Key]) -> impl Iterator<Item = &'c ConfigFile> {
        self.files
            .iter()
            .filter(|file| keys.iter().any(|key| file.reads(key)))
    }
}

impl ConfigFile {
    fn check(&self) -> Result<()> {
        use settings::{Model, Settings};
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !self.name.is_empty() && self.name.chars().all(plain),
            "its name is not one of lower-case letters, digits and '-'"
        );
        for path in [&self.path, &self.template] {
            ensure!(
                path.starts_with('/') && !path.split('/').any(|part| part == ".."),
                "{path:?} is not an absolute path without '..'"
            );
        }
        let schema = Settings::schema();
        for text in self.settings.iter().chain(&self.overlay) {
            let key: Key = text.parse()?;
            ensure!(schema.knows(&key), "{key} is not a setting");
        }
        let is_data = |format: Format| matches!(format, Format::Json | Format::Toml);
        if let Some(from) = self.from {
            ensure!(
                is_data(from) && is_data(self.format),
                "it is written in {from:?} and to be {:?}: only TOML and JSON can be turned into \
                 each other",
                self.format
            );
        }
        if let Some(table) = &self.overlay {
            ensure!(
                is_data(self.format) && !self.folder,
                "settings.{table} cannot be laid over it: that takes one file, in TOML or JSON"
            );
        }
        self.mode()?;
        Ok(())
    }

    /// The permissions as a number.
    pub fn mode(&self) -> Result<u32> {
        let mode = u32::from_str_radix(&self.mode, 8).ok();
        mode.filter(|mode| *mode <= 0o777).with_context(|| {
            format!(
                "mode {:?} is not an octal number up to 0777, such as \"0644\"",
                self.mode
            )
        })
    }

    /// The settings that the template reads.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        // They were checked when the catalog was read.
        self.settings.iter().filter_map(|text| text.parse().ok())
    }

    /// The table of settings that is laid over what the template says.
    pub fn overlay_key(&self) -> Option<Key> {
        self.overlay.as_ref().and_then(|text| text.parse().ok())
    }

    /// True if a change of `key` can change the file.
    pub fn reads(&self, key: &Key) -> bool {
        let mut read = self.keys().chain(self.overlay_key());
        read.any(|read| read.touches(key))
    }
}
