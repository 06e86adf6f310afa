//! The user's settings of Go's downloads.
//!
//! Go is run from the toolchain, in a sandbox; what says where modules come from
//! and what vouches for them is the user's, as it is when the user runs Go.

use crate::sdk::Toolchain;
use anyhow::{Context, Result, ensure};
use sandbox::{Network, Sandbox};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Variables that say where modules come from and how they are verified. Others,
/// such as GOFLAGS, would change what is built.
const VARIABLES: [&str; 7] = [
    "GOPROXY",
    "GOSUMDB",
    "GOPRIVATE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOINSECURE",
    "GOAUTH",
];

/// Where downloads of earlier builds are seen in the sandbox.
const DOWNLOADS: &str = "/downloads";

/// What the user has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSettings {
    variables: BTreeMap<&'static str, String>,
    /// Files and folders outside of the sandbox that the settings speak of, and
    /// where Go looks for them.
    files: Vec<(PathBuf, PathBuf)>,
}

impl UserSettings {
    /// Reads what the environment says and what `go env -w` has written. Where neither
    /// says from where modules come, the Go of `base` knows its own default.
    pub fn read(base: &Toolchain) -> Result<Self> {
        let text = match settings_file(|name| env::var_os(name)) {
            None => String::new(),
            Some(path) => match fs::read_to_string(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                other => other.with_context(|| format!("cannot read Go's {}", path.display()))?,
            },
        };
        let mut settings = Self::of(&text, |name| env::var(name).ok());
        if !settings.variables.contains_key("GOPROXY") {
            settings.variables.insert("GOPROXY", default_proxy(base)?);
        }
        let home = env::var_os("HOME").map(PathBuf::from);
        let netrc = env::var_os("NETRC").map(PathBuf::from);
        if let Some(file) = netrc.or_else(|| Some(home?.join(".netrc")))
            && file.is_file()
        {
            settings.files.push((file, PathBuf::from("/tmp/.netrc")));
        }
        Ok(settings)
    }

    /// The environment's variables, then those of a file that `go env -w` wrote.
    pub(super) fn of(text: &str, environment: impl Fn(&str) -> Option<String>) -> Self {
        let written: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let variables: BTreeMap<&'static str, String> = VARIABLES
            .into_iter()
            .filter_map(|name| {
                let value = environment(name)
                    .filter(|value| !value.is_empty())
                    .or_else(|| written.get(name).map(|value| value.to_string()))?;
                Some((name, value))
            })
            .collect();
        let mut settings = Self {
            variables,
            files: Vec::new(),
        };
        let local: Vec<PathBuf> = settings
            .proxy()
            .split([',', '|'])
            .filter_map(|address| address.trim().strip_prefix("file://"))
            .map(PathBuf::from)
            .collect();
        settings
            .files
            .extend(local.into_iter().map(|path| (path.clone(), path)));
        settings
    }

    /// Where modules come from.
    pub fn proxy(&self) -> &str {
        self.variables
            .get("GOPROXY")
            .map_or("direct", String::as_str)
    }

    /// Lets `sandbox` download as the user's Go would; what lies in the folder
    /// `downloads` from earlier is not fetched again.
    pub fn apply(&self, mut sandbox: Sandbox, downloads: &Path) -> Sandbox {
        for (name, value) in &self.variables {
            sandbox = sandbox.env(name, value);
        }
        for (host, guest) in &self.files {
            if host.exists() {
                sandbox = sandbox.read_only(host, guest);
            }
        }
        sandbox
            .network(Network::Host)
            .read_only(downloads, DOWNLOADS)
            .env("GOPROXY", format!("file://{DOWNLOADS},{}", self.proxy()))
            .env("NETRC", "/tmp/.netrc")
    }
}

/// Where the Go of `base` takes modules from when nobody says anything else.
fn default_proxy(base: &Toolchain) -> Result<String> {
    let asked = base
        .sandbox()
        .env("GOENV", "off")
        .env("GOTOOLCHAIN", "local")
        .env("HOME", "/tmp")
        .command("go", ["env", "GOPROXY"])
        .output()
        .context("cannot ask Go for its default proxy")?;
    ensure!(
        asked.status.success(),
        "cannot ask Go for its default proxy: {}",
        String::from_utf8_lossy(&asked.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&asked.stdout).trim().to_string())
}

/// Lets `sandbox` take modules from the folder `downloads` alone. What is verified
/// otherwise needs no checksum database, which could not be asked.
pub fn offline(sandbox: Sandbox, downloads: &Path) -> Sandbox {
    sandbox
        .read_only(downloads, DOWNLOADS)
        .env("GOPROXY", format!("file://{DOWNLOADS}"))
        .env("GOSUMDB", "off")
}

/// The file that `go env -w` writes.
fn settings_file(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match environment("GOENV") {
        Some(file) if file == "off" => None,
        Some(file) if !file.is_empty() => Some(file.into()),
        _ => {
            let config = environment("XDG_CONFIG_HOME")
                .filter(|folder| !folder.is_empty())
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(environment("HOME")?).join(".config")))?;
            Some(config.join("go/env"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_before_what_was_written() {
        let written = "GOPROXY=https://written.example\nGOSUMDB=off\nGOFLAGS=-mod=mod\n";
        let settings = UserSettings::of(written, |name| {
            (name == "GOPROXY").then(|| "file:///srv/modules,https://set.example".to_string())
        });
        assert_eq!(settings.proxy(), "file:///srv/modules,https://set.example");
        assert_eq!(settings.variables.get("GOSUMDB").unwrap(), "off");
        assert_eq!(settings.variables.len(), 2, "{settings:?}");
        assert_eq!(
            settings.files,
            [("/srv/modules".into(), "/srv/modules".into())]
        );
        assert_eq!(UserSettings::of("", |_| None).proxy(), "direct");
    }

    #[test]
    fn where_go_keeps_settings() {
        let check = |environment: &[(&str, &str)], expected: Option<&str>| {
            let found = settings_file(|name| {
                let set = environment.iter().find(|(key, _)| *key == name);
                set.map(|(_, value)| OsString::from(value))
            });
            assert_eq!(found, expected.map(PathBuf::from));
        };
        check(&[("GOENV", "off"), ("HOME", "/h")], None);
        check(&[("GOENV", "/e"), ("HOME", "/h")], Some("/e"));
        check(&[("XDG_CONFIG_HOME", "/c")], Some("/c/go/env"));
        check(&[("HOME", "/h")], Some("/h/.config/go/env"));
        check(&[], None);
    }
}
