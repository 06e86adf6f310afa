//! `settings.motd`.

use crate::Scalar;
use crate::types::text;
use serde_json::Value;

/// A message of the day; more than one line, but not a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Motd(String);

impl Motd {
    const LIMIT: usize = 64 * 1024;

    /// The message.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Motd {
    const WHAT: &'static str = "a text of at most 64 KiB";
    const EXAMPLE: &'static str = "\"Welcome!\"";

    fn check(value: &Value) -> Result<Self, String> {
        let text = text(value, Self::WHAT)?;
        if text.len() > Self::LIMIT {
            return Err("longer than 64 KiB".into());
        }
        Ok(Self(text.to_string()))
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}
