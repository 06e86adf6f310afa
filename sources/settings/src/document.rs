//! A settings document: the sparse tree of what somebody has set, checked.

use crate::{Faults, Key, Model, Settings, limits};
use serde_json::{Map, Number, Value};
use std::sync::LazyLock;
use toml::de::{DeTable, DeValue};

/// A sparse tree of settings, each of them valid. Tables are never empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    tree: Map<String, Value>,
}

impl Document {
    /// Checks a tree of settings (without an outer `settings`).
    pub fn from_value(tree: &Value) -> Result<Self, Faults> {
        let (document, faults) = Self::salvage(tree);
        if faults.is_empty() {
            Ok(document)
        } else {
            Err(faults)
        }
    }

    /// Takes what is valid out of a tree of settings, and says what is not.
    pub fn salvage(tree: &Value) -> (Self, Faults) {
        let mut faults = Faults::default();
        let keys = count_keys(tree);
        if keys > limits::DOCUMENT_KEYS {
            faults.add(
                &Key::root(),
                format!(
                    "the document has {keys} keys; at most {} are taken",
                    limits::DOCUMENT_KEYS
                ),
            );
            return (Self::default(), faults);
        }
        let settings = Settings::read(tree, &mut Key::root(), &mut faults);
        (Self::from(&settings.unwrap_or_default()), faults)
    }

    /// Reads a TOML text with a top-level table `settings`; other tables are
    /// not looked at. `None` if the text is nothing but white space.
    pub fn from_toml(text: &str) -> Result<Option<Self>, Faults> {
        let Some(table) = parse_toml(text)? else {
            return Ok(None);
        };
        let mut faults = Faults::default();
        let line_of = |key: &Key| line_of(text, &table, key);
        let Some(settings) = table.get("settings") else {
            faults.add(
                &Key::root(),
                "the document has no top-level table [settings]",
            );
            return Err(faults);
        };
        let tree = toml_value(settings.get_ref(), &mut Key::root(), &mut faults);
        let (document, more) = Self::salvage(&tree);
        for fault in more.iter() {
            // What could not be turned into JSON is null by now; the fault
            // that says so is there already.
            if !faults.iter().any(|known| known.key == fault.key) {
                faults.add(&fault.key, fault.reason.clone());
            }
        }
        if faults.is_empty() {
            Ok(Some(document))
        } else {
            faults.locate(line_of);
            Err(faults)
        }
    }

    /// The defaults that the model itself declares.
    pub fn defaults() -> Self {
        static DEFAULTS: LazyLock<Document> = LazyLock::new(|| {
            Document::from_value(&Settings::schema().defaults())
                .expect("the model's own defaults are valid, as a test shows")
        });
        DEFAULTS.clone()
    }

    /// The settings as typed values.
    pub fn settings(&self) -> Settings {
        let tree = Value::Object(self.tree.clone());
        Settings::read(&tree, &mut Key::root(), &mut Faults::default()).unwrap_or_default()
    }

    /// True if nothing is set.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The tree, without an outer `settings`.
    pub fn tree(&self) -> &Map<String, Value> {
        &self.tree
    }

    /// The tree as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.tree.clone())
    }

    /// The setting or table at `key`.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        let (last, tables) = key.parts().split_last()?;
        let mut here = &self.tree;
        for part in tables {
            here = here.get(part)?.as_object()?;
        }
        here.get(last)
    }

    /// The keys of all settings that are set.
    pub fn keys(&self) -> Vec<Key> {
        leaves(&self.tree).into_iter().map(|(key, _)| key).collect()
    }

    /// Puts the settings of `other` over these: tables are merged, lists
    /// replaced.
    pub fn merge(&mut self, other: &Document) {
        merge(&mut self.tree, &other.tree);
    }

    /// Removes the setting, or all settings of the table, at `key`, and says
    /// which those were.
    pub fn unset(&mut self, key: &Key) -> Vec<Key> {
        let removed: Vec<Key> = self
            .keys()
            .into_iter()
            .filter(|set| set.is_within(key))
            .collect();
        for key in &removed {
            remove(&mut self.tree, key.parts());
        }
        removed
    }

    /// Only the settings whose key `wanted` accepts.
    pub fn filter(&self, wanted: impl Fn(&Key) -> bool) -> Self {
        let mut chosen = Map::new();
        for (key, value) in leaves(&self.tree) {
            if wanted(&key) {
                insert(&mut chosen, key.parts(), value.clone());
            }
        }
        Self { tree: chosen }
    }

    /// A tree with the one setting `key`, unchecked as yet.
    pub fn single(key: &Key, value: Value) -> Value {
        key.parts().iter().rev().fold(value, |value, part| {
            Value::Object(Map::from_iter([(part.clone(), value)]))
        })
    }
}

impl From<&Settings> for Document {
    fn from(settings: &Settings) -> Self {
        match settings.write() {
            Value::Object(tree) => Self { tree },
            _ => Self::default(),
        }
    }
}

/// Every value of a tree that is not a table, with its key, in order.
pub fn leaves(tree: &Map<String, Value>) -> Vec<(Key, &Value)> {
    fn walk<'v>(table: &'v Map<String, Value>, at: &mut Key, found: &mut Vec<(Key, &'v Value)>) {
        for (name, value) in table {
            at.push(name);
            match value {
                Value::Object(table) => walk(table, at, found),
                value => found.push((at.clone(), value)),
            }
            at.pop();
        }
    }
    let mut found = Vec::new();
    walk(tree, &mut Key::root(), &mut found);
    found
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

fn insert(tree: &mut Map<String, Value>, parts: &[String], value: Value) {
    match parts {
        [] => {}
        [last] => {
            tree.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let table = tree
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(table) = table {
                insert(table, rest, value);
            }
        }
    }
}

/// Removes a value and the tables that become empty by that.
fn remove(tree: &mut Map<String, Value>, parts: &[String]) {
    match parts {
        [] => {}
        [last] => {
            tree.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Object(table)) = tree.get_mut(first) {
                remove(table, rest);
                if table.is_empty() {
                    tree.remove(first);
                }
            }
        }
    }
}

fn count_keys(value: &Value) -> usize {
    match value {
        Value::Object(table) => table.len() + table.values().map(count_keys).sum::<usize>(),
        // Many small items weigh as much as many keys.
        Value::Array(items) => items.len() + items.iter().map(count_keys).sum::<usize>(),
        _ => 0,
    }
}

fn parse_toml(text: &str) -> Result<Option<DeTable<'_>>, Faults> {
    if text.len() > limits::DOCUMENT_BYTES {
        return Err(Faults::one(
            Key::root(),
            format!(
                "the document has {} bytes; at most {} are taken",
                text.len(),
                limits::DOCUMENT_BYTES
            ),
        ));
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    match DeTable::parse(text) {
        Ok(table) => Ok(Some(table.into_inner())),
        Err(error) => {
            let line = error.span().map(|span| line_at(text, span.start));
            let reason = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
            Err(Faults::one(Key::root(), reason).at_line(line))
        }
    }
}

fn toml_value(value: &DeValue<'_>, at: &mut Key, faults: &mut Faults) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Number(number.into()),
            Err(_) => {
                faults.add(at, "the number does not fit into 64 bits");
                Value::Null
            }
        },
        DeValue::Float(number) => {
            let finite = number.as_str().parse().ok().and_then(Number::from_f64);
            finite.map(Value::Number).unwrap_or_else(|| {
                faults.add(at, "the number is not finite");
                Value::Null
            })
        }
        DeValue::Datetime(_) => {
            faults.add(at, "no setting is a date; put it in quotes if it is a text");
            Value::Null
        }
        DeValue::Array(items) => items
            .iter()
            .map(|item| toml_value(item.get_ref(), at, faults))
            .collect(),
        DeValue::Table(table) => {
            let mut object = Map::new();
            for (name, value) in table {
                at.push(name.get_ref());
                object.insert(
                    name.get_ref().to_string(),
                    toml_value(value.get_ref(), at, faults),
                );
                at.pop();
            }
            Value::Object(object)
        }
    }
}

/// The line of the key that leads furthest towards `key`.
fn line_of(text: &str, document: &DeTable<'_>, key: &Key) -> Option<usize> {
    let mut line = None;
    let mut table = document;
    let path = std::iter::once("settings").chain(key.parts().iter().map(String::as_str));
    for part in path {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else {
            break;
        };
        line = Some(line_at(text, name.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    line
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|&&byte| byte == b'\n').count() + 1
}
