//! `Bulkhead.lock`: exactly which archives a build takes in.
//!
//! Start with [`Lock`], which is what the rest of the build sees. How a lock
//! comes to be is in [`update`], where the signed indexes come from in
//! [`indexes`], and what definitions ask for in [`wanted`].
//!
//! The lock names suites and paths relative to a mirror, never a host.

mod indexes;
mod update;
mod wanted;

pub use indexes::Sources;
pub use update::{
    FetchOptions, Want, fetch_locked, fetch_locked_from, load_complete, lock_all, lock_one,
};
pub use wanted::check;

#[cfg(test)]
use update::load_complete_from;

use crate::project::{Arch, Project};
use anyhow::{Context, Result, bail};
use deb::digest::Sha256Digest;
use deb::release::Timestamp;
use deb::version::Version;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the file.
pub const FILE_NAME: &str = "Bulkhead.lock";

const HEADER: &str = "\
# Written by `bulkhead lock`. Do not edit: change what is asked for (Bulkhead.toml
# or a package's manifest) and run it again.

";

const FORMAT: u32 = 1;

/// Every archive that a build may take in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    format: u32,
    /// When each suite was published that the lock was made from.
    suites: BTreeMap<String, Timestamp>,
    /// What each toolchain was asked to have.
    #[serde(default)]
    toolchains: BTreeMap<Use, LockedToolchain>,
    /// The archives, sorted.
    #[serde(default, rename = "archive")]
    archives: Vec<LockedArchive>,
}

/// What a toolchain was asked to have when it was locked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedToolchain {
    packages: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
}

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedArchive {
    /// Name of the binary package.
    pub name: String,
    /// Name that definitions ask for where that is another one: a package
    /// without files that leads to the one of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// Name of the source package.
    pub source: String,
    /// Version of the binary package.
    pub version: Version,
    /// Debian's name of its architecture, or `all`.
    pub architecture: String,
    /// Suite that offers it, which also says in which archive it is.
    pub suite: String,
    /// When the index was published that offered it, where that is not the one
    /// that the lock as a whole was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
    /// Path relative to the base of that archive.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Sha256Digest,
    /// What it is there for, sorted.
    #[serde(rename = "for")]
    pub uses: BTreeSet<Use>,
}

impl LockedArchive {
    /// The name that definitions ask for.
    pub fn asked_name(&self) -> &str {
        self.stands_for.as_deref().unwrap_or(&self.name)
    }
}

/// What an archive is there for: images of an architecture (`image-x86_64`), a
/// toolchain that runs on one (`sdk-x86_64`), or both at once: the toolchain for
/// images of one that runs on another (`sdk-for-aarch64-x86_64`), in which what is
/// not run but linked has a use of its own (`sdk-foreign-aarch64`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Use {
    set: String,
    arch: Arch,
}

impl Use {
    const IMAGE: &str = "image";

    /// Files go into images of `arch`.
    pub fn image(arch: Arch) -> Self {
        Self {
            set: Self::IMAGE.to_string(),
            arch,
        }
    }

    /// Part of the toolchain `name` that runs on `arch`.
    pub fn toolchain(name: &str, arch: Arch) -> Self {
        Self {
            set: name.to_string(),
            arch,
        }
    }

    /// Part of the toolchain `name` for images of `target` that runs on `arch`.
    pub fn cross_toolchain(name: &str, target: Arch, arch: Arch) -> Self {
        Self::toolchain(&format!("{name}-for-{target}"), arch)
    }

    /// What the toolchain `name` has of the architecture that it builds for.
    pub fn foreign(name: &str, target: Arch) -> Self {
        Self::toolchain(&format!("{name}-foreign"), target)
    }

    /// The architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }
}

impl TryFrom<String> for Use {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (set, arch) = text.rsplit_once('-')?;
            Some(Self {
                set: set.to_string(),
                arch: arch.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("{text:?} is no use of an archive, such as \"sdk-x86_64\""))
    }
}

impl From<Use> for String {
    fn from(purpose: Use) -> Self {
        purpose.to_string()
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.set, self.arch)
    }
}

impl Lock {
    /// A lock without archives.
    fn empty() -> Self {
        Self {
            format: FORMAT,
            suites: BTreeMap::new(),
            toolchains: BTreeMap::new(),
            archives: Vec::new(),
        }
    }

    /// Reads the project's lock.
    pub fn load(project: &Project) -> Result<Self> {
        let path = path_of(project);
        match Self::load_if_there(project)? {
            Some(lock) => Ok(lock),
            None => bail!(
                "there is no {}; run `bulkhead lock` to make it",
                path.display()
            ),
        }
    }

    /// Reads the project's lock, `None` when there is no such file.
    pub fn load_if_there(project: &Project) -> Result<Option<Self>> {
        Self::read(&path_of(project))
    }

    /// The lock of the first repository of kits that has one.
    fn of_kits(project: &Project) -> Result<Option<Self>> {
        for repository in &project.repositories {
            if let Some(lock) = Self::read(&repository.join(FILE_NAME))? {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Self::parse(&text)
            .with_context(|| {
                format!(
                    "{} is not valid; restore it or run `bulkhead lock`",
                    path.display()
                )
            })
            .map(Some)
    }

    /// Reads the text of a lock and checks what later code relies on.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lock: Self = toml::from_str(text)?;
        if lock.format != FORMAT {
            bail!(
                "its format is {}, but this version of the tool reads format {FORMAT}",
                lock.format
            );
        }
        for archive in &lock.archives {
            let LockedArchive {
                name,
                path,
                architecture,
                ..
            } = archive;
            if !deb::index::is_package_name(name) || !deb::index::is_package_name(architecture) {
                bail!("{name:?} for {architecture:?} is not the name of a package");
            }
            if !deb::index::is_plain_path(path) {
                bail!("the archive of {name} is at {path:?}, which is no relative path");
            }
            if archive.uses.is_empty() {
                bail!("the archive of {name} is there for nothing");
            }
            for purpose in &archive.uses {
                if architecture != "all" && architecture != purpose.arch.debian() {
                    bail!("{name} is for {architecture} and so cannot be for {purpose}");
                }
            }
        }
        lock.sort();
        let mut seen = BTreeSet::new();
        for archive in &lock.archives {
            for purpose in &archive.uses {
                if !seen.insert((purpose, archive.asked_name())) {
                    bail!("{} is there twice for {purpose}", archive.asked_name());
                }
            }
        }
        Ok(lock)
    }

    /// The text of the lock.
    pub fn render(&self) -> Result<String> {
        let body = toml::to_string(self).context("cannot write the lock as TOML")?;
        Ok(format!("{HEADER}{body}"))
    }

    /// Writes the project's lock, all of it or nothing.
    pub fn save(&self, project: &Project) -> Result<()> {
        let path = path_of(project);
        let text = self.render()?;
        write_whole(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// All archives, sorted.
    pub fn archives(&self) -> &[LockedArchive] {
        &self.archives
    }

    /// When each suite was published that the lock was made from.
    pub fn suites(&self) -> &BTreeMap<String, Timestamp> {
        &self.suites
    }

    /// The archives of a toolchain for images of `target` that runs on `arch`. One that
    /// has nothing special for the target is the same for all of them.
    pub fn toolchain(&self, name: &str, target: Arch, arch: Arch) -> Result<Vec<&LockedArchive>> {
        let cross = Use::cross_toolchain(name, target, arch);
        if target != arch && self.toolchains.contains_key(&cross) {
            let mut archives = self.used_for(&cross);
            archives.extend(self.used_for(&Use::foreign(name, target)));
            return Ok(archives);
        }
        let purpose = Use::toolchain(name, arch);
        if !self.toolchains.contains_key(&purpose) {
            bail!("{FILE_NAME} has no toolchain {name} that runs on {arch}; run `bulkhead lock`");
        }
        Ok(self.used_for(&purpose))
    }

    /// The archive of a Debian package for images of `arch`.
    pub fn package(&self, name: &str, arch: Arch) -> Result<&LockedArchive> {
        match self.find(&Use::image(arch), name) {
            Some(archive) => Ok(archive),
            None => {
                bail!("{FILE_NAME} has no Debian package {name} for {arch}; run `bulkhead lock`")
            }
        }
    }

    fn used_for(&self, purpose: &Use) -> Vec<&LockedArchive> {
        self.archives
            .iter()
            .filter(|archive| archive.uses.contains(purpose))
            .collect()
    }

    fn find(&self, purpose: &Use, name: &str) -> Option<&LockedArchive> {
        self.archives
            .iter()
            .find(|archive| archive.asked_name() == name && archive.uses.contains(purpose))
    }

    /// Adds an archive, or its uses to what is the same archive.
    fn add(&mut self, archive: LockedArchive) {
        let same = self.archives.iter_mut().find(|known| {
            known.sha256 == archive.sha256
                && known.path == archive.path
                && known.stands_for == archive.stands_for
        });
        match same {
            Some(known) => known.uses.extend(archive.uses),
            None => self.archives.push(archive),
        }
    }

    fn sort(&mut self) {
        self.archives.sort();
    }

    /// What is different in `newer`, sorted by name.
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        // Asked name and use → version; several uses usually change as one.
        let versions = |lock: &Self| -> BTreeMap<(String, Use), String> {
            lock.archives
                .iter()
                .flat_map(|archive| {
                    archive.uses.iter().map(|purpose| {
                        let key = (archive.asked_name().to_string(), purpose.clone());
                        (key, archive.version.to_string())
                    })
                })
                .collect()
        };
        let (old, new) = (versions(self), versions(newer));
        let keys: BTreeSet<&(String, Use)> = old.keys().chain(new.keys()).collect();
        let mut changes: BTreeMap<(String, Option<String>, Option<String>), BTreeSet<Use>> =
            BTreeMap::new();
        for key in keys {
            let (from, to) = (old.get(key).cloned(), new.get(key).cloned());
            if from != to {
                changes
                    .entry((key.0.clone(), from, to))
                    .or_default()
                    .insert(key.1.clone());
            }
        }
        changes
            .into_iter()
            .map(|((name, from, to), uses)| Change {
                name,
                from,
                to,
                uses,
            })
            .collect()
    }
}

/// A package that came, went or moved to another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Name of the binary package.
    pub name: String,
    /// Version before; none, it is new.
    pub from: Option<String>,
    /// Version now; none, it is gone.
    pub to: Option<String>,
    /// What it is there for.
    #[serde(rename = "for")]
    pub uses: BTreeSet<Use>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            from,
            to,
            uses,
        } = self;
        let uses: Vec<String> = uses.iter().map(Use::to_string).collect();
        match (from, to) {
            (Some(from), Some(to)) => write!(f, "{name} {from} → {to}")?,
            (None, Some(to)) => write!(f, "{name} {to} (new)")?,
            (Some(from), None) => write!(f, "{name} {from} (gone)")?,
            (None, None) => write!(f, "{name}")?,
        }
        write!(f, " for {}", uses.join(", "))
    }
}

/// Where the project's lock lies.
pub fn path_of(project: &Project) -> PathBuf {
    project.root.join(FILE_NAME)
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("lock.{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests;
