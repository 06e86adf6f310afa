//! Where the network configuration comes from, and where its units go.
//!
//! The first that is there counts: what was stored through the API, what the
//! image brings, what the kernel's command line says. Where none is, the image's
//! own unit asks for addresses on every card.

use std::path::Path;

use anyhow::{Context, Result};
use sysutil::fs::{read_limited, write_atomic};

use crate::model::Configuration;
use crate::{Faults, command_line, net_toml, networkd};

/// Written by the API, and read at the next boot.
pub const STORED: &str = "var/lib/bulkhead/net.toml";
/// Part of the image.
const IMAGE: &str = "usr/share/bulkhead/net.toml";
const COMMAND_LINE: &str = "proc/cmdline";

/// Where networkd looks for units that are made anew at each boot.
const UNITS: &str = "run/systemd/network";

/// Name or hardware address of the primary interface that is configured.
pub const PRIMARY: &str = "run/bulkhead/primary-interface";

/// Keeps `bytes` below `root` for the next boot. They are there completely or
/// not at all, also after a power cut. No bytes are kept as an empty file, which
/// stands for the default network, whatever the image says.
pub fn store(root: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    net_toml::parse(bytes)?;
    let path = root.join(STORED);
    write_atomic(&path, bytes, 0o644).map_err(StoreError::Write)
}

/// Why a configuration was not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is wrong.
    #[error(transparent)]
    Refused(#[from] Faults),
    /// The disk did not take it.
    #[error("{0:#}")]
    Write(anyhow::Error),
}

/// What holds below `root`, and from where. `None` is the default network.
pub fn choose(root: &Path) -> Result<Option<(&'static str, Configuration)>> {
    for source in [STORED, IMAGE] {
        let path = root.join(source);
        if !path.try_exists().unwrap_or(true) {
            continue;
        }
        let bytes = read_limited(&path, net_toml::SIZE_LIMIT as u64)?;
        let configuration =
            net_toml::parse(&bytes).with_context(|| format!("/{source} is not valid"))?;
        return Ok(configuration.map(|configuration| (source, configuration)));
    }
    let path = root.join(COMMAND_LINE);
    let line = read_limited(&path, net_toml::SIZE_LIMIT as u64)?;
    let configuration = command_line::parse(&String::from_utf8_lossy(&line));
    let configuration = configuration.map_err(anyhow::Error::msg)?;
    Ok(configuration.map(|configuration| (COMMAND_LINE, configuration)))
}

/// Writes the units below `root`. Returns where the configuration came from;
/// `None` if the default network holds.
pub fn apply(root: &Path) -> Result<Option<&'static str>> {
    let Some((source, configuration)) = choose(root)? else {
        return Ok(None);
    };
    let folder = root.join(UNITS);
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, text) in networkd::render(&configuration) {
        write_atomic(&folder.join(name), text.as_bytes(), 0o644)?;
    }
    let path = root.join(PRIMARY);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    let primary = configuration.primary().id.to_string();
    write_atomic(&path, primary.as_bytes(), 0o644)?;
    Ok(Some(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ONE: &str = "version = 1\n[eth0]\ndhcp4 = true\n";
    const OTHER: &str = "version = 2\n[eth1]\nstatic4 = { addresses = [\"192.0.2.7/24\"] }\n";
    const LINE: &str = "quiet netdog.default-interface=eth2:dhcp6\n";

    /// A root with those files, each if it is not `None`.
    fn root(stored: Option<&str>, image: Option<&str>, line: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for (path, text) in [(STORED, stored), (IMAGE, image), (COMMAND_LINE, Some(line))] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            if let Some(text) = text {
                fs::write(path, text).expect("file");
            }
        }
        root
    }

    fn units(root: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(root.join(UNITS)) else {
            return Vec::new();
        };
        let name = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.expect("entry").file_name();
            name.into_string().expect("text")
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_source_counts() {
        let default = "80-ethernet.network";
        for (stored, image, line, source, expected) in [
            (
                Some(ONE),
                Some(OTHER),
                LINE,
                Some(STORED),
                "10-eth0.network",
            ),
            (None, Some(OTHER), LINE, Some(IMAGE), "10-eth1.network"),
            (None, None, LINE, Some(COMMAND_LINE), "10-eth2.network"),
            (None, None, "quiet\n", None, ""),
            // Stored as empty: the default network, though others say more.
            (Some(""), Some(OTHER), LINE, None, ""),
        ] {
            let root = root(stored, image, line);
            assert_eq!(apply(root.path()).expect("valid"), source);
            match source {
                Some(_) => {
                    assert_eq!(units(root.path()), [expected, default]);
                    let primary = fs::read_to_string(root.path().join(PRIMARY)).expect("file");
                    assert_eq!(format!("10-{primary}.network"), expected);
                }
                None => assert!(units(root.path()).is_empty()),
            }
        }
    }

    #[test]
    fn a_broken_source_is_told_and_nothing_is_written() {
        for (stored, line, part) in [
            (
                Some("version = 1\n[eth0]\ndhcp = true\n"),
                LINE,
                "/var/lib/bulkhead/net.toml",
            ),
            (Some("\u{0}"), LINE, "/var/lib/bulkhead/net.toml"),
            (
                None,
                "netdog.default-interface=eth2\n",
                "netdog.default-interface=eth2",
            ),
        ] {
            let root = root(stored, None, line);
            let error = format!("{:#}", apply(root.path()).expect_err("broken"));
            assert!(error.contains(part), "{error}");
            assert!(units(root.path()).is_empty());
        }
    }

    #[test]
    fn only_what_is_valid_is_stored() {
        let root = root(None, None, "quiet\n");
        let stored = || fs::read_to_string(root.path().join(STORED)).ok();
        store(root.path(), ONE.as_bytes()).expect("valid");
        assert_eq!(stored().as_deref(), Some(ONE));
        let error = store(root.path(), b"version = 9").expect_err("wrong");
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        assert_eq!(stored().as_deref(), Some(ONE));
        store(root.path(), b"").expect("valid");
        assert_eq!(stored().as_deref(), Some(""));
    }
}
