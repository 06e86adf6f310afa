//! `get`: settings and facts about the system.

use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes, Word};
use crate::context::Context;
use crate::http::escape_value;
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

const EXCLUDE: Flag = Flag {
    names: &["--exclude"],
    takes: Takes::One(Word {
        name: "PREFIX",
        hint: Hint::Prefix,
    }),
    help: "leave out what begins with PREFIX; may be repeated",
};
const CANONICALIZE: Flag = Flag {
    names: &["--canonicalize"],
    takes: Takes::Nothing,
    help: "as canonical JSON, without white space, for measuring",
};

/// `get`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "get",
    summary: "show settings and facts about the system",
    forms: &["get [PREFIX]... [OPTION]...", "get /URI [OPTION]..."],
    about: &[
        "Shows, as JSON, everything whose name begins with a PREFIX such as settings.ntp or \
            os.version; without any, os. and settings. together. A URI is a path of the API.",
    ],
    examples: &[
        "get",
        "get settings.ntp os.version_id",
        "get settings --exclude settings.pki",
        "get /updates/status",
    ],
    flags: &[EXCLUDE, CANONICALIZE],
    operands: Operands::Many(Hint::Prefix),
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Get::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Get {
    what: What,
    canonical: bool,
}

#[derive(Debug, PartialEq)]
enum What {
    Prefixes {
        prefixes: Vec<String>,
        exclude: Vec<String>,
    },
    Uri(String),
}

impl Get {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let prefixes = matches.operands()?;
        let exclude = matches.all(&EXCLUDE)?.unwrap_or_default();
        let uri = prefixes.iter().find(|name| name.starts_with('/'));
        let what = match uri {
            None => What::Prefixes { prefixes, exclude },
            Some(uri) if prefixes.len() == 1 && exclude.is_empty() => What::Uri(uri.clone()),
            Some(_) => {
                return Err(
                    "a URI stands alone: without prefixes, other URIs and --exclude".into(),
                );
            }
        };
        Ok(Self {
            what,
            canonical: matches.has(&CANONICALIZE),
        })
    }
}

impl Command for Get {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let found = match &self.what {
            What::Prefixes { prefixes, exclude } => collect(context, prefixes, exclude)?,
            What::Uri(uri) => {
                let answer = context.send("GET", uri, None)?;
                serde_json::from_slice(&answer.body)
                    .with_context(|| format!("the answer to {uri} is not JSON; try raw -u {uri}"))?
            }
        };
        if self.canonical {
            let mut text = String::new();
            canonicalize(&found, &mut text)?;
            context.out.write_all(text.as_bytes())?;
        } else {
            context.print_json(&found)?;
        }
        Ok(0)
    }
}

fn collect(context: &mut Context<'_>, prefixes: &[String], exclude: &[String]) -> Result<Value> {
    let usual = ["os.".to_string(), "settings.".to_string()];
    let prefixes = if prefixes.is_empty() {
        &usual[..]
    } else {
        prefixes
    };
    let mut found = Value::Object(Map::new());
    for prefix in prefixes {
        let uri = format!("/?prefix={}", escape_value(prefix));
        merge(&mut found, context.get_json(&uri)?);
    }
    if !exclude.is_empty() {
        found = without(found, "", exclude).unwrap_or_else(|| json!({}));
    }
    Ok(found)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// What is left of `value`, called `name`, without what the prefixes name.
fn without(value: Value, name: &str, prefixes: &[String]) -> Option<Value> {
    if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let Value::Object(table) = value else {
        return Some(value);
    };
    let was_empty = table.is_empty();
    let left: Map<String, Value> = table
        .into_iter()
        .filter_map(|(key, value)| {
            let part = if key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            {
                key.clone()
            } else {
                format!("\"{key}\"")
            };
            let path = if name.is_empty() {
                part
            } else {
                format!("{name}.{part}")
            };
            Some((key, without(value, &path, prefixes)?))
        })
        .collect();
    (was_empty || !left.is_empty()).then_some(Value::Object(left))
}

/// Writes a value as OLPC's canonical JSON: keys in order, no white space, only
/// quotes and backslashes escaped, whole numbers only.
fn canonicalize(value: &Value, text: &mut String) -> Result<()> {
    let quote = |plain: &str, text: &mut String| {
        text.push('"');
        text.push_str(&plain.replace('\\', "\\\\").replace('"', "\\\""));
        text.push('"');
    };
    match value {
        Value::Null | Value::Bool(_) => text.push_str(&value.to_string()),
        Value::Number(number) if number.is_f64() => {
            bail!("canonical JSON has no place for {number}, which is not a whole number")
        }
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(plain) => quote(plain, text),
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonicalize(value, text)?;
            }
            text.push(']');
        }
        // Its keys are in the order of their code points.
        Value::Object(table) => {
            text.push('{');
            for (index, (key, value)) in table.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                quote(key, text);
                text.push(':');
                canonicalize(value, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn lines() {
        let get = |prefixes: &[&str], exclude: &[&str], canonical| Get {
            what: What::Prefixes {
                prefixes: texts(prefixes),
                exclude: texts(exclude),
            },
            canonical,
        };
        let uri = |canonical| Get {
            what: What::Uri("/os".into()),
            canonical,
        };
        let alone = "a URI stands alone: without prefixes, other URIs and --exclude";
        for (line, expected) in [
            ("", Ok(get(&[], &[], false))),
            ("settings. os", Ok(get(&["settings.", "os"], &[], false))),
            ("/os", Ok(uri(false))),
            ("/os --canonicalize", Ok(uri(true))),
            (
                "settings --exclude settings.pki --exclude os --canonicalize",
                Ok(get(&["settings"], &["settings.pki", "os"], true)),
            ),
            ("/os settings", Err(alone)),
            ("/os /settings", Err(alone)),
            ("/os --exclude os", Err(alone)),
            ("--exclude", Err("--exclude needs a value")),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Get::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }

    #[test]
    fn exclusion() {
        let all = json!({"os": {"arch": "x"}, "settings": {"a": {"b.c": 1, "d": 2}, "motd": "m"}});
        for (prefixes, expected) in [
            (
                vec!["settings.a"],
                json!({"os": {"arch": "x"}, "settings": {"motd": "m"}}),
            ),
            (
                vec!["os", "settings.a.\"b.c\"", "settings.m"],
                json!({"settings": {"a": {"d": 2}}}),
            ),
            (vec!["os", "settings"], json!({})),
        ] {
            let prefixes: Vec<String> = prefixes.iter().map(|text| text.to_string()).collect();
            let left = without(all.clone(), "", &prefixes).unwrap_or_else(|| json!({}));
            assert_eq!(left, expected, "{prefixes:?}");
        }
    }

    #[test]
    fn canonical_json() {
        for (value, expected) in [
            (
                json!({"b": [1, null, -2], "a": true}),
                r#"{"a":true,"b":[1,null,-2]}"#,
            ),
            (json!("\"\\ü\n"), "\"\\\"\\\\ü\n\""),
            (json!({}), "{}"),
        ] {
            let mut text = String::new();
            canonicalize(&value, &mut text).expect("whole numbers");
            assert_eq!(text, expected);
        }
        assert!(canonicalize(&json!([1.5]), &mut String::new()).is_err());
    }
}
