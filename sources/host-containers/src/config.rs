//! What the settings say of a container, as it was rendered.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The two kinds of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Serves the host as long as it is enabled.
    Host,
    /// Runs to its end at boot, before the host's services.
    Bootstrap,
}

impl Kind {
    /// What folders and units of the kind are called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Host => "host-containers",
            Self::Bootstrap => "bootstrap-containers",
        }
    }

    /// Where there is a file for each container that is to run, called as it and `.toml`.
    pub fn configuration(self) -> PathBuf {
        Path::new("/etc").join(self.word())
    }

    /// The unit of the container called `name`.
    pub fn unit(self, name: &str) -> String {
        format!("{}@{name}.service", self.word())
    }

    /// What the runtime knows the container called `name` by.
    pub fn id(self, name: &str) -> String {
        match self {
            Self::Host => name.to_string(),
            Self::Bootstrap => format!("boot.{name}"),
        }
    }

    /// The folder that the container called `name` has for itself, and keeps.
    pub fn folder(self, name: &str) -> PathBuf {
        Path::new("/local").join(self.word()).join(name)
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Its image; never empty.
    #[serde(default)]
    pub source: String,
    /// Of a host container: whether it may do nearly everything that the host may.
    #[serde(default)]
    pub superpowered: bool,
    /// Of a bootstrap container: whether it is set to off when it has succeeded.
    #[serde(default)]
    pub once: bool,
    /// Of a bootstrap container: whether the boot goes no further if it fails.
    #[serde(default)]
    pub essential: bool,
    /// What is run instead of what the image names.
    #[serde(default)]
    pub command: Vec<String>,
    /// What the file `user-data` in its folder holds, in base64.
    user_data: Option<String>,
}

impl Config {
    /// Reads the configuration of the container called `name`.
    pub fn read(kind: Kind, name: &str) -> Result<Self> {
        let path = path(kind, name)?;
        let read = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(&path).with_context(read)?;
        Self::parse(kind, name, &text).with_context(read)
    }

    fn parse(kind: Kind, name: &str, text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(
            !config.source.is_empty(),
            "settings.{}.{name}.source is not set, and names the image",
            kind.word()
        );
        Ok(config)
    }

    /// What the file `user-data` is to hold.
    pub fn user_data(&self) -> Result<Option<Vec<u8>>> {
        let decode = |text| STANDARD.decode(text).context("user-data is not base64");
        self.user_data.as_ref().map(decode).transpose()
    }
}

/// Where the container called `name` is described.
fn path(kind: Kind, name: &str) -> Result<PathBuf> {
    // It comes from a unit's name.
    ensure!(is_name(name), "{name:?} is not the name of a container");
    Ok(kind.configuration().join(format!("{name}.toml")))
}

/// The name of the container that the file called `file` describes.
pub fn name_of(file: &str) -> Option<&str> {
    file.strip_suffix(".toml").filter(|name| is_name(name))
}

/// Whether `name` can be a container's: it is part of paths.
fn is_name(name: &str) -> bool {
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
        let at_boot: Config =
            toml::from_str("source = 'r/b:1'\nonce = true\nessential = true").unwrap();
        assert!(at_boot.once && at_boot.essential && !at_boot.superpowered);
        assert!(toml::from_str::<Config>("source = 'a'\nenabled = true").is_err());
        let error = Config::parse(Kind::Bootstrap, "disks", "essential = true").unwrap_err();
        assert_eq!(
            error.to_string(),
            "settings.bootstrap-containers.disks.source is not set, and names the image"
        );
    }

    #[test]
    fn names_are_no_paths() {
        for bad in ["", "..", "a/b", "a.b", "a b"] {
            assert!(path(Kind::Host, bad).is_err(), "{bad:?}");
            assert_eq!(name_of(&format!("{bad}.toml")), None);
        }
        for (kind, expected) in [
            (Kind::Host, "/etc/host-containers/admin.toml"),
            (Kind::Bootstrap, "/etc/bootstrap-containers/admin.toml"),
        ] {
            assert_eq!(path(kind, "admin").unwrap(), Path::new(expected));
        }
        assert_eq!(name_of("admin.toml"), Some("admin"));
        assert_eq!(name_of("admin"), None);
    }
}
