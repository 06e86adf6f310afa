//! Carrying commands out.

use crate::client::{Client, escape_value};
use crate::command::{Assignment, Command, Invocation};
use crate::document;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;

/// Carries a command out; results go to `out`.
pub fn run(invocation: &Invocation, out: &mut dyn Write) -> Result<()> {
    let client = Client::new(&invocation.socket);
    match &invocation.command {
        Command::Raw { uri, method, data } => {
            let answer = client.send(method, uri, data.as_ref().map(String::as_bytes))?;
            if invocation.verbose {
                eprintln!("{}", answer.status);
            }
            if !answer.body.is_empty() {
                out.write_all(&answer.body)?;
                out.write_all(b"\n")?;
            }
        }
        Command::Get {
            prefixes,
            exclude,
            canonical,
        } => {
            let found = get(&client, prefixes, exclude)?;
            // Keys are in order of their code points in any case.
            let text = if *canonical {
                found.to_string()
            } else {
                format!("{found:#}\n")
            };
            out.write_all(text.as_bytes())?;
        }
        Command::GetUri(uri) => {
            let answer = client.send("GET", uri, None)?;
            let value: Value = serde_json::from_slice(&answer.body)
                .with_context(|| format!("the answer to {uri} is not JSON; try raw -u {uri}"))?;
            writeln!(out, "{value:#}")?;
        }
        Command::Set(assignment) => {
            let tx = transaction("set");
            match assignment {
                Assignment::Pairs(pairs) => {
                    let body = json!({ "request_payload": pairs }).to_string();
                    let uri = format!("/settings/keypair?tx={tx}");
                    client.send("PATCH", &uri, Some(body.as_bytes()))?;
                }
                Assignment::Json(text) => patch(&client, &tx, &document::from_json(text)?)?,
            }
            commit_and_apply(&client, &tx)?;
        }
        Command::Unset(keys) => {
            let tx = transaction("unset");
            let keys = keys.iter().map(|key| escape_value(key));
            let keys = keys.collect::<Vec<_>>().join(",");
            client.send("DELETE", &format!("/settings?keys={keys}&tx={tx}"), None)?;
            commit_and_apply(&client, &tx)?;
        }
        Command::Apply(inputs) => {
            let standard = ["-".to_string()];
            let inputs = if inputs.is_empty() {
                &standard[..]
            } else {
                inputs
            };
            // All of them are read before anything is sent.
            let documents: Vec<Value> = inputs
                .iter()
                .map(|input| document::fetch(input))
                .collect::<Result<_>>()?;
            let tx = transaction("apply");
            for document in &documents {
                patch(&client, &tx, document)?;
            }
            commit_and_apply(&client, &tx)?;
        }
        Command::Reboot => {
            client.send("POST", "/actions/reboot", None)?;
        }
        Command::Reports => {
            let answer = client.send("GET", "/report", None)?;
            let list: Vec<Value> =
                serde_json::from_slice(&answer.body).context("the list of reports is odd")?;
            for report in list {
                let field = |name: &str| report[name].as_str().unwrap_or_default().to_string();
                writeln!(out, "{:<12} {}", field("name"), field("description"))?;
            }
        }
        Command::Report { name, format } => {
            let uri = format!("/report/{name}?format={}", escape_value(format));
            out.write_all(&client.send("GET", &uri, None)?.body)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn patch(client: &Client, tx: &str, settings: &Value) -> Result<()> {
    let uri = format!("/settings?tx={tx}");
    let sent = client.send("PATCH", &uri, Some(settings.to_string().as_bytes()));
    if sent.is_err() {
        // An earlier document may be pending; nothing is to be left of it.
        let _ = client.send("DELETE", &format!("/tx?tx={tx}"), None);
    }
    sent?;
    Ok(())
}

fn commit_and_apply(client: &Client, tx: &str) -> Result<()> {
    client.send("POST", &format!("/tx/commit_and_apply?tx={tx}"), None)?;
    Ok(())
}

/// A name that no other client uses at the same time.
fn transaction(command: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // The keys of std's hashers come from the kernel, which needs no file: in an
    // empty root there is no /dev.
    let random = [(); 2].map(|()| RandomState::new().build_hasher().finish().to_le_bytes());
    let name: String = random
        .iter()
        .flatten()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect();
    format!("apiclient-{command}-{name}")
}

fn get(client: &Client, prefixes: &[String], exclude: &[String]) -> Result<Value> {
    let usual = ["os.".to_string(), "settings.".to_string()];
    let prefixes = if prefixes.is_empty() {
        &usual[..]
    } else {
        prefixes
    };
    let mut found = Value::Object(Map::new());
    for prefix in prefixes {
        let uri = format!("/?prefix={}", escape_value(prefix));
        let answer = client.send("GET", &uri, None)?;
        let value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("the answer to {uri} is not JSON"))?;
        merge(&mut found, value);
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn transactions_have_names_of_their_own() {
        let one = transaction("set");
        assert_eq!(one.len(), "apiclient-set-".len() + 16);
        assert_ne!(one, transaction("set"));
    }
}
