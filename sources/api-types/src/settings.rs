//! Changes of settings and what is known about settings. All of it is ours alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Answer to a change of settings that was waited for: everything is done by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The settings that were changed.
    pub changed: Vec<String>,
    /// Paths of the files that were replaced.
    pub files: Vec<String>,
    /// Units that were restarted.
    pub restarted: Vec<String>,
    /// Units that were reloaded.
    pub reloaded: Vec<String>,
    /// What went wrong. The change is stored all the same.
    pub failures: Vec<String>,
}

/// `GET /metadata/settings`, by key.
pub type SettingsMetadata = BTreeMap<String, SettingMetadata>;

/// What is known about a setting or a table of settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SettingMetadata {
    /// What it means.
    pub doc: String,
    /// `string`, `boolean`, `integer`, `number`, `list` or `table`.
    pub kind: String,
    /// What is accepted, as a noun.
    pub what: String,
    /// All values there are, if few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// What the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What computes it on the host while it is unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// What holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Where that is from.
    pub source: SettingSource,
    /// Names of the files that it is written to.
    pub configuration_files: Vec<String>,
    /// The services that are restarted or reloaded when it changes.
    pub services: Vec<String>,
}

/// Where the value of a setting is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingSource {
    /// The image.
    Default,
    /// The host.
    Generated,
    /// The user.
    User,
    /// It has none.
    Unset,
}

/// An entry of `GET /settings/changes`: a setting that the user set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The setting.
    pub key: String,
    /// What the user set.
    pub value: Value,
    /// What would hold otherwise.
    pub default: Option<Value>,
}

/// An entry of `GET /settings/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number, which a rollback takes.
    pub id: u64,
    /// When, by RFC 3339; nothing if the clock was not set.
    pub time: Option<String>,
    /// What it came from.
    pub origin: HistoryOrigin,
    /// What it touched.
    pub keys: Vec<String>,
}

/// What a change of settings came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryOrigin {
    /// User data, at the first boot.
    UserData,
    /// A client.
    Api,
    /// A return to earlier settings.
    Rollback,
}

/// `GET /v2/tx` (Bottlerocket's, in newer releases): a transaction with the strength of
/// each of its values, by key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransactionWithStrength {
    /// The values, as a tree.
    pub settings: Value,
    /// `strength` of each of them.
    pub metadata: BTreeMap<String, KeyStrength>,
}

/// The strength of one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStrength {
    /// `strong` or `weak`.
    pub strength: String,
}

/// An entry of `GET /v2/metadata/setting-generators` (Bottlerocket's, in newer releases).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorMetadata {
    /// The generator's name; ours run in the server and have no command line.
    pub command: String,
    /// `strong` or `weak`.
    pub strength: String,
}
