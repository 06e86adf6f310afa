//! What templates can call beyond minijinja's own filters.

use crate::{folder, reserved};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, Error, ErrorKind, Value};

/// Adds filters and functions to an environment.
pub fn add(environment: &mut Environment<'_>) {
    environment.add_function("file", folder::begin);
    environment.add_function("kube_reserved_cpu", reserved::cpu);
    environment.add_function("kube_reserved_memory", reserved::memory);
    environment.add_function("kube_reserved_storage", reserved::storage);
    environment.add_filter("toml_string", toml_string);
    environment.add_filter("toml_value", toml_value);
    environment.add_filter("env_value", env_value);
    environment.add_filter("base64_decode", base64_decode);
}

fn fault(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A text as a TOML string, quotes included.
fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// Any value as TOML on one line.
fn toml_value(value: &Value) -> Result<String, Error> {
    toml::Value::try_from(value)
        .map(|value| value.to_string())
        .map_err(|error| fault(format!("no TOML value: {error}")))
}

/// A text as the value of a line for systemd's `EnvironmentFile=`.
fn env_value(text: &str) -> Result<String, Error> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(fault(
            "a value with a control character cannot stand in an environment file".into(),
        ));
    }
    let is_plain = |c: char| c.is_alphanumeric() || "-._~:/?#[]@!&()*+,;=%".contains(c);
    if text.chars().all(is_plain) && !text.starts_with(['#', ';']) {
        return Ok(text.to_string());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

/// The text that some base64 stands for.
fn base64_decode(text: &str) -> Result<String, Error> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| fault(format!("not base64: {error}")))?;
    String::from_utf8(bytes).map_err(|_| fault("the base64 does not stand for a text".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_for_environment_files() {
        for (text, expected) in [
            ("", ""),
            ("http://proxy:3128", "http://proxy:3128"),
            ("a b", "\"a b\""),
            ("#x", "\"#x\""),
            ("a\"b\\c$d`e", "\"a\\\"b\\\\c\\$d\\`e\""),
        ] {
            assert_eq!(env_value(text).expect(text), expected);
        }
        assert!(env_value("a\nLD_PRELOAD=x").is_err());
    }

    #[test]
    fn texts_for_toml() {
        for text in ["", "a", "a\"b", "a\nb", "\\", "'''", "ü\u{1}"] {
            let document = format!("x = {}", toml_string(text));
            let table: toml::Table = document.parse().expect(&document);
            assert_eq!(table["x"].as_str(), Some(text));
        }
        let list = Value::from_serialize(["a", "b\"c"]);
        assert_eq!(toml_value(&list).expect("a list"), r#"["a", 'b"c']"#);
    }
}
