//! Definitions: what packages, kits and variants say in their TOML files.
//!
//! Parsing is strict (an unknown key is an error that names the file), names
//! are checked here, and references between definitions are resolved once by
//! [`Definitions::load`]. Whatever comes after works with definitions that are
//! known to be complete.

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

/// The `[package]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageHeader {
    /// Must equal the folder's name.
    pub name: Name,
    /// One line for people.
    pub description: String,
    /// Packages that an image with this one must have too.
    #[serde(default)]
    pub requires: Vec<Name>,
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
    pub fn take_on(&self, arch: crate::project::Arch) -> BTreeMap<&str, Vec<String>> {
        let special = match arch {
            crate::project::Arch::X86_64 => &self.take_x86_64,
            crate::project::Arch::Aarch64 => &self.take_aarch64,
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
}

/// The `[kernel]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KernelSection {
    /// Arguments of the signed command line, after those that the build adds.
    pub arguments: Vec<String>,
    /// Modules that the image has, by name; what they depend on comes along.
    pub modules: Vec<String>,
    /// Modules that `init` loads before the root can be opened, in order.
    pub init_modules: Vec<String>,
}

/// A package: its manifest and where it lies.
#[derive(Clone, Debug)]
pub struct Package {
    /// The package's folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: PackageManifest,
}

impl Package {
    /// The package's name.
    pub fn name(&self) -> &Name {
        &self.manifest.package.name
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
    variants_folder: PathBuf,
}

/// What is added to a variant to make its dev twin.
const DEV_DOOR: &str = "dev-door";
const DEV_SUFFIX: &str = "-dev";

impl Definitions {
    /// Reads and checks all definitions below `root`.
    pub fn load(root: &Path) -> Result<Self> {
        let definitions = Self {
            packages: load_folder(
                &root.join("packages"),
                "package.toml",
                |m: &PackageManifest| &m.package.name,
            )?
            .into_iter()
            .map(|(name, (folder, manifest))| (name, Package { folder, manifest }))
            .collect(),
            kits: load_folder(&root.join("kits"), "kit.toml", |m: &KitManifest| {
                &m.kit.name
            })?
            .into_iter()
            .map(|(name, (_, manifest))| (name, manifest))
            .collect(),
            variants: load_folder(
                &root.join("variants"),
                "variant.toml",
                |m: &VariantManifest| &m.variant.name,
            )?
            .into_iter()
            .map(|(name, (_, manifest))| (name, manifest))
            .collect(),
            variants_folder: root.join("variants"),
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
            .with_context(|| format!("there is no package {name} in packages/"))
    }

    /// Names of all variants, dev twins included.
    pub fn variant_names(&self) -> Vec<String> {
        self.variants
            .keys()
            .flat_map(|name| [name.to_string(), format!("{name}{DEV_SUFFIX}")])
            .collect()
    }

    /// The folder that a variant's `defaults` are relative to.
    pub fn variants_folder(&self) -> &Path {
        &self.variants_folder
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
                        "packages/{}/package.toml requires {required}, but there is no such package",
                        package.name()
                    );
                }
            }
        }
        self.check_cycles()?;
        for (name, kit) in &self.kits {
            for package in &kit.kit.packages {
                if !self.packages.contains_key(package) {
                    bail!(
                        "kits/{name}/kit.toml names the package {package}, but there is no such package"
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
                        "variants/{name}/variant.toml names the package {package}, but there is no such package"
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
