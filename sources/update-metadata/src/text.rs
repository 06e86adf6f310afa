//! Checked words of the manifest.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of an image. Versions are in the order in which systemd-boot has them, so
/// that what is newer here is also what boots first there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if boot_slots::entry::is_version(&text) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no version"))
        }
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        boot_slots::entry::compare_versions(&self.0, &other.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// Name of a target: a plain file name, which leads nowhere when it is joined to a folder
/// or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

impl TargetName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TargetName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.~".contains(&c);
        if (1..=200).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no plain file name"))
        }
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.0
    }
}
