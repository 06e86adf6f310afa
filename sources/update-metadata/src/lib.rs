//! The manifest of an update repository: which releases there are, for whom, and when
//! each host's turn comes; and the choice that a host makes from it.
//!
//! Start at [`Manifest::parse`] and [`Manifest::choose`]. That the manifest is the one that
//! was signed, and fetching anything, is the business of whoever calls. The file has the
//! form of Bottlerocket's `manifest.json`; fields that are unknown here are passed over,
//! so that a later release may add some.

mod choice;
mod text;
mod waves;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use choice::{Host, VersionLock};
pub use text::{TargetName, Version};
pub use waves::{SEEDS, Waves, WavesError};

/// What a repository offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The releases, each for one variant and architecture.
    updates: Vec<Update>,
    /// Bottlerocket's programs that convert settings between two versions. Hosts of this
    /// project need none; the field is kept because other readers of the file want it.
    #[serde(default)]
    migrations: BTreeMap<String, Vec<TargetName>>,
}

/// A release of a variant for an architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The variant's name.
    pub variant: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The release's version.
    pub version: Version,
    /// The newest version that hosts may run. One that runs a newer one goes back.
    pub max_version: Version,
    /// When each host's turn comes.
    #[serde(default)]
    pub waves: Waves,
    /// The files of the release.
    pub images: Images,
    /// The root hash of the root's verity tree. Hosts of this project refuse a release
    /// without it; Bottlerocket's manifests do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_hash: Option<String>,
}

/// Names of a release's targets in the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// The signed kernel image.
    pub boot: TargetName,
    /// The list of its blocks, by which a host fetches only those that it does not have.
    /// Without it the kernel image is fetched whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_blocks: Option<TargetName>,
    /// The root's file system.
    pub root: TargetName,
    /// The root's verity tree.
    pub hash: TargetName,
}

/// Why a manifest is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no JSON, or a value has the wrong form; the source has line and column.
    #[error("manifest.json cannot be read")]
    Form(#[from] serde_json::Error),
    /// One release is there twice, and nothing says which counts.
    #[error(
        "manifest.json: updates[{second}] is version {version} of {variant} for {arch}, as updates[{first}] is"
    )]
    Twice {
        /// Index of the first.
        first: usize,
        /// Index of the second.
        second: usize,
        /// The variant of both.
        variant: String,
        /// The architecture of both.
        arch: String,
        /// The version of both.
        version: Version,
    },
}

impl Manifest {
    /// Reads `manifest.json`.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        let read: Self = serde_json::from_slice(json)?;
        manifest.migrations = read.migrations;
        for update in read.updates {
            manifest.push(update)?;
        }
        Ok(manifest)
    }

    /// Adds a release, and lets hosts of its variant and architecture go up to its
    /// `max_version`, or as far as they could before if that is further. Releases that were
    /// recalled by then are taken out: a higher limit would offer them again.
    pub fn release(&mut self, update: Update) -> Result<(), ManifestError> {
        let (variant, arch) = (update.variant.clone(), update.arch.clone());
        let is_of_kind = |other: &Update| other.variant == variant && other.arch == arch;
        let before = self.updates.iter().filter(|other| is_of_kind(other));
        let limits = before.map(|other| other.max_version.clone());
        let max = limits.fold(update.max_version.clone(), Ord::max);
        self.push(update)?;
        self.updates
            .retain(|other| !is_of_kind(other) || other.version <= other.max_version);
        self.limit(&variant, &arch, &max);
        Ok(())
    }

    /// Makes `max_version` the newest version that hosts of a variant and architecture may
    /// run. Says how many releases that concerns.
    pub fn limit(&mut self, variant: &str, arch: &str, max_version: &Version) -> usize {
        let concerned = (self.updates.iter_mut())
            .filter(|update| update.variant == variant && update.arch == arch);
        concerned
            .map(|update| update.max_version = max_version.clone())
            .count()
    }

    /// Releases as JSON, as it stands in a repository.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    fn push(&mut self, update: Update) -> Result<(), ManifestError> {
        if let Some(first) = (self.updates.iter()).position(|other| other.is_same(&update)) {
            return Err(ManifestError::Twice {
                first,
                second: self.updates.len(),
                variant: update.variant,
                arch: update.arch,
                version: update.version,
            });
        }
        self.updates.push(update);
        Ok(())
    }

    /// All releases, in the file's order.
    pub fn updates(&self) -> &[Update] {
        &self.updates
    }
}

impl Update {
    fn is_same(&self, other: &Self) -> bool {
        (&self.variant, &self.arch, &self.version) == (&other.variant, &other.arch, &other.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(version: &str) -> serde_json::Value {
        json!({
            "variant": "metal-core", "arch": "x86_64",
            "version": version, "max_version": "2.0.0",
            "waves": {"0": "2026-11-28T00:00:00Z", "1024": "2026-11-29T00:00:00Z"},
            "images": {"boot": "b.efi", "root": "r.erofs", "hash": "r.verity"},
        })
    }

    fn error(manifest: &serde_json::Value) -> String {
        match Manifest::parse(manifest.to_string().as_bytes()) {
            Err(ManifestError::Form(source)) => source.to_string(),
            Err(other) => other.to_string(),
            Ok(_) => panic!("taken: {manifest}"),
        }
    }

    #[test]
    fn what_is_read_is_written_again() {
        let json = json!({
            "updates": [update("1.1.0"), update("1.0.0")],
            "migrations": {"(1.0.0, 1.1.0)": ["migrate_v1.1.0_x.lz4"]},
        });
        let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&manifest).unwrap(), json);
    }

    #[test]
    fn a_release_raises_the_limit_of_its_own_kind_only() {
        let mut other = update("1.0.0");
        other["variant"] = json!("other");
        let json = json!({"updates": [update("1.0.0"), other]});
        let mut manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
        let mut next: Update = serde_json::from_value(update("3.0.0")).unwrap();
        next.max_version = next.version.clone();
        manifest.release(next.clone()).unwrap();
        let limits = |manifest: &Manifest| {
            let limit = |update: &Update| update.max_version.to_string();
            manifest.updates().iter().map(limit).collect::<Vec<_>>()
        };
        assert_eq!(limits(&manifest), ["3.0.0", "2.0.0", "3.0.0"]);
        assert!(manifest.release(next).is_err(), "a release is there once");
        let recalled = "1.0.0".to_string().try_into().unwrap();
        assert_eq!(manifest.limit("metal-core", "x86_64", &recalled), 2);
        assert_eq!(limits(&manifest), ["1.0.0", "2.0.0", "1.0.0"]);
    }

    /// A manifest of these versions, released one after the other.
    fn released(versions: &[&str]) -> Manifest {
        let mut manifest = Manifest::default();
        for version in versions {
            add(&mut manifest, version);
        }
        manifest
    }

    fn add(manifest: &mut Manifest, version: &str) {
        let mut update: Update = serde_json::from_value(update(version)).unwrap();
        update.max_version = update.version.clone();
        manifest.release(update).unwrap();
    }

    fn versions_and_limits(manifest: &Manifest) -> Vec<(String, String)> {
        let updates = manifest.updates().iter();
        updates
            .map(|update| (update.version.to_string(), update.max_version.to_string()))
            .collect()
    }

    #[test]
    fn a_release_of_an_older_version_recalls_nothing() {
        let manifest = released(&["1.0.0", "1.1.0", "1.0.5"]);
        for (_, limit) in versions_and_limits(&manifest) {
            assert_eq!(limit, "1.1.0");
        }
    }

    #[test]
    fn a_release_after_a_recall_does_not_offer_what_was_recalled() {
        let mut manifest = released(&["1.0.0", "1.1.0"]);
        let good = "1.0.0".to_string().try_into().unwrap();
        manifest.limit("metal-core", "x86_64", &good);
        add(&mut manifest, "1.2.0");
        let expected = ["1.0.0", "1.2.0"].map(|version| (version.into(), "1.2.0".into()));
        assert_eq!(versions_and_limits(&manifest), expected);
    }

    #[test]
    fn a_list_of_the_kernel_images_blocks_is_there_or_not() {
        let mut update = update("1.0.0");
        let list = |update: &serde_json::Value| {
            let json = json!({"updates": [update]});
            let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
            let again = serde_json::to_value(&manifest).unwrap();
            assert_eq!(again["updates"], json["updates"]);
            let list = &manifest.updates()[0].images.boot_blocks;
            list.as_ref().map(|name| name.as_str().to_string())
        };
        assert_eq!(list(&update), None);
        update["images"]["boot_blocks"] = json!("b.blocks");
        assert_eq!(list(&update).as_deref(), Some("b.blocks"));
    }

    #[test]
    fn later_fields_are_passed_over() {
        let mut update = update("1.0.0");
        update["later"] = json!(1);
        update["images"]["later"] = json!("x");
        let json = json!({"updates": [update], "later": {}});
        assert_eq!(
            Manifest::parse(json.to_string().as_bytes())
                .unwrap()
                .updates()
                .len(),
            1
        );
    }

    #[test]
    fn faults_say_where() {
        let twice = json!({"updates": [update("1.0.0"), update("1.1.0"), update("1.0.0")]});
        assert_eq!(
            error(&twice),
            "manifest.json: updates[2] is version 1.0.0 of metal-core for x86_64, as updates[0] is"
        );
        for (pointer, bad, says) in [
            ("/version", json!("1/2"), "\"1/2\" is no version"),
            (
                "/images/root",
                json!("../root"),
                "\"../root\" is no plain file name",
            ),
            ("/images/boot", json!(""), "\"\" is no plain file name"),
            ("/waves", json!({"0": "today"}), "\"today\" is no moment"),
            (
                "/waves",
                json!({"7": "2026-11-28T00:00:00Z"}),
                "start at seed 7",
            ),
            (
                "/waves",
                json!({"x": "2026-11-28T00:00:00Z"}),
                "expected key to be a number",
            ),
        ] {
            let mut update = update("1.0.0");
            *update.pointer_mut(pointer).unwrap() = bad;
            let error = error(&json!({"updates": [update]}));
            assert!(error.contains(says), "{error}");
            assert!(error.contains("line 1 column"), "{error}");
        }
    }
}
