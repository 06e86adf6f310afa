//! What the settings say of a container, as it was rendered.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A file for each container that is enabled, called as it and `.toml`.
pub const FOLDER: &str = "/etc/host-containers";

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Its image.
    pub source: String,
    /// Whether it may do nearly everything that the host may.
    #[serde(default)]
    pub superpowered: bool,
    /// What is run instead of what the image names.
    #[serde(default)]
    pub command: Vec<String>,
    /// What the file `user-data` in its folder holds, in base64.
    user_data: Option<String>,
}

impl Config {
    /// Reads the configuration of the container called `name`.
    pub fn read(name: &str) -> Result<Self> {
        let path = path(name)?;
        let read = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(&path).with_context(read)?;
        toml::from_str(&text).with_context(read)
    }

    /// What the file `user-data` is to hold.
    pub fn user_data(&self) -> Result<Option<Vec<u8>>> {
        let decode = |text| STANDARD.decode(text).context("user-data is not base64");
        self.user_data.as_ref().map(decode).transpose()
    }
}

/// Where the container called `name` is described.
fn path(name: &str) -> Result<PathBuf> {
    // It comes from a unit's name.
    ensure!(is_name(name), "{name:?} is not the name of a container");
    Ok(Path::new(FOLDER).join(format!("{name}.toml")))
}

/// Whether `name` can be a container's: it is part of paths.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read() {
        let config: Config = toml::from_str(
            "source = 'r/admin:1'\nsuperpowered = true\ncommand = ['a']\nuser-data = 'aGk='",
        )
        .unwrap();
        assert!(config.superpowered);
        assert_eq!(config.user_data().unwrap().as_deref(), Some(&b"hi"[..]));
        let plain: Config = toml::from_str("source = 'r/control:1'").unwrap();
        assert!(!plain.superpowered && plain.command.is_empty());
        assert_eq!(plain.user_data().unwrap(), None);
        assert!(toml::from_str::<Config>("source = 'a'\nenabled = true").is_err());
    }

    #[test]
    fn names_are_no_paths() {
        for bad in ["", "..", "a/b", "a.b", "a b"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        let path = path("admin").unwrap();
        assert_eq!(path, Path::new("/etc/host-containers/admin.toml"));
    }
}
