//! Signed indexes: from a mirror's `InRelease` to all that the suites offer.

use crate::fetch::Fetcher;
use crate::project::{Arch, Project};
use crate::resolve::Universe;
use anyhow::{Context, Result, anyhow, bail};
use deb::index::{Package, packages_xz};
use deb::openpgp::{Keyring, verify_cleartext};
use deb::release::{Release, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

/// Where packages come from and whom we believe what they are.
pub struct Sources {
    /// Brings files from the mirrors.
    pub fetcher: Fetcher,
    /// Keys that may sign a suite.
    pub keyring: Keyring,
    /// The time by which signatures and indexes are judged.
    pub now: Timestamp,
}

impl Sources {
    /// Debian's, at the project's mirrors, now.
    pub fn debian(fetcher: Fetcher) -> Result<Self> {
        Ok(Self {
            fetcher,
            keyring: Keyring::debian()?,
            now: Timestamp::now(),
        })
    }
}

/// What the suites offer.
pub(super) struct Indexes {
    /// When each suite was published.
    pub published: BTreeMap<String, Timestamp>,
    /// Everything on offer, by architecture.
    pub universes: BTreeMap<Arch, Universe>,
}

impl Indexes {
    /// Reads the indexes of all suites. `known` are the dates of those that were
    /// read before: a mirror must not lead back behind them.
    pub(super) fn load(
        project: &Project,
        sources: &Sources,
        known: &BTreeMap<String, Timestamp>,
    ) -> Result<Self> {
        let debian = &project.config.debian;
        let suites: Vec<&String> = debian.suites.iter().collect();
        let releases = in_parallel(&suites, |suite| {
            load_release(suite, sources, known.get(*suite).copied())
        })?;
        let mut jobs = Vec::new();
        for (suite, release) in suites.iter().zip(&releases) {
            for arch in Arch::ALL {
                jobs.push((*suite, release, arch));
            }
        }
        let mut packages = in_parallel(&jobs, |(suite, release, arch)| {
            load_packages(sources, suite, release, *arch, &debian.components)
        })?;
        let mut universes: BTreeMap<Arch, Universe> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for ((suite, _, arch), found) in jobs.iter().zip(packages.drain(..)) {
            used.extend(found.files);
            universes
                .entry(*arch)
                .or_default()
                .add_suite(suite, found.packages)?;
        }
        forget_other_indexes(&project.cache_dir().join("indexes"), &used);
        let published = suites
            .iter()
            .zip(&releases)
            .map(|(suite, release)| (suite.to_string(), release.date));
        Ok(Self {
            published: published.collect(),
            universes,
        })
    }
}

/// The suite's signed index from the first mirror that has a good one.
fn load_release(suite: &str, sources: &Sources, known: Option<Timestamp>) -> Result<Release> {
    let mirrors = sources.fetcher.mirrors();
    let mut failures: Vec<String> = Vec::new();
    for base in mirrors.bases(suite) {
        let address = format!("{base}/dists/{suite}/InRelease");
        let found = sources.fetcher.fetch_small(&address).and_then(|content| {
            let content = content.with_context(|| format!("there is no {address}"))?;
            check_release(suite, &content, sources, known)
                .with_context(|| format!("{address} is not acceptable"))
        });
        match found {
            Ok(release) => return Ok(release),
            Err(error) => failures.push(format!("{error:#}")),
        }
        crate::signals::check()?;
    }
    Err(anyhow!("{}", failures.join("; "))).with_context(|| {
        format!(
            "no mirror of {} gives a good index of {suite}",
            mirrors.origin()
        )
    })
}

fn check_release(
    suite: &str,
    content: &[u8],
    sources: &Sources,
    known: Option<Timestamp>,
) -> Result<Release> {
    let signed = verify_cleartext(content, &sources.keyring, sources.now)?;
    let release = Release::parse(&signed.text)?;
    if release.codename != suite {
        bail!(
            "it is the index of {:?}, not of {suite:?}",
            release.codename
        );
    }
    if let Some(until) = release.valid_until
        && until < sources.now
    {
        bail!(
            "it was valid until {until}, and it is {} now: either the mirror is behind or this machine's clock is wrong",
            sources.now
        );
    }
    if let Some(known) = known
        && release.date < known
    {
        bail!(
            "it is of {}, older than the index of {known} that the lock was made from: the mirror is behind",
            release.date
        );
    }
    Ok(release)
}

struct Found {
    packages: Vec<Package>,
    files: Vec<PathBuf>,
}

fn load_packages(
    sources: &Sources,
    suite: &str,
    release: &Release,
    arch: Arch,
    components: &[String],
) -> Result<Found> {
    let mut found = Found {
        packages: Vec::new(),
        files: Vec::new(),
    };
    let mut architectures = vec![arch.debian()];
    if release.separate_all {
        architectures.push("all");
    }
    for component in components {
        for architecture in &architectures {
            let folder = format!("{component}/binary-{architecture}");
            let path = format!("{folder}/Packages.xz");
            let Some((size, sha256)) = release.files.get(&path).copied() else {
                bail!("the index of {suite} names no {path}; it cannot be used");
            };
            let mut paths = vec![format!("dists/{suite}/{path}")];
            if release.by_hash {
                paths.insert(0, format!("dists/{suite}/{folder}/by-hash/SHA256/{sha256}"));
            }
            let file = sources.fetcher.fetch_index(suite, &paths, size, sha256)?;
            let read = || -> Result<Vec<Package>> {
                let packages = packages_xz(File::open(&file)?)?;
                Ok(packages.collect::<Result<_, _>>()?)
            };
            found.packages.extend(
                read().with_context(|| {
                    format!("cannot read {path} of {suite} ({})", file.display())
                })?,
            );
            found.files.push(file);
        }
    }
    Ok(found)
}

/// Indexes change with every update; old ones are of no use.
fn forget_other_indexes(folder: &std::path::Path, used: &BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none() && !used.contains(&path) {
            // Left over, it only takes room.
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs `work` for all items at once; they mostly wait for the network.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow!("reading an index panicked"))?
            })
            .collect()
    })
}
