//! `settings.kubelet-configuration` and `settings.containerd-configuration`: fields of
//! those programs' own configuration that have no setting here.
//!
//! Which fields there are, and of which type, is data: a table per version in
//! `upstream/`, made from the programs' own declarations by the example
//! `fields-of-go`. A new minor version of Kubernetes is one more table and a line in
//! [`KUBELET`]. What a setting decides, and what the host or its security stands
//! on, is in [`refused`], each field with the reason that somebody reads who sets it.

mod refused;

use super::kubernetes::{Duration, Factor, Quantity};
use crate::model::{describe, table_entries};
use crate::types::{SingleLine, number_within};
use crate::{Faults, Field, Key, Model, Scalar, Schema, Scope, nearest};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The minor versions of Kubernetes that are known, and kubelet's fields in each.
const KUBELET: &[(u32, &str)] = &[
    (33, include_str!("upstream/kubelet-1.33.tsv")),
    (34, include_str!("upstream/kubelet-1.34.tsv")),
    (35, include_str!("upstream/kubelet-1.35.tsv")),
    (36, include_str!("upstream/kubelet-1.36.tsv")),
    (37, include_str!("upstream/kubelet-1.37.tsv")),
];

/// The oldest minor version of Kubernetes that is known.
pub const OLDEST_KUBERNETES_MINOR: u32 = KUBELET[0].0;

/// The newest minor version of Kubernetes that is known.
pub const NEWEST_KUBERNETES_MINOR: u32 = KUBELET[KUBELET.len() - 1].0;

/// containerd's fields: those of its own file and of the plugins that serve pods.
const CONTAINERD: &str = include_str!("upstream/containerd-2.4.tsv");

static KUBELET_FIELDS: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::Table(BTreeMap::new());
    for (minor, table) in KUBELET {
        root.add_table(table, Some(*minor));
    }
    root.refuse(refused::KUBELET);
    root
});

static CONTAINERD_FIELDS: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::Table(BTreeMap::new());
    root.add_table(CONTAINERD, None);
    root.refuse(refused::CONTAINERD);
    root
});

/// What of a `KubeletConfiguration` has no setting of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeletConfiguration(Map<String, Value>);

/// What of containerd's configuration has no setting of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerdConfiguration(Map<String, Value>);

impl Model for KubeletConfiguration {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        read_table(&KUBELET_FIELDS, value, at, faults).map(Self)
    }

    fn write(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn schema() -> Schema {
        KUBELET_FIELDS.schema()
    }
}

impl Model for ContainerdConfiguration {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        read_table(&CONTAINERD_FIELDS, value, at, faults).map(Self)
    }

    fn write(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn schema() -> Schema {
        CONTAINERD_FIELDS.schema()
    }
}

/// What lies at some place of a configuration.
#[derive(Clone, Debug)]
enum Node {
    /// A table with known fields.
    Table(BTreeMap<&'static str, Entry>),
    /// A table whose keys the user chooses.
    Map(Box<Node>),
    /// A list.
    List(Box<Node>),
    /// A single value.
    Value(Kind),
    /// Something of a type that the tables do not tell.
    Unknown,
}

/// A field of a table.
#[derive(Clone, Debug)]
struct Entry {
    node: Node,
    /// The least and the greatest minor version of Kubernetes that have it.
    minors: Option<(u32, u32)>,
    /// Why it cannot be set here.
    refused: Option<&'static str>,
}

/// The type of a single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Text,
    Int32,
    Int64,
    Uint32,
    /// A number from 0 to 1, which all that are not whole are.
    Share,
    Duration,
    Quantity,
}

impl Node {
    /// Adds the lines of a table: a key, a tab, a type.
    fn add_table(&mut self, table: &'static str, minor: Option<u32>) {
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let (path, kind) = line
                .split_once('\t')
                .expect("a test reads every line of the tables");
            self.add(&parts(path), kind, minor);
        }
    }

    fn add(&mut self, path: &[&'static str], kind: &str, minor: Option<u32>) {
        let [part, rest @ ..] = path else {
            *self = Self::of_kind(kind);
            return;
        };
        let empty = || Self::Table(BTreeMap::new());
        match (*part, &mut *self) {
            ("<name>", Self::Map(inner)) | ("[]", Self::List(inner)) => {
                inner.add(rest, kind, minor);
            }
            ("<name>", _) => {
                let mut inner = empty();
                inner.add(rest, kind, minor);
                *self = Self::Map(Box::new(inner));
            }
            ("[]", _) => {
                let mut inner = empty();
                inner.add(rest, kind, minor);
                *self = Self::List(Box::new(inner));
            }
            (name, Self::Table(entries)) => {
                let entry = entries.entry(name).or_insert_with(|| Entry {
                    node: empty(),
                    minors: minor.map(|minor| (minor, minor)),
                    refused: None,
                });
                if let (Some((_, last)), Some(minor)) = (&mut entry.minors, minor) {
                    *last = minor;
                }
                entry.node.add(rest, kind, minor);
            }
            // A later version has a table where an earlier one had a value.
            _ => {
                *self = empty();
                self.add(path, kind, minor);
            }
        }
    }

    fn of_kind(kind: &str) -> Self {
        if let Some(inner) = kind.strip_prefix("table of ") {
            return Self::Map(Box::new(Self::of_kind(inner)));
        }
        if let Some(inner) = kind.strip_prefix("list of ") {
            return Self::List(Box::new(Self::of_kind(inner)));
        }
        Self::Value(match kind {
            "boolean" => Kind::Boolean,
            "text" => Kind::Text,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "uint32" => Kind::Uint32,
            "number" => Kind::Share,
            "duration" => Kind::Duration,
            "quantity" => Kind::Quantity,
            _ => return Self::Unknown,
        })
    }

    /// Marks fields that cannot be set, by their path.
    fn refuse(&mut self, refused: &[(&'static str, &'static str)]) {
        for (path, reason) in refused {
            if let Some(entry) = self.entry(&parts(path)) {
                entry.refused = Some(reason);
            }
        }
    }

    fn entry(&mut self, path: &[&'static str]) -> Option<&mut Entry> {
        let [part, rest @ ..] = path else {
            return None;
        };
        match self {
            Self::Map(inner) | Self::List(inner) => inner.entry(rest),
            Self::Table(entries) => match rest {
                [] => entries.get_mut(part),
                _ => entries.get_mut(part)?.node.entry(rest),
            },
            Self::Value(_) | Self::Unknown => None,
        }
    }

    /// True if there is anything in it that can be set.
    fn is_settable(&self) -> bool {
        match self {
            Self::Table(entries) => entries.values().any(Entry::is_settable),
            Self::Map(inner) | Self::List(inner) => inner.is_settable(),
            Self::Value(_) => true,
            Self::Unknown => false,
        }
    }

    fn schema(&self) -> Schema {
        match self {
            Self::Table(entries) => {
                let settable = entries.iter().filter(|(_, entry)| entry.is_settable());
                let field = |(name, entry): (&&'static str, &Entry)| Field {
                    name,
                    doc: "As the program itself declares it.\n",
                    schema: entry.node.schema(),
                    default: None,
                    generated: None,
                    scope: match entry.minors {
                        None | Some((OLDEST_KUBERNETES_MINOR, NEWEST_KUBERNETES_MINOR)) => {
                            Scope::All
                        }
                        Some((from, to)) => Scope::KubernetesMinors { from, to },
                    },
                    alias: None,
                    example: None,
                    secret: false,
                };
                Schema::Table {
                    doc: "A table of the program's own configuration.\n",
                    fields: settable.map(field).collect(),
                    others: None,
                }
            }
            Self::Map(inner) => Schema::Map {
                key: Name::WHAT,
                example: Name::EXAMPLE,
                value: Box::new(inner.schema()),
            },
            Self::List(inner) => Schema::List(Box::new(inner.schema())),
            // Nobody asks: what is not settable is in no schema.
            Self::Unknown => SingleLine::schema(),
            Self::Value(kind) => kind.schema(),
        }
    }
}

impl Entry {
    fn is_settable(&self) -> bool {
        self.refused.is_none() && self.node.is_settable()
    }
}

/// The parts of a path, of which one with a dot in it is quoted.
fn parts(path: &'static str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        found.push(part);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    found
}

/// A key that the user chooses.
struct Name;

impl Name {
    const WHAT: &'static str = "a name of letters, digits and '-', '_', '.', '/' and ':'";
    const EXAMPLE: &'static str = "name";

    fn is_good(name: &str) -> bool {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_./:".contains(&c);
        !name.is_empty() && name.bytes().all(is_plain)
    }
}

fn read_table(
    node: &Node,
    value: &Value,
    at: &mut Key,
    faults: &mut Faults,
) -> Option<Map<String, Value>> {
    match read(node, value, at, faults)? {
        Value::Object(table) => Some(table),
        _ => None,
    }
}

/// What is right in `value`; each fault is noted.
fn read(node: &Node, value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Value> {
    match node {
        Node::Table(entries) => {
            let mut read_entries = Map::new();
            for (name, value) in table_entries(value, at, faults)? {
                at.push(name);
                let value = match entries.get(name.as_str()) {
                    Some(entry) => match entry.refused {
                        Some(reason) => {
                            faults.add(at, reason);
                            None
                        }
                        None => read(&entry.node, value, at, faults),
                    },
                    None => {
                        faults.add(at, unknown(name, entries, at));
                        None
                    }
                };
                at.pop();
                insert(&mut read_entries, name, value);
            }
            Some(Value::Object(read_entries))
        }
        Node::Map(inner) => {
            let mut read_entries = Map::new();
            for (name, value) in table_entries(value, at, faults)? {
                at.push(name);
                let value = if Name::is_good(name) {
                    read(inner, value, at, faults)
                } else {
                    faults.add(at, format!("{name:?} is not {}", Name::WHAT));
                    None
                };
                at.pop();
                insert(&mut read_entries, name, value);
            }
            Some(Value::Object(read_entries))
        }
        Node::List(inner) => {
            let Some(items) = value.as_array() else {
                faults.add(at, format!("expected a list, got {}", describe(value)));
                return None;
            };
            let before = faults.len();
            let read_items: Vec<Value> = items
                .iter()
                .enumerate()
                .filter_map(|(n, item)| {
                    let mut inner_faults = Faults::default();
                    let read = read(inner, item, at, &mut inner_faults);
                    for fault in inner_faults.iter() {
                        faults.add(at, format!("item {}: {}", n + 1, fault.reason));
                    }
                    read
                })
                .collect();
            // Half a list means something else.
            (faults.len() == before).then_some(Value::Array(read_items))
        }
        Node::Unknown => {
            faults.add(at, "it cannot be set here: its values cannot be checked");
            None
        }
        Node::Value(kind) => kind
            .check(value)
            .map_err(|reason| faults.add(at, reason))
            .ok()
            .map(|()| value.clone()),
    }
}

/// What is said of a field, at `at`, that there is not.
fn unknown(name: &str, entries: &BTreeMap<&'static str, Entry>, at: &Key) -> String {
    let settable = entries.iter().filter(|(_, entry)| entry.is_settable());
    let Some(meant) = nearest(name, settable.map(|(name, _)| *name)) else {
        return "unknown key: the program has no such field".to_string();
    };
    let mut near = at.clone();
    near.pop();
    near.push(meant);
    format!("unknown key; did you mean {near}?")
}

/// Puts a value into a table, unless there is none or it is an empty table.
fn insert(table: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value
        && value.as_object().is_none_or(|table| !table.is_empty())
    {
        table.insert(name.to_string(), value);
    }
}

impl Kind {
    fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Self::Boolean => bool::check(value).map(|_| ()),
            Self::Text => SingleLine::check(value).map(|_| ()),
            Self::Int32 => i32::check(value).map(|_| ()),
            Self::Int64 => i64::check(value).map(|_| ()),
            Self::Uint32 => number_within(value, u32::WHAT, (0, u32::MAX.into())).map(|_| ()),
            Self::Share => Factor::check(value).map(|_| ()),
            Self::Duration => Duration::check(value).map(|_| ()),
            Self::Quantity => Quantity::check(value).map(|_| ()),
        }
    }

    fn schema(self) -> Schema {
        match self {
            Self::Boolean => bool::schema(),
            Self::Text => SingleLine::schema(),
            Self::Int32 => i32::schema(),
            Self::Int64 => i64::schema(),
            Self::Uint32 => u32::schema(),
            Self::Duration => Duration::schema(),
            Self::Quantity => Quantity::schema(),
            Self::Share => Factor::schema(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Variant};
    use serde_json::json;

    fn faults(settings: Value) -> Vec<String> {
        match Document::from_value(&settings) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn tables_are_well_formed() {
        let tables = KUBELET.iter().map(|(_, table)| *table).chain([CONTAINERD]);
        for table in tables {
            assert!(table.lines().count() > 40, "{table}");
            for line in table.lines().filter(|line| !line.starts_with('#')) {
                let (path, kind) = line.split_once('\t').expect(line);
                assert!(!parts(path).is_empty(), "{line}");
                let word = kind.rsplit(" of ").next().expect(kind);
                let known = [
                    "boolean", "text", "int32", "int64", "uint32", "number", "duration",
                    "quantity", "any",
                ];
                assert!(known.contains(&word), "{line}");
            }
        }
        assert!(KUBELET.is_sorted_by_key(|(minor, _)| *minor));
    }

    #[test]
    fn what_is_refused_is_there() {
        for (fields, refused) in [
            (&KUBELET_FIELDS, refused::KUBELET),
            (&CONTAINERD_FIELDS, refused::CONTAINERD),
        ] {
            for (path, reason) in refused {
                let mut fields = Node::clone(fields);
                let entry = fields.entry(&parts(path));
                assert!(entry.is_some(), "{path} is no field, and cannot be refused");
                assert!(reason.len() > 10, "{path}: {reason}");
            }
        }
    }

    #[test]
    fn fields_without_a_setting_are_taken() {
        let settings = json!({
            "kubelet-configuration": {
                "nodeStatusMaxImages": -1,
                "featureGates": {"SomeGate": true},
                "evictionMinimumReclaim": {"memory.available": "100Mi"},
                "evictionPressureTransitionPeriod": "30s",
                "shutdownGracePeriodByPodPriority": [
                    {"priority": 100, "shutdownGracePeriodSeconds": 10},
                ],
                "logging": {"format": "json", "vmodule": [{"filePattern": "a", "verbosity": 4}]},
            },
            "containerd-configuration": {
                "plugins": {
                    "io.containerd.cri.v1.runtime": {
                        "cni": {"max_conf_num": 0},
                        "containerd": {"runtimes": {"kata": {"runtime_type": "io.containerd.kata.v2"}}},
                    },
                },
            },
        });
        let document = Document::from_value(&settings).expect("good settings");
        assert_eq!(document.to_value(), settings);
        let variant = Variant::parse("metal-k8s-1.36").expect("a variant");
        assert!(document.foreign_to(&variant).is_empty());
        let variant = Variant::parse("metal-core").expect("a variant");
        assert_eq!(document.foreign_to(&variant).len(), 2);
    }

    #[test]
    fn what_a_setting_the_host_or_its_security_decides_is_refused_by_name() {
        for (configuration, key, reason) in [
            (
                json!({"maxPods": 5}),
                "maxPods",
                "settings.kubernetes.max-pods",
            ),
            (
                json!({"authentication": {"anonymous": {"enabled": true}}}),
                "authentication",
                "who may speak to kubelet",
            ),
            (
                json!({"readOnlyPort": 10255}),
                "readOnlyPort",
                "without asking who",
            ),
            (
                json!({"healthzPort": 0}),
                "healthzPort",
                "whether kubelet is well",
            ),
            (
                json!({"staticPodURL": "http://x"}),
                "staticPodURL",
                "settings.kubernetes.static-pods",
            ),
            (
                json!({"nodeStatusMaxImage": 1}),
                "nodeStatusMaxImage",
                "did you mean settings.kubelet-configuration.nodeStatusMaxImages?",
            ),
            (
                json!({"nodeStatusMaxImages": "1"}),
                "nodeStatusMaxImages",
                "write it without quotes",
            ),
            (
                json!({"syncFrequency": 10}),
                "syncFrequency",
                "a length of time",
            ),
            (
                json!({"featureGates": {"A": "true"}}),
                "featureGates.A",
                "expected true or false",
            ),
            (
                json!({"shutdownGracePeriodByPodPriority": [{"priority": 1}, {"priority": "2"}]}),
                "shutdownGracePeriodByPodPriority",
                "item 2: ",
            ),
        ] {
            let told = faults(json!({ "kubelet-configuration": configuration }));
            assert_eq!(told.len(), 1, "{told:?}");
            let key = format!("settings.kubelet-configuration.{key}: ");
            assert!(told[0].starts_with(&key), "{told:?}");
            assert!(told[0].contains(reason), "{told:?}");
        }
        for (configuration, reason) in [
            (json!({"root": "/x"}), "is the host's"),
            (
                json!({"plugins": {"io.containerd.cri.v1.runtime": {"enable_selinux": false}}}),
                "kept apart",
            ),
            (
                json!({"plugins": {"io.containerd.nothing": {}}}),
                "unknown key",
            ),
        ] {
            let told = faults(json!({ "containerd-configuration": configuration }));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains(reason), "{told:?}");
        }
    }

    #[test]
    fn a_field_of_another_minor_version_is_foreign() {
        let document = json!({"kubelet-configuration": {"defaultPodSysctls": {"a.b": "1"}}});
        let document = Document::from_value(&document).expect("good settings");
        for (variant, foreign) in [
            ("metal-k8s-1.36", true),
            ("metal-k8s-1.37", false),
            // Taken for the newest that is known.
            ("metal-k8s-1.99", false),
        ] {
            let variant = Variant::parse(variant).expect(variant);
            let faults = document.foreign_to(&variant);
            assert_eq!(!faults.is_empty(), foreign, "{variant}: {faults}");
            if foreign {
                let told = faults.to_string();
                assert!(
                    told.contains("only variants with Kubernetes 1.37 have it"),
                    "{told}"
                );
            }
        }
    }
}
