//! Definitions: what packages, kits and variants say in their TOML files.
//!
//! Parsing is strict (an unknown key is an error that names the file), names
//! are checked here, and references between definitions are resolved once by
//! [`Definitions::load`]. Whatever comes after works with definitions that are
//! known to be complete.

use crate::project::{Arch, ByteSize, Project};
use anyhow::{Context, Result, bail};
use config_templates::ConfigFile;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of a package, kit or variant: lower-case words joined by `-` or `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let rest_is_plain = name.chars().all(|c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.' || c == '+'
        });
        if starts_well && rest_is_plain && !name.contains("..") {
            Ok(Self(name))
        } else {
            Err(format!(
                "{name:?} is not a name: use lower-case letters, digits, '-', '+' and '.'"
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path inside the image: relative, without `..`, not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ImagePath(String);

impl ImagePath {
    /// The path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImagePath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        let bad = path.is_empty()
            || path.starts_with('/')
            || path.ends_with('/')
            || path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if bad {
            Err(format!(
                "{path:?} is not a path inside the image: write it relative to /, without '..'"
            ))
        } else {
            Ok(Self(path))
        }
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `packages/<name>/package.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageManifest {
    /// What the package is.
    pub package: PackageHeader,
    /// Files taken from Debian binary packages.
    pub debian: Option<DebianOrigin>,
    /// Programs of this workspace.
    pub cargo: Option<CargoOrigin>,
    /// Programs of Go modules.
    pub go: Option<GoOrigin>,
    /// A container image that lies in the root.
    pub container_image: Option<ContainerImage>,
    /// Files that lie in the package's own folder.
    #[serde(default)]
    pub files: FilesOrigin,
    /// Units that a target or service pulls in: unit → what wants it.
    #[serde(default)]
    pub units: UnitLinks,
    /// Configuration files rendered on the host.
    #[serde(default)]
    pub config: Vec<ConfigFile>,
    /// Exceptions from the hardening checks, each with its reason.
    #[serde(default)]
    pub hardening: Hardening,
}

impl PackageManifest {
    /// Programs of this workspace that the package has or puts into an image.
    pub fn workspace_programs(&self) -> impl Iterator<Item = (&Name, Linkage)> {
        let own = self.cargo.iter().flat_map(|origin| &origin.programs);
        let in_image = self.container_image.iter();
        let in_image = in_image.filter_map(|image| image.program.as_ref());
        own.map(|program| (&program.crate_name, program.link))
            .chain(in_image.map(|program| (program, Linkage::Static)))
    }
}

/// The `[package]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageHeader {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for people.
    pub description: String,
    /// Packages that an image with this one must have too.
    #[serde(default)]
    pub requires: Vec<Name>,
    /// For programs that tests run on the workstation: no image may have it.
    #[serde(default)]
    pub tests_only: bool,
}

/// The `[debian]` table: which files are taken out of which binary packages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianOrigin {
    /// Debian package → glob patterns of paths (`*` stays within one folder,
    /// `**` does not; a leading `!` leaves files out again).
    #[serde(default)]
    pub take: BTreeMap<String, Vec<String>>,
    /// The same, for packages that exist on one architecture only.
    #[serde(default)]
    pub take_x86_64: BTreeMap<String, Vec<String>>,
    /// See `take_x86_64`.
    #[serde(default)]
    pub take_aarch64: BTreeMap<String, Vec<String>>,
    /// Packages that are empty and depend on the versioned one which has the
    /// files, as the kernel's are: package → pattern of that dependency's name.
    #[serde(default)]
    pub follow: BTreeMap<String, String>,
}

impl DebianOrigin {
    /// What is taken on `arch`: Debian package → patterns.
    pub fn take_on(&self, arch: Arch) -> BTreeMap<&str, Vec<String>> {
        let special = match arch {
            Arch::X86_64 => &self.take_x86_64,
            Arch::Aarch64 => &self.take_aarch64,
        };
        let mut taken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, patterns) in self.take.iter().chain(special) {
            taken
                .entry(name)
                .or_default()
                .extend(patterns.iter().cloned());
        }
        taken
    }
}

/// The `[cargo]` table: programs built from this workspace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CargoOrigin {
    /// Programs to build.
    pub programs: Vec<CargoProgram>,
}

/// One program of the workspace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CargoProgram {
    /// The workspace member, which is also the program's name.
    #[serde(rename = "crate")]
    pub crate_name: Name,
    /// Where it goes in the image.
    pub path: ImagePath,
    /// How it is linked.
    #[serde(default)]
    pub link: Linkage,
}

/// How a program of ours is linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Linkage {
    /// Against the image's C library.
    #[default]
    Dynamic,
    /// Static position-independent: runs in an empty root.
    Static,
    /// An EFI application.
    Efi,
}

/// The `[container-image]` table: an OCI layout in the root. It has one static program of
/// this workspace; or all that the package takes and makes, which then is not in the
/// root, together with what other packages have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContainerImage {
    /// The image's whole name.
    pub name: String,
    /// The workspace member, which is also the program's name in the image.
    pub program: Option<Name>,
    /// The other packages, which have files and slices of archives alone.
    pub packages: Option<Vec<Name>>,
    /// What is started in it; the program if there is but one.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// User and group by number, as `65535:65535`; root if not given.
    #[serde(default)]
    pub user: String,
}

impl ContainerImage {
    fn check(&self) -> Result<()> {
        match (&self.program, &self.packages) {
            (Some(_), Some(_)) => bail!("[container-image] has both a program and packages"),
            (None, None) => bail!("[container-image] has neither a program nor packages"),
            (Some(_), None) if !self.entrypoint.is_empty() => {
                bail!("[container-image] starts its program, and has an entrypoint all the same")
            }
            (None, Some(_)) if self.entrypoint.is_empty() => {
                bail!("[container-image] has packages and no entrypoint")
            }
            _ => Ok(()),
        }
    }
}

/// The `[go]` table: programs built from the `go.mod` in the package's folder, or
/// in the folder of its version.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GoOrigin {
    /// Main packages of modules that the `go.mod` requires.
    pub commands: Vec<GoCommand>,
    /// Packages whose tests become programs, each called like it and `.test`.
    #[serde(default)]
    pub tests: Vec<GoCommand>,
    /// Where programs go in the image.
    #[serde(default = "GoOrigin::default_folder")]
    pub folder: ImagePath,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<GoTag>,
    /// Whether C code is compiled and linked, with the libraries of the toolchain.
    #[serde(default)]
    pub cgo: bool,
    /// Variables that the linker sets: `package.variable` → value.
    #[serde(default)]
    pub stamps: BTreeMap<String, GoStamp>,
    /// The package whose `go.mod` and versions this one shares.
    pub modules_of: Option<Name>,
}

impl GoOrigin {
    fn default_folder() -> ImagePath {
        ImagePath("usr/bin".to_string())
    }

    /// The programs: the name that each is built under, and where it goes in the image.
    pub fn programs(&self) -> Vec<(String, ImagePath)> {
        let commands = self.commands.iter();
        let commands = commands.map(|command| (command, command.program().to_string()));
        let tests = self.tests.iter();
        let tests = tests.map(|tests| (tests, format!("{}.test", tests.program())));
        let place = |(command, name): (&GoCommand, String)| {
            let folder = || ImagePath(format!("{}/{name}", self.folder));
            let path = command.path.clone().unwrap_or_else(folder);
            (name, path)
        };
        commands.chain(tests).map(place).collect()
    }

    fn check(&self) -> Result<()> {
        if self.commands.is_empty() {
            bail!("[go] commands names none");
        }
        let mut programs = BTreeMap::new();
        for command in &self.commands {
            let (name, import) = (command.program(), command.import.as_str());
            if let Some(other) = programs.insert(name, import) {
                bail!("[go] commands {other} and {import} are both called {name}");
            }
        }
        for variable in self.stamps.keys() {
            let parts = variable.rsplit_once('.');
            if !parts.is_some_and(|(package, name)| is_import_path(package) && is_word(name)) {
                bail!("[go] stamps {variable:?}, which is not package.variable");
            }
        }
        Ok(())
    }
}

/// A main package of a Go module, written as its import path, or as a table with
/// the place of the program too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "GoCommandText")]
pub struct GoCommand {
    /// Its import path.
    pub import: String,
    /// Where the program goes, if not under its own name into the origin's folder.
    pub path: Option<ImagePath>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum GoCommandText {
    Import(String),
    Placed { import: String, path: ImagePath },
}

impl TryFrom<GoCommandText> for GoCommand {
    type Error = String;

    fn try_from(text: GoCommandText) -> Result<Self, String> {
        let (import, path) = match text {
            GoCommandText::Import(import) => (import, None),
            GoCommandText::Placed { import, path } => (import, Some(path)),
        };
        if is_import_path(&import) {
            Ok(Self { import, path })
        } else {
            Err(format!(
                "{import:?} is not the import path of a Go package, such as example.org/tool/cmd/tool"
            ))
        }
    }
}

impl GoCommand {
    /// The name that Go gives the program: the last element of the path that is not
    /// a major version.
    pub fn program(&self) -> &str {
        let is_major = |element: &str| {
            element
                .strip_prefix('v')
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut elements = self.import.rsplit('/');
        let last = elements.next().unwrap_or(&self.import);
        match elements.next() {
            Some(before) if is_major(last) => before,
            _ => last,
        }
    }
}

/// Whether `path` can be an import path: it reaches command lines.
fn is_import_path(path: &str) -> bool {
    let is_element = |element: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+".contains(c);
        !element.is_empty() && !element.starts_with(['.', '-']) && element.chars().all(plain)
    };
    path.split('/').all(is_element)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A Go build tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct GoTag(String);

impl GoTag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GoTag {
    type Error = String;

    fn try_from(tag: String) -> Result<Self, String> {
        if is_word(&tag.replace('.', "_")) {
            Ok(Self(tag))
        } else {
            Err(format!("{tag:?} is not a Go build tag"))
        }
    }
}

/// Value of a variable that the linker sets. `{version}`, `{major}` and `{minor}`
/// stand for the version, without its `v`, of the module that has the first
/// command, and `{date}` for the time of all builds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GoStamp(String);

impl GoStamp {
    const FIELDS: [&str; 4] = ["version", "major", "minor", "date"];

    /// The value: `field` gives what each name in braces stands for.
    pub fn render(&self, field: impl Fn(&str) -> String) -> String {
        Self::FIELDS.iter().fold(self.0.clone(), |text, name| {
            text.replace(&format!("{{{name}}}"), &field(name))
        })
    }
}

impl TryFrom<String> for GoStamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let value = Self(text);
        let rest = value.render(|_| String::new());
        if rest.contains(['{', '}']) {
            return Err(format!(
                "{:?} has something in braces that is none of {}",
                value.0,
                Self::FIELDS.join(", ")
            ));
        }
        // The linker's arguments are split at spaces.
        if rest
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "\"'".contains(c))
        {
            return Err(format!("{:?} may have no spaces and no quotes", value.0));
        }
        Ok(value)
    }
}

/// The `[files]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesOrigin {
    /// File in the package's folder → path in the image.
    #[serde(default)]
    pub copy: BTreeMap<String, ImagePath>,
    /// Path in the image → target of the symbolic link.
    #[serde(default)]
    pub links: BTreeMap<ImagePath, String>,
    /// Empty folders.
    #[serde(default)]
    pub folders: Vec<ImagePath>,
}

/// The `[units]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitLinks {
    /// Unit → units that want it (`<unit>.wants/`).
    #[serde(default, rename = "wanted-by")]
    pub wanted_by: BTreeMap<String, Vec<String>>,
    /// Unit → units that require it (`<unit>.requires/`).
    #[serde(default, rename = "required-by")]
    pub required_by: BTreeMap<String, Vec<String>>,
}

/// The `[hardening]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardening {
    /// Exceptions. One that nothing needs is an error.
    #[serde(default)]
    pub accept: Vec<HardeningException>,
}

/// A file that may lack some hardening.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardeningException {
    /// Glob pattern of paths.
    pub path: String,
    /// What they lack: `pie`, `relro`, `bind-now`, `nx`, `stack-protector`.
    pub lacks: BTreeSet<String>,
    /// Why that is accepted.
    pub reason: String,
}

/// `kits/<name>/kit.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitManifest {
    /// What the kit is.
    pub kit: KitHeader,
}

/// The `[kit]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitHeader {
    /// Must equal the folder's name.
    pub name: Name,
    /// Version of the set.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Packages of the kit.
    pub packages: Vec<Name>,
}

/// `variants/<name>/variant.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VariantManifest {
    /// What the variant is.
    pub variant: VariantHeader,
    /// The kernel's part.
    pub kernel: KernelSection,
}

/// The `[variant]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VariantHeader {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for people.
    pub description: String,
    /// Kits whose packages it has.
    #[serde(default)]
    pub kits: Vec<Name>,
    /// Further packages.
    #[serde(default)]
    pub packages: Vec<Name>,
    /// Files of settings defaults, relative to `variants/`, later ones win.
    #[serde(default)]
    pub defaults: Vec<String>,
    /// Size of the volume that takes its data, on machines where that is another one
    /// than the system's.
    pub data_volume: Option<ByteSize>,
}

/// The `[kernel]` table. A file that is shared has the same lists at its top.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct KernelSection {
    /// Files with lists that come before those here, relative to `variants/`.
    pub shared: Vec<String>,
    /// Arguments of the signed command line, after those that the build adds.
    pub arguments: Vec<String>,
    /// Modules that the image has, by name; what they depend on comes along.
    pub modules: Vec<String>,
    /// Modules that `init` loads before the root can be opened, in order.
    pub init_modules: Vec<String>,
    /// What the signed kernel image must stay below, in megabytes of 1,000,000 bytes,
    /// where a kernel with more drivers needs more than others.
    pub image_limit: Option<usize>,
    /// The same lists, of images of one architecture alone.
    pub only: BTreeMap<Arch, KernelSection>,
}

impl KernelSection {
    /// What images of `arch` have.
    pub fn lists(&self, arch: Arch) -> Self {
        let mut lists = self.clone();
        if let Some(only) = lists.only.remove(&arch) {
            lists.extend(only);
        }
        lists.only.clear();
        lists
    }

    /// Takes the lists of another one after those here.
    fn extend(&mut self, more: Self) {
        self.arguments.extend(more.arguments);
        self.modules.extend(more.modules);
        self.init_modules.extend(more.init_modules);
        self.image_limit = more.image_limit.or(self.image_limit);
        for (arch, only) in more.only {
            self.only.entry(arch).or_default().extend(only);
        }
    }

    /// Refuses an architecture's lists with more than lists in them.
    fn check(&self) -> Result<()> {
        for (arch, only) in &self.only {
            if !only.shared.is_empty() || !only.only.is_empty() {
                bail!("`only.{arch}` may have lists and nothing else");
            }
        }
        Ok(())
    }

    /// The lists of the files that it shares and its own, in one.
    fn with_shared(self, place: impl Fn(&str) -> PathBuf) -> Result<Self> {
        self.check()?;
        let mut whole = Self::default();
        for file in &self.shared {
            let path = place(file);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}, which is shared", path.display()))?;
            let lists: Self = toml::from_str(&text)
                .with_context(|| format!("{} is not valid", path.display()))?;
            if !lists.shared.is_empty() {
                bail!("{} shares others: only a variant may", path.display());
            }
            lists
                .check()
                .with_context(|| format!("{} is not valid", path.display()))?;
            whole.extend(lists);
        }
        whole.extend(self);
        Ok(whole)
    }
}

/// A package: its manifest and where it lies.
///
/// A folder with `versions/<version>/` is as many packages as it has versions, each
/// called `<folder>-<version>`. They differ in their `go.mod` and in nothing else.
#[derive(Clone, Debug)]
pub struct Package {
    /// The package's folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: PackageManifest,
    /// The folder with its `go.mod`, if it has Go programs.
    pub modules: Option<PathBuf>,
    name: Name,
}

/// Folder of a package's folder that has a folder for each version.
pub const VERSIONS: &str = "versions";

impl Package {
    /// The package's name, with its version where there are several.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What it is a package of: the name without the version.
    pub fn software(&self) -> &Name {
        &self.manifest.package.name
    }

    /// The repository that defines it: it lies in its `packages/`.
    pub fn repository(&self) -> &Path {
        let packages = self.folder.parent();
        packages.and_then(Path::parent).unwrap_or(&self.folder)
    }

    /// Its manifest's path, for messages.
    pub fn manifest_path(&self) -> String {
        format!("packages/{}/package.toml", self.software())
    }
}

/// A variant with everything it refers to.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Name: the variant's own, or with `-dev` for its twin.
    pub name: Name,
    /// Its manifest.
    pub manifest: VariantManifest,
    /// Every package of the image, sorted by name, requirements included.
    pub packages: Vec<Name>,
}

/// Everything that the repository defines.
#[derive(Clone, Debug)]
pub struct Definitions {
    packages: BTreeMap<Name, Package>,
    kits: BTreeMap<Name, KitManifest>,
    variants: BTreeMap<Name, VariantManifest>,
    /// Where files are that variants name: the project's own folder first.
    variants_folders: Vec<PathBuf>,
}

/// What is added to a variant to make its dev twin.
const DEV_DOOR: &str = "dev-door";
/// What is appended to a variant's name to name its dev twin.
pub const DEV_SUFFIX: &str = "-dev";

impl Definitions {
    /// Reads and checks all definitions of a project, and those of the repositories
    /// that its kits come from.
    pub fn load(project: &Project) -> Result<Self> {
        Self::load_from(&project.root, &project.repositories, |kit| {
            project.config.kits.contains_key(kit.as_str())
        })
    }

    /// The same, of the project in `root`. Of the kits in `repositories` those are taken
    /// that `is_named`.
    fn load_from(
        root: &Path,
        repositories: &[PathBuf],
        is_named: impl Fn(&Name) -> bool,
    ) -> Result<Self> {
        let mut packages = BTreeMap::new();
        let mut kits = BTreeMap::new();
        let all = std::iter::once(root).chain(repositories.iter().map(PathBuf::as_path));
        let variants_folders: Vec<PathBuf> = all.clone().map(|of| of.join("variants")).collect();
        for repository in all {
            let found = load_folder(
                &repository.join("packages"),
                "package.toml",
                |m: &PackageManifest| &m.package.name,
            )?;
            for (name, package) in found {
                if packages.insert(name.clone(), package).is_some() {
                    bail!("there is a package {name} twice: here, and where a kit comes from");
                }
            }
            let found = load_folder(&repository.join("kits"), "kit.toml", |m: &KitManifest| {
                &m.kit.name
            })?;
            for (name, (_, kit)) in found {
                if (repository == root || is_named(&name))
                    && kits.insert(name.clone(), kit).is_some()
                {
                    bail!("there is a kit {name} twice");
                }
            }
        }
        let variants = load_folder(
            &root.join("variants"),
            "variant.toml",
            |m: &VariantManifest| &m.variant.name,
        )?;
        let definitions = Self {
            packages: by_version(packages)?,
            kits,
            variants: variants
                .into_iter()
                .map(|(name, (_, mut manifest))| {
                    let kernel = std::mem::take(&mut manifest.kernel);
                    manifest.kernel = kernel
                        .with_shared(|file| find_in(&variants_folders, file))
                        .with_context(|| format!("the kernel of the variant {name}"))?;
                    Ok((name, manifest))
                })
                .collect::<Result<_>>()?,
            variants_folders,
        };
        definitions.check_references()?;
        Ok(definitions)
    }

    /// All packages, by name.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The package called `name`, which [`load`](Self::load) has checked to exist
    /// when the name comes from a definition.
    pub fn package(&self, name: &Name) -> Result<&Package> {
        self.packages
            .get(name)
            .with_context(|| self.no_such_package(name))
    }

    /// What is wrong with a name that no package has.
    fn no_such_package(&self, name: &Name) -> String {
        let versions: Vec<&str> = self
            .packages
            .values()
            .filter(|package| package.software() == name)
            .map(|package| package.name().as_str())
            .collect();
        if versions.is_empty() {
            format!("there is no package {name} in packages/")
        } else {
            format!("{name} has versions: name one of {}", versions.join(", "))
        }
    }

    /// Names of all variants, dev twins included.
    pub fn variant_names(&self) -> Vec<String> {
        self.variants
            .keys()
            .flat_map(|name| [name.to_string(), format!("{name}{DEV_SUFFIX}")])
            .collect()
    }

    /// Where a file lies that a variant names.
    pub fn variants_file(&self, file: &str) -> PathBuf {
        find_in(&self.variants_folders, file)
    }

    /// The repository whose workspace has the programs of packages.
    pub fn workspace(&self) -> Result<&Path> {
        let mut workspaces: BTreeMap<&Path, &Name> = BTreeMap::new();
        for package in self.packages.values() {
            if package.manifest.workspace_programs().next().is_some() {
                workspaces.insert(package.repository(), package.name());
            }
        }
        let mut found = workspaces.into_iter();
        match (found.next(), found.next()) {
            (Some((_, one)), Some((_, other))) => bail!(
                "the programs of the packages {one} and {other} are in workspaces of two repositories; \
                 there can be one"
            ),
            (Some((workspace, _)), None) => Ok(workspace),
            (None, _) => bail!("no package has programs of a workspace"),
        }
    }

    /// The variant called `name`; `<variant>-dev` is the twin with the dev door.
    pub fn variant(&self, name: &str) -> Result<Variant> {
        let find = |name: &str| {
            let name = Name::try_from(name.to_string()).ok()?;
            self.variants.get(&name)
        };
        let twin_of = name.strip_suffix(DEV_SUFFIX);
        let (manifest, is_twin) = match (find(name), twin_of.and_then(find)) {
            (Some(manifest), _) => (manifest, false),
            (None, Some(manifest)) => (manifest, true),
            (None, None) => bail!(
                "there is no variant {name:?}; the variants are: {}",
                self.variant_names().join(", ")
            ),
        };
        let mut wanted: Vec<Name> = manifest.variant.packages.clone();
        for kit in &manifest.variant.kits {
            wanted.extend(self.kits[kit].kit.packages.iter().cloned());
        }
        if is_twin {
            wanted.push(Name(DEV_DOOR.to_string()));
        }
        Ok(Variant {
            name: Name(name.to_string()),
            manifest: manifest.clone(),
            packages: self.with_requirements(wanted)?,
        })
    }

    fn with_requirements(&self, wanted: Vec<Name>) -> Result<Vec<Name>> {
        let mut found = BTreeSet::new();
        let mut queue = wanted;
        while let Some(name) = queue.pop() {
            let package = self.package(&name)?;
            if package.manifest.package.tests_only {
                bail!(
                    "no image may have the package {name}: its manifest says that it is for tests only"
                );
            }
            if found.insert(name) {
                queue.extend(package.manifest.package.requires.iter().cloned());
            }
        }
        Ok(found.into_iter().collect())
    }

    fn check_references(&self) -> Result<()> {
        for package in self.packages.values() {
            for required in &package.manifest.package.requires {
                if !self.packages.contains_key(required) {
                    bail!(
                        "{} requires {required}, but {}",
                        package.manifest_path(),
                        self.no_such_package(required)
                    );
                }
            }
        }
        self.check_cycles()?;
        self.check_container_images()?;
        for (name, kit) in &self.kits {
            for package in &kit.kit.packages {
                if !self.packages.contains_key(package) {
                    bail!(
                        "kits/{name}/kit.toml names the package {package}, but {}",
                        self.no_such_package(package)
                    );
                }
            }
        }
        for (name, variant) in &self.variants {
            for kit in &variant.variant.kits {
                if !self.kits.contains_key(kit) {
                    bail!(
                        "variants/{name}/variant.toml names the kit {kit}, but there is no such kit"
                    );
                }
            }
            for package in &variant.variant.packages {
                if !self.packages.contains_key(package) {
                    bail!(
                        "variants/{name}/variant.toml names the package {package}, but {}",
                        self.no_such_package(package)
                    );
                }
            }
        }
        Ok(())
    }

    /// What goes into a container image is unpacked there and built nowhere.
    fn check_container_images(&self) -> Result<()> {
        for package in self.packages.values() {
            let image = package.manifest.container_image.as_ref();
            for name in image
                .and_then(|image| image.packages.as_ref())
                .into_iter()
                .flatten()
            {
                let Some(part) = self.packages.get(name) else {
                    bail!(
                        "{} names the package {name}, but {}",
                        package.manifest_path(),
                        self.no_such_package(name)
                    );
                };
                let manifest = &part.manifest;
                let is_built = manifest.go.is_some()
                    || manifest.cargo.is_some()
                    || manifest.container_image.is_some();
                if is_built {
                    bail!(
                        "{} names the package {name}, which has programs that are built",
                        package.manifest_path()
                    );
                }
            }
        }
        Ok(())
    }

    /// Requirements order the graph, so they must not lead back to themselves.
    fn check_cycles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            Open,
            Done,
        }
        fn visit<'a>(
            packages: &'a BTreeMap<Name, Package>,
            name: &'a Name,
            states: &mut BTreeMap<&'a Name, State>,
            path: &mut Vec<&'a Name>,
        ) -> Result<()> {
            match states.get(name) {
                Some(State::Done) => return Ok(()),
                Some(State::Open) => {
                    let start = path.iter().position(|open| *open == name).unwrap_or(0);
                    let mut cycle: Vec<String> =
                        path[start..].iter().map(|name| name.to_string()).collect();
                    cycle.push(name.to_string());
                    bail!(
                        "packages require each other in a circle: {}",
                        cycle.join(" → ")
                    );
                }
                None => {}
            }
            states.insert(name, State::Open);
            path.push(name);
            for required in &packages[name].manifest.package.requires {
                visit(packages, required, states, path)?;
            }
            path.pop();
            states.insert(name, State::Done);
            Ok(())
        }
        let mut states = BTreeMap::new();
        for name in self.packages.keys() {
            visit(&self.packages, name, &mut states, &mut Vec::new())?;
        }
        Ok(())
    }
}

/// The first of `folders` that has `file`; where it should be, if none has.
fn find_in(folders: &[PathBuf], file: &str) -> PathBuf {
    let places = || folders.iter().map(|folder| folder.join(file));
    let found = places().find(|place| place.exists());
    found
        .or_else(|| places().next())
        .unwrap_or_else(|| file.into())
}

/// The packages that folders make: one each, or one for each version.
fn by_version(
    folders: BTreeMap<Name, (PathBuf, PackageManifest)>,
) -> Result<BTreeMap<Name, Package>> {
    let mut packages = BTreeMap::new();
    for (software, (folder, manifest)) in &folders {
        let describe = || format!("packages/{software}/package.toml is not valid");
        if let Some(go) = &manifest.go {
            go.check().with_context(describe)?;
        }
        if let Some(image) = &manifest.container_image {
            image.check().with_context(describe)?;
        }
        let shared = manifest.go.as_ref().and_then(|go| go.modules_of.as_ref());
        let modules = match shared {
            None => folder,
            Some(other) => match folders.get(other) {
                Some((folder, _)) => folder,
                None => bail!(
                    "packages/{software}/package.toml shares the modules of {other}, but there is no such package"
                ),
            },
        };
        let mut add = |name: Name, modules: PathBuf| {
            let package = Package {
                folder: folder.clone(),
                manifest: manifest.clone(),
                modules: manifest.go.is_some().then_some(modules),
                name: name.clone(),
            };
            match packages.insert(name, package) {
                None => Ok(()),
                Some(other) => bail!(
                    "two packages are called {}: a version of {software} and packages/{}",
                    other.name,
                    other.software()
                ),
            }
        };
        let versions = modules.join(VERSIONS);
        if !versions.is_dir() {
            add(software.clone(), modules.clone())?;
            continue;
        }
        let list = || format!("cannot list {}", versions.display());
        for entry in fs::read_dir(&versions).with_context(list)? {
            let path = entry.with_context(list)?.path();
            let version = path.file_name().unwrap_or_default().to_string_lossy();
            let name = Name::try_from(format!("{software}-{version}"))
                .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            add(name, path)?;
        }
    }
    Ok(packages)
}

/// Reads `<folder>/<name>/<file>` for each sub-folder that has such a file.
fn load_folder<M: serde::de::DeserializeOwned>(
    folder: &Path,
    file: &str,
    name_of: impl Fn(&M) -> &Name,
) -> Result<BTreeMap<Name, (PathBuf, M)>> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", folder.display()));
        }
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path().join(file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let manifest: M =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        let name = name_of(&manifest).clone();
        if entry.file_name() != name.as_str() {
            bail!(
                "{} says its name is {name}, but its folder has another name",
                path.display()
            );
        }
        found.insert(name, (entry.path(), manifest));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Definitions of these files, each at its path.
    fn load(files: &[(&str, &str)]) -> Result<Definitions> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Definitions::load_from(folder.path(), &[], |_| false)
    }

    fn manifest(name: &str, more: &str) -> String {
        format!("[package]\nname = '{name}'\ndescription = 'a test'\n{more}")
    }

    fn variant(packages: &str) -> String {
        format!(
            "[variant]\nname = 'v'\ndescription = 'a test'\npackages = {packages}\n\
             [kernel]\narguments = []\nmodules = []\ninit-modules = []\n"
        )
    }

    #[test]
    fn a_package_with_versions_is_several() {
        let node = manifest("node", "[go]\ncommands = ['example.org/node']");
        let plane = manifest(
            "plane",
            "tests-only = true\n[go]\ncommands = ['example.org/plane']\nmodules-of = 'node'",
        );
        let files = |variant: &str| {
            load(&[
                ("packages/node/package.toml", &node),
                ("packages/node/versions/1.9/go.mod", ""),
                ("packages/node/versions/1.10/go.mod", ""),
                ("packages/plane/package.toml", &plane),
                ("packages/other/package.toml", &manifest("other", "")),
                ("variants/v/variant.toml", variant),
            ])
        };
        let definitions = files(&variant("['node-1.10', 'other']")).unwrap();
        let names: Vec<&str> = definitions.packages().map(|p| p.name().as_str()).collect();
        assert_eq!(
            names,
            ["node-1.10", "node-1.9", "other", "plane-1.10", "plane-1.9"]
        );
        let plane = definitions.package(&Name("plane-1.9".to_string())).unwrap();
        assert_eq!(plane.software().as_str(), "plane");
        assert!(plane.folder.ends_with("packages/plane"));
        let modules = plane.modules.as_ref().unwrap();
        assert!(modules.ends_with("packages/node/versions/1.9"));
        let packages = definitions.variant("v").unwrap().packages;
        assert_eq!(packages.len(), 2, "{packages:?}");

        let error = files(&variant("['node']")).unwrap_err().to_string();
        assert!(
            error.contains("node has versions: name one of node-1.10, node-1.9"),
            "{error}"
        );
        let tests_only = files(&variant("['plane-1.9']")).unwrap();
        let error = tests_only.variant("v").unwrap_err().to_string();
        assert!(error.contains("is for tests only"), "{error}");
    }

    #[test]
    fn commands_have_names_and_places() {
        let go: GoOrigin = toml::from_str(
            "commands = ['example.org/a/cmd/tool', 'example.org/b/v2', \
             { import = 'example.org/server/v3', path = 'usr/sbin/served' }]\n\
             tests = ['example.org/a/test/e2e']\nfolder = 'usr/libexec'",
        )
        .unwrap();
        go.check().unwrap();
        let programs = go.programs();
        let programs: Vec<(&str, &str)> = programs
            .iter()
            .map(|(name, place)| (name.as_str(), place.as_str()))
            .collect();
        assert_eq!(
            programs,
            [
                ("tool", "usr/libexec/tool"),
                ("b", "usr/libexec/b"),
                ("server", "usr/sbin/served"),
                ("e2e.test", "usr/libexec/e2e.test"),
            ]
        );
        assert_eq!(go.commands[2].program(), "server");
    }

    #[test]
    fn go_tables_are_checked() {
        let command = "commands = ['example.org/tool']";
        for (text, expected) in [
            ("commands = []".to_string(), "names none"),
            (
                "commands = ['example.org/a/x', 'example.org/b/x']".to_string(),
                "are both called x",
            ),
            (
                "commands = ['-exec=evil']".to_string(),
                "is not the import path",
            ),
            (
                "commands = ['example.org/../x']".to_string(),
                "is not the import path",
            ),
            (
                format!("{command}\ntags = ['a b']"),
                "is not a Go build tag",
            ),
            (
                format!("{command}\nstamps = {{ version = '1' }}"),
                "is not package.variable",
            ),
            (
                format!("{command}\nstamps = {{ 'main.v' = '{{versoin}}' }}"),
                "none of version, major, minor, date",
            ),
            (
                format!("{command}\nstamps = {{ 'main.v' = 'a -extld=x' }}"),
                "may have no spaces",
            ),
            (format!("{command}\nlink = 'static'"), "unknown field"),
            (
                format!("{command}\nmodules-of = 'nobody'"),
                "there is no such package",
            ),
        ] {
            let manifest = manifest("tool", &format!("[go]\n{text}"));
            let error = load(&[("packages/tool/package.toml", &manifest)]).unwrap_err();
            let told = format!("{error:#}");
            assert!(told.contains(expected), "{expected:?} is not in {told}");
            assert!(told.contains("packages/tool/package.toml"), "{told}");
        }
    }

    #[test]
    fn a_variant_cannot_share_for_one_architecture_alone() {
        let variant = "[variant]\nname = \"v\"\ndescription = \"d\"\n\
                       [kernel.only.aarch64]\nshared = [\"shared/a.toml\"]\n";
        let error = format!(
            "{:#}",
            load(&[("variants/v/variant.toml", variant)]).err().unwrap()
        );
        assert!(
            error.contains("the kernel of the variant v: `only.aarch64` may have lists"),
            "{error}"
        );
    }

    #[test]
    fn a_kernel_of_one_architecture_has_lists_of_its_own_last() {
        let kernel: KernelSection = toml::from_str(
            "arguments = ['a']\nmodules = ['m']\nimage-limit = 24\n\
             [only.x86_64]\nmodules = ['intel']\ninit-modules = ['first']\n\
             [only.aarch64]\narguments = ['serial']\nimage-limit = 40\n",
        )
        .unwrap();
        let shared = "modules = ['s']\n[only.x86_64]\nmodules = ['shared']\n";
        let mut whole: KernelSection = toml::from_str(shared).unwrap();
        whole.extend(kernel);
        let [x86, arm] = [Arch::X86_64, Arch::Aarch64].map(|arch| whole.lists(arch));
        assert_eq!(x86.modules, ["s", "m", "shared", "intel"]);
        assert_eq!(x86.init_modules, ["first"]);
        assert_eq!(
            (x86.arguments, x86.image_limit),
            (vec!["a".into()], Some(24))
        );
        assert_eq!(arm.modules, ["s", "m"]);
        assert_eq!(arm.arguments, ["a", "serial"]);
        assert_eq!(arm.image_limit, Some(40));
    }

    #[test]
    fn lists_of_the_kernel_that_are_shared_come_first() {
        let variant = "[variant]\nname = \"v\"\ndescription = \"d\"\n[kernel]\nshared = [\"shared/a.toml\"]\n\
                       arguments = [\"own\"]\ninit-modules = [\"last\"]\n";
        let shared = "arguments = [\"a\"]\nmodules = [\"m\"]\ninit-modules = [\"first\"]\nimage-limit = 24\n";
        let definitions = load(&[
            ("variants/v/variant.toml", variant),
            ("variants/shared/a.toml", shared),
            (
                "packages/p/package.toml",
                "[package]\nname = \"p\"\ndescription = \"d\"\n",
            ),
            (
                "kits/k/kit.toml",
                "[kit]\nname = \"k\"\nversion = \"1\"\ndescription = \"d\"\npackages = []\n",
            ),
        ])
        .unwrap();
        let kernel = &definitions.variants[&Name::try_from("v".to_string()).unwrap()].kernel;
        assert_eq!(kernel.arguments, ["a", "own"]);
        assert_eq!(kernel.modules, ["m"]);
        assert_eq!(kernel.init_modules, ["first", "last"]);
        assert_eq!(kernel.image_limit, Some(24));
        for (text, reason) in [
            ("modules = 1", "shared/a.toml is not valid"),
            ("shared = [\"shared/a.toml\"]", "only a variant may"),
            (
                "[only.aarch64]\nshared = [\"shared/a.toml\"]",
                "`only.aarch64` may have lists and nothing else",
            ),
            (
                "[only.aarch64.only.x86_64]\nmodules = [\"m\"]",
                "`only.aarch64` may have lists and nothing else",
            ),
            ("moduls = []", "unknown field"),
        ] {
            let error = load(&[
                ("variants/v/variant.toml", variant),
                ("variants/shared/a.toml", text),
            ]);
            let error = format!("{:#}", error.err().unwrap());
            assert!(
                error.contains(reason) && error.contains("the kernel of the variant v"),
                "{error}"
            );
        }
    }
}
