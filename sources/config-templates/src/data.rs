//! Documents as data: read in one format, changed, written in another.

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

/// Lays one document over another: tables are merged, everything else is replaced.
pub(crate) fn lay_over(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                match into.get_mut(&name) {
                    Some(there) => lay_over(there, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (into, over) => *into = over,
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

    #[test]
    fn tables_are_merged_and_all_else_replaced() {
        let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 4});
        lay_over(
            &mut value,
            json!({"a": {"c": [3], "e": {"f": 5}}, "d": {"g": 6}}),
        );
        assert_eq!(
            value,
            json!({"a": {"b": 1, "c": [3], "e": {"f": 5}}, "d": {"g": 6}})
        );
    }
}
