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
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use settings::{Document, Faults, limits};
use sha2::{Digest, Sha256};
use std::io;

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
const NEXT: &str = "next";
const FORMAT: &str = "bulkhead-settings 1";
/// Both layers at their limits, and what surrounds them.
const FILE_LIMIT: u64 = 4 * limits::DOCUMENT_BYTES as u64;

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
pub fn load(files: &impl Files) -> Loaded {
    let mut loaded = Loaded::default();
    let mut found_any = false;
    for name in [CURRENT, PREVIOUS] {
        match files.read(name, FILE_LIMIT) {
            Ok(None) => continue,
            Ok(Some(bytes)) => {
                found_any = true;
                match decode(&bytes) {
                    Ok((state, faults)) => {
                        if name == PREVIOUS {
                            loaded.complaints.push(
                                "the settings as they were before the last change are used"
                                    .to_string(),
                            );
                        }
                        loaded.complaints.extend(
                            faults
                                .iter()
                                .map(|fault| format!("stored setting put aside: {fault}")),
                        );
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
pub fn save(files: &impl Files, state: &State, current_is_good: bool) -> io::Result<()> {
    files.write(NEXT, &encode(state))?;
    files.sync(NEXT)?;
    // A cut between the two leaves no current file but a whole previous one,
    // and it does not matter which of the two becomes durable first.
    if current_is_good {
        files.rename(CURRENT, PREVIOUS)?;
    }
    files.rename(NEXT, CURRENT)?;
    files.sync_folder()
}

fn encode(state: &State) -> Vec<u8> {
    let stored = Stored {
        user: state.user.tree().clone(),
        generated: state.generated.tree().clone(),
        user_data_done: state.user_data_done,
        parked: state.parked.clone(),
    };
    let json = serde_json::to_vec(&stored).expect("JSON values always serialise");
    let digest = hex::encode(Sha256::digest(&json));
    let mut bytes = format!("{FORMAT} {} {digest}\n", json.len()).into_bytes();
    bytes.extend(json);
    bytes
}

fn decode(bytes: &[u8]) -> Result<(State, Faults), String> {
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
    Ok(sift(stored))
}

/// Splits what is stored into what this release takes and what it parks.
fn sift(stored: Stored) -> (State, Faults) {
    // What was parked is tried first, under what was set since.
    let mut tree = stored.parked;
    overlay(&mut tree, stored.user);
    let tree = Value::Object(tree);
    let (user, faults) = Document::salvage(&tree);
    let mut parked = Map::new();
    if let (false, Value::Object(tree)) = (faults.is_empty(), &tree) {
        for (key, value) in settings::leaves(tree) {
            if user.get(&key).is_none() {
                overlay_value(&mut parked, key.parts(), value.clone());
            }
        }
    }
    let (generated, _) = Document::salvage(&Value::Object(stored.generated));
    let state = State {
        user,
        generated,
        user_data_done: stored.user_data_done,
        parked,
    };
    (state, faults)
}

fn overlay(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(into)), Value::Object(from)) => overlay(into, from),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

fn overlay_value(into: &mut Map<String, Value>, parts: &[String], value: Value) {
    let tree = Document::single(&settings::Key::from_parts(parts.iter().cloned()), value);
    if let Value::Object(tree) = tree {
        overlay(into, tree);
    }
}
