//! Dotted names of settings.

use crate::limits;
use std::fmt;
use std::str::FromStr;

/// The name of a setting or of a table of settings, without the leading
/// `settings`, which is shown and accepted but never kept.
///
/// A part with a dot in it is quoted: `settings.kernel.sysctl."vm.swappiness"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    parts: Vec<String>,
}

const TOO_LONG: &str = "it is longer than 1024 bytes";

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    text: String,
    reason: &'static str,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().take(80).collect();
        write!(f, "invalid key {shown:?}: {}", self.reason)
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// The table of all settings.
    pub fn root() -> Self {
        Self::default()
    }

    /// A key from its parts, `settings` not among them.
    pub fn from_parts<T: Into<String>>(parts: impl IntoIterator<Item = T>) -> Self {
        Self {
            parts: parts.into_iter().map(Into::into).collect(),
        }
    }

    /// The parts, `settings` not among them.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// The key one step further down.
    pub fn child(&self, part: &str) -> Self {
        let mut child = self.clone();
        child.push(part);
        child
    }

    /// Goes one step down.
    pub fn push(&mut self, part: &str) {
        self.parts.push(part.to_string());
    }

    /// Goes one step up.
    pub fn pop(&mut self) {
        self.parts.pop();
    }

    /// True if this is `table` itself or lies in it.
    pub fn is_within(&self, table: &Key) -> bool {
        self.parts.starts_with(&table.parts)
    }

    /// True if one of the two is the other or lies in it.
    pub fn touches(&self, other: &Key) -> bool {
        self.is_within(other) || other.is_within(self)
    }

    fn parse(text: &str) -> Result<Vec<String>, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > limits::KEY_BYTES {
            return Err(TOO_LONG);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let part;
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').ok_or("a quote is not closed")?;
                part = &quoted[..end];
                rest = &quoted[end + 1..];
                if !rest.is_empty() && !rest.starts_with('.') {
                    return Err("after a closing quote only a dot may follow");
                }
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                part = &rest[..end];
                rest = &rest[end..];
                if part.contains('"') {
                    return Err("a quote may only stand at the start of a part");
                }
            }
            if part.is_empty() {
                return Err("a part of it is empty");
            }
            if !part.chars().all(|c| c.is_ascii_graphic() && c != ',') {
                return Err("only printable ASCII without spaces and commas may stand in it");
            }
            parts.push(part.to_string());
            match rest.strip_prefix('.') {
                Some(next) => rest = next,
                None => return Ok(parts),
            }
        }
    }
}

impl FromStr for Key {
    type Err = KeyError;

    /// Reads `settings.a.b` as well as `a.b`.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let error = |reason| KeyError {
            text: text.to_string(),
            reason,
        };
        let mut parts = Self::parse(text).map_err(error)?;
        if parts[0] == "settings" {
            parts.remove(0);
        }
        let key = Self { parts };
        // What is shown may be longer than what was written, by quotes and the
        // leading `settings`; it must be a key, too.
        if key.to_string().len() > limits::KEY_BYTES {
            return Err(error(TOO_LONG));
        }
        Ok(key)
    }
}

impl fmt::Display for Key {
    /// Always with the leading `settings`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")?;
        for part in &self.parts {
            let is_plain = part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            let is_sayable = part.chars().all(|c| c.is_ascii_graphic() && c != '"');
            if is_plain && !part.is_empty() {
                write!(f, ".{part}")?;
            } else if is_sayable {
                write!(f, ".\"{part}\"")?;
            } else {
                // It is no key, but stands in what is said about it, on one line.
                write!(f, ".{part:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_read_and_shown() {
        for (text, parts, shown) in [
            ("motd", vec!["motd"], "settings.motd"),
            ("settings.motd", vec!["motd"], "settings.motd"),
            ("settings", vec![], "settings"),
            (
                "kernel.sysctl.\"net.ipv4.ip_forward\"",
                vec!["kernel", "sysctl", "net.ipv4.ip_forward"],
                "settings.kernel.sysctl.\"net.ipv4.ip_forward\"",
            ),
            (
                "settings.\"kernel\".a/b",
                vec!["kernel", "a/b"],
                "settings.kernel.\"a/b\"",
            ),
        ] {
            let key: Key = text.parse().expect(text);
            assert_eq!(key.parts(), parts, "{text}");
            assert_eq!(key.to_string(), shown);
        }
    }

    #[test]
    fn faulty_keys_say_what_is_wrong() {
        for (text, reason) in [
            ("", "it is empty"),
            ("a..b", "a part of it is empty"),
            ("a.", "a part of it is empty"),
            (".a", "a part of it is empty"),
            ("a.\"b", "a quote is not closed"),
            ("a.\"b\"c", "after a closing quote"),
            ("a.b\"c\"", "a quote may only stand"),
            ("a b", "printable ASCII"),
            ("a.b,c", "printable ASCII"),
        ] {
            let error = text.parse::<Key>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!("a".repeat(2000).parse::<Key>().is_err());
        let odd = Key::from_parts(["a\n\u{1b}[1m", "\"b"]);
        assert_eq!(odd.to_string(), "settings.\"a\\n\\u{1b}[1m\".\"\\\"b\"");
    }

    #[test]
    fn nearness_of_keys() {
        let key = |text: &str| text.parse::<Key>().expect("a key");
        assert!(key("network.hosts").is_within(&key("network")));
        assert!(!key("network").is_within(&key("network.hosts")));
        assert!(key("network").touches(&key("network.hosts")));
        assert!(!key("network.hostname").touches(&key("network.host")));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(parts in prop::collection::vec("[!#-+\\--~]{1,12}", 1..5)) {
            prop_assume!(parts[0] != "settings");
            let key = Key::from_parts(parts);
            prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
            }
        }
    }
}
