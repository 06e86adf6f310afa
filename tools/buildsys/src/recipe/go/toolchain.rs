//! Toolchains of Go, which Go distributes as modules.
//!
//! The Go of the locked toolchain fetches the one that a `go.mod` names, as Go does
//! by itself. Its hash is in `Bulkhead.toml`, so that what builds is pinned by the
//! repository, as modules are by go.sum.

use super::gomod::GoVersion;
use super::settings::{UserSettings, offline};
use super::{capture, downloads, explain};
use crate::executor::JobContext;
use crate::project::{GoConfig, Project};
use crate::sdk::{self, Toolchain};
use crate::store::{self, Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result, bail, ensure};
use sandbox::Sandbox;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Changes when the same module must give another tree.
const LAYOUT_VERSION: &str = "1";

/// The module that Go distributes its toolchains as.
const MODULE: &str = "golang.org/toolchain";

/// Which toolchain is wanted, and the hash that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    version: GoVersion,
    hash: Option<String>,
}

impl Pin {
    /// The pin of `version`. One that is not there is an error only when the
    /// toolchain is wanted, which can then tell the hash to write down.
    pub fn of(config: &GoConfig, version: &GoVersion) -> Result<Self> {
        let name = version.to_string();
        let hashes = config.toolchains.get(&name);
        let hash = hashes.and_then(|hashes| Some(hashes.get(&sdk::workstation().ok()?)?.clone()));
        if let Some(hash) = &hash {
            let digest = hash.strip_prefix("h1:").unwrap_or_default();
            ensure!(
                digest.len() == 44 && digest.ends_with('='),
                "Bulkhead.toml: [go.toolchains] has {hash:?} for {name}, which is no hash as in a go.sum file"
            );
        }
        Ok(Self {
            version: version.clone(),
            hash,
        })
    }

    /// The version.
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// The key of the toolchain.
    pub fn key(&self) -> Key {
        KeyBuilder::new("go-toolchain")
            .field("layout", LAYOUT_VERSION)
            .field("version", self.version.to_string())
            .field("hash", self.hash.as_deref().unwrap_or("unknown"))
            .finish()
    }

    /// Version of the module that has it.
    fn module_version(&self) -> Result<String> {
        let arch = sdk::workstation()?.go();
        Ok(format!("v0.0.1-go{}.linux-{arch}", self.version))
    }

    fn check(&self, found: &str) -> Result<()> {
        let version = &self.version;
        match &self.hash {
            Some(hash) if hash == found => Ok(()),
            Some(hash) => bail!(
                "the toolchain go{version} that was downloaded has the hash {found}, but Bulkhead.toml says {hash}: \
                 whoever serves it has changed it, or the hash is wrong"
            ),
            None => bail!(
                "a go.mod names go{version}, whose hash is not in Bulkhead.toml; add this to [go.toolchains]:\n    \
                 \"{version}\".{} = \"{found}\"",
                sdk::workstation()?
            ),
        }
    }
}

/// A toolchain of Go, which the store keeps while this exists.
#[derive(Clone, Debug)]
pub struct GoToolchain {
    root: PathBuf,
    /// Where it is seen in sandboxes.
    place: PathBuf,
    _entry: Option<Entry>,
}

/// Where toolchains are seen in sandboxes.
const PLACE: &str = "/go";

impl GoToolchain {
    /// The toolchain of `pin`, fetched by the Go of `base` unless it is in the store.
    pub fn prepare(
        context: &JobContext,
        project: &Project,
        pin: &Pin,
        base: &Toolchain,
        settings: &UserSettings,
        store: &Store,
    ) -> Result<Self> {
        let entry = store
            .build(&pin.key(), |staging| {
                context.task().note(format!("go{}", pin.version));
                fetch(context, project, pin, base, settings, staging)
            })
            .with_context(|| format!("cannot get the toolchain go{}", pin.version))?;
        Ok(Self {
            root: entry.path().to_path_buf(),
            place: PLACE.into(),
            _entry: Some(entry),
        })
    }

    /// One that lies in the folder `root` of this machine, for tests. It is seen there,
    /// for links may lead out of it.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            place: root.to_path_buf(),
            _entry: None,
        }
    }

    /// A sandbox in `base` in which `go` is this toolchain, and behaves the same
    /// whoever runs it.
    pub fn sandbox(&self, base: &Toolchain) -> Sandbox {
        environment(base.sandbox())
            .read_only(&self.root, &self.place)
            .env(
                "PATH",
                format!("{}/bin:/usr/bin:/bin", self.place.display()),
            )
    }
}

/// Leaves nothing to Go's defaults that they take from the machine.
fn environment(sandbox: Sandbox) -> Sandbox {
    sandbox
        .env("GOENV", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOTELEMETRY", "off")
        .env("GOPATH", "/tmp/go")
        .env("GOFLAGS", "-modcacherw")
}

fn fetch(
    context: &JobContext,
    project: &Project,
    pin: &Pin,
    base: &Toolchain,
    settings: &UserSettings,
    staging: &Path,
) -> Result<()> {
    let version = pin.module_version()?;
    let kept = downloads(project)?;
    let modules = staging.join("modules");
    let download = |sandbox: Sandbox| -> Result<()> {
        store::remove_tree(&modules)?;
        fs::create_dir_all(&modules)
            .with_context(|| format!("cannot make {}", modules.display()))?;
        let command = sandbox
            .writable(&modules, "/modules")
            .env("GOMODCACHE", "/modules")
            .working_dir("/tmp")
            .command("go", ["mod", "download", &format!("{MODULE}@{version}")]);
        capture(context, &format!("download go{}", pin.version), command)
            .map(drop)
            .map_err(explain)
    };
    let hash = || -> Result<String> {
        let path = modules.join(format!("cache/download/{MODULE}/@v/{version}.ziphash"));
        let hash = fs::read_to_string(&path)
            .with_context(|| format!("Go left no hash of its toolchain in {}", path.display()))?;
        Ok(hash.trim().to_string())
    };
    // What an earlier build has downloaded is as good as its hash is.
    let zip = kept.join(format!("{MODULE}/@v/{version}.zip"));
    let base = environment(base.sandbox());
    let is_kept = pin.hash.is_some()
        && zip.exists()
        && download(offline(base.clone(), &kept)).is_ok()
        && hash().is_ok_and(|hash| pin.check(&hash).is_ok());
    if !is_kept {
        let _ = fs::remove_file(&zip);
        download(settings.apply(base, &kept))?;
        pin.check(&hash()?)?;
        super::keep(&modules.join("cache/download"), &kept)?;
    }
    let tree = modules.join(format!("{MODULE}@{version}"));
    complete(&tree).with_context(|| format!("cannot complete {}", tree.display()))?;
    for entry in fs::read_dir(&tree).with_context(|| format!("cannot list {}", tree.display()))? {
        let from = entry.context("cannot list the toolchain")?.path();
        let to = staging.join(from.file_name().unwrap_or_default());
        fs::rename(&from, &to).with_context(|| format!("cannot move {}", from.display()))?;
    }
    store::remove_tree(&modules)
}

/// A module can have neither programs nor a go.mod of another one in it. Go, when it
/// switches to a toolchain, does this.
fn complete(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let is_programs = path.ends_with("bin") || path.ends_with("pkg/tool");
            complete(&path)?;
            if is_programs {
                make_executable(&path)?;
            }
        } else if path.ends_with("_go.mod") {
            fs::copy(&path, path.with_file_name("go.mod"))?;
        }
    }
    Ok(())
}

fn make_executable(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_hash_is_told_and_a_wrong_one_refused() {
        let version: GoVersion = "1.26.5".parse().unwrap();
        let hash = format!("h1:{}=", "a".repeat(43));
        let pin = |text: &str| Pin::of(&toml::from_str(text).unwrap(), &version);
        let known = pin(&format!(
            "[toolchains.'1.26.5']\nx86_64 = '{hash}'\naarch64 = '{hash}'"
        ))
        .unwrap();
        known.check(&hash).unwrap();
        let told = known.check("h1:other").unwrap_err().to_string();
        assert!(told.contains("Bulkhead.toml says h1:aaa"), "{told}");
        let unknown = pin("").unwrap();
        assert_ne!(unknown.key(), known.key());
        let told = unknown.check(&hash).unwrap_err().to_string();
        assert!(told.contains("\"1.26.5\"."), "{told}");
        assert!(told.contains(&format!("= \"{hash}\"")), "{told}");
        assert!(pin("[toolchains.'1.26.5']\nx86_64 = 'x'\naarch64 = 'x'").is_err());
    }

    #[test]
    fn a_toolchain_that_was_a_module_can_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in [
            "bin/go",
            "pkg/tool/linux_amd64/link",
            "src/_go.mod",
            "src/a.go",
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
        complete(root).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("bin/go"), 0o755);
        assert_eq!(mode("pkg/tool/linux_amd64/link"), 0o755);
        assert_eq!(mode("src/a.go"), 0o644);
        assert!(root.join("src/go.mod").exists());
    }
}
