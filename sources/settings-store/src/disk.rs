//! The file that holds a state: one line with the format's number, the length
//! and the SHA-256 of the JSON that follows.
//!
//! ```text
//! bulkhead-settings 1 123 9f86d081884c7d65…
//! {"user":{…},"generated":{…},…}
//! ```
//!
//! Three names are used: `current`, `previous`, and `next` while it is written.

use crate::files::Files;
use crate::history::History;
use crate::migrations::{Migration, Way};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use settings::{Document, Faults, Variant, limits};
use sha2::{Digest, Sha256};
use std::io;

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const NEXT: &str = "next";
const FORMAT: &str = "bulkhead-settings 1";
/// Everything at its limits, and what surrounds it.
const FILE_LIMIT: u64 = 6 * limits::DOCUMENT_BYTES as u64;

/// What the image brings to settings.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// Its defaults.
    pub defaults: Document,
    /// The variant, which decides what settings there are; all if it is not known.
    pub variant: Option<Variant>,
    /// What stored settings are taken through.
    pub migrations: Vec<Migration>,
}

impl Release {
    /// This release.
    pub fn new(defaults: Document, variant: Option<Variant>) -> Self {
        Self {
            defaults,
            variant,
            migrations: crate::migrations::table(),
        }
    }
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What the user has set.
    pub user: Document,
    /// What the host has computed for settings that nobody set.
    pub generated: Document,
    /// True once user data was looked at, which happens once in a machine's life.
    pub user_data_done: bool,
    /// Stored settings that this release does not take, kept for one that does:
    /// after a return to an older release nothing is lost.
    pub parked: Map<String, Value>,
    /// The last changes.
    pub history: History,
}

impl State {
    /// The user's settings with those that are put aside.
    pub(crate) fn all_of_user(&self) -> Map<String, Value> {
        let mut tree = self.parked.clone();
        settings::merge_tables(&mut tree, self.user.tree());
        tree
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stored {
    user: Map<String, Value>,
    generated: Map<String, Value>,
    #[serde(default)]
    user_data_done: bool,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    parked: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    migrations: Vec<Value>,
    #[serde(default)]
    history: Value,
}

/// What loading found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest state that is whole, or an empty one.
    pub state: State,
    /// What was wrong on the way, for people.
    pub complaints: Vec<String>,
    /// Whether `current` was whole. If it was not, the next save must not let
    /// it take the place of `previous`.
    pub current_is_good: bool,
}

/// Loads the newest state that is whole.
pub fn load(files: &impl Files, release: &Release) -> Loaded {
    let mut loaded = Loaded::default();
    let mut found_any = false;
    for name in [CURRENT, PREVIOUS] {
        match files.read(name, FILE_LIMIT) {
            Ok(None) => continue,
            Ok(Some(bytes)) => {
                found_any = true;
                match decode(&bytes, release) {
                    Ok((state, complaints)) => {
                        if name == PREVIOUS {
                            loaded.complaints.push(
                                "the settings as they were before the last change are used"
                                    .to_string(),
                            );
                        }
                        loaded.complaints.extend(complaints);
                        loaded.state = state;
                        loaded.current_is_good = name == CURRENT;
                        return loaded;
                    }
                    Err(reason) => loaded
                        .complaints
                        .push(format!("stored settings {name:?} cannot be used: {reason}")),
                }
            }
            Err(error) => {
                found_any = true;
                loaded
                    .complaints
                    .push(format!("stored settings {name:?} cannot be read: {error}"));
            }
        }
    }
    if found_any {
        loaded
            .complaints
            .push("no stored settings are left; starting from the defaults".to_string());
    }
    loaded
}

/// Replaces the stored state. `current_is_good` as [`load`] found it, or true
/// after a save.
pub fn save(
    files: &impl Files,
    state: &State,
    release: &Release,
    current_is_good: bool,
) -> io::Result<()> {
    files.write(NEXT, &encode(state, release))?;
    files.sync(NEXT)?;
    // A cut between the two leaves no current file but a whole previous one,
    // and it does not matter which of the two becomes durable first.
    if current_is_good {
        files.rename(CURRENT, PREVIOUS)?;
    }
    files.rename(NEXT, CURRENT)?;
    files.sync_folder()
}

fn encode(state: &State, release: &Release) -> Vec<u8> {
    let steps = release.migrations.iter();
    let stored = Stored {
        user: state.user.tree().clone(),
        generated: state.generated.tree().clone(),
        user_data_done: state.user_data_done,
        parked: state.parked.clone(),
        migrations: steps
            .map(|step| serde_json::to_value(step).expect("texts always serialise"))
            .collect(),
        history: state.history.to_value(),
    };
    let json = serde_json::to_vec(&stored).expect("JSON values always serialise");
    let digest = hex::encode(Sha256::digest(&json));
    let mut bytes = format!("{FORMAT} {} {digest}\n", json.len()).into_bytes();
    bytes.extend(json);
    bytes
}

/// The state in a file, and what of it cannot be used.
fn decode(bytes: &[u8], release: &Release) -> Result<(State, Vec<String>), String> {
    let end = bytes
        .iter()
        .take(200)
        .position(|&byte| byte == b'\n')
        .ok_or("it has no header")?;
    let (header, json) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| "its header is not text")?;
    let rest = header
        .strip_prefix(FORMAT)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or("its format is not known to this release")?;
    let (length, digest) = rest.split_once(' ').ok_or("its header is cut off")?;
    if length.parse() != Ok(json.len()) {
        return Err(format!("{} bytes instead of {length}", json.len()));
    }
    if hex::encode(Sha256::digest(json)) != digest {
        return Err("its checksum does not match".into());
    }
    let stored: Stored =
        serde_json::from_slice(json).map_err(|error| format!("its content is odd: {error}"))?;
    Ok(take(stored, release))
}

/// Brings what is stored to this release.
fn take(stored: Stored, release: &Release) -> (State, Vec<String>) {
    let mut complaints = Vec::new();
    let way = Way::between(&stored.migrations, &release.migrations);
    if way.unknown > 0 {
        complaints.push(format!(
            "{} migrations of a newer release cannot be taken back; settings that they concern \
             are put aside",
            way.unknown
        ));
    }
    // What was parked is tried again, under what was set since.
    let mut tree = stored.parked;
    settings::merge_tables(&mut tree, &stored.user);
    way.walk(&mut tree);
    let (user, parked, faults) = sift(tree, release);
    let faults = faults.iter();
    complaints.extend(faults.map(|fault| format!("stored setting put aside: {fault}")));

    let mut generated = stored.generated;
    way.walk(&mut generated);
    let (generated, _, _) = sift(generated, release);

    let history = match &stored.history {
        // A release without a history stored this.
        Value::Null => Ok(History::default()),
        history => History::from_value(history),
    };
    let mut history = history.unwrap_or_else(|reason| {
        complaints.push(format!("the history of settings cannot be used: {reason}"));
        History::default()
    });
    if !way.is_empty() {
        history.rewrite(|tree| way.walk(tree));
    }
    let state = State {
        user,
        generated,
        user_data_done: stored.user_data_done,
        parked,
        history,
    };
    (state, complaints)
}

/// Splits a tree into what this release takes and what it puts aside, and says why.
pub(crate) fn sift(
    tree: Map<String, Value>,
    release: &Release,
) -> (Document, Map<String, Value>, Faults) {
    let tree = Value::Object(tree);
    let (mut taken, mut faults) = Document::salvage(&tree);
    if let Some(variant) = &release.variant {
        let foreign = taken.foreign_to(variant);
        for fault in foreign.iter() {
            taken.unset(&fault.key);
            faults.add(&fault.key, fault.reason.clone());
        }
    }
    let mut parked = Map::new();
    if let (false, Value::Object(tree)) = (faults.is_empty(), &tree) {
        for (key, value) in settings::leaves(tree) {
            if taken.get(&key).is_none() {
                overlay_value(&mut parked, key.parts(), value.clone());
            }
        }
    }
    (taken, parked, faults)
}

fn overlay_value(into: &mut Map<String, Value>, parts: &[String], value: Value) {
    let tree = Document::single(&settings::Key::from_parts(parts.iter().cloned()), value);
    if let Value::Object(tree) = tree {
        settings::merge_tables(into, &tree);
    }
}
