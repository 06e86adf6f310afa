//! Reading an image from an OCI layout.

use crate::api::Descriptor;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where containerd looks for an image's whole name.
const NAME: &str = "io.containerd.image.name";

/// An image.
#[derive(Debug)]
pub struct Layout {
    /// Its whole name.
    pub name: String,
    /// What says of which parts it is.
    pub manifest: Descriptor,
    /// How it is run.
    pub config: Descriptor,
    /// Its layers, from the bottom.
    pub layers: Vec<Layer>,
    folder: PathBuf,
}

/// A layer of an image.
#[derive(Debug)]
pub struct Layer {
    /// The archive.
    pub archive: Descriptor,
    /// Names it together with all below it.
    pub chain: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<JsonDescriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: JsonDescriptor,
    layers: Vec<JsonDescriptor>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonDescriptor {
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl From<JsonDescriptor> for Descriptor {
    fn from(descriptor: JsonDescriptor) -> Self {
        Self {
            media_type: descriptor.media_type,
            digest: descriptor.digest,
            size: descriptor.size,
            annotations: HashMap::new(),
        }
    }
}

/// The images in `folder`, which has a folder for each, by the names of these; none if it
/// is not there.
pub fn all(folder: &Path) -> Result<Vec<Layout>> {
    let list = || format!("cannot list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(list)?,
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(list)?.path());
    }
    paths.sort();
    paths.iter().map(|path| Layout::read(path)).collect()
}

impl Layout {
    /// Reads what the layout in `folder` says; it must hold one image.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut index: Index = parse(&folder.join("index.json"))?;
        let (Some(mut manifest), true) = (index.manifests.pop(), index.manifests.is_empty()) else {
            bail!("{} does not hold one image", folder.display());
        };
        let name = manifest
            .annotations
            .remove(NAME)
            .with_context(|| format!("the image in {} has no name", folder.display()))?;
        let layout = Self {
            name,
            manifest: manifest.into(),
            config: Descriptor::default(),
            layers: Vec::new(),
            folder: folder.to_path_buf(),
        };
        let parts: Manifest = parse(&layout.path(&layout.manifest)?)?;
        let config: Descriptor = parts.config.into();
        let contents: Config = parse(&layout.path(&config)?)?;
        let contents = contents.rootfs.diff_ids;
        ensure!(
            contents.len() == parts.layers.len() && !contents.is_empty(),
            "the image in {} has {} layers, but says what is in {}",
            folder.display(),
            parts.layers.len(),
            contents.len()
        );
        let layers = parts
            .layers
            .into_iter()
            .zip(chains(&contents))
            .map(|(archive, chain)| Layer {
                archive: archive.into(),
                chain,
            })
            .collect();
        Ok(Self {
            config,
            layers,
            ..layout
        })
    }

    /// The bytes of a part.
    pub fn content(&self, part: &Descriptor) -> Result<Vec<u8>> {
        let path = self.path(part)?;
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The folder that has this image's, beside those of others.
    pub(crate) fn shelf(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    fn path(&self, part: &Descriptor) -> Result<PathBuf> {
        let digest = part.digest.strip_prefix("sha256:").unwrap_or_default();
        ensure!(
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{:?} in {} is no digest",
            part.digest,
            self.folder.display()
        );
        Ok(self.folder.join("blobs/sha256").join(digest))
    }
}

/// Names of layers with all below them: the specification's `ChainID`.
pub(crate) fn chains(contents: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for content in contents {
        chains.push(match chains.last() {
            None => content.clone(),
            Some(below) => {
                let both = format!("{below} {content}");
                format!("sha256:{}", hex::encode(Sha256::digest(both)))
            }
        });
    }
    chains
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_as_in_the_specification() {
        let contents = ["sha256:a", "sha256:b"].map(String::from);
        let both = hex::encode(Sha256::digest("sha256:a sha256:b"));
        assert_eq!(
            chains(&contents),
            ["sha256:a".to_string(), format!("sha256:{both}")]
        );
    }

    #[test]
    fn what_is_no_image_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let check = |index: &str, expected: &str| {
            fs::write(folder.path().join("index.json"), index).unwrap();
            let error = Layout::read(folder.path()).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        let named = format!("\"annotations\":{{\"{NAME}\":\"a\"}}");
        check("{", "index.json is not valid");
        check("{\"manifests\":[]}", "does not hold one image");
        check(
            "{\"manifests\":[{\"mediaType\":\"m\",\"digest\":\"d\",\"size\":1}]}",
            "has no name",
        );
        check(
            &format!(
                "{{\"manifests\":[{{\"mediaType\":\"m\",\"digest\":\"sha256:../x\",\"size\":1,{named}}}]}}"
            ),
            "is no digest",
        );
    }
}
