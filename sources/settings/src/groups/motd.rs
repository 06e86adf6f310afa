//! `settings.motd`.

use crate::Scalar;
use crate::model::describe;
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

    fn check(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if text.len() <= Self::LIMIT => Ok(Self(text.to_string())),
            Some(_) => Err("longer than 64 KiB".into()),
            None => Err(format!(
                "expected {} (a string), got {}",
                Self::WHAT,
                describe(value)
            )),
        }
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}
