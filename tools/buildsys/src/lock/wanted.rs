//! What definitions ask the lock to have.

use super::{FILE_NAME, Lock, LockedToolchain, Use};
use crate::manifest::{DebianOrigin, Definitions};
use crate::project::{Arch, Project};
use crate::resolve::Request;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// Everything that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The toolchains, by use.
    pub toolchains: BTreeMap<Use, LockedToolchain>,
    /// Debian packages that go into images, with who asks for them.
    pub packages: BTreeMap<(Use, Request), Asked>,
}

/// Why a Debian package is locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Manifests that ask for it.
    pub by: Vec<String>,
    /// Pattern of the dependency that has the files, where the package has none.
    pub follow: Option<String>,
}

impl Wanted {
    pub(super) fn of(project: &Project) -> Result<Self> {
        let mut packages: BTreeMap<(Use, Request), Asked> = BTreeMap::new();
        for (manifest, debian) in debian_origins(project)? {
            for arch in Arch::ALL {
                for name in debian.take_on(arch).into_keys() {
                    let request: Request = name
                        .parse()
                        .with_context(|| format!("{manifest} takes files from {name:?}"))?;
                    let asked = packages.entry((Use::image(arch), request)).or_default();
                    asked.by.push(manifest.clone());
                    if let Some(follow) = debian.follow.get(name) {
                        if asked.follow.as_ref().is_some_and(|other| other != follow) {
                            bail!(
                                "manifests follow {name} in different ways: {}",
                                asked.by.join(", ")
                            );
                        }
                        asked.follow = Some(follow.clone());
                    }
                }
            }
        }
        // Toolchains run on the workstation, and only x86_64 ones are supported.
        let workstation = Arch::X86_64;
        let mut toolchains = BTreeMap::new();
        for (name, toolchain) in &project.config.toolchains {
            let with = |packages: &[String], exclude: &[String]| LockedToolchain {
                packages: sorted(&[&toolchain.packages, packages].concat()),
                exclude: sorted(&[&toolchain.exclude, exclude].concat()),
            };
            toolchains.insert(Use::toolchain(name, workstation), with(&[], &[]));
            for (target, cross) in &toolchain.r#for {
                let asked = with(&cross.packages, &cross.exclude);
                toolchains.insert(Use::cross_toolchain(name, *target, workstation), asked);
                for text in &cross.foreign {
                    let table = format!("[toolchains.{name}.for.{target}] of Bulkhead.toml");
                    let request: Request = text
                        .parse()
                        .with_context(|| format!("{table} asks for {text:?}"))?;
                    let key = (Use::foreign(name, *target), request);
                    packages.entry(key).or_default().by.push(table);
                }
            }
        }
        Ok(Self {
            toolchains,
            packages,
        })
    }

    /// What the lock lacks, in words.
    pub(super) fn missing_from(&self, lock: &Lock) -> Vec<String> {
        let toolchains = self
            .toolchains
            .iter()
            .filter(|(purpose, asked)| lock.toolchains.get(*purpose) != Some(*asked))
            .map(|(purpose, _)| format!("the toolchain {purpose} as Bulkhead.toml describes it"));
        let packages = self
            .packages
            .iter()
            .filter(|((purpose, request), _)| !is_locked(lock, purpose, request))
            .map(|((purpose, request), asked)| {
                format!(
                    "{request} for {purpose}, which {} asks for",
                    asked.by.join(", ")
                )
            });
        toolchains.chain(packages).collect()
    }
}

/// Whether the lock has what was requested.
pub(super) fn is_locked(lock: &Lock, purpose: &Use, request: &Request) -> bool {
    lock.find(purpose, &request.name).is_some_and(|archive| {
        request
            .suite
            .as_ref()
            .is_none_or(|suite| *suite == archive.suite)
    })
}

/// Whether the lock has everything that definitions ask for; the error names
/// what it lacks.
pub fn check(project: &Project, lock: &Lock) -> Result<()> {
    let missing = Wanted::of(project)?.missing_from(lock);
    if !missing.is_empty() {
        bail!(
            "{FILE_NAME} lacks {}; run `bulkhead lock` and commit the file",
            missing.join("; ")
        );
    }
    Ok(())
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list
}

/// The `[debian]` tables of all manifests, with the file that each is from.
fn debian_origins(project: &Project) -> Result<Vec<(String, DebianOrigin)>> {
    let definitions = Definitions::load(project)?;
    // Versions of one package have the same manifest.
    let origins: BTreeMap<String, DebianOrigin> = definitions
        .packages()
        .filter_map(|package| {
            let origin = package.manifest.debian.clone()?;
            Some((package.manifest_path(), origin))
        })
        .collect();
    Ok(origins.into_iter().collect())
}
