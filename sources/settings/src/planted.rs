//! A secret in every setting that can hold one, for tests of whatever must not show
//! it. The settings are found in the model, so one that is marked later is tested
//! from then on.

use crate::{Document, Key, Model, Schema, Settings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What nobody may find, in the settings that take it as it is.
const SECRET: &str = "pl4nted-5ecret";

/// Settings with a secret in one of them.
pub struct Planted {
    /// The setting that holds it, as deep as keys go.
    pub key: Key,
    /// The settings.
    pub settings: Document,
    /// What nobody may find.
    pub secret: String,
}

/// Settings for each form that the secret in each setting can have.
///
/// # Panics
///
/// If a setting that is marked takes none of the forms that are known here.
pub fn all() -> Vec<Planted> {
    let mut found = Vec::new();
    each_value(&mut |key, is_secret, put| {
        if !is_secret {
            return;
        }
        let before = found.len();
        for (value, secret) in forms() {
            found.extend(accepted(put(value)).map(|settings| Planted {
                key: key.clone(),
                settings,
                secret,
            }));
        }
        assert!(
            found.len() > before,
            "{key}: it takes none of the secrets that are known here"
        );
    });
    found
}

/// The settings that take any text, or anything in base64, and are not marked.
pub fn of_any_text() -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    each_value(&mut |key, is_secret, put| {
        let text = "Any text, and 3 more words!".to_string();
        let encoded = STANDARD.encode(&text);
        let takes = |text| accepted(put(text)).is_some();
        if !is_secret && (takes(text) || takes(encoded)) {
            found.insert(key.clone());
        }
    });
    found
}

/// The values that are tried, each with what is secret in it.
fn forms() -> Vec<(String, String)> {
    let key = STANDARD.encode([&[0x30, 0x16][..], b"pl4nted-key-of-kubelet"].concat());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    let plain = [
        (SECRET.to_string(), SECRET.to_string()),
        (
            format!("[default]\naws_secret_access_key = {SECRET}\n"),
            SECRET.to_string(),
        ),
        (pem, key),
    ];
    let encoded = plain
        .iter()
        .map(|(text, secret)| (STANDARD.encode(text), secret.clone()));
    let others = [
        "pl4nt3.d0b00tstrapt0ken".to_string(),
        format!("user:{SECRET}"),
    ];
    let others = others.map(|text| (text.clone(), text));
    let address = (
        format!("https://user:{SECRET}@example.com:3128"),
        SECRET.to_string(),
    );
    let encoded: Vec<_> = encoded.collect();
    plain
        .into_iter()
        .chain(encoded)
        .chain(others)
        .chain([address])
        .collect()
}

/// The first of some trees that is one of settings.
fn accepted(trees: Vec<Value>) -> Option<Document> {
    trees
        .iter()
        .find_map(|tree| Document::from_value(tree).ok())
}

/// Is given the key of a value, whether it is a secret, and what makes trees of
/// settings with a text in its place.
type Visit<'v> = dyn FnMut(&Key, bool, &dyn Fn(String) -> Vec<Value>) + 'v;

/// Visits every place of the model where there can be a single value.
fn each_value(visit: &mut Visit<'_>) {
    let whole = |value| vec![value];
    walk(&Settings::schema(), false, &Key::root(), &whole, visit);
}

/// Visits what can be at `key` and below, where `put` makes trees from a value that
/// is to be there.
fn walk(
    schema: &Schema,
    is_secret: bool,
    key: &Key,
    put: &dyn Fn(Value) -> Vec<Value>,
    visit: &mut Visit<'_>,
) {
    let named = |name: &str, value: Value| json!({ name: value });
    match schema {
        Schema::Table { fields, others, .. } => {
            for field in fields.iter() {
                let put = |value| put(named(field.name, value));
                // What lies in a list has no key of its own.
                let inner = key.child(field.name);
                let key = match Settings::schema().knows(&inner) {
                    true => &inner,
                    false => key,
                };
                walk(&field.schema, is_secret || field.secret, key, &put, visit);
            }
            if let Some(others) = others {
                walk(others, is_secret, key, put, visit);
            }
        }
        Schema::Map { example, value, .. } => {
            let put = |value| put(named(example, value));
            walk(value, is_secret, &key.child(example), &put, visit);
        }
        Schema::List(item) => {
            // Alone, or behind the word that a list of words begins with.
            let put = |value: Value| {
                let lists = [json!([value]), json!(["apiclient", value])];
                lists.into_iter().flat_map(put).collect()
            };
            walk(item, is_secret, key, &put, visit);
        }
        Schema::Either(forms) => {
            walk(&forms.0, is_secret, key, put, visit);
            walk(&forms.1, is_secret, key, put, visit);
        }
        Schema::Pair(both) => {
            assert!(!is_secret, "{key}: no secret in a pair is known here");
            let example = |schema: &Schema| match schema {
                Schema::Scalar { example, .. } => example.trim_matches('"').into(),
                _ => json!([]),
            };
            let (first, second) = (example(&both.0), example(&both.1));
            let put_first = |value| put(json!([value, second]));
            walk(&both.0, is_secret, key, &put_first, visit);
            let put_second = |value| put(json!([first, value]));
            walk(&both.1, is_secret, key, &put_second, visit);
        }
        Schema::Scalar { .. } => visit(key, is_secret, &|text| put(text.into())),
    }
}
