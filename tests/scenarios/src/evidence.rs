//! What a machine left behind, read from its disk when it is off.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The host's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    entries: Vec<Entry>,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which boot it belongs to.
    pub boot: String,
    /// The text.
    pub message: String,
    /// The unit that the entry is about, as systemd says.
    pub unit: Option<String>,
    /// `start`, `restart` …: which job of systemd's on that unit has ended.
    pub job: Option<String>,
}

impl Journal {
    /// Parses what `journalctl --output=json` prints.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let entries = text
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line)
                    .with_context(|| format!("a line of the journal is not JSON: {line}"))?;
                let field = |name: &str| value.get(name).and_then(text_of);
                Ok(Entry {
                    boot: field("_BOOT_ID").unwrap_or_default(),
                    message: field("MESSAGE").unwrap_or_default(),
                    unit: field("UNIT"),
                    job: field("JOB_TYPE"),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries })
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of boots that left entries.
    pub fn boots(&self) -> usize {
        let mut boots: Vec<&str> = self
            .entries
            .iter()
            .map(|entry| entry.boot.as_str())
            .collect();
        boots.sort_unstable();
        boots.dedup();
        boots.len()
    }

    /// Entries whose text contains `text`, whatever the case of its letters.
    pub fn containing<'a>(&'a self, text: &str) -> impl Iterator<Item = &'a Entry> {
        let text = text.to_lowercase();
        self.entries
            .iter()
            .filter(move |entry| entry.message.to_lowercase().contains(&text))
    }

    /// Fails unless some entry contains `text`.
    pub fn require(&self, text: &str) -> Result<()> {
        if self.containing(text).next().is_none() {
            bail!("no entry of the journal says {text:?}");
        }
        Ok(())
    }

    /// Fails when an entry contains `text`, and quotes the first few.
    pub fn forbid(&self, text: &str) -> Result<()> {
        let found: Vec<&str> = self
            .containing(text)
            .take(5)
            .map(|entry| entry.message.as_str())
            .collect();
        if !found.is_empty() {
            bail!("the journal says {text:?}:\n    {}", found.join("\n    "));
        }
        Ok(())
    }

    /// How often systemd ended a job that started `unit`, by a start or a restart.
    pub fn starts_of(&self, unit: &str) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.unit.as_deref() == Some(unit))
            .filter(|entry| matches!(entry.job.as_deref(), Some("start" | "restart")))
            .filter(|entry| {
                entry.message.starts_with("Started") || entry.message.starts_with("Finished")
            })
            .count()
    }
}

/// A field's text. journald gives bytes that are not text as a list of numbers,
/// and several values of one field as a list of them.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let bytes: Option<Vec<u8>> = parts
                .iter()
                .map(|part| part.as_u64().and_then(|number| u8::try_from(number).ok()))
                .collect();
            match bytes {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => parts.first().and_then(text_of),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Journal {
        Journal::parse(concat!(
            r#"{"_BOOT_ID":"a","MESSAGE":"UEFI Secure Boot is enabled."}"#, "\n",
            r#"{"_BOOT_ID":"a","MESSAGE":"Started chrony.service - Time.","UNIT":"chrony.service","JOB_TYPE":"start"}"#, "\n",
            r#"{"_BOOT_ID":"b","MESSAGE":"Stopping","UNIT":"chrony.service","JOB_TYPE":"restart"}"#, "\n",
            r#"{"_BOOT_ID":"b","MESSAGE":"Started chrony.service - Time.","UNIT":"chrony.service","JOB_TYPE":"restart"}"#, "\n",
            r#"{"_BOOT_ID":"b","MESSAGE":[104,105,255]}"#, "\n",
            r#"{"_BOOT_ID":"b","MESSAGE":["one","two"]}"#, "\n",
            r#"{"_BOOT_ID":"b","MESSAGE":null}"#,
        ))
        .unwrap()
    }

    #[test]
    fn reads_entries() {
        let journal = sample();
        assert_eq!(journal.boots(), 2);
        assert_eq!(journal.starts_of("chrony.service"), 2);
        assert_eq!(journal.starts_of("other.service"), 0);
        let messages: Vec<&str> = journal.entries()[4..]
            .iter()
            .map(|entry| entry.message.as_str())
            .collect();
        assert_eq!(messages, ["hi\u{fffd}", "one", ""]);
    }

    #[test]
    fn says_what_it_misses() {
        let journal = sample();
        journal.require("secure boot is enabled").unwrap();
        journal.forbid("avc:").unwrap();
        assert!(journal.require("avc:").is_err());
        let error = journal.forbid("secure boot").unwrap_err().to_string();
        assert!(error.contains("UEFI Secure Boot is enabled."), "{error}");
        assert!(Journal::parse("{").is_err());
    }
}
