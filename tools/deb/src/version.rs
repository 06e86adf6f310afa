//! Versions and their order (Debian Policy, section 5.6.12).

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A version `[epoch:]upstream[-revision]`, ordered as dpkg orders versions.
///
/// Two versions may be equal though written differently (`1.0` and `1.0-0`).
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Epoch, upstream version and revision.
    fn parts(&self) -> (u32, &str, &str) {
        let (epoch, rest) = match self.0.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, self.0.as_str()),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = |why| InvalidVersion {
            text: text.chars().take(80).collect(),
            why,
        };
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (Some(epoch), rest),
            None => (None, text),
        };
        if let Some(epoch) = epoch
            && (epoch.is_empty()
                || !epoch.bytes().all(|b| b.is_ascii_digit())
                || epoch.parse::<u32>().is_err())
        {
            return Err(invalid("its epoch is not a number"));
        }
        let (upstream, revision) = match rest.rsplit_once('-') {
            Some((upstream, revision)) => (upstream, Some(revision)),
            None => (rest, None),
        };
        if upstream.is_empty() || revision == Some("") {
            return Err(invalid("a part of it is empty"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".+-~:".contains(&b);
        if !rest.bytes().all(plain) || revision.is_some_and(|revision| revision.contains(':')) {
            return Err(invalid("it has a character that versions do not have"));
        }
        Ok(Self(text.to_string()))
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((epoch, upstream, revision), other) = (self.parts(), other.parts());
        epoch
            .cmp(&other.0)
            .then_with(|| compare_part(upstream, other.1))
            .then_with(|| compare_part(revision, other.2))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Compares by alternating stretches of non-digits and digits.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (text_a, rest_a) = split_while(a, |byte| !byte.is_ascii_digit());
        let (text_b, rest_b) = split_while(b, |byte| !byte.is_ascii_digit());
        let (number_a, rest_a) = split_while(rest_a, |byte| byte.is_ascii_digit());
        let (number_b, rest_b) = split_while(rest_b, |byte| byte.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_numbers(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        if rest_a.is_empty() && rest_b.is_empty() {
            return Ordering::Equal;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split_while(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| !wanted(*byte))
        .unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// `~` sorts before the end, the end before letters, letters before the rest.
fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|i| weight(a.get(i)).cmp(&weight(b.get(i))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Numbers may be longer than any integer type, for example dates.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let (_, a) = split_while(a, |byte| byte == b'0');
    let (_, b) = split_while(b, |byte| byte == b'0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a version: {why}")]
pub struct InvalidVersion {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_dpkgs() {
        let check = |a: &str, relation: &str, b: &str| {
            let (left, right) = (a.parse::<Version>().unwrap(), b.parse::<Version>().unwrap());
            let expected = match relation {
                "<" => Ordering::Less,
                "=" => Ordering::Equal,
                _ => Ordering::Greater,
            };
            assert_eq!(left.cmp(&right), expected, "{a} {relation} {b}");
            assert_eq!(right.cmp(&left), expected.reverse(), "{b} against {a}");
        };
        check("1.0", "<", "1.1");
        check("1.9", "<", "1.10");
        check("1.0", "=", "1.00");
        check("1.0", "=", "1.0-0");
        check("1.0", "=", "0:1.0");
        check("1.0~rc1", "<", "1.0");
        check("1.0~~", "<", "1.0~");
        check("1.0~rc1-1", "<", "1.0~rc1-2");
        check("1.0", "<", "1.0a");
        check("1.0a", "<", "1.0+");
        check("1:0.1", ">", "9.9");
        check("2.41-12+deb13u1", ">", "2.41-12");
        check("1.96.1+dfsg1-1~bpo13+1", "<", "1.96.1+dfsg1-1");
        check("6.12.107-1", "<", "6.12.117-1");
        check("1.2-3-4", ">", "1.2-3-3");
        check(
            "20250101123456789012345678901",
            "<",
            "20250101123456789012345678902",
        );
        check("0", "<", "a");
    }

    #[test]
    fn malformed_versions_are_refused() {
        let wrong = [
            "",
            "-1",
            "1-",
            ":1",
            "a:1",
            "99999999999:1",
            "1:",
            "1 0",
            "1_0",
            "1.0-1:1",
            "ä",
            "+1:0",
        ];
        for text in wrong {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }
}
