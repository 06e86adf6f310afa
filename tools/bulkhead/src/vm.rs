//! What `run`, `scenario` and `bench` share: the emulator and the images.

use anyhow::{Context, Result, bail};
use buildsys::fetch::Fetcher;
use buildsys::image::{self, BuildRequest, inspect};
use buildsys::keys::{Keys, Role};
use buildsys::lock::{FetchOptions, Lock};
use buildsys::manifest::DEV_SUFFIX;
use buildsys::manifest::Name;
use buildsys::package::{self, PackageTree};
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::sdk::{self, Toolchain};
use buildsys::store::Store;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use sysutil::time::Time;
use test_vm::cluster::{Architecture, Programs};
use test_vm::firmware::{self, Certificates};
use test_vm::{Acceleration, Emulator};

/// How long the root of trust is good that is made when there is none, in seconds.
const UPDATE_KEYS_GOOD_FOR: u64 = 10 * 365 * 86_400;

/// The emulator, ready to start machines.
pub struct Emulation {
    /// The toolchain.
    pub emulator: Emulator,
    /// How guests are executed.
    pub acceleration: Acceleration,
    /// Why that way.
    pub reason: String,
    /// Firmware variables with our keys.
    pub variables: PathBuf,
    /// The keys that images are signed with.
    pub keys: Keys,
}

/// Gets the emulator toolchain for machines of `arch` ready, and finds out what it can
/// do here. `scratch` is a folder for what that leaves.
pub fn prepare(
    project: &Project,
    arch: Arch,
    scratch: &Path,
    progress: &Progress,
) -> Result<Emulation> {
    let lock = Lock::load(project)?;
    let store = Store::open(&project.store_dir(), project.config.store.size_limit.0)?;
    let fetcher = Fetcher::new(project, progress)?;
    let toolchain =
        Toolchain::prepare(project, &lock, "emulator", arch, &store, &fetcher, progress)?;
    let (root, key) = (toolchain.root().to_path_buf(), toolchain.key().to_string());
    let emulator = Emulator::new(&root, &key, arch.into(), move || toolchain.sandbox());
    let (acceleration, reason) = Acceleration::detect(&emulator, scratch)?;
    let keys = Keys::load_or_create(&project.keys_dir())?;
    let certificates = Certificates {
        pk: keys.certificate_path(Role::Platform),
        kek: keys.certificate_path(Role::Exchange),
        db: keys.certificate_path(Role::Database),
    };
    let variables = firmware::variables(&emulator, &certificates, &project.cache_dir())?;
    Ok(Emulation {
        emulator,
        acceleration,
        reason,
        variables,
        keys,
    })
}

/// The variant without the dev door and the twin with it, whichever was named.
pub fn pair(project: &Project, named: Option<&str>) -> (String, String) {
    let named = named.unwrap_or(&project.config.release.default_variant);
    let variant = named.strip_suffix(DEV_SUFFIX).unwrap_or(named);
    (variant.to_string(), format!("{variant}{DEV_SUFFIX}"))
}

/// The folder of the image of `variant`: built first, or with `build` off the
/// latest that there is.
pub fn image(
    project: &Project,
    variant: &str,
    arch: Arch,
    build: bool,
    progress: &Progress,
) -> Result<PathBuf> {
    if build {
        let request = BuildRequest {
            variant: Some(variant.to_string()),
            arch,
            locked: false,
        };
        return Ok(image::build(project, &request, progress)?.folder);
    }
    let latest = inspect::latest_folder(project, variant, arch);
    if !latest.join("disk.img").is_file() {
        bail!(
            "there is no image of {variant} in {}; leave out --no-build, or run `bulkhead build --variant {variant}`",
            latest.display()
        );
    }
    latest
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", latest.display()))
}

/// The folder of the image of the version after the project's, which stays the latest.
pub fn next_image(
    project: &Project,
    variant: &str,
    arch: Arch,
    build: bool,
    progress: &Progress,
) -> Result<PathBuf> {
    let mut next = project.clone();
    next.config.release.version = scenarios::next_version(&project.config.release.version)?;
    if !build {
        let images = project.images_dir(variant, arch);
        return Ok(images.join(&next.config.release.version));
    }
    let folder = image(&next, variant, arch, true, progress)?;
    image(project, variant, arch, true, progress)?;
    Ok(folder)
}

/// The keys of update repositories, made if there are none. Images trust the repository
/// whose keys are there when they are built, so this comes before.
pub fn update_keys(project: &Project) -> Result<update_repository::Keys> {
    let good_until = Time::now().plus(UPDATE_KEYS_GOOD_FOR);
    update_repository::Keys::load_or_create(&project.update_keys_dir(), good_until)
}

/// The programs that a cluster needs besides its nodes, which the store keeps while
/// this exists.
pub struct ClusterPrograms {
    programs: Programs,
    _trees: Vec<PackageTree>,
}

impl Deref for ClusterPrograms {
    type Target = Programs;

    fn deref(&self) -> &Programs {
        &self.programs
    }
}

/// Packages that a cluster has programs of beyond what every cluster has.
#[derive(Debug, Default)]
pub struct More<'a> {
    /// Those that run beside machines.
    pub beside: &'a [&'a str],
    /// Those that run in containers.
    pub contained: &'a [&'a str],
}

/// Builds the programs that a cluster needs besides its nodes, which are of `variant` and
/// for `arch`: the control plane has their version. `more` are further packages.
/// kube-proxy is there for the workstation's architecture alone, since it is built with
/// the control plane.
pub fn cluster_programs(
    project: &Project,
    variant: &str,
    arch: Arch,
    more: &More<'_>,
    progress: &Progress,
) -> Result<ClusterPrograms> {
    let kubernetes = kubernetes_of(variant)?;
    let control_plane = format!("kube-control-plane-{kubernetes}");
    let beside = [
        &["busybox", "etcd", &control_plane, "registry"],
        more.beside,
    ]
    .concat();
    let contained = [&["busybox", "nft"], more.contained].concat();
    let build = |names: &[&str], arch| {
        let names = names.iter().map(|name| Name::try_from((*name).to_string()));
        let names: Vec<Name> = names
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::msg)?;
        package::build(project, &names, arch, FetchOptions::default(), progress)
    };
    let nodes = match arch {
        Arch::X86_64 => Architecture::Amd64,
        Arch::Aarch64 => Architecture::Arm64,
    };
    let workstation = sdk::workstation()?;
    let mut trees = build(&beside, workstation)?;
    let others = trees.len();
    trees.extend(build(&contained, arch)?);
    // Where all are of one architecture, each may run in either place.
    let (beside, contained) = match arch == workstation {
        true => (&trees[..], &trees[..]),
        false => trees.split_at(others),
    };
    let programs = Programs::find(
        beside.iter().map(PackageTree::path),
        contained.iter().map(PackageTree::path),
        nodes,
    )?;
    Ok(ClusterPrograms {
        programs,
        _trees: trees,
    })
}

/// The Kubernetes version that a variant is named for, such as `1.36`.
pub fn kubernetes_of(variant: &str) -> Result<&str> {
    let name = variant.strip_suffix(DEV_SUFFIX).unwrap_or(variant);
    let (_, version) = name.split_once("-k8s-").with_context(|| {
        format!("{variant} has no Kubernetes: a cluster needs a variant such as metal-k8s-1.36")
    })?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_named_for_their_kubernetes() {
        assert_eq!(kubernetes_of("metal-k8s-1.36").unwrap(), "1.36");
        assert_eq!(kubernetes_of("aws-k8s-1.37-dev").unwrap(), "1.37");
        assert!(kubernetes_of("metal-core").is_err());
    }
}
