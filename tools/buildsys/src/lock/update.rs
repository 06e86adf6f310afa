//! How a lock comes to be and how it moves on.
//!
//! Everything here makes a new lock out of the old one, what definitions ask
//! for, and the signed indexes; [`Scope`] says how much of the old one stays.

use super::indexes::{Indexes, Sources};
use super::wanted::{Wanted, is_locked};
use super::{Change, FILE_NAME, Lock, LockedArchive, LockedToolchain, Use};
use crate::fetch::Fetcher;
use crate::progress::Progress;
use crate::project::{Arch, Project};
use crate::resolve::{Offer, Request, Universe, dependencies, is_backports};
use crate::sdk;
use anyhow::{Context, Result, bail};
use globset::Glob;
use std::collections::{BTreeMap, BTreeSet};

/// How a build may treat the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// The lock must not change: what it lacks or mirrors dropped is an error.
    pub locked: bool,
}

/// What a build needs to have in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want<'a> {
    /// All archives of a toolchain for images of an architecture.
    Toolchain(&'a str, Arch),
    /// A Debian package for images of an architecture.
    Package(&'a str, Arch),
}

/// Reads the project's lock for a build. What definitions ask for and the lock
/// lacks is added to it, unless `options` say that it must not change.
pub fn load_complete(
    project: &Project,
    options: FetchOptions,
    progress: &Progress,
) -> Result<Lock> {
    let sources = || Sources::debian(Fetcher::new(project, progress)?);
    load_complete_from(sources, project, options, progress)
}

/// The same with sources given, which are asked for only where they are needed.
pub(super) fn load_complete_from(
    sources: impl FnOnce() -> Result<Sources>,
    project: &Project,
    options: FetchOptions,
    progress: &Progress,
) -> Result<Lock> {
    let Some(lock) = Lock::load_if_there(project)? else {
        if options.locked {
            bail!("there is no {FILE_NAME}; run `bulkhead lock` and commit the file");
        }
        let Some(theirs) = Lock::of_kits(project)? else {
            return Ok(lock_all(project, &sources()?, progress)?.0);
        };
        // What a kit was made and tested with is what to begin with.
        theirs.save(project)?;
        return load_complete_from(sources, project, options, progress);
    };
    if Wanted::of(project)?.missing_from(&lock).is_empty() {
        return Ok(lock);
    }
    if options.locked {
        super::check(project, &lock)?;
    }
    let nothing = BTreeSet::new();
    let newer = update(
        project,
        &sources()?,
        Some(&lock),
        Scope::Sources(&nothing),
        progress,
    )?;
    Ok(replace(project, &lock, newer, progress)?.0)
}

/// Locks everything anew to what the suites offer now.
pub fn lock_all(
    project: &Project,
    sources: &Sources,
    progress: &Progress,
) -> Result<(Lock, Vec<Change>)> {
    let old = Lock::load_if_there(project)?;
    let newer = update(project, sources, old.as_ref(), Scope::Everything, progress)?;
    replace(project, &old.unwrap_or_else(Lock::empty), newer, progress)
}

/// Locks one package anew: a source package or a binary package by name, with
/// all that is built from the same source.
pub fn lock_one(
    project: &Project,
    sources: &Sources,
    name: &str,
    progress: &Progress,
) -> Result<(Lock, Vec<Change>)> {
    let old = Lock::load(project)?;
    let affected: BTreeSet<String> = old
        .archives
        .iter()
        .filter(|archive| {
            [&archive.source, &archive.name].contains(&&name.to_string())
                || archive.asked_name() == name
        })
        .map(|archive| archive.source.clone())
        .collect();
    if affected.is_empty() {
        bail!("{FILE_NAME} has no package {name}, neither a binary nor a source one");
    }
    let newer = update(
        project,
        sources,
        Some(&old),
        Scope::Sources(&affected),
        progress,
    )?;
    replace(project, &old, newer, progress)
}

/// Makes sure that everything wanted is in the cache, and tells what changed in
/// the lock for it.
///
/// A file that the mirrors and the dated archive have dropped leads to its source
/// package being locked anew, since old versions do not come back; the lock is
/// written and what changed is said. Whoever computed something from the lock
/// before must do so again when changes come back.
pub fn fetch_locked(
    project: &Project,
    lock: &mut Lock,
    wants: &[Want<'_>],
    options: FetchOptions,
    progress: &Progress,
) -> Result<Vec<Change>> {
    let fetcher = Fetcher::new(project, progress)?.asking_dated_archive(lock.suites.clone());
    fetch_locked_from(
        &Sources::debian(fetcher)?,
        project,
        lock,
        wants,
        options,
        progress,
    )
}

/// The same with sources given.
pub fn fetch_locked_from(
    sources: &Sources,
    project: &Project,
    lock: &mut Lock,
    wants: &[Want<'_>],
    options: FetchOptions,
    progress: &Progress,
) -> Result<Vec<Change>> {
    let before = lock.clone();
    // Mirrors may move on while we fetch, but not often.
    for _ in 0..4 {
        let archives = archives_of(lock, wants)?;
        let dropped = sources.fetcher.fetch_present(&archives)?.dropped;
        let Some(first) = dropped.first() else {
            return Ok(before.changes(lock));
        };
        let file = format!("{} ({} {})", first.path, first.name, first.version);
        if options.locked {
            bail!(
                "no mirror has {file} any more, and the lock must not change; run `bulkhead lock update {}` and commit {FILE_NAME}",
                first.source
            );
        }
        let affected: BTreeSet<String> = dropped
            .iter()
            .map(|archive| archive.source.clone())
            .collect();
        progress.message(format!(
            "the mirrors have dropped {} locked files, the first of them {file}; locking {} anew",
            dropped.len(),
            affected.iter().cloned().collect::<Vec<_>>().join(", ")
        ));
        let newer = update(
            project,
            sources,
            Some(lock),
            Scope::Sources(&affected),
            progress,
        )?;
        if newer.archives == lock.archives {
            bail!(
                "no mirror of {} has {file}, though their signed index offers it; try again later or name another mirror",
                sources.fetcher.mirrors().origin()
            );
        }
        *lock = replace(project, lock, newer, progress)?.0;
    }
    bail!("the mirrors drop files faster than they can be locked; try again later")
}

fn archives_of<'a>(lock: &'a Lock, wants: &[Want<'_>]) -> Result<Vec<&'a LockedArchive>> {
    let mut found: Vec<&LockedArchive> = Vec::new();
    for want in wants {
        match *want {
            Want::Toolchain(name, target) => {
                found.extend(lock.toolchain(name, target, sdk::workstation()?)?);
            }
            Want::Package(name, arch) => found.push(lock.package(name, arch)?),
        }
    }
    found.sort();
    found.dedup_by_key(|archive| archive.sha256);
    Ok(found)
}

/// Writes the new lock and says what is different. When nothing but dates of
/// indexes are, the old one stays, which spares its readers a change every day.
fn replace(
    project: &Project,
    old: &Lock,
    newer: Lock,
    progress: &Progress,
) -> Result<(Lock, Vec<Change>)> {
    let is_same = old.archives == newer.archives && old.toolchains == newer.toolchains;
    if is_same && old.suites.keys().eq(newer.suites.keys()) {
        return Ok((old.clone(), Vec::new()));
    }
    newer.save(project)?;
    let changes = old.changes(&newer);
    // Whole toolchains at once say nothing line by line.
    if !old.archives.is_empty() {
        for change in &changes {
            progress.message(change.to_string());
        }
    }
    Ok((newer, changes))
}

/// How much is locked anew.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// All of it.
    Everything,
    /// What is built from these source packages, and what is not locked yet.
    Sources(&'a BTreeSet<String>),
}

fn update(
    project: &Project,
    sources: &Sources,
    old: Option<&Lock>,
    scope: Scope<'_>,
    progress: &Progress,
) -> Result<Lock> {
    let wanted = Wanted::of(project)?;
    let task = progress.start("reading package indexes");
    let mut known = old.map(|lock| lock.suites.clone()).unwrap_or_default();
    for archive in old.iter().flat_map(|lock| &lock.archives) {
        if let (Some(published), Some(known)) = (archive.published, known.get_mut(&archive.suite)) {
            *known = published.max(*known);
        }
    }
    let indexes = Indexes::load(project, sources, &known)?;
    drop(task);
    match (old, scope) {
        (Some(old), Scope::Sources(affected)) => {
            // What has to move along is only known once something has moved.
            let mut affected = affected.clone();
            loop {
                let mut solver = Solver {
                    wanted: &wanted,
                    indexes: &indexes,
                    old,
                    affected,
                };
                let newer = solver.solve()?;
                let moved = solver.moved_along(&newer);
                if moved.is_subset(&solver.affected) {
                    return Ok(newer);
                }
                solver.affected.extend(moved);
                affected = solver.affected;
            }
        }
        _ => {
            let old = Lock::empty();
            Solver {
                wanted: &wanted,
                indexes: &indexes,
                old: &old,
                affected: BTreeSet::new(),
            }
            .solve()
        }
    }
}

/// Makes a lock from an old one.
struct Solver<'a> {
    wanted: &'a Wanted,
    indexes: &'a Indexes,
    /// What stays as it is, apart from what is affected; empty, nothing does.
    old: &'a Lock,
    /// Source packages that are locked anew.
    affected: BTreeSet<String>,
}

impl Solver<'_> {
    fn solve(&self) -> Result<Lock> {
        let mut new = Lock::empty();
        new.suites = self.indexes.published.clone();
        for (suite, published) in &self.old.suites {
            // Files of this date stay in the lock.
            if let Some(date) = new.suites.get_mut(suite) {
                *date = *published;
            }
        }
        for (purpose, asked) in &self.wanted.toolchains {
            let archives = self
                .toolchain(purpose, asked)
                .with_context(|| format!("cannot lock the toolchain {purpose}"))?;
            archives.into_iter().for_each(|archive| new.add(archive));
            new.toolchains.insert(purpose.clone(), asked.clone());
        }
        for ((purpose, request), asked) in &self.wanted.packages {
            let archive = self
                .package(purpose, request, asked.follow.as_deref())
                .with_context(|| {
                    format!(
                        "cannot lock {request} for {purpose}, which {} asks for",
                        asked.by.join(", ")
                    )
                })?;
            new.add(archive);
        }
        for archive in &mut new.archives {
            let date = self.indexes.published.get(&archive.suite).copied();
            let is_new = !self
                .old
                .archives
                .iter()
                .any(|known| known.sha256 == archive.sha256);
            if is_new && date != new.suites.get(&archive.suite).copied() {
                archive.published = date;
            }
        }
        new.sort();
        Ok(new)
    }

    /// Sources of packages that are in `newer` in another version than before.
    fn moved_along(&self, newer: &Lock) -> BTreeSet<String> {
        self.old
            .changes(newer)
            .into_iter()
            .filter(|change| change.from.is_some() && change.to.is_some())
            .flat_map(|change| {
                let name = change.name;
                self.old
                    .archives
                    .iter()
                    .filter(move |archive| archive.asked_name() == name)
                    .map(|archive| archive.source.clone())
            })
            .collect()
    }

    fn universe(&self, arch: Arch) -> Result<&Universe> {
        self.indexes
            .universes
            .get(&arch)
            .with_context(|| format!("no suite was read for {arch}"))
    }

    fn is_affected(&self, archive: &LockedArchive) -> bool {
        self.affected.contains(&archive.source)
    }

    fn package(
        &self,
        purpose: &Use,
        request: &Request,
        follow: Option<&str>,
    ) -> Result<LockedArchive> {
        if is_locked(self.old, purpose, request)
            && let Some(archive) = self.old.find(purpose, &request.name)
            && !self.is_affected(archive)
            && archive.stands_for.is_some() == follow.is_some()
        {
            return Ok(with_use(archive, purpose));
        }
        let universe = self.universe(purpose.arch())?;
        let offer =
            universe
                .find(request)
                .with_context(|| match universe.knows(&request.name) {
                    true => {
                        format!("no suite that is locked has {request} as a package of its own")
                    }
                    false => format!(
                        "no suite that is locked offers {request} for {}",
                        purpose.arch()
                    ),
                })?;
        match follow {
            None => Ok(self.locked(universe, offer, purpose)),
            Some(pattern) => {
                let followed = follow_dependency(universe, offer, pattern)?;
                let mut archive = self.locked(universe, followed, purpose);
                archive.stands_for = Some(request.name.clone());
                Ok(archive)
            }
        }
    }

    fn toolchain(&self, purpose: &Use, asked: &LockedToolchain) -> Result<Vec<LockedArchive>> {
        let universe = self.universe(purpose.arch())?;
        let requests = asked
            .packages
            .iter()
            .map(|package| package.parse())
            .collect::<Result<Vec<Request>>>()?;
        if self.old.toolchains.get(purpose) == Some(asked) {
            let locked: Vec<&LockedArchive> = self.old.used_for(purpose);
            if !locked.iter().any(|archive| self.is_affected(archive)) {
                return Ok(locked
                    .into_iter()
                    .map(|archive| with_use(archive, purpose))
                    .collect());
            }
            // Fails where a package has gone or others need what it was; then the
            // whole toolchain is worked out again.
            if let Ok(archives) = self.moved_toolchain(universe, purpose, &requests, asked, &locked)
            {
                return Ok(archives);
            }
        }
        let offers = universe.closure(&requests, &asked.exclude)?;
        Ok(offers
            .into_iter()
            .map(|offer| self.locked(universe, offer, purpose))
            .collect())
    }

    /// A toolchain in which only affected packages move, with what their new
    /// versions need and the lock lacks.
    fn moved_toolchain(
        &self,
        universe: &Universe,
        purpose: &Use,
        requests: &[Request],
        asked: &LockedToolchain,
        locked: &[&LockedArchive],
    ) -> Result<Vec<LockedArchive>> {
        let staying: BTreeMap<&str, &LockedArchive> = locked
            .iter()
            .filter(|archive| !self.is_affected(archive))
            .map(|archive| (archive.name.as_str(), *archive))
            .collect();
        let moving = locked.iter().filter(|archive| self.is_affected(archive));
        let mut pinned: BTreeMap<String, Request> = BTreeMap::new();
        for archive in moving.clone() {
            let asked_for = requests.iter().find(|request| request.name == archive.name);
            let request = asked_for.cloned().unwrap_or_else(|| Request {
                name: archive.name.clone(),
                suite: Some(archive.suite.clone()).filter(|suite| is_backports(suite)),
            });
            pinned.insert(archive.name.clone(), request);
        }
        let names = moving.map(|archive| archive.name.as_str());
        let offers = universe.grow(names, pinned, &asked.exclude, |_, alternatives| {
            alternatives.iter().any(|relation| {
                let by_name = staying
                    .get(relation.name.as_str())
                    .is_some_and(|archive| relation.allows(&archive.version));
                by_name
                    || universe
                        .provider_names(relation)
                        .iter()
                        .any(|name| staying.contains_key(name))
            })
        })?;
        let mut archives: BTreeMap<String, LockedArchive> = staying
            .into_iter()
            .map(|(name, archive)| (name.to_string(), with_use(archive, purpose)))
            .collect();
        for offer in offers {
            let archive = self.locked(universe, offer, purpose);
            archives.insert(archive.name.clone(), archive);
        }
        Ok(archives.into_values().collect())
    }

    fn locked(&self, universe: &Universe, offer: &Offer, purpose: &Use) -> LockedArchive {
        let package = &offer.package;
        LockedArchive {
            name: package.name.clone(),
            stands_for: None,
            source: package.source.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            suite: universe.suite_of(offer).to_string(),
            published: None,
            path: package.path.clone(),
            size: package.size,
            sha256: package.sha256,
            uses: BTreeSet::from([purpose.clone()]),
        }
    }
}

/// The dependency of `offer` whose name matches `pattern`, in the version that it
/// asks for.
fn follow_dependency<'a>(
    universe: &'a Universe,
    offer: &Offer,
    pattern: &str,
) -> Result<&'a Offer> {
    let glob = Glob::new(pattern)
        .with_context(|| format!("{pattern:?} is not a pattern"))?
        .compile_matcher();
    let package = &offer.package;
    let relations = dependencies(package)?;
    let found: Vec<_> = relations
        .iter()
        .flatten()
        .filter(|relation| glob.is_match(&relation.name))
        .collect();
    let [relation] = found[..] else {
        let names: Vec<&str> = relations
            .iter()
            .flatten()
            .map(|one| one.name.as_str())
            .collect();
        bail!(
            "{} of the dependencies of {} {} match {pattern:?} instead of one; they are: {}",
            found.len(),
            package.name,
            package.version,
            names.join(", ")
        );
    };
    universe.find_for(relation).with_context(|| {
        format!(
            "no suite that is locked offers {relation}, which {} leads to",
            package.name
        )
    })
}

fn with_use(archive: &LockedArchive, purpose: &Use) -> LockedArchive {
    LockedArchive {
        uses: BTreeSet::from([purpose.clone()]),
        ..archive.clone()
    }
}
