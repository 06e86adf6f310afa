//! The packages that are wanted: their keys, and making those that the store lacks.
//!
//! Every package has a key, the hash of all that its tree is made from. What is made
//! and in which order is one graph of jobs: toolchains, programs, packages.

use super::TOOLCHAIN;
use crate::check;
use crate::executor::{self, JobContext, Node};
use crate::fetch::Fetcher;
use crate::image::assemble::BuiltPackage;
use crate::lock::{self, FetchOptions, Lock, LockedArchive, Want};
use crate::manifest::{ContainerImage, Definitions, Linkage, Name, Package};
use crate::progress::Progress;
use crate::project::{Arch, Project};
use crate::recipe::cargo::{self, ProgramSet, Source};
use crate::recipe::go::{self, GoPrograms};
use crate::recipe::{debian, files};
use crate::rootfs::{Content, Rootfs};
use crate::sdk::Toolchain;
use crate::store::{self, Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result};
use oci_image::{Architecture, Config, Image, Layer};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Changes when the same inputs must give another result.
pub(super) const RECIPE_VERSION: &str = "2";

/// Where container images lie in the root, each in a folder named for its package: those
/// of one program, which pods need.
const CONTAINER_IMAGES: &str = "usr/share/bulkhead/images";
/// The same for images of the host's own containers.
pub const HOST_IMAGES: &str = "usr/share/bulkhead/host-images";

/// Changes when a container image is written in another form.
const CONTAINER_IMAGE_FORM: &str = "2";

/// Packages that are to be built.
pub struct Packages<'a> {
    arch: Arch,
    packages: Vec<PlannedPackage<'a>>,
    programs: Vec<PlannedPrograms>,
    /// Whether the toolchain is wanted though no package needs it.
    with_toolchain: bool,
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
    go: Option<(GoPrograms, Key)>,
    /// What goes into its container image, besides what is its own.
    parts: Vec<PlannedPackage<'a>>,
    key: Key,
}

/// What [`Packages::build`] has made.
pub struct Built<'a> {
    /// The packages and their trees.
    pub packages: Vec<BuiltPackage<'a>>,
    /// The toolchain, where it was needed or asked for.
    pub toolchain: Option<Toolchain>,
    /// Keeps the trees in the store.
    pub entries: Vec<Entry>,
}

/// What the jobs of a build hand to each other.
struct Made {
    toolchain: Mutex<Option<Toolchain>>,
    go: Mutex<Option<Toolchain>>,
    programs: Mutex<Vec<Option<Entry>>>,
    go_programs: Mutex<Vec<Option<Entry>>>,
    trees: Mutex<Vec<Option<Entry>>>,
}

impl<'a> Packages<'a> {
    /// Computes the keys of the packages `names`.
    pub fn new(
        project: &Project,
        definitions: &'a Definitions,
        names: &[Name],
        arch: Arch,
        lock: &Lock,
    ) -> Result<Self> {
        let packages: Vec<&Package> = names
            .iter()
            .map(|name| definitions.package(name))
            .collect::<Result<_>>()?;
        let wanted = |set: &ProgramSet| packages.iter().any(|p| has_program_of(p, set.link));
        let mut programs = Vec::new();
        for set in cargo::program_sets(definitions) {
            if wanted(&set) {
                let source = set.source(definitions.workspace()?)?;
                let key = set.key(&source, &Toolchain::key_of(lock, TOOLCHAIN, arch)?, arch);
                programs.push(PlannedPrograms { set, source, key });
            }
        }
        let packages = packages
            .into_iter()
            .map(|package| {
                PlannedPackage::new(project, definitions, package, arch, lock, &programs)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            arch,
            packages,
            programs,
            with_toolchain: false,
        })
    }

    /// Asks for the toolchain too.
    #[must_use]
    pub fn with_toolchain(mut self) -> Self {
        self.with_toolchain = true;
        self
    }

    /// The packages' names and keys.
    pub fn keys(&self) -> impl Iterator<Item = (&Name, &Key)> {
        self.packages
            .iter()
            .map(|planned| (planned.package.name(), &planned.key))
    }

    /// For which processor.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Where the program of the workspace lies, once it is built.
    fn program(&self, built: &[Option<Entry>], name: &Name, link: Linkage) -> Result<PathBuf> {
        let set = self.programs.iter().position(|set| set.set.link == link);
        let entry = set.and_then(|set| built[set].as_ref());
        let entry = entry.with_context(|| format!("the program {name} was not built"))?;
        Ok(entry.path().join(name.as_str()))
    }

    fn needs_toolchain(&self) -> bool {
        self.with_toolchain || !self.programs.is_empty()
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
        let mut toolchains = Vec::new();
        if self.needs_toolchain() {
            toolchains.push(TOOLCHAIN);
        }
        let mut wanted = Vec::new();
        for planned in &self.packages {
            if store.get(&planned.key)?.is_some() {
                continue;
            }
            let archives = planned.all_archives();
            wanted.extend(archives.map(|archive| Want::Package(archive.asked_name(), self.arch)));
            if let Some((_, key)) = &planned.go
                && !toolchains.contains(&go::TOOLCHAIN)
                && store.get(key)?.is_none()
            {
                toolchains.push(go::TOOLCHAIN);
            }
        }
        for name in toolchains {
            if store
                .get(&Toolchain::key_of(lock, name, self.arch)?)?
                .is_none()
            {
                wanted.push(Want::Toolchain(name, self.arch));
            }
        }
        let changes =
            lock::fetch_locked(project, lock, &wanted, FetchOptions { locked }, progress)?;
        Ok(!changes.is_empty())
    }

    /// Builds every package that the store does not have.
    pub fn build(
        &self,
        project: &Project,
        lock: &Lock,
        store: &Store,
        logs: &Path,
        progress: &Progress,
    ) -> Result<Built<'a>> {
        let fetcher = Fetcher::new(project, progress)?;
        let targets = cargo::targets_dir(&project.cache_dir());
        let go_caches = go::caches_dir(&project.cache_dir());
        let made = Made {
            toolchain: Mutex::new(None),
            go: Mutex::new(None),
            programs: Mutex::new(vec![None; self.programs.len()]),
            go_programs: Mutex::new(vec![None; self.packages.len()]),
            trees: Mutex::new(vec![None; self.packages.len()]),
        };
        let prepare = |name: &'static str| {
            Toolchain::prepare(project, lock, name, self.arch, store, &fetcher, progress)
        };

        // Toolchains come first, then programs; packages come after, and wait only for
        // programs they have.
        let mut graph: Vec<Node<'_>> = Vec::new();
        if self.needs_toolchain() {
            let (made, prepare) = (&made, &prepare);
            graph.push(Node {
                name: TOOLCHAIN.into(),
                depends: vec![],
                job: Box::new(move |_: &JobContext| {
                    *hold(&made.toolchain) = Some(prepare(TOOLCHAIN)?);
                    Ok(())
                }),
            });
        }
        let first_set = graph.len();
        for (index, planned) in self.programs.iter().enumerate() {
            let (made, targets) = (&made, &targets);
            graph.push(Node {
                name: format!(
                    "programs-{}",
                    format!("{:?}", planned.set.link).to_lowercase()
                ),
                depends: vec![0],
                job: Box::new(move |context: &JobContext| {
                    let toolchain = hold(&made.toolchain)
                        .clone()
                        .context("the toolchain is missing")?;
                    let entry = planned.set.build(
                        context,
                        &planned.source,
                        &toolchain,
                        self.arch,
                        store,
                        Some(targets),
                    )?;
                    hold(&made.programs)[index] = Some(entry);
                    Ok(())
                }),
            });
        }
        let go_jobs = self.add_go_jobs(&mut graph, project, store, &made, &prepare, &go_caches)?;
        for (index, planned) in self.packages.iter().enumerate() {
            let (made, fetcher) = (&made, &fetcher);
            let mut depends: Vec<usize> = sets_of(planned.package, &self.programs)
                .into_iter()
                .map(|set| first_set + set)
                .collect();
            depends.extend(go_jobs[index]);
            graph.push(Node {
                name: planned.package.name().to_string(),
                depends,
                job: Box::new(move |_: &JobContext| {
                    let entry = store.build(&planned.key, |staging| {
                        let programs = hold(&made.programs).clone();
                        let go = hold(&made.go_programs)[index].clone();
                        planned.make(self, fetcher, &programs, go.as_ref(), staging)
                    })?;
                    hold(&made.trees)[index] = Some(entry);
                    Ok(())
                }),
            });
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        executor::execute(graph, cores, logs, progress)?;

        let entries: Vec<Entry> = hold(&made.trees).iter().flatten().cloned().collect();
        let packages = self
            .packages
            .iter()
            .zip(&entries)
            .map(|(planned, entry)| BuiltPackage {
                package: planned.package,
                tree: entry.path().to_path_buf(),
                archives: planned.all_archives().cloned().collect(),
                module: planned.module(),
            })
            .collect();
        let toolchain = hold(&made.toolchain).clone();
        Ok(Built {
            packages,
            toolchain,
            entries,
        })
    }

    /// Adds jobs for the Go programs that are still to be built, and gives for each
    /// package the job that it waits for.
    ///
    /// They run one after the other: each keeps all cores busy by itself, needs much
    /// memory, and finds in Go's cache what the ones before have compiled.
    fn add_go_jobs<'b>(
        &'b self,
        graph: &mut Vec<Node<'b>>,
        project: &'b Project,
        store: &'b Store,
        made: &'b Made,
        prepare: &'b (dyn Fn(&'static str) -> Result<Toolchain> + Sync),
        caches: &'b Path,
    ) -> Result<Vec<Option<usize>>> {
        let mut jobs = vec![None; self.packages.len()];
        let mut before: Option<usize> = None;
        for (index, planned) in self.packages.iter().enumerate() {
            let Some((programs, key)) = &planned.go else {
                continue;
            };
            if store.get(&planned.key)?.is_some() {
                continue;
            }
            if let Some(entry) = store.get(key)? {
                hold(&made.go_programs)[index] = Some(entry);
                continue;
            }
            let toolchain = *before.get_or_insert_with(|| {
                graph.push(Node {
                    name: format!("toolchain-{}", go::TOOLCHAIN),
                    depends: vec![],
                    job: Box::new(move |_: &JobContext| {
                        *hold(&made.go) = Some(prepare(go::TOOLCHAIN)?);
                        Ok(())
                    }),
                });
                graph.len() - 1
            });
            graph.push(Node {
                name: format!("{}-programs", planned.package.name()),
                depends: vec![toolchain],
                job: Box::new(move |context: &JobContext| {
                    let base = hold(&made.go).clone().context("the toolchain is missing")?;
                    let entry = programs.build(context, project, &base, store, Some(caches))?;
                    hold(&made.go_programs)[index] = Some(entry);
                    Ok(())
                }),
            });
            let job = graph.len() - 1;
            (jobs[index], before) = (Some(job), Some(job));
        }
        Ok(jobs)
    }
}

impl<'a> PlannedPackage<'a> {
    fn new(
        project: &Project,
        definitions: &'a Definitions,
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
                let archive = lock
                    .package(name, arch)
                    .with_context(|| format!("{} takes files from it", package.manifest_path()))?;
                key = key.field(name, archive.sha256.to_string());
                archives.push(archive.clone());
            }
        }
        for set in sets_of(package, programs) {
            key = key.key("programs", &programs[set].key);
        }
        let mut parts = Vec::new();
        if let Some(image) = &package.manifest.container_image {
            key = key.field("container image", CONTAINER_IMAGE_FORM);
            for name in image.packages.iter().flatten() {
                let part = definitions.package(name)?;
                let part = Self::new(project, definitions, part, arch, lock, programs)?;
                key = key.key(name.as_str(), &part.key);
                parts.push(part);
            }
        }
        let mut go = None;
        if let Some(programs) = GoPrograms::read(project, package, arch)? {
            let own = programs.key(&Toolchain::key_of(lock, go::TOOLCHAIN, arch)?)?;
            key = key.key("go", &own);
            go = Some((programs, own));
        }
        Ok(Self {
            package,
            archives,
            go,
            parts,
            key: key.finish(),
        })
    }

    /// The archives that it takes files from, and those of what its container image has.
    fn all_archives(&self) -> impl Iterator<Item = &LockedArchive> {
        let of_parts = self.parts.iter().flat_map(|part| &part.archives);
        self.archives.iter().chain(of_parts)
    }

    /// The Go module that the package is of, and its version.
    fn module(&self) -> Option<(String, String)> {
        let (programs, _) = self.go.as_ref()?;
        let (module, version) = programs.version().ok()?;
        Some((module.to_string(), version.to_string()))
    }

    /// Makes the package's tree in the folder `out`.
    fn make(
        &self,
        plan: &Packages<'_>,
        fetcher: &Fetcher,
        programs: &[Option<Entry>],
        go: Option<&Entry>,
        out: &Path,
    ) -> Result<()> {
        let making = || format!("cannot build the package {}", self.package.name());
        let image = self.package.manifest.container_image.as_ref();
        let Some(image) = image.filter(|image| image.packages.is_some()) else {
            return self.make_tree(plan, fetcher, programs, go, out);
        };
        // What is its own and what its parts have, each in a folder, become one root.
        let scratch = out.join("scratch");
        let mut root = Rootfs::new();
        for package in self.parts.iter().chain([self]) {
            let name = package.package.name();
            let tree = scratch.join(name.as_str());
            fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
            package.make_tree(plan, fetcher, programs, None, &tree)?;
            root.add_tree(name, &tree).with_context(making)?;
        }
        check::check_container(&root).with_context(making)?;
        let layer = layer_of(&root).with_context(making)?;
        let place = out.join(HOST_IMAGES).join(self.package.software().as_str());
        write_image(image, plan.arch, layer, &place).with_context(making)?;
        store::remove_tree(&scratch)
    }

    fn make_tree(
        &self,
        plan: &Packages<'_>,
        fetcher: &Fetcher,
        programs: &[Option<Entry>],
        go: Option<&Entry>,
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
            let source = plan
                .program(programs, &program.crate_name, program.link)
                .with_context(making)?;
            copy_program(&source, &out.join(program.path.as_str())).with_context(making)?;
        }
        let image = self.package.manifest.container_image.as_ref();
        if let Some((image, name)) = image.and_then(|image| Some((image, image.program.as_ref()?)))
        {
            let program = plan
                .program(programs, name, Linkage::Static)
                .with_context(making)?;
            let mut layer = Layer::new();
            layer.copy(name.as_str(), &program).with_context(making)?;
            let place = format!("{CONTAINER_IMAGES}/{}", self.package.software());
            write_image(image, plan.arch, layer, &out.join(place)).with_context(making)?;
        }
        if let Some(origin) = &self.package.manifest.go {
            let built = go
                .context("its programs were not built")
                .with_context(making)?;
            for (name, place) in origin.programs() {
                copy_program(&built.path().join(name), &out.join(place.as_str()))
                    .with_context(making)?;
            }
        }
        files::install(self.package, out).with_context(making)
    }
}

/// The files of a container image's root as its layer.
fn layer_of(root: &Rootfs) -> Result<Layer> {
    let mut layer = Layer::new();
    for (path, entry) in root.iter() {
        match &entry.content {
            Content::Folder => layer.folder(path, entry.mode)?,
            Content::Link(target) => layer.link(path, target)?,
            Content::File(_) | Content::Bytes(_) => {
                let bytes = entry.read()?.unwrap_or_default();
                layer.file(path, entry.mode & 0o777, &bytes)?
            }
        };
    }
    Ok(layer)
}

/// Writes a container image of one layer into the folder `to`.
fn write_image(image: &ContainerImage, arch: Arch, layer: Layer, to: &Path) -> Result<()> {
    let architecture = match arch {
        Arch::X86_64 => Architecture::Amd64,
        Arch::Aarch64 => Architecture::Arm64,
    };
    let entrypoint = match &image.program {
        Some(program) => vec![format!("/{program}")],
        None => image.entrypoint.clone(),
    };
    let config = Config {
        entrypoint,
        user: image.user.clone(),
        ..Config::default()
    };
    Image::new(architecture, &config, vec![layer]).write_layout(&image.name, to)
}

fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Indices of the sets that have programs of `package`.
fn sets_of(package: &Package, programs: &[PlannedPrograms]) -> Vec<usize> {
    (0..programs.len())
        .filter(|set| has_program_of(package, programs[*set].set.link))
        .collect()
}

/// Whether the package has a program of the workspace that is linked so.
fn has_program_of(package: &Package, link: Linkage) -> bool {
    let mut programs = package.manifest.workspace_programs();
    programs.any(|(_, linked)| linked == link)
}

/// Locks a mutex; a job that has failed cannot have left half a value.
fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_image_has_its_files_and_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::write(tree.join("usr/bin/hold"), "code").unwrap();
        let text = "name = 'localhost/a:1'\npackages = []\nentrypoint = ['/hold']\nuser = '1:2'";
        let image: ContainerImage = toml::from_str(text).unwrap();
        let layout = |name: &str| {
            let to = folder.path().join(name);
            let mut root = Rootfs::new();
            root.add_tree(&Name::try_from("a".to_string()).unwrap(), &tree)
                .unwrap();
            write_image(&image, Arch::Aarch64, layer_of(&root).unwrap(), &to).unwrap();
            fs::read_to_string(to.join("index.json")).unwrap()
        };
        let index = layout("one");
        assert_eq!(index, layout("other"));
        for part in ["localhost/a:1", "arm64"] {
            assert!(index.contains(part), "{part:?} is not in {index}");
        }
        let blobs = fs::read_dir(folder.path().join("one/blobs/sha256")).unwrap();
        let contents: Vec<String> = blobs
            .map(|blob| {
                let bytes = fs::read(blob.unwrap().path()).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
            .collect();
        for part in ["\"/hold\"", "\"1:2\"", "code", "usr/bin/hold", "lib64"] {
            let found = contents.iter().any(|content| content.contains(part));
            assert!(found, "{part:?} is not in {contents:?}");
        }
    }
}
