//! Units of the containers that are enabled run, and no others.

use crate::config::{Kind, name_of};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// What a unit was started with: a file for each, with the hash of its configuration.
const STARTED: &str = "/run/host-containers/started-with";
pub const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// Brings the units in line with the configuration. A container whose configuration has
/// not changed is left alone.
pub fn reconcile() -> Result<()> {
    let started = Path::new(STARTED);
    fs::create_dir_all(started).with_context(|| format!("cannot make {STARTED}"))?;
    let wanted = hashes(&Kind::Host.configuration())?;
    let known = read(started)?;
    let steps = steps(&wanted, &known);
    // Those that stop come first: another may wait for what they hold.
    let stopped = steps.stop.iter().map(|name| {
        systemctl("stop", name)?;
        let path = started.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    });
    let restarted = steps.restart.iter().map(|name| {
        systemctl("restart", name)?;
        let path = started.join(name);
        fs::write(&path, &wanted[*name]).with_context(|| format!("cannot write {}", path.display()))
    });
    all(stopped.chain(restarted))
}

/// Takes every step, also after one has failed; the error tells of all that have.
pub fn all(steps: impl Iterator<Item = Result<()>>) -> Result<()> {
    let failures = steps.filter_map(|step| step.err().map(|error| format!("{error:#}")));
    let failures: Vec<String> = failures.collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// What is to be done to units.
#[derive(Debug, PartialEq, Eq)]
struct Steps<'a> {
    stop: BTreeSet<&'a str>,
    /// Which starts those that do not run.
    restart: BTreeSet<&'a str>,
}

fn steps<'a>(
    wanted: &'a BTreeMap<String, String>,
    started: &'a BTreeMap<String, String>,
) -> Steps<'a> {
    let stop = started.keys().filter(|name| !wanted.contains_key(*name));
    let restart = wanted
        .iter()
        .filter(|(name, hash)| started.get(*name) != Some(hash));
    Steps {
        stop: stop.map(String::as_str).collect(),
        restart: restart.map(|(name, _)| name.as_str()).collect(),
    }
}

/// Names of the containers that are configured in `folder`, and hashes of what their
/// files say.
fn hashes(folder: &Path) -> Result<BTreeMap<String, String>> {
    let files = read(folder)?.into_iter();
    let containers = files.filter_map(|(file, text)| {
        Some((
            name_of(&file)?.to_string(),
            hex::encode(Sha256::digest(text)),
        ))
    });
    Ok(containers.collect())
}

/// Names and content of the files in `folder`.
pub fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let list = || format!("cannot list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.with_context(list)?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.with_context(list)?;
        let path = entry.path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    Ok(files)
}

/// Has the service manager do something to a container's unit. A start is not waited
/// for: an image may have to be pulled, and a registry to come up.
fn systemctl(verb: &str, name: &str) -> Result<()> {
    let unit = Kind::Host.unit(name);
    let mut command = Command::new(SYSTEMCTL);
    command.arg(verb).arg(&unit);
    if verb == "restart" {
        command.arg("--no-block");
    }
    tracing::info!("{verb} {unit}");
    sysutil::process::run(&mut command)
        .with_context(|| format!("{verb} {unit}"))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn only_what_changed_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("same.toml", "a"),
            ("changed.toml", "b"),
            ("new.toml", "c"),
            ("no name.toml", ""),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let wanted = hashes(folder.path()).unwrap();
        let names: Vec<&str> = wanted.keys().map(String::as_str).collect();
        assert_eq!(names, ["changed", "new", "same"]);
        let started = BTreeMap::from([
            ("same".to_string(), wanted["same"].clone()),
            ("changed".to_string(), wanted["same"].clone()),
            ("gone".to_string(), wanted["same"].clone()),
        ]);
        let expected = Steps {
            stop: BTreeSet::from(["gone"]),
            restart: BTreeSet::from(["changed", "new"]),
        };
        assert_eq!(steps(&wanted, &started), expected);
        assert!(hashes(&folder.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_step_that_fails_holds_up_no_other() {
        let mut taken = Vec::new();
        let steps = [Some("a"), None, Some("b"), None].into_iter();
        let failed = all(steps.map(|fault| {
            taken.push(fault);
            fault.map_or(Ok(()), |fault| Err(anyhow!("{fault} failed")))
        }));
        assert_eq!(failed.unwrap_err().to_string(), "a failed; b failed");
        assert_eq!(taken.len(), 4);
    }
}
