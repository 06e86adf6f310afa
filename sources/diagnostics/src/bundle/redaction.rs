//! Taking known secrets out of whatever text they have got into.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands for a secret.
const INSTEAD: &[u8] = b"[secret]";
/// What is shorter would be found by chance.
const SHORTEST: usize = 6;

/// Knows what to look for.
pub struct Redaction {
    /// Longest first, so that no part of one stays behind when a shorter one that
    /// lies in it is taken out.
    needles: Vec<Vec<u8>>,
}

impl Redaction {
    /// Looks for the texts in `secrets`, for what they hold in base64, for their
    /// lines, for what is secret in an address, and for all of these in base64.
    pub fn new(secrets: &[Value]) -> Self {
        let mut texts = BTreeSet::new();
        for secret in secrets {
            match secret {
                Value::String(text) => {
                    texts.insert(text.clone());
                }
                several => collect(several, &mut texts),
            }
        }
        let mut needles = BTreeSet::new();
        for text in texts {
            if let Ok(decoded) = STANDARD.decode(text.trim()) {
                if let Ok(decoded) = std::str::from_utf8(&decoded) {
                    parts(decoded, &mut needles);
                }
                needles.insert(decoded);
            }
            parts(&text, &mut needles);
        }
        let encoded: Vec<String> = needles
            .iter()
            .flat_map(|needle| [STANDARD.encode(needle), STANDARD_NO_PAD.encode(needle)])
            .collect();
        needles.extend(encoded.into_iter().map(String::into_bytes));
        let mut needles: Vec<Vec<u8>> = needles
            .into_iter()
            .filter(|needle| needle.len() >= SHORTEST)
            .collect();
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self { needles }
    }

    /// `content` without what is secret.
    pub fn apply(&self, mut content: Vec<u8>) -> Vec<u8> {
        for needle in &self.needles {
            if let Some(first) = find(&content, needle) {
                content = replaced(&content, needle, first);
            }
        }
        content
    }
}

/// All texts in a list or table, such as a command, but for plain words.
fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if !is_plain_word(text) => {
            into.insert(text.clone());
        }
        Value::String(_) => {}
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(table) => table.values().for_each(|item| collect(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// True for `apiclient` or `kube-system`: what stands between secrets in a command or
/// a manifest, and in every other line of a log.
fn is_plain_word(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')
}

/// A text, its lines, the values in lines of the form `name = value` but for plain
/// words, and name and password in an address.
fn parts(text: &str, into: &mut BTreeSet<Vec<u8>>) {
    let mut add = |part: &str| {
        into.insert(part.trim().as_bytes().to_vec());
    };
    add(text);
    for line in text.lines() {
        add(line);
        let value = line.split_once(['=', ':']).map_or("", |(_, value)| value);
        let value = value.trim().trim_matches(['"', ',', '\'']);
        if !is_plain_word(value) {
            add(value);
        }
    }
    let login = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'))
        .map(|(login, _)| login);
    if let Some(login) = login {
        add(login);
        add(login.split_once(':').map_or("", |(_, password)| password));
    }
}

fn find(content: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, rest) = needle.split_first()?;
    let mut at = 0;
    loop {
        at += content.get(at..)?.iter().position(|byte| *byte == first)?;
        if content.get(at + 1..)?.starts_with(rest) {
            return Some(at);
        }
        at += 1;
    }
}

fn replaced(content: &[u8], needle: &[u8], first: usize) -> Vec<u8> {
    let mut kept = Vec::with_capacity(content.len());
    let mut rest = content;
    let mut next = Some(first);
    while let Some(at) = next {
        kept.extend_from_slice(&rest[..at]);
        kept.extend_from_slice(INSTEAD);
        rest = &rest[at + needle.len()..];
        next = find(rest, needle);
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_found_in_every_form() {
        let file = "[default]\naws_secret_access_key = wJalrXUtnFEMI\n";
        let secrets = [
            json!("token-abcdef"),
            json!("http://someone:pa55word@proxy.example:3128"),
            json!(STANDARD.encode(file)),
            json!("plainlywords"),
            json!([[
                "apiclient",
                "set",
                "kubernetes.bootstrap-token=abcdef.hunter2hunter2"
            ]]),
            json!(STANDARD.encode("namespace: kube-system\nenv:\n- value: Tr0ub4dor")),
            json!("abc"),
        ];
        let redaction = Redaction::new(&secrets);
        for (text, expected) in [
            ("a token-abcdef b token-abcdef", "a [secret] b [secret]"),
            ("token-abcde", "token-abcde"),
            ("login someone:pa55word", "login [secret]"),
            ("PASSWORD pa55word.", "PASSWORD [secret]."),
            ("key=wJalrXUtnFEMI", "key=[secret]"),
            ("told plainlywords", "told [secret]"),
            (
                "apiclient has abcdef.hunter2hunter2",
                "apiclient has [secret]",
            ),
            ("in kube-system: Tr0ub4dor", "in kube-system: [secret]"),
            ("an abc is too short", "an abc is too short"),
            ("", ""),
        ] {
            let redacted = redaction.apply(text.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&redacted), expected);
        }
        let basic = format!("Basic {}", STANDARD.encode("someone:pa55word"));
        let whole = STANDARD.encode(file);
        for text in [basic, whole, STANDARD.encode("token-abcdef")] {
            let redacted = redaction.apply(text.clone().into_bytes());
            assert!(redacted.ends_with(INSTEAD), "{text}");
        }
    }

    #[test]
    fn repeats_and_overlaps() {
        for (content, needle, expected) in [
            ("aaaaaaaa", "aaaaaa", "[secret]aa"),
            ("xxabcabcabdxx", "abcabd", "xxabc[secret]xx"),
        ] {
            let redaction = Redaction::new(&[json!(needle)]);
            let redacted = redaction.apply(content.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&redacted), expected);
        }
    }
}
