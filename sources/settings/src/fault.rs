//! What is wrong with a document, key by key.

use crate::{Key, limits};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where. The root if it concerns the document as a whole.
    pub key: Key,
    /// What, and how to put it right.
    pub reason: String,
    /// Line of the text, counted from 1, if there is a text.
    pub line: Option<usize>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fault = serializer.serialize_struct("Fault", 3)?;
        fault.serialize_field("key", &self.key.to_string())?;
        fault.serialize_field("line", &self.line)?;
        fault.serialize_field("reason", &self.reason)?;
        fault.end()
    }
}

/// Everything that is wrong with a document. As an error it is never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<Fault>,
    untold: usize,
}

impl Faults {
    /// A single fault.
    pub fn one(key: Key, reason: impl Into<String>) -> Self {
        let mut faults = Self::default();
        faults.add(&key, reason);
        faults
    }

    /// Notes a fault. After the first [`limits::FAULTS`] only their number grows.
    pub fn add(&mut self, key: &Key, reason: impl Into<String>) {
        if self.list.len() < limits::FAULTS {
            self.list.push(Fault {
                key: key.clone(),
                reason: reason.into(),
                line: None,
            });
        } else {
            self.untold += 1;
        }
    }

    /// True if nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are, told or not.
    pub fn len(&self) -> usize {
        self.list.len() + self.untold
    }

    /// The faults that are told one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.list.iter()
    }

    /// How many more there are than [`Faults::iter`] tells.
    pub fn untold(&self) -> usize {
        self.untold
    }

    /// Gives each fault without a line the line of its key in the TOML text that
    /// the document was read from, and puts them in the order of their lines.
    pub fn locate_in(&mut self, text: &str) {
        crate::document::locate(self, text);
    }

    /// Takes over faults, but for those of keys that have one already.
    pub(crate) fn absorb_unless_known(&mut self, more: Self) {
        let known: Vec<Key> = self.list.iter().map(|fault| fault.key.clone()).collect();
        for fault in more.list {
            if !known.contains(&fault.key) {
                self.add(&fault.key, fault.reason);
            }
        }
        self.untold += more.untold;
    }

    /// Takes over faults, with their reasons in other words.
    pub(crate) fn absorb(&mut self, more: Self, words: impl Fn(String) -> String) {
        for fault in more.list {
            self.add(&fault.key, words(fault.reason));
        }
        self.untold += more.untold;
    }

    /// Gives each fault the line that `line_of` finds for it, and puts them in
    /// the order of their lines.
    pub(crate) fn locate(&mut self, line_of: impl Fn(&Key) -> Option<usize>) {
        for fault in &mut self.list {
            fault.line = fault.line.or_else(|| line_of(&fault.key));
        }
        self.list.sort_by_key(|fault| fault.line);
    }

    pub(crate) fn at_line(mut self, line: Option<usize>) -> Self {
        for fault in &mut self.list {
            fault.line = line;
        }
        self
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        if self.untold > 0 {
            write!(f, "\nand {} more faults", self.untold)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The one of `known` that `wrong` was most likely meant to be, if any is near.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let wrong = plain(wrong);
    if wrong.len() > 100 {
        return None;
    }
    known
        .into_iter()
        .map(|name| (distance(&wrong, &plain(name)), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised() {
        let known = ["time-servers", "options", "motd", "dns"];
        for (wrong, meant) in [
            ("time-server", Some("time-servers")),
            ("time_servers", Some("time-servers")),
            ("Options", Some("options")),
            ("mtod", Some("motd")),
            ("kubernetes", None),
            ("x", None),
        ] {
            assert_eq!(nearest(wrong, known), meant, "{wrong}");
        }
    }

    #[test]
    fn many_faults_are_counted() {
        let mut faults = Faults::default();
        for _ in 0..100_000 {
            faults.add(&Key::root(), "wrong");
        }
        assert_eq!(faults.iter().count(), limits::FAULTS);
        assert!(faults.to_string().ends_with("and 99968 more faults"));
    }
}
