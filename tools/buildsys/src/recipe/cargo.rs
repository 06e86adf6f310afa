//! Origin `cargo`: programs of this workspace, built by the toolchain's Rust.
//!
//! Programs are built in sets, one per [`Linkage`]: all programs of a set by one
//! run of cargo, so that they share their dependencies and so that the features
//! of those do not hang on which image is being built. Steps of a set:
//!
//! 1. [`Source::read`] takes what the programs reach out of the workspace: their
//!    folders, manifests without test dependencies, the part of Cargo.lock that
//!    counts. Its hash is what a set's key is made of.
//! 2. `vendor` lets the user's cargo fetch the crates of exactly that lock, with
//!    the user's settings, into a store entry.
//! 3. [`ProgramSet::build`] compiles offline in a sandbox that sees nothing but 1,
//!    2 and a target folder.
//!
//! The target folder is a cache: it makes a small change cheap and leaves no
//! trace in what comes out.

use super::cache::CacheFolder;
use crate::executor::{JobContext, run_logged};
use crate::manifest::{Definitions, Linkage};
use crate::project::Arch;
use crate::sdk::Toolchain;
use crate::store::{self, Entry, Key, KeyBuilder, Store};
use anyhow::{Context, Result, bail, ensure};
use sandbox::{Network, Sandbox, Stdio};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use toml::{Table, Value};

/// Changes when the same sources must give other programs.
const RECIPE_VERSION: &str = "1";

/// The profile of Cargo.toml that programs of the host are built with.
const PROFILE: &str = "host";

/// A target folder larger than this is started afresh: cargo never removes what
/// it does not need any more.
const TARGET_LIMIT: u64 = 6 << 30;

/// Programs that are linked alike, and therefore built together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSet {
    /// How they are linked.
    pub link: Linkage,
    /// Workspace members, each with a program of its name.
    pub crates: BTreeSet<String>,
}

/// Every program that the definitions name, as sets. Which variant is being
/// built does not matter, so that all variants share what is built.
pub fn program_sets(definitions: &Definitions) -> Vec<ProgramSet> {
    let mut sets: Vec<ProgramSet> = Vec::new();
    let packages = definitions.packages();
    for (name, link) in packages.flat_map(|package| package.manifest.workspace_programs()) {
        match sets.iter_mut().find(|set| set.link == link) {
            Some(set) => {
                set.crates.insert(name.to_string());
            }
            None => {
                sets.push(ProgramSet {
                    link,
                    crates: BTreeSet::from([name.to_string()]),
                });
            }
        }
    }
    sets
}

impl ProgramSet {
    /// The set's part of the workspace in the folder `workspace`.
    pub fn source(&self, workspace: &Path) -> Result<Source> {
        if self.link == Linkage::Efi {
            return super::efi::source(workspace, &self.crates);
        }
        let crates: Vec<&str> = self.crates.iter().map(String::as_str).collect();
        Source::read(workspace, &crates)
            .with_context(|| format!("cannot read the sources of {}", crates.join(", ")))
    }

    /// The key of the set's programs built from `source`.
    pub fn key(&self, source: &Source, toolchain: &Key, arch: Arch) -> Key {
        let crates: Vec<&str> = self.crates.iter().map(String::as_str).collect();
        KeyBuilder::new("programs")
            .field("recipe", RECIPE_VERSION)
            .key("toolchain", toolchain)
            .field("architecture", arch.to_string())
            .field("link", format!("{:?}", self.link))
            .field("crates", crates.join(" "))
            .field("source", source.hash())
            .finish()
    }

    /// The set's programs, each as `<crate>` at the top of the entry; built unless
    /// they are in the store. `cache` is where target folders lie; without one
    /// everything is compiled anew and nothing is kept.
    pub fn build(
        &self,
        context: &JobContext,
        source: &Source,
        toolchain: &Toolchain,
        arch: Arch,
        store: &Store,
        cache: Option<&Path>,
    ) -> Result<Entry> {
        let key = self.key(source, toolchain.key(), arch);
        if let Some(entry) = store.get(&key)? {
            return Ok(entry);
        }
        if self.link == Linkage::Efi {
            return store.build(&key, |staging| {
                super::efi::build(context, source, toolchain, arch, &self.crates, staging)
            });
        }
        let crates = vendor(context, source, store)?;
        store.build(&key, |staging| match cache {
            Some(cache) => {
                let folder = target_folder(cache, toolchain, self.link)?;
                self.compile(
                    context,
                    source,
                    crates.path(),
                    toolchain,
                    arch,
                    &folder.path,
                    staging,
                )
            }
            None => {
                let folder = staging.join("work");
                fs::create_dir(&folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                let built = self.compile(
                    context,
                    source,
                    crates.path(),
                    toolchain,
                    arch,
                    &folder,
                    staging,
                );
                store::remove_tree(&folder)?;
                built
            }
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn compile(
        &self,
        context: &JobContext,
        source: &Source,
        crates: &Path,
        toolchain: &Toolchain,
        arch: Arch,
        folder: &Path,
        out: &Path,
    ) -> Result<()> {
        let target = target(self.link, arch)?;
        let sources = folder.join("source");
        let lock = fs::read(crates.join("Cargo.lock"))
            .context("cannot read the lock of the vendored crates")?;
        source.write_to(&sources, &lock)?;
        let target_dir = folder.join("target");
        fs::create_dir_all(&target_dir)
            .with_context(|| format!("cannot make {}", target_dir.display()))?;
        let mut args: Vec<String> = [
            "build",
            "--frozen",
            "--config",
            "/vendor/config.toml",
            "--manifest-path",
            "/work/Cargo.toml",
            "--target-dir",
            "/target",
            "--target",
            target.triple,
            "--profile",
            PROFILE,
        ]
        .map(String::from)
        .to_vec();
        for name in &self.crates {
            args.extend([
                "--package".to_string(),
                name.clone(),
                "--bin".to_string(),
                name.clone(),
            ]);
        }
        let mut sandbox = toolchain
            .sandbox()
            .read_only(&sources, "/work")
            .read_only(crates, "/vendor")
            .writable(&target_dir, "/target")
            .working_dir("/work")
            .env("CARGO_HOME", "/tmp/cargo")
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_ENCODED_RUSTFLAGS", target.flags.join("\u{1f}"));
        if let Some(linker) = target.linker {
            let variable = target.triple.to_uppercase().replace('-', "_");
            sandbox = sandbox.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
        }
        let names: Vec<&str> = self.crates.iter().map(String::as_str).collect();
        context
            .task()
            .note(format!("cargo build {}", names.join(" ")));
        run_logged(
            &format!("build {} from sources/", names.join(", ")),
            sandbox.command("cargo", &args),
            context.log(),
        )?;
        for name in &self.crates {
            let file = format!("{name}{}", target.suffix);
            let built = target_dir.join(target.triple).join(PROFILE).join(file);
            let copy = out.join(name);
            fs::copy(&built, &copy)
                .and_then(|_| fs::set_permissions(&copy, Permissions::from_mode(0o755)))
                .with_context(|| {
                    format!(
                        "cannot copy the program {} to {}",
                        built.display(),
                        copy.display()
                    )
                })?;
        }
        Ok(())
    }
}

/// How cargo is told to compile for a target.
struct Target {
    triple: &'static str,
    flags: Vec<String>,
    linker: Option<&'static str>,
    suffix: &'static str,
}

fn target(link: Linkage, arch: Arch) -> Result<Target> {
    let triple = match arch {
        Arch::X86_64 => "x86_64-unknown-linux-gnu",
        Arch::Aarch64 => "aarch64-unknown-linux-gnu",
    };
    let linker = match (arch, crate::sdk::workstation()?) {
        (arch, workstation) if arch == workstation => None,
        (Arch::X86_64, _) => Some("x86_64-linux-gnu-gcc"),
        (Arch::Aarch64, _) => Some("aarch64-linux-gnu-gcc"),
    };
    // Position-independent, nothing writable that need not be, all symbols bound
    // at the start; shorter paths in messages of panics.
    let mut flags: Vec<String> = [
        "-Crelocation-model=pie",
        "-Crelro-level=full",
        "-Clink-arg=-Wl,-z,relro,-z,now,-z,noexecstack",
        "--remap-path-prefix=/work/sources/=",
        "--remap-path-prefix=/vendor/crates/=",
    ]
    .map(String::from)
    .to_vec();
    match link {
        Linkage::Dynamic => {}
        Linkage::Static => flags.push("-Ctarget-feature=+crt-static".to_string()),
        Linkage::Efi => bail!("EFI programs have a recipe of their own"),
    }
    Ok(Target {
        triple,
        flags,
        linker,
        suffix: "",
    })
}

/// The part of the workspace that some programs are built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path relative to the workspace → file.
    files: BTreeMap<String, SourceFile>,
    /// The entries of Cargo.lock that they reach, as a lock.
    lock: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SourceFile {
    content: Vec<u8>,
    executable: bool,
}

impl Source {
    /// Reads what the members `crates` of the workspace at `root` need: their
    /// folders and those of the members that they depend on.
    ///
    /// Manifests lose what a build of programs does not read (dependencies of
    /// tests, lints, other members), so that a change there is none here.
    pub fn read(root: &Path, crates: &[&str]) -> Result<Self> {
        let workspace = read_toml(&root.join("Cargo.toml"))?;
        let shared = table(&workspace, &["workspace", "dependencies"]);
        let mut files = BTreeMap::new();
        let mut members = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut queue: VecDeque<String> = crates
            .iter()
            .map(|name| format!("sources/{name}"))
            .collect();
        while let Some(folder) = queue.pop_front() {
            if members.contains_key(&folder) {
                continue;
            }
            let path = root.join(&folder).join("Cargo.toml");
            let mut manifest = read_toml(&path)?;
            strip_member(&mut manifest);
            let mut names = BTreeSet::new();
            for (name, dependency) in dependencies(&manifest) {
                let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
                let (base, described) = match (inherited, shared.and_then(|t| t.get(name))) {
                    (false, _) => (folder.as_str(), dependency),
                    (true, Some(shared)) => {
                        used.insert(name.to_string());
                        ("", shared)
                    }
                    (true, None) => bail!(
                        "{} inherits the dependency {name}, which the workspace does not have",
                        path.display()
                    ),
                };
                let package = described
                    .get("package")
                    .and_then(Value::as_str)
                    .unwrap_or(name);
                names.insert(package.to_string());
                if let Some(relative) = described.get("path").and_then(Value::as_str) {
                    let next = normal(&Path::new(base).join(relative)).with_context(|| {
                        format!("{}: the path of {name} leads outside", path.display())
                    })?;
                    ensure!(
                        next.starts_with("sources/"),
                        "{} depends on {next}, but programs of the host use only crates in sources/",
                        path.display()
                    );
                    queue.push_back(next);
                }
            }
            let name = table(&manifest, &["package"]).and_then(|package| package.get("name"));
            let name = name.and_then(Value::as_str).unwrap_or_default().to_string();
            read_folder(root, &folder, &mut files)?;
            let text = toml::to_string(&manifest)
                .with_context(|| format!("cannot write {} again", path.display()))?;
            files.insert(format!("{folder}/Cargo.toml"), SourceFile::text(text));
            members.insert(folder, (name, names));
        }
        let trimmed = trim_workspace(workspace, members.keys(), &used);
        let text =
            toml::to_string(&trimmed).context("cannot write the workspace's manifest again")?;
        files.insert("Cargo.toml".to_string(), SourceFile::text(text));
        let lock = trim_lock(&root.join("Cargo.lock"), members.into_values())?;
        Ok(Self { files, lock })
    }

    /// Files and folders of the workspace as they are, for programs that are no
    /// members of it and have no dependencies.
    pub(super) fn of_files(root: &Path, paths: &[String]) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in paths {
            if root.join(path).is_dir() {
                read_folder(root, path, &mut files)?;
            } else {
                let file = root.join(path);
                let content = fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                files.insert(path.clone(), SourceFile::text(content));
            }
        }
        Ok(Self {
            files,
            lock: String::new(),
        })
    }

    /// Writes what [`of_files`](Self::of_files) has read into the folder `folder`.
    pub(super) fn write_files(&self, folder: &Path) -> Result<()> {
        for (path, file) in &self.files {
            let path = folder.join(path);
            let mode = if file.executable { 0o755 } else { 0o644 };
            write_whole(&path, &file.content, mode)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A hash of all of it.
    pub fn hash(&self) -> String {
        let mut key = KeyBuilder::new("source").field("lock", &self.lock);
        for (path, file) in &self.files {
            key = key
                .field(path, [file.executable as u8])
                .field(path, &file.content);
        }
        key.finish().to_string()
    }

    /// Makes the folder `folder` hold exactly this and `lock`. Files that are
    /// right already are not touched: cargo goes by their times, and that a time
    /// changes when and only when the content does is what makes a target folder
    /// safe to share between workspaces.
    fn write_to(&self, folder: &Path, lock: &[u8]) -> Result<()> {
        let mut files: BTreeMap<PathBuf, (&[u8], bool)> = self
            .files
            .iter()
            .map(|(path, file)| {
                (
                    folder.join(path),
                    (file.content.as_slice(), file.executable),
                )
            })
            .collect();
        files.insert(folder.join("Cargo.lock"), (lock, false));
        remove_others(folder, &files)?;
        for (path, (content, executable)) in files {
            let mode = if executable { 0o755 } else { 0o644 };
            let same = fs::read(&path).is_ok_and(|found| found == content)
                && fs::metadata(&path)
                    .is_ok_and(|found| found.permissions().mode() & 0o777 == mode);
            if !same {
                write_whole(&path, content, mode)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

impl SourceFile {
    fn text(text: String) -> Self {
        Self {
            content: text.into_bytes(),
            executable: false,
        }
    }
}

/// Writes a file in one step, so that a kill leaves the old one or the new one.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let temporary = folder.join(".bulkhead-new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Removes what lies in `folder` and is none of `files`.
fn remove_others(folder: &Path, files: &BTreeMap<PathBuf, (&[u8], bool)>) -> Result<()> {
    let list = || format!("cannot list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(list)?,
    };
    for entry in entries {
        let path = entry.with_context(list)?.path();
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && files.keys().any(|file| file.starts_with(&path)) {
            remove_others(&path, files)?;
        } else if is_folder || !files.contains_key(&path) {
            store::remove_tree(&path)?;
        }
    }
    Ok(())
}

fn read_toml(path: &Path) -> Result<Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse()
        .with_context(|| format!("{} is not valid TOML", path.display()))
}

fn table<'a>(mut table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    for name in path {
        table = table.get(*name)?.as_table()?;
    }
    Some(table)
}

/// Takes out of a member's manifest what a build of its program does not read.
fn strip_member(manifest: &mut Table) {
    for name in [
        "dev-dependencies",
        "lints",
        "bench",
        "test",
        "example",
        "badges",
    ] {
        manifest.remove(name);
    }
    if let Some(targets) = manifest.get_mut("target").and_then(Value::as_table_mut) {
        for (_, target) in targets.iter_mut() {
            if let Some(target) = target.as_table_mut() {
                target.remove("dev-dependencies");
            }
        }
    }
}

/// All dependencies of a manifest, whatever they are for.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value)> {
    let of_targets = table(manifest, &["target"])
        .into_iter()
        .flat_map(Table::values);
    std::iter::once(manifest)
        .chain(of_targets.filter_map(Value::as_table))
        .flat_map(|part| {
            ["dependencies", "build-dependencies"]
                .into_iter()
                .filter_map(|name| table(part, &[name]))
        })
        .flat_map(|table| table.iter().map(|(name, value)| (name.as_str(), value)))
        .collect()
}

/// The workspace's manifest with these members alone.
fn trim_workspace<'a>(
    mut manifest: Table,
    members: impl Iterator<Item = &'a String>,
    used: &BTreeSet<String>,
) -> Table {
    manifest.remove("package");
    if let Some(workspace) = manifest.get_mut("workspace").and_then(Value::as_table_mut) {
        for name in ["default-members", "exclude", "lints", "metadata"] {
            workspace.remove(name);
        }
        let members = members
            .map(|member| Value::String(member.clone()))
            .collect();
        workspace.insert("members".to_string(), Value::Array(members));
        if let Some(shared) = workspace
            .get_mut("dependencies")
            .and_then(Value::as_table_mut)
        {
            shared.retain(|name, _| used.contains(name));
        }
    }
    if let Some(profiles) = manifest.get_mut("profile").and_then(Value::as_table_mut) {
        profiles.retain(|name, _| name == PROFILE || name == "release");
    }
    manifest
}

/// The path without `..`, which must not lead above the workspace.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// Reads all files of a member. Links are followed as far as they lead to files,
/// so that what a sandbox sees does not depend on where they lead.
fn read_folder(root: &Path, folder: &str, files: &mut BTreeMap<String, SourceFile>) -> Result<()> {
    let path = root.join(folder);
    let list = || format!("cannot list {}", path.display());
    for entry in fs::read_dir(&path).with_context(list)? {
        let entry = entry.with_context(list)?;
        let Some(name) = entry.file_name().to_str().map(String::from) else {
            bail!("{} is not UTF-8", entry.path().display());
        };
        let relative = format!("{folder}/{name}");
        let metadata = fs::metadata(entry.path())
            .with_context(|| format!("cannot look at {}", entry.path().display()))?;
        if metadata.is_dir() {
            // Build outputs of somebody who runs cargo in the member's folder.
            if name != "target" {
                read_folder(root, &relative, files)?;
            }
        } else {
            let content = fs::read(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            files.insert(
                relative,
                SourceFile {
                    content,
                    executable,
                },
            );
        }
    }
    Ok(())
}

/// The part of a Cargo.lock that the members reach by the dependencies named.
fn trim_lock(
    path: &Path,
    members: impl Iterator<Item = (String, BTreeSet<String>)>,
) -> Result<String> {
    let mut lock = read_toml(path)?;
    let packages = match lock.remove("package") {
        Some(Value::Array(packages)) => packages,
        _ => bail!("{} has no packages", path.display()),
    };
    let text = |package: &Value, field: &str| -> String {
        package
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    // "name", "name version" or "name version (source)", as short as is unique.
    let find = |reference: &str| {
        let mut words = reference.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        packages.iter().position(|package| {
            text(package, "name") == name && version.is_none_or(|v| text(package, "version") == v)
        })
    };
    let mut reached = BTreeSet::new();
    let mut queue = Vec::new();
    for (name, wanted) in members {
        let index = find(&name).with_context(|| {
            format!(
                "{} has no entry for {name}: run `cargo check` to bring it up to date",
                path.display()
            )
        })?;
        reached.insert(index);
        for reference in references(&packages[index]) {
            let name = reference.split(' ').next().unwrap_or_default();
            if wanted.contains(name) {
                queue.push(reference);
            }
        }
    }
    while let Some(reference) = queue.pop() {
        let index = find(&reference).with_context(|| {
            format!("{} names {reference} but does not have it", path.display())
        })?;
        let is_local = packages[index].get("source").is_none();
        if reached.insert(index) && !is_local {
            queue.extend(references(&packages[index]));
        }
    }
    let kept = reached
        .into_iter()
        .map(|index| packages[index].clone())
        .collect();
    lock.insert("package".to_string(), Value::Array(kept));
    toml::to_string(&lock).with_context(|| format!("cannot write {} again", path.display()))
}

fn references(package: &Value) -> Vec<String> {
    let list = package.get("dependencies").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect()
}

/// The crates that `source` needs, as a store entry: `crates/`, the `config.toml`
/// that makes cargo use them, and the `Cargo.lock` of what they are.
///
/// The user's cargo fetches them, with all of the user's settings. It runs with
/// the machine's own root, read-only, so that it is killed with us.
fn vendor(context: &JobContext, source: &Source, store: &Store) -> Result<Entry> {
    let manifests = source
        .files
        .iter()
        .filter(|(path, _)| path.ends_with("Cargo.toml"));
    let mut key = KeyBuilder::new("crates").field("lock", &source.lock);
    for (path, manifest) in manifests {
        key = key.field(path, &manifest.content);
    }
    store
        .build(&key.finish(), |staging| {
            context.task().note("cargo vendor");
            let work = staging.join("work");
            // Where a target's file is missing cargo takes the manifest for wrong, but
            // what is in it does not matter here.
            for (path, file) in &source.files {
                let content = if path.ends_with(".rs") {
                    &[]
                } else {
                    file.content.as_slice()
                };
                write_whole(&work.join(path), content, 0o644)
                    .with_context(|| format!("cannot write {path} for cargo vendor"))?;
            }
            fs::write(work.join("Cargo.lock"), &source.lock).context("cannot write Cargo.lock")?;
            let config = run_vendor(context, &work, staging)?;
            fs::write(staging.join("config.toml"), config)
                .context("cannot write cargo's settings")?;
            let lock =
                fs::read_to_string(work.join("Cargo.lock")).context("cannot read Cargo.lock")?;
            check_lock(&source.lock, &lock)?;
            fs::write(staging.join("Cargo.lock"), lock).context("cannot write Cargo.lock")?;
            fs::create_dir_all(staging.join("crates")).context("cannot make the crates' folder")?;
            store::remove_tree(&work)
        })
        .context("cannot fetch the crates that the programs depend on")
}

/// Runs `cargo vendor`, which tells on its standard output how to use the result.
fn run_vendor(context: &JobContext, work: &Path, staging: &Path) -> Result<String> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?)
            .join(".cargo"),
    };
    fs::create_dir_all(&cargo_home)
        .with_context(|| format!("cannot make cargo's folder {}", cargo_home.display()))?;
    let mut sandbox = Sandbox::new(Path::new("/"))
        .network(Network::Host)
        .writable(&cargo_home, &cargo_home)
        .writable(staging, staging)
        .working_dir(work);
    for (name, value) in env::vars_os() {
        // Those of the cargo that may be running us, which speak of another crate.
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_"));
        if !ours {
            sandbox = sandbox.env(name, value);
        }
    }
    for path in hidden_folders(&cargo_home) {
        sandbox = sandbox.read_only(&path, &path);
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let crates = staging.join("crates");
    let config = staging.join("vendor.out");
    let open = || format!("cannot open {}", context.log().display());
    if let Some(folder) = context.log().parent() {
        fs::create_dir_all(folder).with_context(open)?;
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(context.log())
        .with_context(open)?;
    let output = File::create(&config).context("cannot make a file for the output of cargo")?;
    let mut child = sandbox
        .command(&cargo, ["vendor", "--versioned-dirs"])
        .args([&crates])
        .stdin(Stdio::Null)
        .stdout(Stdio::File(output))
        .stderr(Stdio::File(log))
        .spawn()?;
    let status = child.wait()?;
    crate::signals::check()?;
    if !status.success() {
        let log = fs::read_to_string(context.log()).unwrap_or_default();
        let lines: Vec<&str> = log.trim_end().lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n    ");
        bail!(
            "`cargo vendor` failed; the end of {}:\n    {tail}",
            context.log().display()
        );
    }
    let text = fs::read_to_string(&config).context("cannot read the output of cargo vendor")?;
    fs::remove_file(&config).context("cannot remove the output of cargo vendor")?;
    let here = crates
        .to_str()
        .context("the cache folder's path is not UTF-8")?;
    Ok(text.replace(here, "/vendor/crates"))
}

/// What the user's cargo reads from places that a sandbox has folders of its own
/// at: a home in /tmp, say.
fn hidden_folders(cargo_home: &Path) -> BTreeSet<PathBuf> {
    let variables = ["HOME", "RUSTUP_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    let mut paths: Vec<PathBuf> = variables
        .into_iter()
        .filter_map(env::var_os)
        .map(PathBuf::from)
        .collect();
    paths.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    // Cargo, when it is running us, and the libraries beside it.
    if let Some(toolchain) = env::var_os("CARGO")
        .and_then(|cargo| Some(Path::new(&cargo).parent()?.parent()?.to_owned()))
    {
        paths.push(toolchain);
    }
    let is_hidden = |path: &PathBuf| {
        (path.starts_with("/tmp") || path.starts_with("/run")) && path.components().count() > 2
    };
    paths
        .into_iter()
        .filter(|path| is_hidden(path) && path.exists() && path != cargo_home)
        .collect()
}

/// Cargo drops from a lock what a smaller workspace does not need. Anything else
/// it changes would be unlocked.
fn check_lock(before: &str, after: &str) -> Result<()> {
    type Package = (String, String, String, String);
    let packages = |text: &str| -> Result<BTreeSet<Package>> {
        let lock: Table = text.parse().context("Cargo.lock is not valid TOML")?;
        let list = lock.get("package").and_then(Value::as_array);
        let field = |package: &Value, name: &str| {
            package
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        Ok(list
            .into_iter()
            .flatten()
            .map(|p| {
                (
                    field(p, "name"),
                    field(p, "version"),
                    field(p, "source"),
                    field(p, "checksum"),
                )
            })
            .collect())
    };
    let (before, after) = (packages(before)?, packages(after)?);
    let unlocked: Vec<String> = after
        .difference(&before)
        .map(|(name, version, _, _)| format!("{name} {version}"))
        .collect();
    ensure!(
        unlocked.is_empty(),
        "Cargo.lock does not have {}: run `cargo check` and commit the lock",
        unlocked.join(", ")
    );
    Ok(())
}

/// Where target folders lie in the user's cache folder.
pub fn targets_dir(cache: &Path) -> PathBuf {
    cache.join("cargo-target")
}

/// A cached target folder. Each set has its own: another set's sources differ, and
/// its flags may.
fn target_folder(cache: &Path, toolchain: &Toolchain, link: Linkage) -> Result<CacheFolder> {
    let name = format!("{}-{}", toolchain.key(), format!("{link:?}").to_lowercase());
    CacheFolder::open(cache, &name, "target", TARGET_LIMIT)
}

#[cfg(test)]
mod tests;
