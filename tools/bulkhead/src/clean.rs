//! `bulkhead clean`: removes what a build can make again.

use crate::output;
use anyhow::{Context, Result};
use buildsys::progress;
use buildsys::project::Project;
use buildsys::recipe::{cache, cargo, go};
use buildsys::store::{self, Store};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Remove images, logs and compiler caches; signing keys always stay.
#[derive(clap::Args)]
pub struct Args {
    /// Remove the store and all downloads too, so that the next build is a cold one.
    #[arg(long)]
    all: bool,
    /// Print what was freed as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed with `--json`.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    removed: Vec<Removed>,
    /// Space freed, all together.
    bytes: u64,
    /// What a running build or machine uses and that stayed for that reason.
    in_use: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Removed {
    what: &'static str,
    path: PathBuf,
    bytes: u64,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let project = Project::find()?;
    let report = clean(&project, args.all)?;
    if args.json {
        output::print_json(&report)?;
        return Ok(());
    }
    for removed in &report.removed {
        println!(
            "removed {}: {} ({})",
            removed.what,
            removed.path.display(),
            progress::size(removed.bytes)
        );
    }
    if report.in_use > 0 {
        println!(
            "kept {} that a running build or machine uses",
            report.in_use
        );
    }
    println!("{} freed", progress::size(report.bytes));
    Ok(())
}

fn clean(project: &Project, all: bool) -> Result<Report> {
    let mut report = Report {
        removed: Vec::new(),
        bytes: 0,
        in_use: 0,
    };
    let (build, user) = (project.build_dir(), project.cache_dir());
    // A running machine or scenario holds the lock of its folder.
    for (part, lock) in [("run", "run.lock"), ("scenarios", "scenarios/lock")] {
        if build.join(part).exists() {
            match store::try_lock_exclusive(&build.join(lock))? {
                Some(_lock) => report.remove("machines", &build.join(part))?,
                None => report.in_use += 1,
            }
        }
    }
    for (what, part) in [
        ("images", "images"),
        ("logs", "logs"),
        ("measurements", "bench"),
        ("second builds", "verify"),
    ] {
        report.remove(what, &build.join(part))?;
    }
    for caches in [cargo::targets_dir(&user), go::caches_dir(&user)] {
        let freed = cache::clean(&caches).context("cannot remove the compilers' caches")?;
        report.freed("compiler caches", caches, freed);
    }
    if all {
        let folder = project.store_dir();
        if folder.exists() {
            let freed = Store::open(&folder, project.config.store.size_limit.0)
                .and_then(|store| store.clear())
                .context("cannot clear the store")?;
            report.freed("store", folder, freed);
        }
        for part in ["archives", "indexes", "firmware"] {
            report.remove("downloads", &user.join(part))?;
        }
    }
    Ok(report)
}

impl Report {
    fn remove(&mut self, what: &'static str, path: &Path) -> Result<()> {
        if path.exists() {
            let bytes = store::tree_size(path)?;
            store::remove_tree(path)?;
            self.add(what, path.to_path_buf(), bytes);
        }
        Ok(())
    }

    fn freed(&mut self, what: &'static str, path: PathBuf, freed: store::Freed) {
        self.in_use += freed.in_use;
        if freed.entries > 0 {
            self.add(what, path, freed.bytes);
        }
    }

    fn add(&mut self, what: &'static str, path: PathBuf, bytes: u64) {
        self.bytes += bytes;
        self.removed.push(Removed { what, path, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildsys::store::KeyBuilder;
    use std::fs;

    /// A project whose user folders lie in the test's own.
    fn project(root: &Path) -> Project {
        let config = "[release]\nversion = \"0.1.0\"\ndefault-variant = \"v\"\n\
            [debian]\ncomponents = [\"main\"]\nsuites = [\"s\"]\n[toolchains]\n";
        fs::write(root.join("Bulkhead.toml"), config).unwrap();
        let mut project = Project::open(root).unwrap();
        project.folders.cache = root.join("cache");
        project.folders.data = root.join("data");
        project
    }

    #[test]
    fn only_what_can_be_made_again_goes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let project = project(root);
        let write = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; 5000]).unwrap();
        };
        let fill = || {
            for path in [
                "build/images/v/disk.img",
                "build/logs/a.log",
                "data/keys/db.key",
            ] {
                write(path);
            }
            write("cache/archives/x.deb");
            write("cache/cargo-target/a-dynamic/target/x");
            write("cache/cargo-target/a-dynamic/lock");
        };
        let exists = |path: &str| root.join(path).exists();
        fill();
        let store = Store::open(&project.store_dir(), 1 << 30).unwrap();
        let key = |name: &str| KeyBuilder::new("test").field("name", name).finish();
        let build = |name: &str| {
            store
                .build(&key(name), |staging| {
                    Ok(fs::write(staging.join("x"), [1; 9])?)
                })
                .unwrap()
        };
        drop(build("idle"));
        let used = build("used");

        let report = clean(&project, false).unwrap();
        let names: Vec<&str> = report.removed.iter().map(|removed| removed.what).collect();
        assert_eq!(names, ["images", "logs", "compiler caches"]);
        assert!(report.bytes >= 15_000, "{report:?}");
        assert!(exists("cache/archives/x.deb") && store.get(&key("idle")).unwrap().is_some());
        for gone in ["build/images", "build/logs", "cache/cargo-target/a-dynamic"] {
            assert!(!exists(gone), "{gone}");
        }

        fill();
        let report = clean(&project, true).unwrap();
        assert_eq!(report.in_use, 1);
        assert!(!exists("cache/archives") && used.path().exists());
        assert!(store.get(&key("idle")).unwrap().is_none());
        assert!(exists("data/keys/db.key"));
        drop(used);
        clean(&project, true).unwrap();
        let nothing = Report {
            removed: vec![],
            bytes: 0,
            in_use: 0,
        };
        assert_eq!(clean(&project, true).unwrap(), nothing);
    }

    #[test]
    fn a_running_machines_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let build = project.build_dir();
        for (part, lock) in [("run", "run.lock"), ("scenarios", "scenarios/lock")] {
            fs::create_dir_all(build.join(part)).unwrap();
            fs::write(build.join(part).join("disk.img"), [0; 9]).unwrap();
            let lock = store::lock_exclusive(&build.join(lock)).unwrap();
            assert_eq!(clean(&project, true).unwrap().in_use, 1, "{part}");
            assert!(build.join(part).join("disk.img").exists());
            drop(lock);
            clean(&project, false).unwrap();
            assert!(!build.join(part).exists());
        }
    }

    #[test]
    fn a_target_folder_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let project = project(folder.path());
        let target = cargo::targets_dir(&project.cache_dir()).join("a-static");
        fs::create_dir_all(&target).unwrap();
        let lock = store::lock_exclusive(&target.join("lock")).unwrap();
        assert_eq!(clean(&project, false).unwrap().in_use, 1);
        assert!(target.exists());
        drop(lock);
        clean(&project, false).unwrap();
        assert!(!target.exists());
    }
}
