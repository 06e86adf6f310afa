//! The plan: what an image needs, and what of it is still to be made.
//!
//! Every package has a key, the hash of all that its tree is made from; the
//! image's key is the hash of its packages' keys and the rest that goes into it.
//! Equal keys mean equal content, so what the store has is never made again.

use crate::executor::{self, JobContext, Node};
use crate::fetch::Fetcher;
use crate::image::assemble::BuiltPackage;
use crate::keys::Keys;
use crate::lock::{self, FetchOptions, Lock, LockedArchive, Want};
use crate::manifest::{Definitions, Linkage, Package, Variant};
use crate::progress::Progress;
use crate::project::{Arch, Project};
use crate::recipe::cargo::{self, ProgramSet, Source};
use crate::recipe::{debian, files};
use crate::sdk::{self, Toolchain};
use crate::store::{Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Changes when the same inputs must give another result.
const RECIPE_VERSION: &str = "2";

/// How an image is put together, as far as this crate decides it: a change there
/// makes another image of the same packages.
const ASSEMBLY: [&str; 4] = [
    include_str!("image/assemble.rs"),
    include_str!("image/boot.rs"),
    include_str!("image/content.rs"),
    include_str!("image/modules.rs"),
];

/// The toolchain that builds run in.
const TOOLCHAIN: &str = "sdk";

/// What an image is made from.
pub struct Plan<'a> {
    variant: &'a Variant,
    arch: Arch,
    packages: Vec<PlannedPackage<'a>>,
    programs: Vec<PlannedPrograms>,
    content: Key,
    key: Key,
}

/// Programs of this workspace that are built together.
struct PlannedPrograms {
    set: ProgramSet,
    source: Source,
    key: Key,
}

/// One package of the plan.
struct PlannedPackage<'a> {
    package: &'a Package,
    archives: Vec<LockedArchive>,
    key: Key,
}

/// What [`Plan::build_packages`] has made.
pub struct Built<'a> {
    /// The packages and their trees.
    pub packages: Vec<BuiltPackage<'a>>,
    /// The toolchain, which the image is assembled with.
    pub toolchain: Toolchain,
    /// Keeps the trees in the store.
    _entries: Vec<Entry>,
}

impl<'a> Plan<'a> {
    /// Computes the keys of everything that goes into the image.
    pub fn new(
        project: &Project,
        definitions: &'a Definitions,
        variant: &'a Variant,
        arch: Arch,
        lock: &Lock,
        keys: &Keys,
    ) -> Result<Self> {
        let toolchain_key = Toolchain::key_of(lock, TOOLCHAIN)?;
        let packages: Vec<&Package> = variant
            .packages
            .iter()
            .map(|name| definitions.package(name))
            .collect::<Result<_>>()?;
        let programs: Vec<PlannedPrograms> = cargo::program_sets(definitions)
            .into_iter()
            .map(|set| {
                let source = set.source(&project.root)?;
                let key = set.key(&source, &toolchain_key, arch);
                Ok(PlannedPrograms { set, source, key })
            })
            .collect::<Result<_>>()?;
        let packages: Vec<PlannedPackage> = packages
            .into_iter()
            .map(|package| PlannedPackage::new(package, arch, lock, &programs))
            .collect::<Result<_>>()?;

        let mut key = KeyBuilder::new("content")
            .field("recipe", RECIPE_VERSION)
            .field("assembly", ASSEMBLY.concat())
            .field("variant", variant.name.as_str())
            .field("arch", arch.as_str())
            .field("version", &project.config.release.version)
            .field("kernel", format!("{:?}", variant.manifest.kernel))
            .key("toolchain", &toolchain_key);
        for file in &variant.manifest.variant.defaults {
            key = key.file(file, &definitions.variants_folder().join(file))?;
        }
        for planned in &packages {
            key = key.key(planned.package.name().as_str(), &planned.key);
        }
        let content = key.finish();
        let key = KeyBuilder::new("image")
            .key("content", &content)
            .field("signing", keys.fingerprint())
            .finish();
        Ok(Self {
            variant,
            arch,
            packages,
            programs,
            content,
            key,
        })
    }

    /// The key of all that is in the image, which does not depend on signing keys.
    pub fn content(&self) -> &Key {
        &self.content
    }

    /// The key of the image.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What is built.
    pub fn variant(&self) -> &Variant {
        self.variant
    }

    /// For which processor.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Downloads what the store cannot give. Returns whether the lock had to be
    /// changed, since a mirror no longer has what it names.
    pub fn fetch(
        &self,
        project: &Project,
        lock: &mut Lock,
        store: &Store,
        locked: bool,
        progress: &Progress,
    ) -> Result<bool> {
        let mut wanted = Vec::new();
        if store.get(&Toolchain::key_of(lock, TOOLCHAIN)?)?.is_none() {
            wanted.push(Want::Toolchain(TOOLCHAIN, sdk::workstation()?));
        }
        for planned in &self.packages {
            if !planned.archives.is_empty() && store.get(&planned.key)?.is_none() {
                wanted.extend(
                    planned
                        .archives
                        .iter()
                        .map(|archive| Want::Package(archive.asked_name(), self.arch)),
                );
            }
        }
        let changes =
            lock::fetch_locked(project, lock, &wanted, FetchOptions { locked }, progress)?;
        Ok(!changes.is_empty())
    }

    /// Builds every package that the store does not have.
    pub fn build_packages(
        &self,
        project: &Project,
        lock: &Lock,
        store: &Store,
        logs: &Path,
        progress: &Progress,
    ) -> Result<Built<'a>> {
        let fetcher = Fetcher::new(project, progress)?;
        let cache = project.cache_dir().join("cargo-target");
        let trees: Mutex<Vec<Option<Entry>>> = Mutex::new(vec![None; self.packages.len()]);
        let programs: Mutex<Vec<Option<Entry>>> = Mutex::new(vec![None; self.programs.len()]);
        let toolchain: Mutex<Option<Toolchain>> = Mutex::new(None);

        // The first job makes the toolchain, the next ones the programs of this
        // workspace; packages come after, and wait only for programs they have.
        let mut graph = vec![Node {
            name: TOOLCHAIN.into(),
            depends: vec![],
            job: Box::new(|_: &JobContext| {
                let made = Toolchain::prepare(project, lock, TOOLCHAIN, store, &fetcher, progress)?;
                *hold(&toolchain) = Some(made);
                Ok(())
            }),
        }];
        for (index, planned) in self.programs.iter().enumerate() {
            let (programs, toolchain, cache) = (&programs, &toolchain, &cache);
            graph.push(Node {
                name: format!(
                    "programs-{}",
                    format!("{:?}", planned.set.link).to_lowercase()
                ),
                depends: vec![0],
                job: Box::new(move |context: &JobContext| {
                    let toolchain = hold(toolchain)
                        .clone()
                        .context("the toolchain is missing")?;
                    let made = planned.set.build(
                        context,
                        &planned.source,
                        &toolchain,
                        self.arch,
                        store,
                        Some(cache),
                    )?;
                    hold(programs)[index] = Some(made);
                    Ok(())
                }),
            });
        }
        for (index, planned) in self.packages.iter().enumerate() {
            let (trees, programs, fetcher) = (&trees, &programs, &fetcher);
            graph.push(Node {
                name: planned.package.name().to_string(),
                depends: planned
                    .program_sets(&self.programs)
                    .map(|set| set + 1)
                    .collect(),
                job: Box::new(move |_: &JobContext| {
                    let made = store.build(&planned.key, |staging| {
                        let programs = hold(programs).clone();
                        planned.make(self, fetcher, &programs, staging)
                    })?;
                    hold(trees)[index] = Some(made);
                    Ok(())
                }),
            });
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        executor::execute(graph, cores, logs, progress)?;

        let entries: Vec<Entry> = hold(&trees).iter().flatten().cloned().collect();
        let packages = self
            .packages
            .iter()
            .zip(&entries)
            .map(|(planned, entry)| BuiltPackage {
                package: planned.package,
                tree: entry.path().to_path_buf(),
                archives: planned.archives.clone(),
            })
            .collect();
        let toolchain = hold(&toolchain)
            .clone()
            .context("the toolchain is missing")?;
        Ok(Built {
            packages,
            toolchain,
            _entries: entries,
        })
    }
}

impl<'a> PlannedPackage<'a> {
    fn new(
        package: &'a Package,
        arch: Arch,
        lock: &Lock,
        programs: &[PlannedPrograms],
    ) -> Result<Self> {
        let mut key = KeyBuilder::new("package")
            .field("recipe", RECIPE_VERSION)
            .field("arch", arch.as_str());
        for input in files::inputs(package)? {
            let name = input.strip_prefix(&package.folder).unwrap_or(&input);
            key = key.file(&name.to_string_lossy(), &input)?;
        }
        let mut archives = Vec::new();
        if let Some(debian) = &package.manifest.debian {
            for name in debian.take_on(arch).keys() {
                let archive = lock.package(name, arch).with_context(|| {
                    format!(
                        "packages/{}/package.toml takes files from it",
                        package.name()
                    )
                })?;
                key = key.field(name, archive.sha256.to_string());
                archives.push(archive.clone());
            }
        }
        for set in sets_of(package, programs) {
            key = key.key("programs", &programs[set].key);
        }
        Ok(Self {
            package,
            archives,
            key: key.finish(),
        })
    }

    /// Indices of the sets that have programs of this package.
    fn program_sets(&self, programs: &[PlannedPrograms]) -> impl Iterator<Item = usize> {
        sets_of(self.package, programs).into_iter()
    }

    /// Makes the package's tree in the folder `out`.
    fn make(
        &self,
        plan: &Plan<'_>,
        fetcher: &Fetcher,
        programs: &[Option<Entry>],
        out: &Path,
    ) -> Result<()> {
        let making = || format!("cannot build the package {}", self.package.name());
        if let Some(debian) = &self.package.manifest.debian {
            let patterns = debian.take_on(plan.arch);
            for archive in &self.archives {
                let path = fetcher.archive_path(archive);
                debian::take(
                    archive.asked_name(),
                    &path,
                    &patterns[archive.asked_name()],
                    out,
                )
                .with_context(making)?;
            }
        }
        for program in self
            .package
            .manifest
            .cargo
            .iter()
            .flat_map(|origin| &origin.programs)
        {
            let set = plan
                .programs
                .iter()
                .position(|planned| planned.set.link == program.link);
            let built = set.and_then(|set| programs[set].as_ref());
            let built = built
                .context("its programs were not built")
                .with_context(making)?;
            let source = built.path().join(program.crate_name.as_str());
            let target = out.join(program.path.as_str());
            let folder = target.parent().unwrap_or(out);
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            fs::copy(&source, &target)
                .with_context(|| format!("cannot copy {}", source.display()))
                .with_context(making)?;
        }
        files::install(self.package, out).with_context(making)
    }
}

/// Indices of the sets that have programs of `package`.
fn sets_of(package: &Package, programs: &[PlannedPrograms]) -> Vec<usize> {
    let origin = package.manifest.cargo.as_ref();
    let links: Vec<Linkage> = origin
        .iter()
        .flat_map(|origin| &origin.programs)
        .map(|program| program.link)
        .collect();
    (0..programs.len())
        .filter(|set| links.contains(&programs[*set].set.link))
        .collect()
}

/// Locks a mutex; a job that has failed cannot have left half a value.
fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
