//! Documents of settings that `apply` is given, and where they lie.

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads the document that `input` names and gives back its settings, without
/// the outer `settings`.
pub fn fetch(input: &str) -> Result<Value> {
    let text = read(input)?;
    settings(&text).with_context(|| format!("{} is no settings document", shown(input)))
}

fn shown(input: &str) -> String {
    match input {
        "-" => "standard input".to_string(),
        _ if input.starts_with("base64:") => "the base64 document".to_string(),
        _ => input.to_string(),
    }
}

fn read(input: &str) -> Result<String> {
    if input == "-" {
        return read_limited(std::io::stdin()).context("read standard input");
    }
    if let Some(encoded) = input.strip_prefix("base64:") {
        let bytes = STANDARD
            .decode(encoded.trim())
            .context("what follows base64: is not standard base64")?;
        return String::from_utf8(bytes).context("what follows base64: does not stand for a text");
    }
    if let Some(path) = input.strip_prefix("file://") {
        ensure!(
            path.starts_with('/'),
            "{input}: after file:// comes an absolute path, as in file:///tmp/x.toml"
        );
        let file = File::open(Path::new(path)).with_context(|| format!("open {path}"))?;
        return read_limited(file).with_context(|| format!("read {path}"));
    }
    match input.split_once(':') {
        Some((scheme, _)) => bail!("{input}: cannot read from {scheme}: (use file:// or base64:)"),
        None => bail!("{input} is no URI; a file is file:///… and standard input is -"),
    }
}

fn read_limited(source: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let limit = api_types::BODY_LIMIT as u64;
    source.take(limit + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= limit,
        "it has more than {limit} bytes, which is the most that is taken"
    );
    String::from_utf8(bytes).map_err(|_| anyhow!("it is not a text"))
}

/// The settings in a document: TOML, or else JSON.
fn settings(text: &str) -> Result<Value> {
    let document = match toml::from_str::<Value>(text) {
        Ok(document) => document,
        Err(toml_error) => serde_json::from_str(text).map_err(|json_error| {
            anyhow!(
                "neither TOML ({}) nor JSON ({json_error})",
                one_line(&toml_error)
            )
        })?,
    };
    match document {
        Value::Object(mut document) => match document.remove("settings") {
            Some(settings @ Value::Object(_)) => Ok(settings),
            Some(_) => bail!("its top-level `settings` is not a table"),
            None => bail!("it has no top-level table `settings`"),
        },
        _ => bail!("it is not a table"),
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().trim().replace('\n', " ")
}

/// The settings that `set --json` is given, with or without an outer `settings`.
pub fn from_json(text: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(text).context("the argument of --json is not JSON")?;
    match value {
        Value::Object(mut table) => match (table.len(), table.remove("settings")) {
            (1, Some(settings @ Value::Object(_))) => Ok(settings),
            (_, Some(settings)) => {
                table.insert("settings".into(), settings);
                Ok(Value::Object(table))
            }
            (_, None) => Ok(Value::Object(table)),
        },
        _ => bail!("the argument of --json is not an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents() {
        for (text, expected) in [
            ("[settings]\nmotd = 'x'\n[other]\n", json!({"motd": "x"})),
            (
                "settings.ntp.options = ['a']",
                json!({"ntp": {"options": ["a"]}}),
            ),
            ("{\"settings\": {\"motd\": \"x\"}}", json!({"motd": "x"})),
            ("[settings]", json!({})),
        ] {
            assert_eq!(settings(text).expect(text), expected);
        }
        for (text, reason) in [
            ("", "no top-level table"),
            ("motd = 'x'", "no top-level table"),
            ("settings = 1", "not a table"),
            ("[settings", "neither TOML"),
            ("[1]", "no top-level table"),
            ("[1, 2]", "not a table"),
            ("{\"motd\": 1}", "no top-level table"),
        ] {
            let error = format!("{:#}", settings(text).expect_err(text));
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn json_arguments() {
        for (text, expected) in [
            ("{\"motd\":\"x\"}", json!({"motd": "x"})),
            ("{\"settings\":{\"motd\":\"x\"}}", json!({"motd": "x"})),
            ("{}", json!({})),
        ] {
            assert_eq!(from_json(text).expect(text), expected);
        }
        for text in ["", "[]", "1", "{"] {
            assert!(from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "[settings]\nmotd = 'x'").expect("a file");
        let uri = format!("file://{}", path.display());
        assert_eq!(fetch(&uri).expect("a document"), json!({"motd": "x"}));
        let encoded = format!("base64:{}", STANDARD.encode("[settings]\nmotd = 'y'"));
        assert_eq!(fetch(&encoded).expect("a document"), json!({"motd": "y"}));
        for bad in [
            "x.toml",
            "file://x",
            "ftp://x",
            "base64:!",
            "file:///does/not/exist",
        ] {
            assert!(fetch(bad).is_err(), "{bad}");
        }
    }
}
