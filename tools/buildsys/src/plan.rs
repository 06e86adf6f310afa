//! The plan: what an image needs, and what of it is still to be made.
//!
//! The image's key is the hash of its packages' keys and the rest that goes into it.
//! Equal keys mean equal content, so what the store has is never made again.
//! [`packages`] does the same for each package.

pub mod packages;

use crate::keys::Keys;
use crate::lock::Lock;
use crate::manifest::{Definitions, Variant};
use crate::project::{Arch, Project};
use crate::sdk::Toolchain;
use crate::store::{Key, KeyBuilder};
use anyhow::Result;
use packages::{Packages, RECIPE_VERSION};

/// How an image is put together, as far as this crate decides it: a change there
/// makes another image of the same packages.
const ASSEMBLY: [&str; 4] = [
    include_str!("image/assemble.rs"),
    include_str!("image/boot.rs"),
    include_str!("image/content.rs"),
    include_str!("image/modules.rs"),
];

/// The toolchain that builds run in.
const TOOLCHAIN: &str = "sdk";

/// What an image is made from.
pub struct Plan<'a> {
    variant: &'a Variant,
    packages: Packages<'a>,
    content: Key,
    key: Key,
}

impl<'a> Plan<'a> {
    /// Computes the keys of everything that goes into the image.
    pub fn new(
        project: &Project,
        definitions: &'a Definitions,
        variant: &'a Variant,
        arch: Arch,
        lock: &Lock,
        keys: &Keys,
    ) -> Result<Self> {
        let packages = Packages::new(project, definitions, &variant.packages, arch, lock)?;
        let mut key = KeyBuilder::new("content")
            .field("recipe", RECIPE_VERSION)
            .field("assembly", ASSEMBLY.concat())
            .field("variant", variant.name.as_str())
            .field("arch", arch.as_str())
            .field("version", &project.config.release.version)
            .field(
                "kernel",
                format!("{:?}", variant.manifest.kernel.lists(arch)),
            )
            .key("toolchain", &Toolchain::key_of(lock, TOOLCHAIN, arch)?);
        if let Some(size) = variant.manifest.variant.data_volume {
            key = key.field("data-volume", size.0.to_string());
        }
        if let Some(path) = project.update_root() {
            key = key.file("update-root", &path)?;
        }
        for file in &variant.manifest.variant.defaults {
            key = key.file(file, &definitions.variants_file(file))?;
        }
        for (name, package) in packages.keys() {
            key = key.key(name.as_str(), package);
        }
        let content = key.finish();
        let key = KeyBuilder::new("image")
            .key("content", &content)
            .field("signing", keys.fingerprint())
            .finish();
        Ok(Self {
            variant,
            packages: packages.with_toolchain(),
            content,
            key,
        })
    }

    /// The key of all that is in the image, which does not depend on signing keys.
    pub fn content(&self) -> &Key {
        &self.content
    }

    /// The key of the image.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What is built.
    pub fn variant(&self) -> &Variant {
        self.variant
    }

    /// The packages that the image is made of, and the toolchain that puts it together.
    pub fn packages(&self) -> &Packages<'a> {
        &self.packages
    }
}
