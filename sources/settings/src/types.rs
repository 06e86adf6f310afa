//! Checked value types that settings are made of.

use crate::Scalar;
use crate::model::describe;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::net::IpAddr;

/// Takes the text out of a value, or says what it was instead.
pub(crate) fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| {
        let hint = match value {
            // Typed by guess on the command line, where only JSON can say more.
            Value::Bool(_) | Value::Number(_) => "; put it in quotes (with apiclient set: --json)",
            _ => "",
        };
        format!("expected {what} (a string), got {}{hint}", describe(value))
    })
}

/// Declares a type for texts that pass a check. The check answers with the
/// reason why a text does not pass.
macro_rules! text_type {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $check:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Scalar for $name {
            const WHAT: &'static str = $what;

            fn check(value: &Value) -> Result<Self, String> {
                let text = text(value, Self::WHAT)?;
                let check: fn(&str) -> Result<(), String> = $check;
                check(text)?;
                Ok(Self(text.to_string()))
            }

            fn value(&self) -> Value {
                Value::String(self.0.clone())
            }
        }
    };
}

/// Declares a type for a few fixed words.
macro_rules! choice_type {
    ($(#[doc = $doc:literal])+ $name:ident { $( $(#[doc = $case_doc:literal])+ $case:ident = $word:literal ),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $case_doc])+ $case ),+ }

        impl $name {
            /// The word that stands for it.
            pub fn as_str(&self) -> &'static str {
                match self { $( Self::$case => $word ),+ }
            }
        }

        impl $crate::Scalar for $name {
            const WHAT: &'static str = "one of a few words";

            fn check(value: &serde_json::Value) -> Result<Self, String> {
                match value.as_str() {
                    $( Some($word) => Ok(Self::$case), )+
                    _ => Err(format!("expected one of {}", [$($word),+].join(", "))),
                }
            }

            fn value(&self) -> serde_json::Value {
                self.as_str().into()
            }

            fn choices() -> Option<&'static [&'static str]> {
                Some(&[$($word),+])
            }
        }
    };
}
pub(crate) use choice_type;

/// Declares a type for names that the user chooses.
macro_rules! name_type {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $check:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $crate::MapKey for $name {
            const WHAT: &'static str = $what;

            fn check(name: &str) -> Option<Self> {
                let check: fn(&str) -> bool = $check;
                check(name).then(|| Self(name.to_string()))
            }

            fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}
pub(crate) use name_type;

impl Scalar for bool {
    const WHAT: &'static str = "true or false";
    const KIND: &'static str = "boolean";

    fn check(value: &Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("expected true or false, got {}", describe(value)))
    }

    fn value(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Scalar for IpAddr {
    const WHAT: &'static str = "an IP address";

    fn check(value: &Value) -> Result<Self, String> {
        let text = text(value, Self::WHAT)?;
        text.parse()
            .map_err(|_| format!("{} is not an IP address", shown(text)))
    }

    fn value(&self) -> Value {
        Value::String(self.to_string())
    }
}

name_type! {
    /// Name of an entry that the user makes.
    Identifier, "a name of letters, digits and '-', at most 76 long",
    |name| (1..=76).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

text_type! {
    /// A text that may go into a line-based file: no line break, no control
    /// character other than the tab.
    SingleLine, "a text of one line",
    single_line
}

text_type! {
    /// A host name in lower case, of one or more labels.
    Hostname, "a host name in lower case",
    |name| {
        let label_is_good = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() <= 253 && name.split('.').all(label_is_good) {
            Ok(())
        } else {
            Err(format!(
                "{} is not a host name: labels of 1 to 63 lower-case letters, digits and '-' \
                 (not at their ends), joined by dots, at most 253 characters",
                shown(name)
            ))
        }
    }
}

text_type! {
    /// A URL, or an address without a scheme.
    Url, "a URL",
    |url| {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) => {
                let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
                if !good {
                    return Err("not a URL: what stands before \"://\" is no scheme".into());
                }
                rest
            }
            None => url,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() || host.starts_with(':') {
            return Err("not a URL: it names no host".into());
        }
        // What RFC 3986 allows, less the apostrophe, so that a URL needs no
        // quoting in any file that it is rendered into.
        let good = url.len() <= 2048
            && url.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&c));
        if good { Ok(()) } else { Err("not a URL: a character that may not stand in one, or too long".into()) }
    }
}

fn single_line(text: &str) -> Result<(), String> {
    match text.chars().find(|&c| c.is_control() && c != '\t') {
        None => Ok(()),
        Some('\n' | '\r') => Err("has more than one line".into()),
        Some(c) => Err(format!(
            "holds the control character U+{:04X}",
            u32::from(c)
        )),
    }
}

/// A wrong text for an error message, shortened.
pub(crate) fn shown(text: &str) -> String {
    if text.chars().count() > 60 {
        let start: String = text.chars().take(60).collect();
        format!("{start:?}…")
    } else {
        format!("{text:?}")
    }
}

/// Decodes standard padded base64 into at most `limit` bytes.
pub(crate) fn base64_decode(text: &str, limit: usize) -> Result<Vec<u8>, String> {
    if text.len() / 4 * 3 > limit {
        return Err(format!("longer than {limit} bytes"));
    }
    STANDARD
        .decode(text)
        .map_err(|error| format!("not standard base64 with padding: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapKey;
    use serde_json::json;

    fn check<T: Scalar>(good: &[Value], bad: &[Value]) {
        for value in good {
            match T::check(value) {
                Ok(read) => assert_eq!(read.value(), *value),
                Err(reason) => panic!("{value} was refused: {reason}"),
            }
        }
        for value in bad {
            assert!(T::check(value).is_err(), "{value} was accepted");
        }
    }

    #[test]
    fn host_names() {
        let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
        check::<Hostname>(
            &[json!("a"), json!("node-1.example.com"), json!("10-0-0-1")],
            &[
                json!(""),
                json!("A"),
                json!("a_b"),
                json!("-a"),
                json!("a-"),
                json!("a..b"),
                json!("a."),
                json!("a".repeat(64)),
                json!(long),
                json!("a\n"),
                json!(1),
                json!(null),
            ],
        );
    }

    #[test]
    fn urls() {
        check::<Url>(
            &[
                json!("https://user:pw@proxy.example.com:3128/x?y=z"),
                json!("proxy:3128"),
                json!("2.pool.ntp.org"),
                json!("http://[::1]:80"),
                json!("169.254.169.123"),
            ],
            &[
                json!(""),
                json!("http://"),
                json!("://x"),
                json!("1s://x"),
                json!("a b"),
                json!("http://a/'"),
                json!("a\nb"),
                json!(":3128"),
                json!("ü.example"),
                json!(format!("http://{}", "a".repeat(3000))),
            ],
        );
    }

    #[test]
    fn lines() {
        check::<SingleLine>(
            &[json!(""), json!("a b"), json!("4096\t87380"), json!("ü")],
            &[
                json!("a\nb"),
                json!("a\r"),
                json!("\u{0}"),
                json!("\u{1b}[1m"),
                json!(true),
            ],
        );
    }

    #[test]
    fn addresses_and_flags() {
        check::<IpAddr>(
            &[json!("10.0.0.1"), json!("fd00::1")],
            &[
                json!("10.0.0"),
                json!("10.0.0.1/8"),
                json!("::1%eth0"),
                json!(10),
            ],
        );
        check::<bool>(&[json!(true), json!(false)], &[json!("true"), json!(1)]);
    }

    #[test]
    fn names() {
        for good in ["a", "my-Bundle-2"] {
            assert!(Identifier::check(good).is_some(), "{good}");
        }
        for bad in ["", "a.b", "a/b", "a_b", "..", &"a".repeat(77)] {
            assert!(Identifier::check(bad).is_none(), "{bad}");
        }
    }
}
