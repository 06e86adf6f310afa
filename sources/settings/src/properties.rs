//! What holds for every input, however odd: called with random input by the
//! tests and with chosen input by the fuzz targets in `tests/fuzz`.

use crate::{Document, Faults, Key, Model, Schema, Settings, limits};
use serde_json::{Value, json};

/// A text is a key that reads back as itself, or refused.
pub fn key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
}

/// A text is a document, nothing, or refused with faults on lines that exist.
pub fn toml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Document::from_toml(&text) {
        Ok(None) => assert!(text.trim().is_empty()),
        Ok(Some(document)) => valid(&document),
        Err(faults) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!faults.is_empty());
            assert!(faults.iter().count() <= limits::FAULTS);
            for line in faults.iter().filter_map(|fault| fault.line) {
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            }
        }
    }
}

/// JSON is a document, or refused; what is valid in it can be salvaged.
pub fn json(bytes: &[u8]) {
    if let Ok(tree) = serde_json::from_slice(bytes) {
        tree_of_settings(&tree);
    }
}

/// The same for a tree that is there already.
pub fn tree_of_settings(tree: &Value) {
    let (salvaged, faults) = Document::salvage(tree);
    valid(&salvaged);
    match Document::from_value(tree) {
        Ok(document) => {
            assert_eq!(document, salvaged);
            assert!(faults.is_empty());
        }
        Err(told) => assert_eq!(told, faults),
    }
}

/// What can be relied on once something is a document.
fn valid(document: &Document) {
    assert_eq!(
        Document::from_value(&document.to_value()).as_ref(),
        Ok(document)
    );
    assert_eq!(Document::from(&document.settings()), *document);
    let schema = Settings::schema();
    for key in document.keys() {
        assert!(document.get(&key).is_some());
        assert!(schema.knows(&key), "{key}");
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let text =
        ::toml::to_string(&json!({ "settings": document.to_value() })).expect("settings are TOML");
    let read: Result<_, Faults> = Document::from_toml(&text);
    assert_eq!(read.as_ref(), Ok(&Some(document.clone())));
    let mut emptied = document.clone();
    emptied.unset(&Key::root());
    assert!(emptied.is_empty());
}

/// Every setting that there is: its key, with an accepted name for each part
/// that the user chooses; what may be written; and an accepted value in TOML.
pub fn all_settings() -> Vec<(Key, Schema, String)> {
    fn walk(schema: &Schema, at: &Key, example: &str, found: &mut Vec<(Key, Schema, String)>) {
        match schema {
            Schema::Table { fields, others, .. } => {
                for field in fields.iter() {
                    walk(
                        &field.schema,
                        &at.child(field.name),
                        &field.example(),
                        found,
                    );
                }
                if let Some(others) = others {
                    walk(others, at, "", found);
                }
            }
            Schema::Map { example, value, .. } => {
                walk(value, &at.child(example), &value.example(), found);
            }
            setting => found.push((at.clone(), setting.clone(), example.to_string())),
        }
    }
    let mut found = Vec::new();
    walk(&Settings::schema(), &Key::root(), "", &mut found);
    found
}
