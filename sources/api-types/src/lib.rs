//! What travels over the API's socket, as both ends know it.
//!
//! Shapes and names are Bottlerocket's where it has them; what is ours alone
//! says so. Settings are not here: they travel as plain JSON trees, which the
//! crate `settings` checks. To change a route, start here, then go to
//! `apiserver`'s `routes` and to `apiclient`.

pub mod exec;
mod settings;
mod storage;
mod updates;
pub mod websocket;

pub use settings::*;
pub use storage::*;
pub use updates::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the API listens.
pub const SOCKET: &str = "/run/api.sock";

/// The largest body that the API takes.
pub const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// The transaction that is meant where none is named.
pub const DEFAULT_TRANSACTION: &str = "default";

/// `GET /os`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// Name and version for people.
    pub pretty_name: String,
    /// The variant's name.
    pub variant_id: String,
    /// The version, without a leading `v`.
    pub version_id: String,
    /// Eight hex digits that stand for all it was built from.
    pub build_id: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
}

/// Body of `PATCH /settings/keypair`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPairs {
    /// Texts of the form `settings.a.b=value`.
    pub request_payload: Vec<String>,
}

/// Value of an entry of `GET /services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Service {
    /// Names of the files that concern it.
    pub configuration_files: Vec<String>,
    /// What happens when one of them has changed.
    pub restart_commands: Vec<String>,
}

/// Value of an entry of `GET /configuration-files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConfigurationFile {
    /// Where it lies.
    pub path: String,
    /// Where its template lies.
    pub template_path: String,
    /// Permissions in octal, where they are not the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// An entry of `GET /report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// Its name in the path.
    pub name: String,
    /// What it tells.
    pub description: String,
}

/// `GET /report/user-data` (ours): what became of user data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserDataReport {
    /// False if user data had been taken at an earlier boot and was not looked
    /// at in this one. Then the rest tells of that boot.
    pub looked_at: bool,
    /// True if a fault stops the boot. Then nothing was taken.
    #[serde(default)]
    pub stopped: bool,
    /// Every place that was looked at and had something, in order: later ones
    /// win.
    pub sources: Vec<UserDataSource>,
}

/// What one place held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserDataSource {
    /// The kind of place.
    pub name: String,
    /// Where exactly.
    pub location: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<UserDataFault>,
}

/// What became of a piece of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has no fault.
    Accepted,
    /// Its faults are skipped.
    InPart,
    /// It says nothing.
    Empty,
    /// It was refused as a whole.
    Refused,
}

/// Answer of `POST /check` (ours): what is wrong with a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDataCheck {
    /// All of it; nothing if the document is good.
    pub faults: Vec<UserDataFault>,
}

/// Something that is wrong with user data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDataFault {
    /// The setting, or `settings` for the document as a whole.
    pub key: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
    /// The key that was most likely meant, if it is an unknown one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What it costs at first boot.
    #[serde(default)]
    pub severity: Severity,
}

/// What a fault in user data costs at first boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The boot stops.
    #[default]
    Fatal,
    /// The setting stays at its default.
    Skipped,
}

/// Where the support bundle lies, below the root. Host containers see the folder.
pub const SUPPORT_BUNDLE: &str = "var/log/support/bulkhead-logs.tar.gz";

/// `POST /actions/support-bundle` (ours): a bundle that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SupportBundle {
    /// Where it lies on the host.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// `GET /services`.
pub type Services = BTreeMap<String, Service>;

/// `GET /configuration-files`.
pub type ConfigurationFiles = BTreeMap<String, ConfigurationFile>;

impl std::fmt::Display for UserDataReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.looked_at {
            writeln!(f, "user data was taken at an earlier boot")?;
        } else if self.sources.is_empty() {
            writeln!(f, "there is no user data")?;
        }
        if self.stopped {
            writeln!(f, "user data stops this boot, and none of it was taken")?;
        }
        for source in &self.sources {
            let outcome = match source.outcome {
                Outcome::Accepted => "accepted",
                Outcome::InPart => "accepted in part",
                Outcome::Empty => "empty",
                Outcome::Refused => "refused as a whole",
            };
            writeln!(f, "{} ({}): {outcome}", source.name, source.location)?;
            for fault in &source.faults {
                writeln!(f, "  {fault}")?;
            }
        }
        Ok(())
    }
}

impl UserDataFault {
    /// One line that begins with file and line, where editors look for them.
    pub fn in_file(&self, file: &str) -> String {
        let place = match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_string(),
        };
        let fault = Self {
            line: None,
            ..self.clone()
        };
        format!("{place}: {fault}")
    }
}

impl std::fmt::Display for UserDataFault {
    /// One line, the same wherever faults are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        let severity = match self.severity {
            Severity::Fatal => "fatal",
            Severity::Skipped => "skipped",
        };
        write!(f, "{}: {} [{severity}]", self.key, self.reason)
    }
}
