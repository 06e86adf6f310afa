//! A TOML text as a tree whose values know their key and line, and a reader
//! that notes what is wrong and goes on.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use crate::fault::Faults;

/// A value of the text.
#[derive(Clone)]
pub struct Node<'d> {
    /// Its whole key.
    pub key: String,
    /// The last part of the key.
    pub name: &'d str,
    /// Where the key, or the element of a list, begins.
    offset: usize,
    value: &'d DeValue<'d>,
}

/// A key that a table may have, and the version of the format that brought it.
pub type Field = (&'static str, u8);

/// Reads values and collects what is wrong with them.
pub struct Reader<'d> {
    text: &'d str,
    /// Version of the format that the text says it has.
    pub version: u8,
    /// What has been found so far.
    pub faults: Faults,
}

impl<'d> Reader<'d> {
    /// Of a text that may use everything.
    pub fn new(text: &'d str, newest: u8) -> Self {
        Self {
            text,
            version: newest,
            faults: Faults::default(),
        }
    }

    /// Notes that something is wrong with `node`.
    pub fn refuse(&mut self, node: &Node<'_>, reason: impl Into<String>) {
        let text = self.text;
        self.faults
            .add_at(|| line_at(text, node.offset), &node.key, reason.into());
    }

    /// The entries of a table in the order of the text.
    pub fn entries(&self, table: &'d DeTable<'d>, path: &str) -> Vec<Node<'d>> {
        let mut entries: Vec<Node<'d>> = table
            .iter()
            .map(|(name, value)| Node {
                key: join(path, name.get_ref()),
                name: name.get_ref(),
                offset: name.span().start,
                value: value.get_ref(),
            })
            .collect();
        entries.sort_by_key(|node| node.offset);
        entries
    }

    /// The entries of a table, none if it is something else.
    pub fn entries_of(&self, node: &Node<'d>) -> Vec<Node<'d>> {
        match node.value {
            DeValue::Table(table) => self.entries(table, &node.key),
            _ => Vec::new(),
        }
    }

    /// The entries of a table that may have `fields` and no others.
    pub fn table(&mut self, node: &Node<'d>, fields: &[&[Field]]) -> Vec<Node<'d>> {
        if !node.is_table() {
            self.expected::<()>(node, "a table");
        }
        let fields = || fields.iter().copied().flatten();
        let entries = self.entries_of(node);
        for entry in &entries {
            match fields().find(|(name, _)| *name == entry.name) {
                Some((_, since)) if *since > self.version => {
                    let reason = format!(
                        "known since version {since}, and this text says version = {}",
                        self.version
                    );
                    self.refuse(entry, reason);
                }
                Some(_) => {}
                None => {
                    let known = fields().map(|(name, _)| *name);
                    let reason = match settings::nearest(entry.name, known) {
                        Some(meant) => format!("unknown key; did you mean {meant}?"),
                        None if matches!(entry.value, DeValue::Table(_)) => format!(
                            "unknown key; a name with a dot is written in quotes, [\"{}.{}\"]",
                            node.name, entry.name
                        ),
                        None => "unknown key".to_owned(),
                    };
                    self.refuse(entry, reason);
                }
            }
        }
        entries
    }

    /// The elements of a list.
    pub fn list(&mut self, node: &Node<'d>) -> Vec<Node<'d>> {
        let DeValue::Array(elements) = node.value else {
            self.expected::<()>(node, "a list");
            return Vec::new();
        };
        elements
            .iter()
            .enumerate()
            .map(|(n, element)| Node {
                key: format!("{}[{n}]", node.key),
                name: node.name,
                offset: element.span().start,
                value: element.get_ref(),
            })
            .collect()
    }

    /// `true` or `false`.
    pub fn switch(&mut self, node: &Node<'d>) -> Option<bool> {
        match node.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.expected(node, "true or false"),
        }
    }

    /// A whole number.
    pub fn number(&mut self, node: &Node<'d>, range: RangeInclusive<u32>) -> Option<u32> {
        if let DeValue::Integer(number) = node.value
            && let Ok(number) = i64::from_str_radix(number.as_str(), number.radix())
            && let Ok(number) = u32::try_from(number)
            && range.contains(&number)
        {
            return Some(number);
        }
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.expected(node, &wanted)
    }

    /// A text.
    pub fn text(&mut self, node: &Node<'d>) -> Option<&'d str> {
        match node.value {
            DeValue::String(text) => Some(text),
            _ => self.expected(node, "a text in quotes"),
        }
    }

    /// One of some words.
    pub fn word(&mut self, node: &Node<'d>, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(node)?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let near = settings::nearest(text, words.iter().copied());
            let meant = near.map(|word| format!("; did you mean {word:?}?"));
            let reason = format!(
                "is not one of {}{}",
                words.join(", "),
                meant.unwrap_or_default()
            );
            self.refuse(node, reason);
        }
        found
    }

    /// A text that means something.
    pub fn parsed<T: FromStr<Err = String>>(&mut self, node: &Node<'d>) -> Option<T> {
        match self.text(node)?.parse() {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(node, reason);
                None
            }
        }
    }

    /// An address without a prefix.
    pub fn address(&mut self, node: &Node<'d>) -> Option<IpAddr> {
        let address = self.text(node)?.parse().ok();
        if address.is_none() {
            self.refuse(node, "expected an address, as 192.0.2.1 or 2001:db8::1");
        }
        address
    }

    /// Notes that the table at `node` lacks something.
    pub fn missing<T>(&mut self, node: &Node<'_>, what: &str) -> Option<T> {
        self.refuse(node, format!("lacks {what}"));
        None
    }

    fn expected<T>(&mut self, node: &Node<'_>, wanted: &str) -> Option<T> {
        let got = match node.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let got = match node.value {
            DeValue::Integer(number) => number.to_string(),
            _ => got.to_owned(),
        };
        self.refuse(node, format!("expected {wanted}, got {got}"));
        None
    }
}

impl Node<'_> {
    /// Whether it is a table of its own.
    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }
}

/// The entry of that name.
pub fn get<'n, 'd>(entries: &'n [Node<'d>], name: &str) -> Option<&'n Node<'d>> {
    entries.iter().find(|entry| entry.name == name)
}

/// Line of the byte at `offset`.
pub fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The key as it is written in TOML.
fn join(path: &str, name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let name = match !name.is_empty() && name.bytes().all(bare) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    };
    match path {
        "" => name,
        path => format!("{path}.{name}"),
    }
}
