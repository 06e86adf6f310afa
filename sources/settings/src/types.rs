//! Checked value types that settings are made of.

use crate::Scalar;
use crate::model::describe;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fmt;
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
    (
        $(#[doc = $doc:literal])+
        $name:ident, $what:literal, example $example:literal $(pattern $pattern:literal)?,
        $check:expr
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $crate::Scalar for $name {
            const WHAT: &'static str = $what;
            const EXAMPLE: &'static str = concat!("\"", $example, "\"");
            $( const PATTERN: Option<&'static str> = Some($pattern); )?

            fn check(value: &serde_json::Value) -> Result<Self, String> {
                let text = $crate::types::text(value, Self::WHAT)?;
                let check: fn(&str) -> Result<(), String> = $check;
                check(text)?;
                Ok(Self(text.to_string()))
            }

            fn value(&self) -> serde_json::Value {
                serde_json::Value::String(self.0.clone())
            }
        }
    };
}
pub(crate) use text_type;

/// Declares a type for a few fixed words. What stands after `or` is another
/// spelling, which is taken but not kept.
macro_rules! choice_type {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $( $(#[doc = $case_doc:literal])+ $case:ident = $word:literal $(or $also:literal)* ),+ $(,)?
        }
    ) => {
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
            const EXAMPLE: &'static str = "";

            fn check(value: &serde_json::Value) -> Result<Self, String> {
                match value.as_str() {
                    $( Some($word $(| $also)*) => Ok(Self::$case), )+
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
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, example $example:literal, $check:expr) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $crate::MapKey for $name {
            const WHAT: &'static str = $what;
            const EXAMPLE: &'static str = $example;

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
    const EXAMPLE: &'static str = "true";

    fn check(value: &Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("expected true or false, got {}", describe(value)))
    }

    fn value(&self) -> Value {
        Value::Bool(*self)
    }
}

/// Takes a whole number out of a value, or says what it was instead.
pub(crate) fn whole_number(value: &Value, what: &str) -> Result<i64, String> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let hint = match value {
        Value::Number(number) if number.is_u64() => "; that is too large",
        Value::String(text) if text.parse::<i64>().is_ok() => "; write it without quotes",
        _ => "",
    };
    Err(format!("expected {what}, got {}{hint}", describe(value)))
}

/// Checks a whole number against its range.
pub(crate) fn number_within(
    value: &Value,
    what: &str,
    (least, greatest): (i64, i64),
) -> Result<i64, String> {
    let number = whole_number(value, what)?;
    if (least..=greatest).contains(&number) {
        Ok(number)
    } else {
        Err(format!("expected {what}, got the number {number}"))
    }
}

/// Makes settings of a primitive type of whole numbers.
macro_rules! primitive_number {
    ($type:ty, $what:literal) => {
        impl Scalar for $type {
            const WHAT: &'static str = $what;
            const KIND: &'static str = "integer";
            const EXAMPLE: &'static str = "10";
            const RANGE: Option<(i64, i64)> = Some((<$type>::MIN as i64, <$type>::MAX as i64));

            fn check(value: &Value) -> Result<Self, String> {
                let number = whole_number(value, Self::WHAT)?;
                Self::try_from(number)
                    .map_err(|_| format!("expected {}, got the number {number}", Self::WHAT))
            }

            fn value(&self) -> Value {
                Value::from(*self)
            }
        }
    };
}
primitive_number!(u8, "a whole number from 0 to 255");
primitive_number!(u32, "a whole number from 0 to 4294967295");
primitive_number!(i32, "a whole number of 32 bits");
primitive_number!(i64, "a whole number of 64 bits");

/// Declares a type for whole numbers of some range.
macro_rules! number_type {
    ($(#[doc = $doc:literal])+ $name:ident, $what:literal, $least:literal..=$greatest:expr, example $example:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(i64);

        impl $name {
            /// The number.
            pub fn get(self) -> i64 {
                self.0
            }
        }

        impl $crate::Scalar for $name {
            const WHAT: &'static str = $what;
            const KIND: &'static str = "integer";
            const EXAMPLE: &'static str = $example;
            const RANGE: Option<(i64, i64)> = Some(($least, $greatest));

            fn check(value: &serde_json::Value) -> Result<Self, String> {
                $crate::types::number_within(value, Self::WHAT, ($least, $greatest)).map(Self)
            }

            fn value(&self) -> serde_json::Value {
                self.0.into()
            }
        }
    };
}
pub(crate) use number_type;

impl Scalar for IpAddr {
    const WHAT: &'static str = "an IP address";
    const EXAMPLE: &'static str = "\"192.0.2.10\"";

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
    Identifier, "a name of letters, digits and '-', at most 76 long", example "my-name",
    |name| (1..=76).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

text_type! {
    /// A text that may go into a line-based file: no line break, no control
    /// character other than the tab.
    SingleLine, "a text of one line", example "text" pattern "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$",
    single_line
}

text_type! {
    /// A host name in lower case, of one or more labels.
    Hostname, "a host name in lower case", example "node-1.example.com"
    pattern "^[a-z0-9-]{1,63}(\\.[a-z0-9-]{1,63})*$",
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
    Url, "a URL", example "https://example.com",
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

text_type! {
    /// A word of a command: it may have line breaks, for it is never put
    /// anywhere without quotes, but no other control character.
    Argument, "a text without control characters other than tabs and line breaks", example "text",
    |text| match text.chars().find(|&c| c.is_control() && !matches!(c, '\t' | '\n')) {
        None => Ok(()),
        Some(c) => Err(format!("holds the control character U+{:04X}", u32::from(c))),
    }
}

/// A secret on one line. What is wrong with it is said without saying it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Scalar for Secret {
    const WHAT: &'static str = "a text of one line";
    const EXAMPLE: &'static str = "\"secret\"";
    const PATTERN: Option<&'static str> = SingleLine::PATTERN;

    fn check(value: &Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else {
            return Err(format!(
                "expected {}: put it in quotes (with apiclient set: --json)",
                Self::WHAT
            ));
        };
        single_line(text)?;
        Ok(Self(text.to_string()))
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

text_type! {
    /// Any bytes, in standard base64 with padding.
    Base64, "base64 with padding", example "aGVsbG8=" pattern "^[A-Za-z0-9+/]*={0,2}$",
    |text| base64_decode(text, BASE64_LIMIT).map(|_| ())
}

text_type! {
    /// Blocks in PEM form, in standard base64 with padding. What is in the
    /// blocks is not looked at.
    Base64Pem, "base64 of a text in PEM form",
    example "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="
    pattern "^[A-Za-z0-9+/]*={0,2}$",
    |text| {
        let pem = String::from_utf8(base64_decode(text, BASE64_LIMIT)?)
            .map_err(|_| "what the base64 holds is not PEM but binary data".to_string())?;
        let begin = pem.find("-----BEGIN ").ok_or("what the base64 holds is not PEM: no block begins")?;
        if pem[begin..].contains("\n-----END ") {
            Ok(())
        } else {
            Err("what the base64 holds is not PEM: a block has no end".into())
        }
    }
}

/// Bytes that a setting in base64 can hold.
const BASE64_LIMIT: usize = 1024 * 1024;

choice_type! {
    /// When something is run at boot.
    RunMode {
        /// Never.
        Off = "off",
        /// At the next boot; then it is off.
        Once = "once",
        /// At every boot.
        Always = "always",
    }
}

fn single_line(text: &str) -> Result<(), String> {
    // The last two are no control characters, yet YAML ends lines at them.
    let is_bad = |&c: &char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
    match text.chars().find(is_bad) {
        None => Ok(()),
        Some('\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') => {
            Err("has more than one line".into())
        }
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
pub(crate) mod tests {
    use super::*;
    use crate::MapKey;
    use serde_json::json;

    /// Checks that good values read back as they are and bad ones are refused.
    pub(crate) fn check<T: Scalar>(good: &[Value], bad: &[Value]) {
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

    /// Checks which names are taken.
    pub(crate) fn check_names<T: MapKey>(good: &[&str], bad: &[&str]) {
        for name in good {
            assert!(T::check(name).is_some(), "{name:?} was refused");
        }
        for name in bad {
            assert!(T::check(name).is_none(), "{name:?} was accepted");
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
                json!("a\u{85}"),
                json!("a\u{2028}b"),
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
        check_names::<Identifier>(
            &["a", "my-Bundle-2"],
            &["", "a.b", "a/b", "a_b", "..", "a\n", &"a".repeat(77)],
        );
    }

    #[test]
    fn numbers() {
        check::<u8>(
            &[json!(0), json!(255)],
            &[json!(-1), json!(256), json!("1"), json!(1.0)],
        );
        check::<u32>(
            &[json!(0), json!(u32::MAX)],
            &[json!(-1), json!(1u64 << 32), json!(null)],
        );
        check::<i32>(
            &[json!(-1), json!(i32::MIN)],
            &[json!(1u64 << 31), json!(true)],
        );
        check::<i64>(
            &[json!(i64::MIN), json!(i64::MAX)],
            &[json!(u64::MAX), json!(1.5)],
        );
        for (value, reason) in [
            (
                json!(5.0),
                "got the number 5.0 (a float; the integer is written 5)",
            ),
            (json!(5.5), "got the number 5.5"),
            (json!("5"), "got a string; write it without quotes"),
            (json!(u64::MAX), "; that is too large"),
            (
                json!(300),
                "a whole number from 0 to 255, got the number 300",
            ),
        ] {
            let error = u8::check(&value).expect_err("a wrong number");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn encoded_bytes() {
        check::<Base64>(
            &[json!(""), json!("aGVsbG8="), json!("/+8=")],
            &[
                json!("aGVsbG8"),
                json!("aGVs bG8="),
                json!("aGVsbG8=\n"),
                json!("_-8="),
                json!("A".repeat(2_000_000)),
                json!(1),
            ],
        );
        let pem = |text: &str| json!(STANDARD.encode(text));
        check::<Base64Pem>(
            &[
                pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                pem("text\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
            ],
            &[
                pem(""),
                pem("hello"),
                pem("-----BEGIN CERTIFICATE-----\nAAAA"),
                json!(STANDARD.encode([0xff])),
                json!("-----BEGIN"),
            ],
        );
    }

    #[test]
    fn words_of_commands() {
        check::<Argument>(
            &[json!(""), json!("--x"), json!("a b\n\t'\"")],
            &[json!("a\u{0}"), json!("\u{1b}[1m"), json!("\r"), json!(1)],
        );
    }
}
