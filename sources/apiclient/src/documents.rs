//! Documents that commands are given, and where they lie.

use crate::remote;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many documents are fetched at the same time.
const AT_ONCE: usize = 4;

/// What places of documents look like, for help.
pub const PLACES: &str =
    "file:///PATH, http://ADDRESS/PATH, base64:DOCUMENT or - for standard input";

/// The settings of the documents at some places, in the order of the places.
/// If one of them cannot be had, none is.
pub fn fetch_settings(places: &[String]) -> Result<Vec<Value>> {
    let documents = fetch_all(places, fetch);
    let documents = places.iter().zip(documents).map(|(place, document)| {
        settings(&document?).with_context(|| format!("{} is no settings document", shown(place)))
    });
    documents.collect()
}

/// What is at some places, a few at a time, in the order of the places.
fn fetch_all<T: Send>(places: &[String], fetch: impl Fn(&str) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed))
            && let Some(place) = places.get(index)
        {
            done.push((index, fetch(place)));
        }
        done
    };
    let mut documents: Vec<(usize, T)> = thread::scope(|scope| {
        let others: Vec<_> = (1..places.len().min(AT_ONCE))
            .map(|_| scope.spawn(work))
            .collect();
        let mut documents = work();
        for other in others {
            match other.join() {
                Ok(more) => documents.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        documents
    });
    documents.sort_by_key(|(index, _)| *index);
    documents
        .into_iter()
        .map(|(_, document)| document)
        .collect()
}

fn shown(place: &str) -> &str {
    match place {
        "-" => "standard input",
        _ if place.starts_with("base64:") => "the base64 document",
        _ => place,
    }
}

/// The text at a place.
pub fn fetch(place: &str) -> Result<String> {
    let bytes = read(place).with_context(|| format!("cannot read {}", shown(place)))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{} is not UTF-8 text", shown(place)))
}

fn read(place: &str) -> Result<Vec<u8>> {
    if place == "-" {
        return read_limited(std::io::stdin());
    }
    if let Some(encoded) = place.strip_prefix("base64:") {
        return STANDARD
            .decode(encoded.trim())
            .context("what follows base64: is not standard base64");
    }
    if let Some(path) = place.strip_prefix("file://") {
        ensure!(
            path.starts_with('/'),
            "after file:// comes an absolute path, as in file:///tmp/x.toml"
        );
        return read_file(Path::new(path));
    }
    if place.starts_with("http://") {
        let hosts = Path::new(remote::HOSTS);
        return remote::fetch(place, hosts, api_types::BODY_LIMIT, remote::PATIENCE);
    }
    match cloud(place) {
        Some(what) => bail!(
            "this build does not fetch from {what}; fetch the document with another program \
             and hand it to `apiclient apply -`, or give it as base64:DOCUMENT"
        ),
        None => bail!("it is none of {PLACES}"),
    }
}

/// What holds documents elsewhere, and needs TLS and credentials.
fn cloud(place: &str) -> Option<&'static str> {
    let service = match place.split_once("://") {
        Some((scheme, _)) => scheme,
        // arn:PARTITION:SERVICE:...
        None => place.strip_prefix("arn:")?.split(':').nth(1)?,
    };
    match service {
        "https" => Some("https:// (it has no TLS)"),
        "s3" => Some("S3"),
        "secretsmanager" => Some("Secrets Manager"),
        "ssm" => Some("the Parameter Store of Systems Manager"),
        _ => None,
    }
}

/// The contents of a file, up to the most that is taken.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    read_limited(File::open(path)?)
}

/// Everything that a source gives, up to the most that is taken.
pub fn read_limited(source: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = api_types::BODY_LIMIT as u64;
    source.take(limit + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= limit,
        "it has more than {limit} bytes, which is the most that is taken"
    );
    Ok(bytes)
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
    use std::time::{Duration, Instant};

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
        std::fs::write(&path, "[settings]").expect("a file");
        let uri = format!("file://{}", path.display());
        assert_eq!(fetch(&uri).expect("a document"), "[settings]");
        let encoded = format!("base64:{}", STANDARD.encode("[settings]"));
        assert_eq!(fetch(&encoded).expect("a document"), "[settings]");
        std::fs::write(&path, vec![b'#'; api_types::BODY_LIMIT + 1]).expect("a file");
        for (place, reason) in [
            (uri.as_str(), "more than 2097152 bytes"),
            ("x.toml", "it is none of file:///PATH"),
            ("file://x", "after file:// comes an absolute path"),
            ("ftp://x", "it is none of"),
            ("base64:!", "not standard base64"),
            ("base64:/w==", "not UTF-8"),
            ("file:///does/not/exist", "No such file"),
            (
                "https://x/y",
                "does not fetch from https:// (it has no TLS)",
            ),
            (
                "s3://bucket/key",
                "from S3; fetch the document with another",
            ),
            ("arn:aws:s3:::bucket/key", "does not fetch from S3"),
            ("secretsmanager://x", "Secrets Manager"),
            ("arn:aws-cn:secretsmanager:r:1:secret:x", "Secrets Manager"),
            ("ssm://x", "Parameter Store"),
            (
                "arn:aws:ssm:r:1:parameter/x",
                "hand it to `apiclient apply -`",
            ),
            ("arn:aws:ec2:r:1:x", "it is none of"),
            ("http://nowhere.invalid/", "asks no name server"),
        ] {
            let error = format!("{:#}", fetch(place).expect_err(place));
            assert!(error.contains(reason), "{place}: {error}");
        }
    }

    #[test]
    fn four_at_once_and_in_order() {
        let places: Vec<String> = (0..11).map(|number| number.to_string()).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let fetched = fetch_all(&places, |place| {
            let running = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(running, Ordering::SeqCst);
            // The first ones wait for each other.
            let patience = Instant::now() + Duration::from_secs(10);
            while most.load(Ordering::SeqCst) < AT_ONCE && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
            now.fetch_sub(1, Ordering::SeqCst);
            place.to_string()
        });
        assert_eq!(fetched, places);
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        let nothing: Vec<String> = fetch_all(&[], str::to_string);
        assert!(nothing.is_empty());
    }
}
