//! Writes container images as the OCI image specification 1.1 describes them.
//!
//! An [`Image`] is made of [`Layer`]s and a [`Config`]. It is written as a layout, a
//! folder that tools push to a registry, or as an archive of that folder, which
//! container runtimes import. Layers are not compressed: what is imported is unpacked
//! at once, and an image that lies in a root file system is compressed by that.
//!
//! The same input gives the same bytes, and so the same digests.

mod layer;

pub use layer::Layer;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The name that an image has in a layout, for tools that go by the specification.
const REFERENCE: &str = "org.opencontainers.image.ref.name";
/// The same for containerd, which takes the whole name from here.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The SHA-256 of something, as images name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// The processor that an image is for, by the names that Go gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Architecture {
    fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// How a container of an image is run, unless whoever runs it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// User and group by number, as `65535:65535`; root if empty.
    pub user: String,
}

/// A piece of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob {
    media_type: &'static str,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media_type,
            digest: Digest::of(&bytes),
            bytes,
        }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.bytes.len(),
        })
    }
}

/// An image for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    architecture: Architecture,
    manifest: Blob,
    /// Configuration and layers, in the manifest's order.
    parts: Vec<Blob>,
}

impl Image {
    /// Puts an image together; later layers cover earlier ones.
    pub fn new(architecture: Architecture, config: &Config, layers: Vec<Layer>) -> Self {
        let layers: Vec<Blob> = layers
            .into_iter()
            .map(|layer| Blob::new(LAYER, layer.into_tar()))
            .collect();
        // A layer's digest here is that of its content, which is not compressed.
        let contents: Vec<String> = layers.iter().map(|blob| blob.digest.to_string()).collect();
        let config = Blob::json(
            CONFIG,
            &json!({
                "architecture": architecture.as_str(),
                "os": "linux",
                "config": {
                    "Entrypoint": config.entrypoint,
                    "Cmd": config.arguments,
                    "Env": config.environment,
                    "User": config.user,
                },
                "rootfs": { "type": "layers", "diff_ids": contents },
            }),
        );
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
            }),
        );
        let mut parts = vec![config];
        parts.extend(layers);
        Self {
            architecture,
            manifest,
            parts,
        }
    }

    /// What names exactly this image.
    pub fn digest(&self) -> &Digest {
        &self.manifest.digest
    }

    /// Writes the image as a layout into `folder`, which must not exist. `name` is the
    /// image's whole name, such as `registry.example.com/pause:1`.
    pub fn write_layout(&self, name: &str, folder: &Path) -> Result<()> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
        for (path, bytes) in self.files(name) {
            let path = folder.join(path);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the layout as an archive.
    pub fn write_archive(&self, name: &str, to: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        for (path, bytes) in self.files(name) {
            layer::append_file(&mut archive, &path, 0o644, &bytes)
                .with_context(|| format!("cannot write {path} of the image {name}"))?;
        }
        archive
            .into_inner()
            .and_then(|mut to| to.flush())
            .with_context(|| format!("cannot write the image {name}"))
    }

    /// Paths and contents of a layout, in a fixed order.
    fn files(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let mut descriptor = self.manifest.descriptor();
        descriptor["platform"] =
            json!({ "architecture": self.architecture.as_str(), "os": "linux" });
        descriptor["annotations"] = json!({ CONTAINERD_NAME: name, REFERENCE: tag(name) });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor],
        });
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        let mut files = vec![
            ("oci-layout".to_string(), layout.to_string().into_bytes()),
            ("index.json".to_string(), index.to_string().into_bytes()),
        ];
        files.extend(
            std::iter::once(&self.manifest)
                .chain(&self.parts)
                .map(|blob| (blob.digest.path(), blob.bytes.clone())),
        );
        files
    }
}

/// What follows the last colon, if that is no port.
fn tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image() -> Image {
        let mut layer = Layer::new();
        layer.file("bin/app", 0o755, b"program").unwrap();
        let config = Config {
            entrypoint: vec!["/bin/app".to_string()],
            ..Config::default()
        };
        Image::new(Architecture::Amd64, &config, vec![layer])
    }

    /// The layout that an archive holds, by path.
    fn unpack(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (path, bytes)
            })
            .collect()
    }

    #[test]
    fn each_part_is_found_by_its_digest() {
        let mut bytes = Vec::new();
        let image = image();
        image
            .write_archive("example.com:5000/app:1", &mut bytes)
            .unwrap();
        let files = unpack(&bytes);
        let blob = |descriptor: &Value| -> Vec<u8> {
            let digest = descriptor["digest"].as_str().unwrap();
            let path = format!("blobs/{}", digest.replace(':', "/"));
            let (_, bytes) = files.iter().find(|(found, _)| *found == path).unwrap();
            assert_eq!(Digest::of(bytes).to_string(), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        assert_eq!(files[0].0, "oci-layout");
        let index: Value = serde_json::from_slice(&files[1].1).unwrap();
        let named = &index["manifests"][0];
        assert_eq!(named["digest"], image.digest().to_string());
        assert_eq!(
            named["annotations"][CONTAINERD_NAME],
            "example.com:5000/app:1"
        );
        assert_eq!(named["annotations"][REFERENCE], "1");
        let manifest: Value = serde_json::from_slice(&blob(named)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/app"]));
        let layer = &manifest["layers"][0];
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        assert_eq!(unpack(&blob(layer)).last().unwrap().1, b"program");
    }

    #[test]
    fn the_same_input_gives_the_same_image() {
        assert_eq!(image(), image());
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        image().write_layout("app", &layout).unwrap();
        let mut bytes = Vec::new();
        image().write_archive("app", &mut bytes).unwrap();
        for (path, bytes) in unpack(&bytes) {
            assert_eq!(fs::read(layout.join(path)).unwrap(), bytes);
        }
    }

    #[test]
    fn tags_are_told_from_ports() {
        assert_eq!(tag("example.com:5000/app"), "latest");
        assert_eq!(tag("example.com:5000/app:1.2"), "1.2");
        assert_eq!(tag("app"), "latest");
    }
}
