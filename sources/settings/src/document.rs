//! A settings document: the sparse tree of what somebody has set, checked.

use crate::variant::Narrowed;
use crate::{Faults, Key, Model, Scope, Settings, Variant, limits};
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
        match Self::salvage_toml(text)? {
            Some((_, faults)) if !faults.is_empty() => Err(faults),
            Some((document, _)) => Ok(Some(document)),
            None => Ok(None),
        }
    }

    /// Takes what is valid out of such a text, and says what is not. An error if
    /// it is not TOML or has no settings.
    pub fn salvage_toml(text: &str) -> Result<Option<(Self, Faults)>, Faults> {
        let Some(table) = parse_toml(text)? else {
            return Ok(None);
        };
        let mut faults = Faults::default();
        let Some(settings) = table.get("settings") else {
            faults.add(
                &Key::root(),
                "the document has no top-level table [settings]",
            );
            return Err(faults);
        };
        let tree = toml_value(settings.get_ref(), &mut Key::root(), &mut faults);
        let (document, more) = Self::salvage(&tree);
        // What could not be turned into JSON is null by now; the fault that says
        // so is there already.
        faults.absorb_unless_known(more);
        faults.locate(|key| line_of(text, &table, key));
        Ok(Some((document, faults)))
    }

    /// What is set here though `variant` has no such setting, or cannot do what the value
    /// asks for; each table or setting once. [`Document::unset`] of these keys leaves the
    /// rest.
    pub fn foreign_to(&self, variant: &Variant) -> Faults {
        let mut faults = Faults::default();
        let schema = Settings::schema();
        schema.note_foreign(&self.tree, variant, &mut Key::root(), &mut faults);
        for narrowed in Narrowed::in_variant(variant) {
            let key = Key::from_parts(narrowed.key);
            // Where there is no such setting, that is said already.
            let is_known = faults.iter().all(|fault| !key.is_within(&fault.key));
            if is_known && self.get(&key).is_some_and(|value| !narrowed.has(value)) {
                faults.add(&key, narrowed.reason);
            }
        }
        faults
    }

    /// The defaults that the model itself declares.
    pub fn defaults() -> Self {
        static DEFAULTS: LazyLock<Document> = LazyLock::new(|| {
            Document::from_value(&Settings::schema().defaults())
                .expect("the model's own defaults are valid, as a test shows")
        });
        DEFAULTS.clone()
    }

    /// Those of them that hold in `variant`. Where nobody knows which variant it
    /// is, those that hold in every one.
    pub fn defaults_of(variant: Option<&Variant>) -> Self {
        let schema = Settings::schema().only(&|scope| match variant {
            Some(variant) => scope.has(variant),
            None => scope == Scope::All,
        });
        Self::defaults().filter(|key| schema.knows(key))
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
        merge_tables(&mut self.tree, &other.tree);
    }

    /// Removes the setting, or all settings of the table, at `key`, and says
    /// which those were. What cannot be without one of them goes as well: the
    /// other one of two limits.
    pub fn unset(&mut self, key: &Key) -> Vec<Key> {
        let before = self.keys();
        for key in before.iter().filter(|set| set.is_within(key)) {
            remove(&mut self.tree, key.parts());
        }
        *self = Self::from(&self.settings());
        let is_gone = |key: &Key| self.get(key).is_none();
        before.into_iter().filter(is_gone).collect()
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

/// Lays one document over another: tables are merged, everything else is replaced.
pub fn lay_over(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => merge_tables(into, over),
        (into, over) => *into = over.clone(),
    }
}

/// Puts the values of one table over those of another, in tables of both likewise.
pub fn merge_tables(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match into.get_mut(name) {
            Some(there) => lay_over(there, value),
            None => {
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
            let twice = error.span().filter(|_| error.message() == "duplicate key");
            let reason = match twice.and_then(|span| text.get(span)) {
                Some(name) => given_twice(text, line, name),
                None => error.message().trim().replace('\n', ", "),
            };
            let reason = format!("not TOML: {reason}");
            Err(Faults::one(Key::root(), reason).at_line(line))
        }
    }
}

/// Says what line `line` gives for the second time: a table, whose first header is
/// looked for, or the key `name`.
fn given_twice(text: &str, line: Option<usize>, name: &str) -> String {
    let header = |line: &str| {
        let line = line.trim();
        let end = line.rfind(']').filter(|_| line.starts_with('['))?;
        Some(line[..=end].to_string())
    };
    let line = line.map_or(0, |line| line - 1);
    let Some(table) = text.lines().nth(line).and_then(header) else {
        return format!("the key {name} is there twice in one table");
    };
    let mut before = text.lines().take(line);
    match before.position(|line| header(line).as_ref() == Some(&table)) {
        Some(first) => format!(
            "the table {table} is there twice, first in line {}; put the two together",
            first + 1
        ),
        None => format!("the table {table} is there already under other headers or keys"),
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

/// Gives faults the lines that their keys have in `text`, if it is TOML.
pub(crate) fn locate(faults: &mut Faults, text: &str) {
    if let Ok(Some(table)) = parse_toml(text) {
        faults.locate(|key| line_of(text, &table, key));
    }
}

/// The line of the key that leads furthest towards `key`, under whichever of its
/// names it is there.
fn line_of(text: &str, document: &DeTable<'_>, key: &Key) -> Option<usize> {
    let schema = Settings::schema();
    let mut line = None;
    let mut table = document;
    let path = std::iter::once("settings").chain(key.parts().iter().map(String::as_str));
    for (depth, part) in path.enumerate() {
        let here = Key::from_parts(key.parts().iter().take(depth));
        let field = schema.field(&here).filter(|field| field.is_named(part));
        let is_other = |name: &str| field.is_some_and(|field| field.is_named(name));
        let by_name = table.iter().find(|(name, _)| name.get_ref() == part);
        let found = by_name.or_else(|| table.iter().find(|(name, _)| is_other(name.get_ref())));
        let Some((name, value)) = found else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use proptest::prelude::*;
    use serde_json::json;

    fn key(text: &str) -> Key {
        text.parse().expect(text)
    }

    fn document(tree: Value) -> Document {
        Document::from_value(&tree).expect("a valid tree")
    }

    #[test]
    fn tables_are_merged_and_all_else_replaced() {
        let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 4});
        lay_over(
            &mut value,
            &json!({"a": {"c": [3], "e": {"f": 5}}, "d": {"g": 6}}),
        );
        assert_eq!(
            value,
            json!({"a": {"b": 1, "c": [3], "e": {"f": 5}}, "d": {"g": 6}})
        );
    }

    #[test]
    fn the_models_own_defaults_are_valid() {
        let defaults = Document::defaults();
        assert_eq!(defaults.get(&key("ntp.options")), Some(&json!(["iburst"])));
        assert_eq!(
            defaults
                .settings()
                .motd
                .map(|motd| motd.as_str().to_string()),
            Some("Welcome to Bulkhead!".to_string())
        );
    }

    #[test]
    fn the_examples_of_all_settings_are_a_document() {
        let document = Document::from_toml(&Settings::schema().examples())
            .expect("valid settings")
            .expect("settings");
        assert!(document.keys().len() > 200, "{}", document.keys().len());
        assert_eq!(document.get(&key("motd")), Some(&json!("Welcome!")));
        assert!(document.get(&key("ntp.options")).is_some());
    }

    #[test]
    fn every_setting_can_be_set() {
        let tree = json!({
            "motd": "two\nlines",
            "ntp": { "time-servers": ["169.254.169.123"], "options": ["iburst", "minpoll 4"] },
            "network": {
                "hostname": "node-1.example.com",
                "hosts": [["10.0.0.1", ["a", "b.example"]], ["fd00::1", []]],
                "https-proxy": "http://user:pw@proxy:3128",
                "no-proxy": ["localhost", ".svc"],
            },
            "dns": { "name-servers": ["10.0.0.2", "fd00::2"], "search-list": ["a.example"] },
            "kernel": {
                "lockdown": "confidentiality",
                "modules": { "xfs": { "allowed": true, "autoload": true }, "udf": { "autoload": false } },
                "sysctl": { "net.ipv4.ip_forward": "1", "vm/swappiness": "" },
            },
            "pki": { "corp": { "data": "", "trusted": true } },
        });
        let document = document(tree.clone());
        assert_eq!(document.to_value(), tree);
        assert_eq!(Document::from(&document.settings()), document);
        let schema = Settings::schema();
        for key in document.keys() {
            assert!(schema.knows(&key), "{key}");
        }
    }

    /// Faults of a TOML document, one a line.
    fn faults(text: &str) -> String {
        Document::from_toml(text).expect_err(text).to_string()
    }

    #[test]
    fn faults_in_toml_come_with_their_lines() {
        for (text, expected) in [
            (
                "motd = 'x'",
                "settings: the document has no top-level table [settings]",
            ),
            (
                "settings = 1",
                "line 1: settings: expected a table, got the number 1",
            ),
            (
                "\n[settings]\nmtod = 'x'",
                "line 3: settings.mtod: unknown key; did you mean settings.motd?",
            ),
            ("[settings.zebra]", "line 1: settings.zebra: unknown key"),
            (
                "[settings.ntp]\n# comment\n'time_servers' = []",
                "line 3: settings.ntp.time_servers: unknown key; did you mean settings.ntp.time-servers?",
            ),
            (
                "[settings.network]\nhosts = [\n  ['10.0.0.1', ['a']],\n  ['x', ['b']],\n]",
                "line 2: settings.network.hosts: item 2: \"x\" is not an IP address",
            ),
            (
                "[settings.network]\nhosts = [['10.0.0.1']]",
                "line 2: settings.network.hosts: item 1: expected a list of exactly two values",
            ),
            (
                "[settings]\nkernel.sysctl.'a b' = 'x'\nkernel.sysctl.y = 1\nmotd = 1979-05-27",
                "line 2: settings.kernel.sysctl.\"a b\": \"a b\" is not a kernel parameter of letters, digits, '.', '/', '-' and '_', at most 128 long, without '..' and without '.' or '/' in front\n\
                 line 3: settings.kernel.sysctl.y: expected a text of one line (a string), got the number 1; put it in quotes (with apiclient set: --json)\n\
                 line 4: settings.motd: no setting is a date; put it in quotes if it is a text",
            ),
            (
                "[settings.kernel.modules.'../x']\nallowed = true",
                "line 1: settings.kernel.modules.\"../x\": \"../x\" is not a module name of letters, digits, '-' and '_', at most 56 long",
            ),
            (
                "[settings.pki.a]\ntrusted = 'yes'",
                "line 2: settings.pki.a.trusted: expected true or false, got a string",
            ),
            (
                "[settings]\nmotd = 7.0",
                "line 2: settings.motd: expected a text of at most 64 KiB (a string), got the number 7.0 (a float; the integer is written 7); put it in quotes (with apiclient set: --json)",
            ),
            (
                "[settings.dns]\nname-servers = 1e400",
                "line 2: settings.dns.name-servers: the number is not finite",
            ),
            (
                "[settings.dns]\nname-servers = 99999999999999999999",
                "line 2: settings.dns.name-servers: the number does not fit into 64 bits",
            ),
        ] {
            assert_eq!(faults(text), expected, "{text}");
        }
        for (text, line) in [
            ("[settings]\nmotd = ", "line 2: settings: not TOML: "),
            ("[settings\n", "line 1: settings: not TOML: "),
            (
                "[settings]\nmotd = 'a'\nmotd = 'b'",
                "line 3: settings: not TOML: the key motd is there twice in one table",
            ),
            (
                "[settings.ntp]\noptions = []\n [settings.ntp] # again\n",
                "line 3: settings: not TOML: the table [settings.ntp] is there twice, first in line 1; put the two together",
            ),
            (
                "[settings]\nntp.options = []\n[settings.ntp]\n",
                "line 3: settings: not TOML: the table [settings.ntp] is there already under other headers or keys",
            ),
            ("[settings]\n\u{0}", "line 2: settings: not TOML: "),
        ] {
            let faults = faults(text);
            assert!(faults.starts_with(line), "{text}: {faults}");
        }
    }

    #[test]
    fn secrets_are_not_repeated_in_faults() {
        let faults = faults(
            "[settings]\nnetwork.https-proxy = 'http://user:hunter2@p x'\npki.a.data = 'hunter2!'\n\
             kernel.sysctl.a = \"hunter2\\n\"\nmotd = ['hunter2']",
        );
        assert_eq!(faults.lines().count(), 4, "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
        for setting in [
            "kubernetes.bootstrap-token = '77777!'",
            "kubernetes.server-key = '77777!'",
            "container-registry.credentials = [{ password = 77777 }]",
            "container-registry.credentials = [{ password = \"77777\\n\" }]",
            "container-registry.credentials = [{ identitytoken = 77777.5 }]",
            "container-registry.credentials = [{ auth = '77777' }]",
            "aws.config = '77777'",
            "aws.credentials = '77777'",
            "host-containers.admin.user-data = '77777'",
            "network.https-proxy = 'http://u:77777@'",
        ] {
            let faults = self::faults(&format!("settings.{setting}"));
            assert!(!faults.contains("77777"), "{faults}");
        }
    }

    #[test]
    fn what_is_no_settings_document() {
        assert_eq!(Document::from_toml(" \n\t"), Ok(None));
        assert_eq!(
            Document::from_toml("[settings]"),
            Ok(Some(Document::default()))
        );
        assert_eq!(
            Document::from_toml("[settings.ntp]\n[other]\nx = 1979-05-27"),
            Ok(Some(Document::default())),
            "empty tables set nothing, other tables are not looked at"
        );
    }

    #[test]
    fn too_much_is_refused() {
        let mut many = String::from("[settings.kernel.sysctl]\n");
        for n in 0..100_000 {
            many.push_str(&format!("k{n}=''\n"));
        }
        assert!(many.len() < limits::DOCUMENT_BYTES);
        let told = faults(&many);
        assert_eq!(
            told,
            "line 1: settings: the document has 100002 keys; at most 10000 are taken"
        );
        let large = format!("[settings]\nmotd = '{}'", "x".repeat(10 * 1024 * 1024));
        let told = faults(&large);
        assert!(told.contains("at most 2097152 are taken"), "{told}");
        let wrong = (0..1000).map(|n| format!("k{n} = 1\n")).collect::<String>();
        let told = faults(&format!("[settings]\n{wrong}"));
        assert!(told.ends_with("\nand 968 more faults"), "{told}");
        let deep = format!("settings.x = {}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(faults(&deep).contains("not TOML"));
    }

    #[test]
    fn salvage_keeps_what_is_valid() {
        let (document, faults) = Document::salvage(&json!({
            "motd": "x",
            "gone": 1,
            "ntp": { "options": ["a", 1], "time-servers": ["t"] },
            "kernel": { "modules": { "a": { "allowed": 1, "autoload": true }, "..": {} } },
        }));
        assert_eq!(
            document.to_value(),
            json!({
                "motd": "x",
                "ntp": { "time-servers": ["t"] },
                "kernel": { "modules": { "a": { "autoload": true } } },
            })
        );
        let keys: Vec<String> = faults.iter().map(|fault| fault.key.to_string()).collect();
        assert_eq!(
            keys,
            [
                "settings.gone",
                "settings.ntp.options",
                "settings.kernel.modules.\"..\"",
                "settings.kernel.modules.a.allowed",
            ]
        );
    }

    #[test]
    fn layers_and_removal() {
        let mut settings =
            document(json!({"ntp": {"options": ["a"]}, "kernel": {"sysctl": {"a.b": "1"}}}));
        settings.merge(&document(
            json!({"ntp": {"options": ["b"], "time-servers": []}, "motd": "x"}),
        ));
        assert_eq!(
            settings.to_value(),
            json!({
                "motd": "x",
                "ntp": { "options": ["b"], "time-servers": [] },
                "kernel": { "sysctl": { "a.b": "1" } },
            })
        );
        assert_eq!(
            settings.unset(&key("kernel")),
            [key("kernel.sysctl.\"a.b\"")]
        );
        assert_eq!(settings.unset(&key("kernel")), []);
        assert_eq!(settings.unset(&key("ntp.options")), [key("ntp.options")]);
        assert_eq!(
            settings.to_value(),
            json!({"motd": "x", "ntp": {"time-servers": []}})
        );
        assert_eq!(settings.unset(&Key::root()).len(), 2);
        assert!(settings.is_empty());
    }

    #[test]
    fn the_schema_tells_what_there_is() {
        let schema = Settings::schema();
        for (text, known) in [
            ("motd", true),
            ("ntp", true),
            ("kernel.modules.anything.allowed", true),
            ("kernel.sysctl.\"a.b\"", true),
            ("pki.x", true),
            ("motd.x", false),
            ("kernel.modules.x.y", false),
            ("nothing", false),
        ] {
            assert_eq!(schema.knows(&key(text)), known, "{text}");
        }
        let json = schema.json_schema();
        let at = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/additionalProperties"), json!(false));
        assert_eq!(
            at("/properties/ntp/properties/options/default"),
            json!(["iburst"])
        );
        assert_eq!(
            at("/properties/kernel/properties/lockdown/enum"),
            json!(["none", "integrity", "confidentiality"])
        );
        let skeleton = schema.skeleton();
        for (pointer, expected) in [
            ("/kernel/modules", Some(json!({}))),
            ("/kubernetes/node-labels", Some(json!({}))),
            (
                "/oci-defaults/resource-limits/max-open-files",
                Some(json!({})),
            ),
            ("/motd", None),
            ("/kernel/lockdown", None),
            ("/pki", Some(json!({}))),
        ] {
            assert_eq!(skeleton.pointer(pointer), expected.as_ref(), "{pointer}");
        }
    }

    #[test]
    fn settings_of_other_variants_are_foreign() {
        let text = "[settings]\nmotd = 'x'\n[settings.autoscaling]\nshould-wait = false\n\
                    [settings.cloudformation]\nstack-name = 's'\nshould-signal = false";
        let document = Document::from_toml(text)
            .expect("valid")
            .expect("not empty");
        for (id, expected) in [
            ("aws-k8s-1.36", ""),
            (
                "aws-core",
                "line 3: settings.autoscaling: unknown key in aws-core; only variants for EC2 with Kubernetes have it",
            ),
            (
                "metal-k8s-1.36",
                "line 3: settings.autoscaling: unknown key in metal-k8s-1.36; only variants for EC2 with Kubernetes have it\n\
                 line 5: settings.cloudformation: unknown key in metal-k8s-1.36; only variants for EC2 have it",
            ),
        ] {
            let variant = Variant::parse(id).expect(id);
            let mut foreign = document.foreign_to(&variant);
            foreign.locate_in(text);
            assert_eq!(foreign.to_string(), expected, "{id}");
            let schema = Settings::schema_for(&variant);
            let mut native = document.clone();
            for fault in foreign.iter() {
                assert!(!schema.knows(&fault.key), "{}", fault.key);
                native.unset(&fault.key);
            }
            assert!(native.foreign_to(&variant).is_empty());
            assert!(native.keys().iter().all(|key| schema.knows(key)));
        }
    }

    #[test]
    fn what_a_variant_cannot_do_is_foreign_though_it_has_the_setting() {
        for (text, id, reason) in [
            (
                "kubernetes.authentication-mode = 'aws'",
                "aws-k8s-1.36",
                None,
            ),
            (
                "kubernetes.authentication-mode = 'tls'",
                "metal-k8s-1.36",
                None,
            ),
            (
                "kubernetes.authentication-mode = 'aws'",
                "metal-k8s-1.36",
                Some("only variants for EC2 have what proves a role"),
            ),
            (
                "kubernetes.authentication-mode = 'aws'",
                "vmware-k8s-1.36",
                Some("only variants for EC2 have what proves a role"),
            ),
            // Said once.
            (
                "kubernetes.authentication-mode = 'aws'",
                "metal-core",
                Some("settings.kubernetes: unknown key"),
            ),
            ("autoscaling.should-wait = false", "aws-k8s-1.36", None),
            (
                "autoscaling.should-wait = true",
                "aws-k8s-1.36",
                Some("does not wait for its turn"),
            ),
            ("cloudformation.stack-name = 's'", "aws-core", None),
            (
                "cloudformation.should-signal = true",
                "aws-core",
                Some("sends no signal"),
            ),
        ] {
            let mut document = Document::from_toml(&format!("[settings]\n{text}"))
                .expect(text)
                .expect("not empty");
            let variant = Variant::parse(id).expect(id);
            let foreign = document.foreign_to(&variant);
            assert_eq!(foreign.len(), usize::from(reason.is_some()), "{foreign}");
            let told = foreign.to_string();
            assert!(told.contains(reason.unwrap_or_default()), "{told}");
            for fault in foreign.iter() {
                document.unset(&fault.key);
            }
            assert!(document.foreign_to(&variant).is_empty(), "{text}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_variant() {
        let schema = Settings::schema();
        for (id, waits, signals) in [
            ("aws-k8s-1.36", true, true),
            ("aws-core", false, true),
            ("metal-core", false, false),
            ("", false, false),
        ] {
            let defaults = Document::defaults_of(Variant::parse(id).ok().as_ref());
            let has = |text| defaults.get(&key(text)).is_some();
            assert!(has("motd"));
            assert_eq!(has("autoscaling.should-wait"), waits, "{id}");
            assert_eq!(has("cloudformation.should-signal"), signals, "{id}");
            assert!(defaults.keys().iter().all(|key| schema.knows(key)));
        }
    }

    #[test]
    fn unknown_keys_have_neighbours() {
        let schema = Settings::schema();
        for (wrong, near) in [
            ("mtod", Some("motd")),
            ("ntp.time_servers", Some("ntp.time-servers")),
            ("netwrok.hostname", Some("network.hostname")),
            ("netwrok.hostnaem", Some("network.hostname")),
            ("netwrok.zebra", Some("network")),
            (
                "kernel.modules.xfs.alowed",
                Some("kernel.modules.xfs.allowed"),
            ),
            ("motd.x", None),
            ("zebra", None),
            ("motd", None),
        ] {
            assert_eq!(schema.nearest(&key(wrong)), near.map(key), "{wrong}");
        }
        let doc = |text| schema.field(&key(text)).map(|field| field.doc.trim());
        assert_eq!(doc("motd.x"), None);
        assert_eq!(doc("pki.corp"), doc("pki"));
        assert_ne!(doc("pki.corp.data"), doc("pki"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("motd"),
            Just("kubernetes"),
            Just("node-taints"),
            Just("cluster-dns-ip"),
            Just("container-registry"),
            Just("mirrors"),
            Just("boot"),
            Just("kernel-parameters"),
            Just("static"),
            Just("2Mi"),
            Just("ntp"),
            Just("options"),
            Just("kernel"),
            Just("modules"),
            Just("sysctl"),
            Just("allowed"),
            Just("network"),
            Just("hosts"),
            Just("pki"),
            Just("a.b"),
            Just("\"\n"),
            Just(""),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|table| {
                    let table = table
                        .into_iter()
                        .map(|(name, value)| (name.to_string(), value));
                    Value::Object(table.collect())
                }),
            ]
        })
    }

    /// Every setting that there is, with a value that is accepted.
    fn examples() -> Vec<(Key, Value)> {
        let settings = properties::all_settings().into_iter();
        let examples = settings.map(|(key, _, example)| {
            let table: toml::Table = format!("x = {example}").parse().expect("TOML");
            (key, serde_json::to_value(&table["x"]).expect("no date"))
        });
        examples.collect()
    }

    #[test]
    fn all_settings_at_once() {
        let mut tree = Map::new();
        let examples = examples();
        for (key, value) in &examples {
            insert(&mut tree, key.parts(), value.clone());
        }
        assert!(examples.len() > 230, "{}", examples.len());
        let tree = Value::Object(tree);
        let (document, faults) = Document::salvage(&tree);
        assert!(faults.is_empty(), "{faults}");
        assert_eq!(document.keys().len(), examples.len());
        properties::tree_of_settings(&tree);
    }

    /// Some of all settings, most of them with good values.
    fn settings() -> impl Strategy<Value = Value> {
        let examples = examples();
        let one = (0..examples.len(), prop::option::weighted(0.2, value()));
        prop::collection::vec(one, 0..12).prop_map(move |chosen| {
            let mut tree = Map::new();
            for (n, other) in chosen {
                let (key, value) = &examples[n];
                insert(
                    &mut tree,
                    key.parts(),
                    other.unwrap_or_else(|| value.clone()),
                );
            }
            Value::Object(tree)
        })
    }

    #[test]
    fn limits_go_together() {
        let limit = |part: &str| {
            key(&format!(
                "oci-defaults.resource-limits.max-core-file-size.{part}"
            ))
        };
        for (hard, soft, good) in [
            (json!(10), json!(5), true),
            (json!("unlimited"), json!(5), true),
            (json!(-1), json!("unlimited"), true),
            (json!(5), json!(10), false),
            (json!(5), json!("unlimited"), false),
            (json!(5), json!(-2), false),
            (json!(5), json!("none"), false),
        ] {
            let limits = json!({ "hard-limit": hard, "soft-limit": soft });
            let tree = Document::single(&limit("x"), json!(0));
            let mut tree = tree;
            tree["oci-defaults"]["resource-limits"]["max-core-file-size"] = limits;
            assert_eq!(Document::from_value(&tree).is_ok(), good, "{hard} {soft}");
        }
        let half = Document::single(&limit("hard-limit"), json!(5));
        let faults = Document::from_value(&half)
            .expect_err("half a limit")
            .to_string();
        assert!(faults.contains("only taken together"), "{faults}");
        let mut whole = document(json!({ "oci-defaults": { "resource-limits": {
            "max-core-file-size": { "hard-limit": "unlimited", "soft-limit": 0 } } } }));
        assert_eq!(whole.get(&limit("hard-limit")), Some(&json!(-1)));
        let removed = whole.unset(&limit("soft-limit"));
        assert_eq!(removed, [limit("hard-limit"), limit("soft-limit")]);
        assert!(whole.is_empty());
    }

    #[test]
    fn other_names_of_settings() {
        for (given, returned) in [
            (
                json!({"boot": {"kernel-parameters": {"a.b": ["1"]}}}),
                json!({"boot": {"kernel": {"a.b": ["1"]}}}),
            ),
            (
                json!({"boot": {"init-parameters": {"a": []}, "kernel": {"b": []}}}),
                json!({"boot": {"init": {"a": []}, "kernel": {"b": []}}}),
            ),
            (
                json!({"container-registry": {"creds": [{"registry": "r", "auth": "YTpi"}]}}),
                json!({"container-registry": {"credentials": [{"registry": "r", "auth": "YTpi"}]}}),
            ),
            (
                json!({"container-registry": {"mirrors": {"b": ["http://c"], "*": []}}}),
                json!({"container-registry": {"mirrors": [
                    {"registry": "*", "endpoint": []}, {"registry": "b", "endpoint": ["http://c"]}]}}),
            ),
            (
                json!({"container-runtime": {"concurrent-layer-fetch-buffer": "64mb"}}),
                json!({"container-runtime": {"concurrent-download-chunk-size": 64_000_000}}),
            ),
        ] {
            assert_eq!(document(given).to_value(), returned);
        }
        let text = "[settings.boot.kernel]\na = []\n[settings.boot.kernel-parameters]\nb = []";
        assert_eq!(
            faults(text),
            "line 3: settings.boot.kernel-parameters: the same setting as settings.boot.kernel; give one of them"
        );
        let text =
            "[settings.container-registry]\nmirrors = [{ registry = 'a' }, { endpiont = [] }]";
        assert_eq!(
            faults(text),
            "line 2: settings.container-registry.mirrors: item 2: endpiont: unknown key; did you mean settings.container-registry.mirrors.endpoint?"
        );
    }

    proptest! {
        #[test]
        fn some_of_all_settings_are_taken_or_refused(tree in settings()) {
            properties::tree_of_settings(&tree);
        }

        #[test]
        fn any_tree_is_taken_or_refused(tree in value()) {
            properties::tree_of_settings(&tree);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "(\\[settings(\\.[a-z\"']{0,3})?\\]\n?)?(\\PC|[\n\"'\\[\\]{}=.,#]){0,60}") {
            properties::toml(text.as_bytes());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            properties::toml(&bytes);
            properties::json(&bytes);
            properties::key(&bytes);
        }
    }
}
