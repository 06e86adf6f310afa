//! Which update a host takes.

use std::collections::BTreeSet;
use std::str::FromStr;

use sysutil::time::Time;

use crate::{Manifest, Update, Version};

/// What a host's choice depends on besides the manifest.
#[derive(Clone, Debug)]
pub struct Host {
    /// The variant that runs.
    pub variant: String,
    /// The architecture it runs on.
    pub arch: String,
    /// The version that runs.
    pub version: Version,
    /// `settings.updates.version-lock`.
    pub lock: VersionLock,
    /// `settings.updates.seed`.
    pub seed: u32,
    /// `settings.updates.ignore-waves`.
    pub ignore_waves: bool,
    /// Versions that did not boot on this host: taken again only when the lock names them.
    pub given_up: BTreeSet<Version>,
}

/// What a host wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionLock {
    /// The newest that its turn has come for.
    Latest,
    /// This version, older or newer, whatever the waves say.
    Version(Version),
}

impl FromStr for VersionLock {
    type Err = String;

    /// Reads `latest`, `1.2.3` or `v1.2.3`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            _ => Version::try_from(text.strip_prefix('v').unwrap_or(text).to_string())
                .map(Self::Version),
        }
    }
}

impl VersionLock {
    /// Whether it lets a host go to a version.
    pub fn allows(&self, version: &Version) -> bool {
        match self {
            Self::Latest => true,
            Self::Version(only) => only == version,
        }
    }
}

impl Manifest {
    /// The releases for a host's variant and architecture that are not recalled, newest first.
    pub fn available(&self, host: &Host) -> Vec<&Update> {
        let mut available: Vec<_> = (self.updates().iter())
            .filter(|update| update.variant == host.variant && update.arch == host.arch)
            .filter(|update| update.version <= update.max_version)
            .collect();
        available.sort_by(|a, b| b.version.cmp(&a.version));
        available
    }

    /// The update that a host takes now. Of several whose turn has come it is the newest;
    /// a host whose own version is recalled takes an older one.
    pub fn choose(&self, host: &Host, now: Time) -> Option<&Update> {
        let available = self.available(host);
        let chosen = match &host.lock {
            VersionLock::Version(version) => {
                (available.into_iter()).find(|update| update.version == *version)
            }
            VersionLock::Latest => (available.into_iter())
                .filter(|update| update.version > host.version || host.version > update.max_version)
                .filter(|update| !host.given_up.contains(&update.version))
                .find(|update| {
                    host.ignore_waves || update.waves.turn(host.seed).is_none_or(|turn| turn <= now)
                }),
        };
        chosen.filter(|update| update.version != host.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Version, newest version allowed, and when each half of the fleet starts.
    type Release<'a> = (&'a str, &'a str, Option<[u64; 2]>);

    fn manifest(releases: &[Release<'_>]) -> Manifest {
        let mut updates: Vec<_> = (releases.iter())
            .map(|(version, max, waves)| {
                let waves = waves.map_or(json!({}), |[first, second]| {
                    json!({"0": Time(first).to_string(), "1024": Time(second).to_string()})
                });
                json!({
                    "variant": "v", "arch": "x86_64", "version": version, "max_version": max,
                    "waves": waves, "images": {"boot": "b", "root": "r", "hash": "h"},
                })
            })
            .collect();
        // Newer, but for others.
        for (variant, arch) in [("v", "aarch64"), ("other", "x86_64")] {
            updates.push(json!({
                "variant": variant, "arch": arch, "version": "9.0.0", "max_version": "9.0.0",
                "images": {"boot": "b", "root": "r", "hash": "h"},
            }));
        }
        Manifest::parse(json!({"updates": updates}).to_string().as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(
        releases: &[Release<'_>],
        (runs, lock, seed, ignore_waves): (&str, &str, u32, bool),
        expected: Option<&str>,
    ) {
        let host = Host {
            variant: "v".into(),
            arch: "x86_64".into(),
            version: runs.to_string().try_into().unwrap(),
            lock: lock.parse().unwrap(),
            seed,
            ignore_waves,
            given_up: ["1.9.0".to_string().try_into().unwrap()].into(),
        };
        let manifest = manifest(releases);
        let chosen = manifest.choose(&host, Time(100));
        assert_eq!(
            chosen.map(|update| update.version.to_string()).as_deref(),
            expected
        );
    }

    #[test]
    fn the_newest_whose_turn_has_come() {
        let releases = [
            ("1.2.0", "1.10.0", None),
            ("1.10.0", "1.10.0", Some([50, 200])),
        ];
        check(&releases, ("1.0.0", "latest", 0, false), Some("1.10.0"));
        check(&releases, ("1.0.0", "latest", 1024, false), Some("1.2.0"));
        check(&releases, ("1.2.0", "latest", 1024, false), None);
        check(&releases, ("1.2.0", "latest", 1024, true), Some("1.10.0"));
        check(&releases, ("1.10.0", "latest", 0, false), None);
    }

    #[test]
    fn a_lock_goes_both_ways_and_waits_for_nobody() {
        let releases = [
            ("1.0.0", "1.1.0", None),
            ("1.1.0", "1.1.0", Some([200, 300])),
        ];
        check(&releases, ("1.0.0", "v1.1.0", 0, false), Some("1.1.0"));
        check(&releases, ("1.1.0", "1.0.0", 0, false), Some("1.0.0"));
        check(&releases, ("1.1.0", "v1.1.0", 0, false), None);
        check(&releases, ("1.0.0", "1.5.0", 0, false), None);
    }

    #[test]
    fn a_version_given_up_is_taken_only_when_asked_for() {
        let releases = [("1.8.0", "1.9.0", None), ("1.9.0", "1.9.0", None)];
        check(&releases, ("1.0.0", "latest", 0, false), Some("1.8.0"));
        check(&releases, ("1.8.0", "latest", 0, false), None);
        check(&releases, ("1.8.0", "v1.9.0", 0, false), Some("1.9.0"));
    }

    #[test]
    fn a_recalled_version_is_left_and_not_offered() {
        let releases = [("1.0.0", "1.0.0", None), ("1.1.0", "1.0.0", None)];
        check(&releases, ("1.1.0", "latest", 0, false), Some("1.0.0"));
        check(&releases, ("0.9.0", "latest", 0, false), Some("1.0.0"));
        check(&releases, ("1.0.0", "1.1.0", 0, false), None);
    }
}
