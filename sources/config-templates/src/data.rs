//! Documents as data: read in one format, written in another.

use crate::catalog::Format;
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Reads a document that is known to be well-formed.
pub(crate) fn read(format: Format, text: &str) -> Result<Value> {
    match format {
        Format::Toml => toml::from_str(text).context("read as TOML"),
        Format::Json => serde_json::from_str(text).context("read as JSON"),
        other => bail!("{other:?} is no format for data"),
    }
}

/// Writes a document, its keys in order.
pub(crate) fn write(format: Format, value: &Value) -> Result<String> {
    match format {
        Format::Toml => toml::to_string(value).context("write as TOML"),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(value).context("write as JSON")?;
            text.push('\n');
            Ok(text)
        }
        other => bail!("{other:?} is no format for data"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_change_their_format() {
        let text = "b = 1\na = [\"x\"]\n[t.\"u.v\"]\nw = true\n";
        let value = read(Format::Toml, text).expect("TOML");
        assert_eq!(
            value,
            json!({"a": ["x"], "b": 1, "t": {"u.v": {"w": true}}})
        );
        let json = write(Format::Json, &value).expect("JSON");
        assert!(json.ends_with("}\n"), "{json}");
        assert_eq!(read(Format::Json, &json).expect("JSON"), value);
        let toml = write(Format::Toml, &value).expect("TOML");
        assert_eq!(read(Format::Toml, &toml).expect("TOML"), value, "{toml}");
        assert!(write(Format::Text, &value).is_err());
    }
}
