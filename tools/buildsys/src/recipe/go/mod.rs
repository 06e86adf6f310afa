//! Origin `go`: programs of Go modules.
//!
//! A package's folder has a `go.mod` and a `go.sum`, which say what is built and pin
//! all of it. Steps of [`GoPrograms::build`]:
//!
//! 1. [`GoToolchain::prepare`] gets the toolchain that the `go.mod` names.
//! 2. `modules` lets it fetch what the `go.mod` requires, with the user's settings,
//!    verified by `go.sum`, into a store entry.
//! 3. `compile` builds all commands offline in one run, in a sandbox that sees
//!    nothing but 1, 2 and a folder for Go's cache.
//!
//! The cache is shared by all packages of a toolchain, so that what several link is
//! compiled once, and leaves no trace in what comes out.

pub mod buildinfo;
pub mod gomod;
mod settings;
mod toolchain;

pub use toolchain::{GoToolchain, Pin};

use super::cache::CacheFolder;
use crate::executor::JobContext;
use crate::manifest::{GoCommand, GoOrigin, Package};
use crate::project::{Arch, Project};
use crate::sdk::{SOURCE_DATE_EPOCH, Toolchain};
use crate::store::{self, Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result, bail, ensure};
use gomod::GoMod;
use sandbox::{Sandbox, SandboxCommand};
use settings::UserSettings;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Changes when the same sources must give other programs.
const RECIPE_VERSION: &str = "1";

/// The locked toolchain whose Go fetches, and whose C compiler serves cgo.
pub const TOOLCHAIN: &str = "go";

/// Go's cache is started afresh when it is larger than this. Go removes by itself
/// what it has not used for five days.
const CACHE_LIMIT: u64 = 8 << 30;

/// [`SOURCE_DATE_EPOCH`] as programs print times.
const DATE: &str = "2020-01-01T00:00:00Z";
const _: () = assert!(SOURCE_DATE_EPOCH == 1_577_836_800);

/// What protects C code as the rest of the image is protected.
const C_FLAGS: &str = "-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2";

/// The Go programs of one package.
#[derive(Clone, Debug)]
pub struct GoPrograms {
    package: String,
    origin: GoOrigin,
    /// The folder of `go.mod`, for messages.
    place: String,
    go_mod: String,
    go_sum: String,
    module: GoMod,
    pin: Pin,
    arch: Arch,
}

impl GoPrograms {
    /// What `package` says about Go programs, `None` if it has none.
    pub fn read(project: &Project, package: &Package, arch: Arch) -> Result<Option<Self>> {
        let (Some(origin), Some(folder)) = (&package.manifest.go, &package.modules) else {
            return Ok(None);
        };
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}, which {} needs for [go]",
                    path.display(),
                    package.manifest_path()
                )
            })
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let place = folder
            .strip_prefix(package.repository())
            .unwrap_or(folder)
            .display()
            .to_string();
        let module =
            GoMod::parse(&go_mod).with_context(|| format!("{place}/go.mod cannot be used"))?;
        let pin = Pin::of(&project.config.go, &module.toolchain)?;
        let programs = Self {
            package: package.name().to_string(),
            origin: origin.clone(),
            place,
            go_mod,
            go_sum,
            module,
            pin,
            arch,
        };
        for command in origin.commands.iter().chain(&origin.tests) {
            programs.module_of(&command.import)?;
        }
        Ok(Some(programs))
    }

    /// The key of the programs. `base` is the key of the locked toolchain, which
    /// counts where C code is compiled.
    pub fn key(&self, base: &Key) -> Result<Key> {
        let tags: Vec<&str> = self.origin.tags.iter().map(|tag| tag.as_str()).collect();
        let mut key = KeyBuilder::new("go-programs")
            .field("recipe", RECIPE_VERSION)
            .key("toolchain", &self.pin.key())
            .field("architecture", self.arch.to_string())
            .field("commands", imports(&self.origin.commands).join(" "))
            .field("tags", tags.join(" "))
            .field("linker", self.linker_flags()?)
            .field("go.mod", &self.go_mod)
            .field("go.sum", &self.go_sum);
        if !self.origin.tests.is_empty() {
            key = key.field("tests", imports(&self.origin.tests).join(" "));
        }
        if self.origin.cgo {
            key = key.key("base", base).field("c", C_FLAGS);
        }
        Ok(key.finish())
    }

    /// Name and version of the module that the package is named after: the one that
    /// has the first command.
    pub fn version(&self) -> Result<(&str, &str)> {
        self.module_of(&self.origin.commands[0].import)
    }

    /// The programs, each by its name at the top of the entry; built unless they are
    /// in the store. `base` is the locked toolchain, which is asked for only then.
    /// `cache` is where caches lie; without one everything is compiled anew and
    /// nothing is kept.
    pub fn build(
        &self,
        context: &JobContext,
        project: &Project,
        base: &Toolchain,
        store: &Store,
        cache: Option<&Path>,
    ) -> Result<Entry> {
        let key = self.key(base.key())?;
        if let Some(entry) = store.get(&key)? {
            return Ok(entry);
        }
        let settings = UserSettings::read(base)?;
        let go = GoToolchain::prepare(context, project, &self.pin, base, &settings, store)?;
        let modules = self.modules(context, project, base, &go, &settings, store)?;
        self.build_from(context, base, &go, &modules, store, cache)
    }

    /// The programs, built from what is there.
    fn build_from(
        &self,
        context: &JobContext,
        base: &Toolchain,
        go: &GoToolchain,
        modules: &Entry,
        store: &Store,
        cache: Option<&Path>,
    ) -> Result<Entry> {
        let sandbox = go.sandbox(base).read_only(modules.path(), "/modules");
        store.build(&self.key(base.key())?, |staging| match cache {
            Some(cache) => {
                let folder = CacheFolder::open(cache, &self.cache_name(base), "go", CACHE_LIMIT)?;
                self.compile(context, sandbox, &folder.path.join("go"), staging)
            }
            None => self.compile(context, sandbox, &staging.join("work/cache"), staging),
        })
    }

    /// Name of the cache's folder. Go's cache notices another compiler of C, but no
    /// other headers and libraries.
    fn cache_name(&self, base: &Toolchain) -> String {
        match self.origin.cgo {
            true => format!("{}-{}", self.pin.key(), base.key()),
            false => self.pin.key().to_string(),
        }
    }

    fn module_of(&self, import: &str) -> Result<(&str, &str)> {
        self.module.module_of(import).with_context(|| {
            format!(
                "packages of {}: [go] commands has {import}, but {}/go.mod requires no module that could have it; \
                 run `go get -tool {import}@VERSION` there",
                self.package, self.place
            )
        })
    }

    /// Position-independence is a mode of the build; the linker then makes RELRO, and
    /// with this binds all symbols at the start.
    fn linker_flags(&self) -> Result<String> {
        let version = self.version()?.1.trim_start_matches('v');
        let mut numbers = version.split(['.', '-', '+']);
        let (major, minor) = (numbers.next(), numbers.next());
        let field = |name: &str| {
            let value = match name {
                "version" => Some(version),
                "major" => major,
                "minor" => minor,
                "date" => Some(DATE),
                _ => None,
            };
            value.unwrap_or_default().to_string()
        };
        let mut flags = "-s -w -bindnow".to_string();
        for (variable, value) in &self.origin.stamps {
            flags.push_str(&format!(" -X {variable}={}", value.render(field)));
        }
        Ok(flags)
    }

    /// The modules that the `go.mod` requires, as a store entry that is Go's module
    /// cache. Archives of modules are kept with other downloads instead.
    fn modules(
        &self,
        context: &JobContext,
        project: &Project,
        base: &Toolchain,
        go: &GoToolchain,
        settings: &UserSettings,
        store: &Store,
    ) -> Result<Entry> {
        let key = KeyBuilder::new("go-modules")
            .field("recipe", RECIPE_VERSION)
            .key("toolchain", &self.pin.key())
            .field("go.mod", &self.go_mod)
            .field("go.sum", &self.go_sum)
            .finish();
        store
            .build(&key, |staging| {
                context.task().note("go mod download");
                let kept = downloads(project)?;
                let what = format!("download the modules of {}/go.mod", self.place);
                let download = |sandbox: Sandbox| -> Result<()> {
                    let source = staging.join("work/source");
                    let modules = staging.join("work/modules");
                    store::remove_tree(&staging.join("work"))?;
                    for folder in [&source, &modules] {
                        fs::create_dir_all(folder)
                            .with_context(|| format!("cannot make {}", folder.display()))?;
                    }
                    self.write_lists(&source)?;
                    let command = sandbox
                        .read_only(&source, "/source")
                        .writable(&modules, "/modules")
                        .env("GOMODCACHE", "/modules")
                        .working_dir("/source")
                        .command("go", ["mod", "download"]);
                    capture(context, &what, command).map(drop)
                };
                let sandbox = go.sandbox(base);
                let first = download(settings.apply(sandbox.clone(), &kept));
                match first {
                    // One that was kept may have been damaged since.
                    Err(error) if is_damage(&error) => {
                        let none = staging.join("none");
                        fs::create_dir_all(&none)
                            .with_context(|| format!("cannot make {}", none.display()))?;
                        download(settings.apply(sandbox, &none))?;
                        store::remove_tree(&none)?;
                    }
                    other => other?,
                }
                let modules = staging.join("work/modules");
                keep(&modules.join("cache/download"), &kept)?;
                move_all(&modules, staging)?;
                store::remove_tree(&staging.join("work"))
            })
            .map_err(explain)
    }

    fn write_lists(&self, folder: &Path) -> Result<()> {
        for (name, text) in [("go.mod", &self.go_mod), ("go.sum", &self.go_sum)] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Compiles all commands into the folder `out`. `sandbox` has the toolchain and
    /// the modules.
    fn compile(
        &self,
        context: &JobContext,
        sandbox: Sandbox,
        cache: &Path,
        out: &Path,
    ) -> Result<()> {
        let work = out.join("work");
        let (source, temporary, programs) =
            (work.join("source"), work.join("tmp"), work.join("out"));
        for folder in [&source, &temporary, &programs, &cache.to_path_buf()] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        self.write_lists(&source)?;
        let mut sandbox = sandbox
            .read_only(&source, "/source")
            .writable(cache, "/cache")
            .writable(&temporary, "/work")
            .writable(&programs, "/out")
            .working_dir("/source")
            .env("GOMODCACHE", "/modules")
            .env("GOCACHE", "/cache")
            .env("GOTMPDIR", "/work")
            .env("GOPROXY", "off")
            .env("GOSUMDB", "off")
            .env("GOFLAGS", "-mod=readonly -trimpath -buildvcs=false")
            .env("GOOS", "linux")
            .env("GOARCH", self.arch.go())
            .env("GOAMD64", "v1")
            .env("GOARM64", "v8.0")
            .env("CGO_ENABLED", if self.origin.cgo { "1" } else { "0" });
        if self.origin.cgo {
            sandbox = c_compiler(sandbox, self.arch)?;
        }
        let tags: Vec<&str> = self.origin.tags.iter().map(|tag| tag.as_str()).collect();
        let tags = format!("-tags={}", tags.join(","));

        context.task().note("go list");
        let mut list: Vec<&str> = vec!["list", &tags, "-deps", "-f", "{{.Name}} {{.ImportPath}}"];
        list.extend(imports(&self.origin.commands));
        list.extend(imports(&self.origin.tests));
        let what = format!("list what the commands of {} import", self.package);
        let linked = capture(context, &what, sandbox.command("go", list)).map_err(explain)?;
        self.check_packages(&linked)?;

        context.task().note("go build");
        let flags = format!("-ldflags={}", self.linker_flags()?);
        let commands = imports(&self.origin.commands);
        let mut build: Vec<&str> = vec!["build", "-buildmode=pie", &tags, &flags, "-o", "/out/"];
        build.extend(&commands);
        let what = format!("build {}", commands.join(", "));
        capture(context, &what, sandbox.command("go", build)).map_err(explain)?;
        for import in imports(&self.origin.tests) {
            let build = [
                "test",
                "-c",
                "-buildmode=pie",
                &tags,
                &flags,
                "-o",
                "/out/",
                import,
            ];
            let what = format!("build the tests of {import}");
            capture(context, &what, sandbox.command("go", build)).map_err(explain)?;
        }
        for (name, _) in self.origin.programs() {
            let (from, to) = (programs.join(&name), out.join(&name));
            fs::rename(&from, &to)
                .and_then(|()| fs::set_permissions(&to, Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot move the program {}", from.display()))?;
        }
        store::remove_tree(&work)
    }

    /// Checks the packages that are linked, each a line with its name and its path.
    /// Go itself passes over what would have no effect.
    fn check_packages(&self, linked: &str) -> Result<()> {
        let packages: BTreeMap<&str, &str> = linked
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, path)| (path, name))
            .collect();
        for import in imports(&self.origin.commands) {
            let name = packages.get(import).copied().unwrap_or_default();
            ensure!(
                name == "main",
                "[go] commands of {} has {import}, which is the package {name} and no program",
                self.package
            );
        }
        for variable in self.origin.stamps.keys() {
            let package = variable.rsplit_once('.').map_or("", |(package, _)| package);
            ensure!(
                package == "main" || packages.contains_key(package),
                "[go] stamps of {} sets {variable}, but no command has the package {package}",
                self.package
            );
        }
        Ok(())
    }
}

fn imports(commands: &[GoCommand]) -> Vec<&str> {
    let commands = commands.iter();
    commands.map(|command| command.import.as_str()).collect()
}

/// Where caches of Go lie in the user's cache folder.
pub fn caches_dir(cache: &Path) -> PathBuf {
    cache.join("go-build")
}

/// The archives of modules that were downloaded, laid out as a module proxy.
fn downloads(project: &Project) -> Result<PathBuf> {
    let folder = project.downloads_dir().join("go");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Moves archives from Go's module cache to the downloads, and copies what belongs
/// to them. Go needs no archive of what it has unpacked.
fn keep(cache: &Path, downloads: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).with_context(|| format!("cannot list {}", cache.display()))? {
        let path = entry
            .with_context(|| format!("cannot list {}", cache.display()))?
            .path();
        let target = downloads.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            // What the checksum database has said is of no use to anybody else.
            if !path.ends_with("cache/download/sumdb") {
                keep(&path, &target)?;
            }
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("zip" | "mod" | "info")) && !target.exists() {
            copy_whole(&path, &target)
                .with_context(|| format!("cannot keep {}", target.display()))?;
        }
        if extension == Some("zip") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Copies a file so that it is seen whole or not at all.
fn copy_whole(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut temporary = to.as_os_str().to_os_string();
    temporary.push(format!(".{}", std::process::id()));
    fs::copy(from, &temporary)?;
    fs::rename(&temporary, to)
}

/// Moves what lies in `from` to the folder `to` of the same file system.
fn move_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let path = entry
            .with_context(|| format!("cannot list {}", from.display()))?
            .path();
        let target = to.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &target).with_context(|| format!("cannot move {}", path.display()))?;
    }
    Ok(())
}

/// Has cgo compile and link for `arch`. Libraries for another architecture lie in a
/// folder of its own, and so does what tells of them.
fn c_compiler(sandbox: Sandbox, arch: Arch) -> Result<Sandbox> {
    let triple = arch.multiarch();
    let compiler = match arch == crate::sdk::workstation()? {
        true => "gcc".to_string(),
        false => format!("{triple}-gcc"),
    };
    Ok(sandbox
        .env("CC", compiler)
        .env("PKG_CONFIG_LIBDIR", format!("/usr/lib/{triple}/pkgconfig"))
        .env("CGO_CFLAGS", C_FLAGS)
        .env("CGO_CXXFLAGS", C_FLAGS))
}

/// Runs `command`, whose complaints go to the job's log, and gives what it printed.
fn capture(context: &JobContext, what: &str, command: SandboxCommand) -> Result<String> {
    crate::signals::check()?;
    let output = command.output().with_context(|| format!("cannot {what}"))?;
    crate::signals::check()?;
    let log = context.log();
    let write = || format!("cannot write the log {}", log.display());
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(write)?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|mut file| file.write_all(&output.stderr))
        .with_context(write)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let tail: Vec<String> = lines[lines.len().saturating_sub(25)..]
            .iter()
            .map(|line| format!("    {line}"))
            .collect();
        bail!(
            "cannot {what}: go ended with {}; the end of {}:\n{}",
            output.status,
            log.display(),
            tail.join("\n")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether an archive was not what it should be.
fn is_damage(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["checksum mismatch", "not a valid zip file"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// Puts before an error of Go what it means and what to do.
fn explain(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let has = |sign: &str| text.contains(sign);
    let meaning = if has("checksum mismatch") {
        "a module is not the one that go.sum or the checksum database knows: whoever serves it has changed it"
    } else if has("missing go.sum entry") || has("updating go.sum") {
        "go.sum lacks a line: run `go mod tidy` in the folder of the go.mod and commit both files"
    } else if has("updates to go.mod needed") || has("to update it:\n\tgo mod tidy") {
        "go.mod is not complete: run `go mod tidy` in its folder and commit it with go.sum"
    } else if has("requires go >=") {
        "a module needs a newer Go: raise the toolchain line of the go.mod"
    } else if [
        "dial tcp",
        "connection refused",
        "no such host",
        "i/o timeout",
        "proxyconnect",
        "tls: ",
        "x509: ",
    ]
    .into_iter()
    .any(has)
    {
        "cannot reach the Go module proxy or the checksum database: see GOPROXY, GOSUMDB, HTTPS_PROXY and SSL_CERT_FILE"
    } else if [
        "404 Not Found",
        "410 Gone",
        "403 Forbidden",
        "reading file://",
    ]
    .into_iter()
    .any(has)
    {
        "the Go module proxy does not give out a module: see GOPROXY, or require a version that it has"
    } else {
        return error;
    };
    error.context(meaning)
}

#[cfg(test)]
mod tests;
