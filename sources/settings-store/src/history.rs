//! The last changes of the user's settings, and the way back to before each of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use settings::{Key, limits};
use std::time::{Duration, SystemTime};

/// Changes that are kept.
pub const KEPT: usize = 16;

/// Bytes that they may take up together; the oldest give way.
const BYTES: usize = limits::DOCUMENT_BYTES / 2;

/// The start of 2020. A clock that shows less has not been set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_577_836_800);

/// What a change came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// User data, at the first boot.
    UserData,
    /// A client.
    Api,
    /// A return to earlier settings.
    Rollback,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// Its number. Later changes have greater ones.
    pub id: u64,
    /// When it was made, in seconds since 1970, if the clock was set.
    pub time: Option<u64>,
    /// What it came from.
    pub origin: Origin,
    /// What it touched.
    pub keys: Vec<String>,
    /// The user's settings before it, with what was put aside of them, as JSON: as a
    /// text it takes up a fraction of the memory.
    before: String,
}

/// The last changes, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    last: u64,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Stored {
    last: u64,
    entries: Vec<Entry>,
}

impl History {
    /// Reads what [`History::to_value`] wrote.
    pub(crate) fn from_value(value: &Value) -> Result<Self, String> {
        let Stored { last, entries } =
            Stored::deserialize(value).map_err(|error| error.to_string())?;
        let ids = entries.iter().map(|entry| entry.id);
        let first = last.checked_sub(entries.len() as u64).map(|id| id + 1);
        let in_a_row = first.is_some_and(|first| ids.eq(first..=last));
        if !in_a_row || entries.len() > KEPT {
            return Err("its numbers are not in a row".into());
        }
        Ok(Self { last, entries })
    }

    pub(crate) fn to_value(&self) -> Value {
        let stored = Stored {
            last: self.last,
            entries: self.entries.clone(),
        };
        serde_json::to_value(stored).expect("numbers and texts always serialise")
    }

    /// The changes, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    /// Notes a change that is made now to what was `before`.
    pub(crate) fn add(
        &mut self,
        origin: Origin,
        keys: &[Key],
        before: Map<String, Value>,
        now: SystemTime,
    ) {
        self.last = self.last.saturating_add(1);
        self.entries.push(Entry {
            id: self.last,
            time: seconds(now),
            origin,
            keys: keys.iter().map(Key::to_string).collect(),
            before: Value::Object(before).to_string(),
        });
        while self.entries.len() > KEPT || self.bytes() > BYTES {
            self.entries.remove(0);
        }
    }

    /// The user's settings as they were after change `id`: `None` if that is not known
    /// any more, or lies ahead.
    pub(crate) fn after(
        &self,
        id: u64,
        now: impl FnOnce() -> Map<String, Value>,
    ) -> Option<Map<String, Value>> {
        if id == self.last && !self.entries.is_empty() {
            return Some(now());
        }
        let next = self
            .entries
            .iter()
            .find(|next| Some(next.id) == id.checked_add(1))?;
        serde_json::from_str(&next.before).ok()
    }

    /// Has `edit` change what was before each change.
    pub(crate) fn rewrite(&mut self, edit: impl Fn(&mut Map<String, Value>)) {
        for entry in &mut self.entries {
            if let Ok(mut before) = serde_json::from_str(&entry.before) {
                edit(&mut before);
                entry.before = Value::Object(before).to_string();
            }
        }
    }

    fn bytes(&self) -> usize {
        let key_bytes = |entry: &Entry| entry.keys.iter().map(String::len).sum::<usize>();
        self.entries
            .iter()
            .map(|entry| entry.before.len() + key_bytes(entry))
            .sum()
    }
}

fn seconds(now: SystemTime) -> Option<u64> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since >= CLOCK_IS_SET).then_some(since.as_secs())
}
