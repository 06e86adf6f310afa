//! `image.json`: what an image is, for programs that use it.

use anyhow::{Context, Result};
use disk_image::authenticode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Name of the file in an image's folder.
pub const FILE: &str = "image.json";

/// The description of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Description {
    /// Version of this format.
    pub format: u32,
    /// Name of the variant.
    pub variant: String,
    /// Architecture.
    pub arch: String,
    /// Release version.
    pub version: String,
    /// `BUILD_ID` of its os-release.
    pub build_id: String,
    /// Key of everything that it was built from, signing keys included.
    pub key: String,
    /// Release of its kernel.
    pub kernel: String,
    /// dm-verity root hash of `root.erofs`.
    pub root_hash: String,
    /// Sizes.
    pub sizes: Sizes,
    /// Authenticode digest of each signed file on the EFI system partition, by
    /// path: what stays the same under other keys.
    pub authenticode: BTreeMap<String, String>,
    /// SHA-256 over the disk's parts with the signatures cut out: equal for equal
    /// inputs whatever the keys.
    pub unsigned_sha256: String,
    /// SHA-256 of `settings.schema.json`: images with equal ones take the same
    /// user data.
    pub settings_schema_sha256: String,
    /// What it contains, by name.
    pub packages: Vec<PackageLine>,
    /// What its Go programs are linked from: modules, and the release of Go.
    #[serde(default)]
    pub go_modules: Vec<PackageLine>,
}

/// Sizes in bytes, but for the number of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sizes {
    /// `root.erofs`.
    pub root: u64,
    /// `root.verity`.
    pub verity: u64,
    /// `bulkhead.efi`.
    pub kernel_image: u64,
    /// `disk.img`, holes included.
    pub disk: u64,
    /// Files, folders and links of the root.
    pub files: u64,
}

/// One thing that the image contains.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PackageLine {
    /// Name of the binary package, or of a Go module.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The source package or module that it was built from; of a Go module, the
    /// package whose programs have it.
    pub source: String,
}

impl Description {
    /// Reads the description of the image in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
    }

    /// Writes it into `folder` and makes sure that it is on the disk.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_vec_pretty(self).context("cannot write the description")?;
        text.push(b'\n');
        let mut file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds the digests of the files on the EFI system partition, and the one over
    /// everything that does not depend on keys.
    pub fn add_digests(&mut self, esp: &[(String, Vec<u8>)]) -> Result<()> {
        let mut unsigned = Sha256::new();
        for (path, content) in esp {
            unsigned.update(path.as_bytes());
            if path.to_ascii_lowercase().ends_with(".efi") {
                let digest = authenticode::digest(content)
                    .with_context(|| format!("cannot take the Authenticode digest of {path}"))?;
                unsigned.update(digest);
                self.authenticode.insert(path.clone(), hex::encode(digest));
            } else {
                unsigned.update(content);
            }
        }
        unsigned.update(self.root_hash.as_bytes());
        self.unsigned_sha256 = hex::encode(unsigned.finalize());
        Ok(())
    }
}
