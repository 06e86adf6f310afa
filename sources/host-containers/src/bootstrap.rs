//! Bootstrap containers: each runs to its end once in a boot, before the host's services.
//!
//! All of them run at the same time. What one mounts below certain folders is mounted on
//! the host. One with `once` is set to off by the API when it has succeeded; an essential
//! one that fails ends the boot here, behind the API.

use crate::config::{Config, Kind, name_of};
use crate::reconcile::{SYSTEMCTL, read};
use crate::run::{End, run};
use crate::spec::BOOTSTRAP_SHARED;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use sysutil::console;
use sysutil::fs::mount_points;
use sysutil::sys::{selinux_label, set_selinux_label};

const APICLIENT: &str = "/usr/bin/apiclient";
/// Where there is a file for each container that was started in this boot, which its unit
/// looks for.
const STARTED: &str = "/run/bootstrap-containers";
/// What the root of a new file system has for a label.
const NO_LABEL: &str = "system_u:object_r:unlabeled_t:s0";

/// Runs all that are configured, and waits for their ends.
pub fn run_all() -> Result<()> {
    let kind = Kind::Bootstrap;
    let files = read(&kind.configuration())?;
    let names: Vec<&str> = files.keys().filter_map(|file| name_of(file)).collect();
    let failed: Vec<&str> = thread::scope(|scope| {
        let started: Vec<_> = names
            .iter()
            .map(|name| (name, scope.spawn(move || start(&kind.unit(name)))))
            .collect();
        let ended = started.into_iter().filter_map(|(name, start)| {
            // A thread that has panicked has started nothing that could be relied upon.
            let result = start.join().ok();
            (!matches!(result, Some(Ok(())))).then_some(*name)
        });
        ended.collect()
    });
    let mut essential = Vec::new();
    for name in failed {
        // What cannot be read may be essential.
        if Config::read(kind, name).map_or(true, |config| config.essential) {
            essential.push(name);
        }
    }
    if !essential.is_empty() {
        let what = format!(
            "bootstrap containers that are essential have failed: {}; the boot goes no further",
            essential.join(", ")
        );
        console::say(&what);
        bail!("{what}");
    }
    Ok(())
}

/// Starts a container's unit, and waits until it has ended.
fn start(unit: &str) -> Result<()> {
    sysutil::process::run(Command::new(SYSTEMCTL).args(["start", unit])).map(drop)
}

/// Runs the container called `name`, as its unit does.
pub fn run_one(name: &str) -> Result<()> {
    let result = run_to_its_end(name);
    if let Err(error) = &result {
        console::say(&format!("bootstrap container {name}: {error:#}"));
    }
    result
}

fn run_to_its_end(name: &str) -> Result<()> {
    let config = Config::read(Kind::Bootstrap, name)?;
    mark_started(name)?;
    let covered = labels(&BOOTSTRAP_SHARED.map(Path::new))?;
    match run(Kind::Bootstrap, name, &config)? {
        End::Done => {}
        End::Asked => bail!("it was asked to end before it was done"),
    }
    label_mounts(&covered)?;
    if config.once {
        let off = format!("settings.bootstrap-containers.{name}.mode=off");
        sysutil::process::run(Command::new(APICLIENT).args(["set", &off]))
            .context("it succeeded, but could not be set to off")?;
    }
    Ok(())
}

/// Neither success nor failure is tried again in this boot.
fn mark_started(name: &str) -> Result<()> {
    let path = Path::new(STARTED).join(format!("{name}.ran"));
    fs::create_dir_all(STARTED)
        .and_then(|()| File::create(&path))
        .with_context(|| format!("cannot make {}", path.display()))
        .map(drop)
}

/// The labels of folders.
fn labels(folders: &[&Path]) -> Result<BTreeMap<PathBuf, String>> {
    let mut labels = BTreeMap::new();
    for folder in folders {
        if let Some(label) = selinux_label(folder)? {
            labels.insert(folder.to_path_buf(), label);
        }
    }
    Ok(labels)
}

/// Gives what a container has mounted the label of what it covers: new file systems have
/// none, and nothing that is confined could use them.
fn label_mounts(covered: &BTreeMap<PathBuf, String>) -> Result<()> {
    // Those on top of others come behind them.
    for point in mount_points(Path::new("/proc/self/mountinfo"))? {
        let own = selinux_label(&point).ok().flatten();
        let above = point.parent().and_then(|above| selinux_label(above).ok()?);
        if let Some(label) = label_for(&point, own.as_deref(), covered, above.as_deref()) {
            tracing::info!("labelling {}: {label}", point.display());
            set_selinux_label(&point, label)?;
        }
    }
    Ok(())
}

/// The label that what is mounted at `point` is to get, if it is to get one: it has `own`,
/// and the folder that it is in has `above`.
fn label_for<'a>(
    point: &Path,
    own: Option<&str>,
    covered: &'a BTreeMap<PathBuf, String>,
    above: Option<&'a str>,
) -> Option<&'a str> {
    let own = own?;
    if let Some(label) = covered.get(point) {
        return (own != label).then_some(label);
    }
    let is_below = covered.keys().any(|folder| point.starts_with(folder));
    above.filter(|_| is_below && own == NO_LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_gets_the_label_of_what_it_covers() {
        let data = "system_u:object_r:var_t:s0";
        let pods = "system_u:object_r:kubelet_data_t:s0";
        let covered = BTreeMap::from([
            (PathBuf::from("/mnt"), data.to_string()),
            (PathBuf::from("/var/lib/kubelet"), pods.to_string()),
        ]);
        for (point, own, above, expected) in [
            ("/var/lib/kubelet", NO_LABEL, data, Some(pods)),
            // A folder of a file system that the container has made.
            ("/var/lib/kubelet", data, data, Some(pods)),
            ("/var/lib/kubelet", pods, data, None),
            ("/mnt", data, "root", None),
            ("/mnt/scratch", NO_LABEL, data, Some(data)),
            ("/mnt/scratch", pods, data, None),
            ("/mnt-not", NO_LABEL, data, None),
            ("/var/lib", NO_LABEL, data, None),
        ] {
            let found = label_for(Path::new(point), Some(own), &covered, Some(above));
            assert_eq!(found, expected, "{point} {own}");
        }
        let found = label_for(Path::new("/mnt/a"), None, &covered, Some(data));
        assert_eq!(found, None, "a file system without labels");
    }
}
