//! The project: where it lies and what `Bulkhead.toml` says.

use crate::kits;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the file that marks the project's folder.
const CONFIG_FILE: &str = "Bulkhead.toml";

/// What a build reads of a project besides variants, in the order of their names.
pub(crate) const INPUTS: [&str; 7] = [
    "Bulkhead.lock",
    CONFIG_FILE,
    "Cargo.lock",
    "Cargo.toml",
    "kits",
    "packages",
    "sources",
];

/// A project: the folder with `Bulkhead.toml` and what belongs to it.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder that `Bulkhead.toml` lies in.
    pub root: PathBuf,
    /// What `Bulkhead.toml` says.
    pub config: Config,
    /// The repositories that its kits come from, each checked against its hash.
    pub repositories: Vec<PathBuf>,
    /// The user's folders, which all projects share.
    pub folders: Folders,
}

impl Project {
    /// Finds the project that the working directory lies in.
    pub fn find() -> Result<Self> {
        let start = std::env::current_dir().context("cannot read the working directory")?;
        match start
            .ancestors()
            .find(|folder| folder.join(CONFIG_FILE).is_file())
        {
            Some(root) => Self::open(root),
            None => bail!(
                "there is no {CONFIG_FILE} in {} or a folder above it; run this inside a Bulkhead project",
                start.display()
            ),
        }
    }

    /// Opens the project whose `Bulkhead.toml` lies in `root`.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(CONFIG_FILE);
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot resolve {}", root.display()))?;
        let describe = || format!("{} is not valid", path.display());
        let mut document = read_document(&path)?;
        let pins = kits::pins(&document).with_context(describe)?;
        let repositories = kits::repositories(&root, &pins).with_context(describe)?;
        for repository in &repositories {
            let theirs = read_document(&repository.join(CONFIG_FILE))?;
            kits::inherit(&mut document, theirs)
                .with_context(|| format!("{} cannot be used for kits", repository.display()))?;
        }
        let config = Config::of(document).with_context(describe)?;
        let folders = Folders::of_user(&root, |name| std::env::var_os(name).map(PathBuf::from));
        Ok(Self {
            root,
            config,
            repositories,
            folders,
        })
    }

    /// Where downloads and build outputs are kept; safe to delete.
    pub fn cache_dir(&self) -> PathBuf {
        self.folders.cache.clone()
    }

    /// Where the content-addressed store lies.
    pub fn store_dir(&self) -> PathBuf {
        self.folders.cache.join("store")
    }

    /// Where the signing keys lie; not safe to delete.
    pub fn keys_dir(&self) -> PathBuf {
        self.folders.data.join("keys")
    }

    /// Where the keys of update repositories lie; not safe to delete.
    pub fn update_keys_dir(&self) -> PathBuf {
        self.folders.data.join("update-keys")
    }

    /// By what hosts know the update repository, if there is one: its `root.json`.
    pub fn update_root(&self) -> Option<PathBuf> {
        let path = self.update_keys_dir().join("root.json");
        path.is_file().then_some(path)
    }

    /// Where downloads lie, each by what it is or by its hash.
    pub fn downloads_dir(&self) -> PathBuf {
        self.folders.cache.join("archives")
    }

    /// Where results of this project go.
    pub fn build_dir(&self) -> PathBuf {
        self.root.join("build")
    }

    /// Where images of a variant go, each in a folder called after its version.
    pub fn images_dir(&self, variant: &str, arch: Arch) -> PathBuf {
        let images = self.build_dir().join("images");
        images.join(format!("{variant}-{arch}"))
    }
}

/// The user's folders by the XDG base directory rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Downloads and build outputs.
    pub cache: PathBuf,
    /// Keys.
    pub data: PathBuf,
}

impl Folders {
    /// The folders that the environment names. Without a home (a service, a
    /// bare container) they lie in the project's build folder.
    fn of_user(root: &Path, environment: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let absolute = |name: &str| environment(name).filter(|path| path.is_absolute());
        let base = |name: &str, below_home: &str| {
            absolute(name)
                .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
                .unwrap_or_else(|| root.join("build").join(below_home))
                .join("bulkhead")
        };
        Self {
            cache: base("XDG_CACHE_HOME", ".cache"),
            data: base("XDG_DATA_HOME", ".local/share"),
        }
    }
}

/// `Bulkhead.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What is being released.
    pub release: Release,
    /// Kits of other repositories, by name.
    #[serde(default)]
    pub kits: BTreeMap<String, KitPin>,
    /// Where Debian packages come from.
    pub debian: Debian,
    /// Sets of Debian packages that run on the workstation, by name.
    pub toolchains: BTreeMap<String, ToolchainPackages>,
    /// What Go programs are built with.
    #[serde(default)]
    pub go: GoConfig,
    /// The store of build outputs.
    #[serde(default)]
    pub store: StoreConfig,
}

impl Config {
    /// Reads the text of a `Bulkhead.toml` without kits.
    pub fn parse(text: &str) -> Result<Self> {
        Self::of(toml::from_str(text)?)
    }

    fn of(document: toml::Table) -> Result<Self> {
        let config: Self = document.try_into()?;
        let version = &config.release.version;
        let fields: Vec<&str> = version.split('.').collect();
        if fields.len() != 3 || fields.iter().any(|field| field.parse::<u32>().is_err()) {
            bail!(
                "release.version is {version:?}, but a version is three numbers, for example \"1.2.3\""
            );
        }
        if config.debian.suites.is_empty() || config.debian.components.is_empty() {
            bail!("debian.suites and debian.components must each name at least one");
        }
        Ok(config)
    }
}

/// A kit of another repository: which one, and what it has to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitPin {
    /// The repository's folder, relative to the project's.
    pub path: PathBuf,
    /// Hash of what a build reads of it.
    pub sha256: String,
}

fn read_document(path: &Path) -> Result<toml::Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

/// The `[release]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Release {
    /// Version of the images, three numbers.
    pub version: String,
    /// Variant that is meant when none is named.
    pub default_variant: String,
}

/// The `[debian]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Addresses of mirrors, tried in order; empty means the host's own.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Address of an archive by date that has what mirrors drop, with folders
    /// `debian` and `debian-security`; empty for none. Debian's own by default,
    /// unless mirrors are named here or in the environment.
    pub dated_archive: Option<String>,
    /// Archive components, for example `main`.
    pub components: Vec<String>,
    /// Suites that packages are taken from. A suite whose name ends in
    /// `-backports` gives only what is asked for as `name/suite`.
    pub suites: Vec<String>,
}

/// One `[toolchains.<name>]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToolchainPackages {
    /// Packages asked for; what they depend on comes along. `name/suite` takes
    /// the package from that suite.
    pub packages: Vec<String>,
    /// Packages left out though something depends on them.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What it has besides for images of another architecture than the workstation's.
    #[serde(default)]
    pub r#for: BTreeMap<Arch, CrossPackages>,
}

/// One `[toolchains.<name>.for.<architecture>]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CrossPackages {
    /// Packages that run on the workstation, such as a compiler.
    pub packages: Vec<String>,
    /// Packages left out though something depends on them.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Packages of the other architecture, such as libraries to link with. What they
    /// depend on does not come along.
    #[serde(default)]
    pub foreign: Vec<String>,
}

/// The `[go]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GoConfig {
    /// Hashes of Go's toolchains, in the form of go.sum: version → workstation →
    /// hash of the module that has the toolchain.
    #[serde(default)]
    pub toolchains: BTreeMap<String, BTreeMap<Arch, String>>,
}

/// The `[store]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreConfig {
    /// How large the store may grow before the least recently used goes.
    pub size_limit: ByteSize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            size_limit: ByteSize(20 << 30),
        }
    }
}

/// A number of bytes, written as `20GiB`, `512MiB`, `64KiB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor: u64 = match text[digits.len()..].trim() {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(format!("{text:?} is not a size: write it like \"20GiB\"")),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("{text:?} is not a size: write it like \"20GiB\""))?;
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is more than this machine can count"))
    }
}

/// Processor architecture of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl From<Arch> for boot_slots::layout::Architecture {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::X86_64,
            Arch::Aarch64 => Self::Aarch64,
        }
    }
}

impl Arch {
    /// All architectures that images are built for.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Its name in paths, manifests and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name of it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Go's name of it.
    pub fn go(self) -> &'static str {
        self.debian()
    }

    /// The folder of its libraries below `/usr/lib`.
    pub fn multiarch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Arch {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|arch| arch.as_str() == name) {
            Some(arch) => Ok(arch),
            None => {
                bail!("{name:?} is not an architecture that is supported: use x86_64 or aarch64")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        [release]
        version = "0.1.0"
        default-variant = "metal-core"
        [debian]
        components = ["main"]
        suites = ["trixie"]
        [toolchains.sdk]
        packages = ["gcc"]
    "#;

    #[test]
    fn shipped_configuration_is_valid() {
        let config = Config::parse(include_str!("../../../Bulkhead.toml")).unwrap();
        assert!(
            config.debian.mirrors.is_empty(),
            "as shipped, the host's mirror is used"
        );
        assert!(config.toolchains.contains_key("sdk"));
        assert!(config.toolchains.contains_key("emulator"));
    }

    #[test]
    fn configuration_is_strict() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(MINIMAL.contains(from));
            let error = Config::parse(&MINIMAL.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        assert_eq!(
            Config::parse(MINIMAL).unwrap().store.size_limit,
            ByteSize(20 << 30)
        );
        check("0.1.0", "0.1", "release.version");
        check("0.1.0", "0.1.x", "release.version");
        check("suites = [\"trixie\"]", "suites = []", "debian.suites");
        check("components", "komponents", "komponents");
        check(
            "[toolchains.sdk]",
            "[store]\nsize-limit = \"20 pounds\"\n[toolchains.sdk]",
            "is not a size",
        );
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                ByteSize::try_from(text.to_string()).ok(),
                expected.map(ByteSize),
                "{text}"
            );
        };
        check("20GiB", Some(20 << 30));
        check("1 MiB", Some(1 << 20));
        check("17", Some(17));
        check("99999999TiB", None);
        check("GiB", None);
        check("-1", None);
        check("", None);
    }

    #[test]
    fn folders_follow_the_environment() {
        let check = |environment: &[(&str, &str)], cache: &str, data: &str| {
            let folders = Folders::of_user(Path::new("/project"), |name| {
                environment
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            });
            assert_eq!(
                folders,
                Folders {
                    cache: cache.into(),
                    data: data.into()
                }
            );
        };
        check(
            &[("HOME", "/home/a")],
            "/home/a/.cache/bulkhead",
            "/home/a/.local/share/bulkhead",
        );
        check(
            &[
                ("HOME", "/home/a"),
                ("XDG_CACHE_HOME", "/c"),
                ("XDG_DATA_HOME", "/d"),
            ],
            "/c/bulkhead",
            "/d/bulkhead",
        );
        // The specification says that relative paths are to be ignored.
        check(
            &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "c")],
            "/home/a/.cache/bulkhead",
            "/home/a/.local/share/bulkhead",
        );
        check(
            &[],
            "/project/build/.cache/bulkhead",
            "/project/build/.local/share/bulkhead",
        );
    }

    #[test]
    fn architectures_round_trip() {
        for arch in Arch::ALL {
            assert_eq!(arch.to_string().parse::<Arch>().unwrap(), arch);
            assert_eq!(serde_name(arch), arch.to_string());
        }
        assert!("riscv64".parse::<Arch>().is_err());
    }

    fn serde_name(arch: Arch) -> String {
        #[derive(Serialize)]
        struct Holder {
            arch: Arch,
        }
        let text = toml::to_string(&Holder { arch }).unwrap();
        text.trim()
            .trim_start_matches("arch = ")
            .trim_matches('"')
            .to_string()
    }
}
