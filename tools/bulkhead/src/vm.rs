//! What `run`, `scenario` and `bench` share: the emulator and the images.

use anyhow::{Context, Result, bail};
use buildsys::fetch::Fetcher;
use buildsys::image::{self, BuildRequest};
use buildsys::keys::{Keys, Role};
use buildsys::lock::Lock;
use buildsys::progress::Progress;
use buildsys::project::{Arch, Project};
use buildsys::sdk::Toolchain;
use buildsys::store::Store;
use std::path::{Path, PathBuf};
use test_vm::firmware::{self, Certificates};
use test_vm::{Acceleration, Emulator};

/// What is appended to a variant's name to name its dev twin.
const TWIN: &str = "-dev";

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

/// Gets the emulator toolchain ready, and finds out what it can do here. `scratch`
/// is a folder for what that leaves.
pub fn prepare(project: &Project, scratch: &Path, progress: &Progress) -> Result<Emulation> {
    let lock = Lock::load(project)?;
    let store = Store::open(&project.store_dir(), project.config.store.size_limit.0)?;
    let fetcher = Fetcher::new(project, progress)?;
    let toolchain = Toolchain::prepare(project, &lock, "emulator", &store, &fetcher, progress)?;
    let (root, key) = (toolchain.root().to_path_buf(), toolchain.key().to_string());
    let emulator = Emulator::new(&root, &key, move || toolchain.sandbox());
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
    let variant = named.strip_suffix(TWIN).unwrap_or(named);
    (variant.to_string(), format!("{variant}{TWIN}"))
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
    let latest = project
        .build_dir()
        .join("images")
        .join(format!("{variant}-{arch}"))
        .join("latest");
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

/// Refuses what cannot be emulated yet.
pub fn check_arch(arch: Arch) -> Result<()> {
    if arch != Arch::X86_64 {
        bail!("images for {arch} cannot be booted here yet: the emulator toolchain is for x86_64");
    }
    Ok(())
}
