//! The update repository as a host sees it: `tough` decides what is genuine.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use sysutil::fs::read_text_if_present;
use sysutil::time::Time;
use tough::schema::Target;
use tough::{RepositoryLoader, TargetName as ToughName};
use update_metadata::{Manifest, TargetName};
use url::Url;

use crate::connect::Connector;
use crate::http::{Http, Server};

/// The target that says which releases there are.
const MANIFEST: &str = "manifest.json";
/// The largest manifest that is read.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

/// A repository whose metadata is genuine and has not expired.
pub struct Repository {
    connector: Connector,
    metadata: tough::Repository,
    targets: Url,
    manifest: Manifest,
}

/// A file that is fetched in parts.
pub struct File {
    /// Where it lies.
    pub server: Server,
    /// Its bytes, as the signed metadata says.
    pub length: u64,
    /// Its SHA-256, as the signed metadata says.
    pub digest: Vec<u8>,
}

impl Repository {
    /// Fetches metadata and manifest. `root` is the image's root of trust; what was seen
    /// last is kept in the folder `seen`, so that nobody can go back to older metadata.
    pub async fn load(
        connector: Connector,
        root: &[u8],
        metadata: &str,
        targets: &str,
        seen: &Path,
    ) -> Result<Self> {
        let targets = folder(targets)?;
        std::fs::create_dir_all(seen)
            .with_context(|| format!("making the folder {}", seen.display()))?;
        let loader = RepositoryLoader::new(&root, folder(metadata)?, targets.clone());
        let http = Http(connector.clone());
        let loaded = (loader.transport(http).datastore(seen).load()).await;
        let metadata = loaded.with_context(|| format!("reading the repository {metadata}"))?;
        let mut repository = Self {
            connector,
            metadata,
            targets,
            manifest: Manifest::default(),
        };
        let name = TargetName::try_from(MANIFEST.to_string()).map_err(anyhow::Error::msg)?;
        let json = repository.read(&name, MANIFEST_MAX).await?;
        repository.manifest = Manifest::parse(&json)?;
        Ok(repository)
    }

    /// What it offers.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Fetches a target of at most `limit` bytes and checks it.
    pub async fn read(&self, name: &TargetName, limit: u64) -> Result<Vec<u8>> {
        let (tough_name, target) = self.target(name)?;
        let length = target.length;
        ensure!(
            length <= limit,
            "{} has {length} bytes, and {limit} are the most that it may have",
            name.as_str()
        );
        let fetching = || format!("fetching {}", name.as_str());
        let pieces = self.metadata.read_target(&tough_name).await;
        let Some(mut pieces) = pieces.with_context(fetching)? else {
            bail!("{} is not in the repository", name.as_str());
        };
        let mut bytes = Vec::with_capacity(usize::try_from(length).with_context(fetching)?);
        while let Some(piece) = pieces.try_next().await.with_context(fetching)? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Where a target lies, for fetching parts of it.
    pub fn file(&self, name: &TargetName) -> Result<File> {
        let (_, target) = self.target(name)?;
        let stored = match self.metadata.root().signed.consistent_snapshot {
            true => {
                let digest: String = (target.hashes.sha256.iter())
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                format!("{digest}.{}", name.as_str())
            }
            false => name.as_str().to_string(),
        };
        let mut url = self.targets.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push(&stored),
            Err(()) => bail!("{} is no address of a folder", self.targets),
        };
        Ok(File {
            server: Server::new(self.connector.clone(), url),
            length: target.length,
            digest: target.hashes.sha256.iter().copied().collect(),
        })
    }

    fn target(&self, name: &TargetName) -> Result<(ToughName, &Target)> {
        let tough_name = ToughName::new(name.as_str())
            .with_context(|| format!("{} is no name of a target", name.as_str()))?;
        let targets = &self.metadata.targets().signed.targets;
        let target = targets
            .get(&tough_name)
            .with_context(|| format!("{} is not in the repository", name.as_str()))?;
        Ok((tough_name, target))
    }
}

/// The address of a folder. A trailing slash may be missing, and the scheme, as in
/// Bottlerocket's settings.
fn folder(address: &str) -> Result<Url> {
    let mut text = address.trim_end_matches('/').to_string();
    if !text.contains("://") {
        text.insert_str(0, "https://");
    }
    text.push('/');
    Url::parse(&text).with_context(|| format!("{address} is no address"))
}

/// `tough` takes nothing any more once the clock is behind the time that it saw last, which it
/// keeps in the folder `seen`. This is for a host whose clock was ahead once and is right now:
/// it would take nothing until that time comes.
pub fn forget_time_ahead(seen: &Path) -> Result<()> {
    let path = seen.join("latest_known_time.json");
    let Some(text) = read_text_if_present(&path, 256)? else {
        return Ok(());
    };
    // With fractions of a second, as a JSON string.
    let whole_seconds = text.trim().trim_matches('"').split(['.', 'Z']).next();
    let time = whole_seconds.and_then(|text| Time::parse(&format!("{text}Z")));
    if time.is_none_or(|time| time <= Time::now()) {
        return Ok(());
    }
    tracing::warn!(
        time = text.trim(),
        "the clock was ahead when updates were looked for"
    );
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        for (address, url) in [
            ("http://a.example", "http://a.example/"),
            ("http://a.example/b", "http://a.example/b/"),
            ("http://a.example/b//", "http://a.example/b/"),
            ("a.example/b", "https://a.example/b/"),
        ] {
            assert_eq!(folder(address).unwrap().as_str(), url);
        }
        assert!(folder("http://[").is_err());
    }
}
