//! How a setting is declared, and what follows from a declaration.
//!
//! Reading never stops at the first fault: [`Model::read`] notes each one with
//! its key and goes on, so that somebody with three typing errors learns of
//! three. Serde's derive cannot do that, which is why the macro [`group!`]
//! takes its place here.

use crate::fault::nearest;
use crate::variant::Narrowed;
use crate::{Faults, Key, Scope, Variant};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A type that settings can have.
pub trait Model: Sized {
    /// Reads the value found at `at`. Each fault is noted; what is faulty is
    /// left out of the result, and without anything left there is none.
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self>;

    /// The value in the form in which it is stored and sent.
    fn write(&self) -> Value;

    /// What may be written.
    fn schema() -> Schema;
}

/// A type that a single text, number or boolean is checked into.
pub trait Scalar: Sized {
    /// What is accepted, as a noun: "a host name".
    const WHAT: &'static str;
    /// `string`, `boolean`, `integer` or `number`.
    const KIND: &'static str = "string";
    /// A value in TOML. Empty if there are [`Scalar::choices`]: the first.
    const EXAMPLE: &'static str;
    /// What every text of it matches, where that is simple (ECMA-262).
    const PATTERN: Option<&'static str> = None;
    /// The least and the greatest number.
    const RANGE: Option<(i64, i64)> = None;

    /// Checks the value.
    fn check(value: &Value) -> Result<Self, String>;

    /// The value in the form in which it is stored and sent.
    fn value(&self) -> Value;

    /// All values there are, if few, as words.
    fn choices() -> Option<&'static [&'static str]> {
        None
    }
}

/// A type for names that the user chooses, such as those of certificate bundles.
pub trait MapKey: Ord + Sized {
    /// What is accepted, as a noun: "a name of letters, digits and '-'".
    const WHAT: &'static str;
    /// A name that is accepted.
    const EXAMPLE: &'static str;

    /// Checks the name.
    fn check(name: &str) -> Option<Self>;

    /// The name as text.
    fn as_str(&self) -> &str;
}

/// What may be written at some place. A copy is cheap: tables are shared.
#[derive(Clone, Debug)]
pub enum Schema {
    /// A table with known keys.
    Table {
        /// What the table is about.
        doc: &'static str,
        /// Its keys.
        fields: Arc<[Field]>,
        /// A [`Schema::Map`] of further keys, which the user chooses.
        others: Option<Box<Schema>>,
    },
    /// A table whose keys the user chooses.
    Map {
        /// What the keys are.
        key: &'static str,
        /// One that is accepted.
        example: &'static str,
        /// What lies behind each.
        value: Box<Schema>,
    },
    /// A list, which is always set as a whole.
    List(Box<Schema>),
    /// A pair, written as a list of two.
    Pair(Box<(Schema, Schema)>),
    /// One of two forms, of which the first is the usual one.
    Either(Box<(Schema, Schema)>),
    /// A single value.
    Scalar {
        /// `string`, `boolean`, `integer` or `number`.
        kind: &'static str,
        /// What is accepted, as a noun.
        what: &'static str,
        /// All values there are, if few, as words.
        choices: Option<&'static [&'static str]>,
        /// What every text of it matches, where that is simple (ECMA-262).
        pattern: Option<&'static str>,
        /// The least and the greatest number.
        range: Option<(i64, i64)>,
        /// A value in TOML.
        example: &'static str,
    },
}

/// A key of a table.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What may be written.
    pub schema: Schema,
    /// Its value where neither variant, host nor user says otherwise.
    pub default: Option<Value>,
    /// What computes it on the host while it is unset.
    pub generated: Option<&'static str>,
    /// Which variants have it.
    pub scope: Scope,
    /// Another name under which it is taken. It is stored under its own.
    pub alias: Option<&'static str>,
    /// A value in TOML, where one of its type would not do.
    pub example: Option<&'static str>,
    /// Whether nobody but the host may see its value.
    pub secret: bool,
}

/// A setting that the host computes while it is unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generator {
    /// The setting.
    pub key: Key,
    /// The name of what computes it; `settings-agent` knows it by that.
    pub name: &'static str,
}

/// Settings with a generator in tables whose keys the user chooses, where no declaration
/// could name it.
const IN_MAPS: [(&str, &str); 1] = [("host-containers.admin.user-data", "admin-user-data")];

impl Schema {
    /// The defaults of all settings below, as a tree.
    pub fn defaults(&self) -> Value {
        let mut tree = Map::new();
        if let Self::Table { fields, .. } = self {
            for field in fields.iter() {
                let value = match &field.default {
                    Some(value) => value.clone(),
                    None => field.schema.defaults(),
                };
                if value.as_object().is_none_or(|table| !table.is_empty()) {
                    tree.insert(field.name.to_string(), value);
                }
            }
        }
        Value::Object(tree)
    }

    /// The tables without any setting in them, those that the user names left
    /// out. Templates can then ask for a setting without asking for its table.
    pub fn skeleton(&self) -> Value {
        let mut tree = Map::new();
        if let Self::Table { fields, .. } = self {
            for field in fields.iter() {
                if matches!(field.schema, Self::Table { .. } | Self::Map { .. }) {
                    tree.insert(field.name.to_string(), field.schema.skeleton());
                }
            }
        }
        Value::Object(tree)
    }

    /// All settings that the host computes while they are unset.
    pub fn generators(&self) -> Vec<Generator> {
        let mut found = Vec::new();
        self.collect_generators(&mut Key::root(), &mut found);
        let in_maps = IN_MAPS.iter().filter_map(|(key, name)| {
            let key = key.parse().ok()?;
            self.knows(&key).then_some(Generator { key, name })
        });
        found.extend(in_maps);
        found
    }

    fn collect_generators(&self, at: &mut Key, found: &mut Vec<Generator>) {
        if let Self::Table { fields, .. } = self {
            for field in fields.iter() {
                at.push(field.name);
                if let Some(name) = field.generated {
                    found.push(Generator {
                        key: at.clone(),
                        name,
                    });
                }
                field.schema.collect_generators(at, found);
                at.pop();
            }
        }
    }

    /// `key` by the names that settings are stored under, where it has other ones.
    pub fn canonical(&self, key: &Key) -> Key {
        let mut canonical = Key::root();
        for part in key.parts() {
            let name = match self.at(&canonical) {
                Some(Self::Table { fields, .. }) => fields
                    .iter()
                    .find(|field| field.is_named(part))
                    .map_or(part.as_str(), |field| field.name),
                _ => part,
            };
            canonical.push(name);
        }
        canonical
    }

    /// True if `key` names a setting or a table that there can be.
    pub fn knows(&self, key: &Key) -> bool {
        self.walk(key).is_ok()
    }

    /// The declaration of the setting or table `key`. What lies in a table whose
    /// keys the user chooses has that of the table, unless it has its own.
    pub fn field(&self, key: &Key) -> Option<&Field> {
        self.walk(key).ok()?.0
    }

    /// What may be written at `key`.
    pub fn at(&self, key: &Key) -> Option<&Schema> {
        Some(self.walk(key).ok()?.1)
    }

    /// The key that somebody who wrote the unknown `key` most likely meant, if
    /// one is near.
    pub fn nearest(&self, key: &Key) -> Option<Key> {
        let (depth, table) = self.walk(key).err()?;
        let Self::Table { fields, .. } = table else {
            return None;
        };
        let wrong = key.parts().get(depth)?;
        let meant = nearest(wrong, fields.iter().map(|field| field.name))?;
        let (before, after) = (&key.parts()[..depth], &key.parts()[depth + 1..]);
        let mut found = Key::from_parts(before).child(meant);
        // The rest of it may be as wrong; then the table is what is near.
        let mut whole = found.clone();
        after.iter().for_each(|part| whole.push(part));
        if self.knows(&whole) {
            found = whole;
        } else if let Some(whole) = self.nearest(&whole) {
            found = whole;
        }
        Some(found)
    }

    /// Follows `key`, to the innermost declaration and what may be written
    /// there; or to the first part that is not known, by its number, and what
    /// there is instead.
    fn walk(&self, key: &Key) -> Result<(Option<&Field>, &Schema), (usize, &Schema)> {
        let mut here = self;
        let mut innermost = None;
        for (depth, part) in key.parts().iter().enumerate() {
            here = match here {
                Self::Table { fields, others, .. } => {
                    match (
                        fields.iter().find(|field| field.is_named(part)),
                        others.as_deref(),
                    ) {
                        (Some(field), _) => {
                            innermost = Some(field);
                            &field.schema
                        }
                        (None, Some(Self::Map { value, .. })) => value,
                        _ => return Err((depth, here)),
                    }
                }
                Self::Map { value, .. } => value,
                Self::List(_) | Self::Pair(_) | Self::Either(_) | Self::Scalar { .. } => {
                    return Err((depth, here));
                }
            };
        }
        Ok((innermost, here))
    }

    /// What of it `variant` has.
    pub fn for_variant(&self, variant: &Variant) -> Self {
        let mut own = self.only(&|scope| scope.has(variant));
        for narrowed in Narrowed::in_variant(variant) {
            own.narrow(&narrowed.key, narrowed.words);
        }
        own
    }

    /// Leaves of the single value at `key`, if it is there, only some words.
    fn narrow(&mut self, key: &[&str], words: &'static [&'static str]) {
        match (self, key) {
            (Self::Table { fields, .. }, [name, rest @ ..]) => {
                let mut fields = Arc::make_mut(fields).iter_mut();
                if let Some(field) = fields.find(|field| field.name == *name) {
                    field.schema.narrow(rest, words);
                }
            }
            (Self::Scalar { choices, .. }, []) => *choices = Some(words),
            _ => {}
        }
    }

    /// What of it has a scope that `wanted` accepts.
    pub(crate) fn only(&self, wanted: &dyn Fn(Scope) -> bool) -> Self {
        match self {
            Self::Table {
                doc,
                fields,
                others,
            } => Self::Table {
                doc,
                others: others.clone(),
                fields: fields
                    .iter()
                    .filter(|field| wanted(field.scope))
                    .map(|field| Field {
                        schema: field.schema.only(wanted),
                        ..field.clone()
                    })
                    .collect(),
            },
            Self::Map {
                key,
                example,
                value,
            } => Self::Map {
                key,
                example,
                value: Box::new(value.only(wanted)),
            },
            // A list is one setting, and has no scope within it.
            Self::List(_) | Self::Pair(_) | Self::Either(_) | Self::Scalar { .. } => self.clone(),
        }
    }

    /// Notes what is set in `table`, which lies at `at`, and is not there in
    /// `variant`: the outermost table or setting of each kind.
    pub(crate) fn note_foreign(
        &self,
        table: &Map<String, Value>,
        variant: &Variant,
        at: &mut Key,
        faults: &mut Faults,
    ) {
        for (name, value) in table {
            at.push(name);
            let schema = match self {
                Self::Table { fields, .. } => {
                    let field = fields.iter().find(|field| field.is_named(name));
                    if let Some(scope) = field.map(|field| field.scope)
                        && !scope.has(variant)
                    {
                        let words = scope.words();
                        faults.add(
                            at,
                            format!("unknown key in {variant}; only {words} have it"),
                        );
                    }
                    field
                        .filter(|field| field.scope.has(variant))
                        .map(|field| &field.schema)
                }
                Self::Map { value, .. } => Some(value.as_ref()),
                Self::List(_) | Self::Pair(_) | Self::Either(_) | Self::Scalar { .. } => None,
            };
            if let (Some(schema), Value::Object(table)) = (schema, value) {
                schema.note_foreign(table, variant, at, faults);
            }
            at.pop();
        }
    }

    /// A document in TOML that sets every setting to its example.
    pub fn examples(&self) -> String {
        let mut document = String::new();
        self.write_examples(&mut Key::root(), &mut document);
        document
    }

    fn write_examples(&self, at: &mut Key, document: &mut String) {
        match self {
            Self::Table { fields, .. } => {
                for field in fields.iter() {
                    at.push(field.name);
                    match field.example {
                        Some(example) => document.push_str(&format!("{at} = {example}\n")),
                        None => field.schema.write_examples(at, document),
                    }
                    at.pop();
                }
            }
            Self::Map { example, value, .. } => {
                at.push(example);
                value.write_examples(at, document);
                at.pop();
            }
            _ => document.push_str(&format!("{at} = {}\n", self.example())),
        }
    }

    /// A value that is accepted, in TOML. Of a table it is one of the first key.
    pub fn example(&self) -> String {
        match self {
            Self::Table { fields, .. } => match fields.first() {
                Some(field) => format!("{{ {} = {} }}", toml_key(field.name), field.example()),
                None => "{}".to_string(),
            },
            Self::Map { example, value, .. } => {
                format!("{{ {} = {} }}", toml_key(example), value.example())
            }
            Self::List(item) => format!("[{}]", item.example()),
            Self::Pair(pair) => format!("[{}, {}]", pair.0.example(), pair.1.example()),
            Self::Either(forms) => forms.0.example(),
            Self::Scalar {
                kind: "string",
                choices: Some([first, ..]),
                ..
            } => toml_string(first),
            Self::Scalar {
                choices: Some([first, ..]),
                ..
            } => first.to_string(),
            Self::Scalar { example, .. } => example.to_string(),
        }
    }
}

impl Field {
    /// A value that is accepted, in TOML.
    pub fn example(&self) -> String {
        match self.example {
            Some(example) => example.to_string(),
            None => self.schema.example(),
        }
    }

    /// True if `name` is its name or its other name.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }
}

/// One part of a key as TOML writes it.
pub(crate) fn toml_key(part: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !part.is_empty() && part.chars().all(is_bare) {
        part.to_string()
    } else {
        toml_string(part)
    }
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

impl<S: Scalar> Model for S {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        S::check(value)
            .map_err(|reason| faults.add(at, reason))
            .ok()
    }

    fn write(&self) -> Value {
        self.value()
    }

    fn schema() -> Schema {
        Schema::Scalar {
            kind: S::KIND,
            what: S::WHAT,
            choices: S::choices(),
            pattern: S::PATTERN,
            range: S::RANGE,
            example: S::EXAMPLE,
        }
    }
}

impl<T: Model> Model for Vec<T> {
    /// A list stands and falls as a whole, for half a list means something else.
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let items = list_items(value, at, faults)?;
        let mut list = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            let mut inner = Faults::default();
            match T::read(item, at, &mut inner) {
                Some(item) if inner.is_empty() => list.push(item),
                _ => note_item(n, &inner, at, faults),
            }
        }
        (list.len() == items.len()).then_some(list)
    }

    fn write(&self) -> Value {
        self.iter().map(Model::write).collect()
    }

    fn schema() -> Schema {
        Schema::List(Box::new(T::schema()))
    }
}

impl<A: Model, B: Model> Model for (A, B) {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        match value.as_array().map(Vec::as_slice) {
            Some([a, b]) => {
                let a = A::read(a, at, faults);
                let b = B::read(b, at, faults);
                Some((a?, b?))
            }
            _ => {
                faults.add(at, "expected a list of exactly two values");
                None
            }
        }
    }

    fn write(&self) -> Value {
        json!([self.0.write(), self.1.write()])
    }

    fn schema() -> Schema {
        Schema::Pair(Box::new((A::schema(), B::schema())))
    }
}

impl<K: MapKey, V: Model> Model for BTreeMap<K, V> {
    fn read(value: &Value, at: &mut Key, faults: &mut Faults) -> Option<Self> {
        let mut map = Self::new();
        for (name, value) in table_entries(value, at, faults)? {
            at.push(name);
            match K::check(name) {
                Some(key) => {
                    if let Some(value) = V::read(value, at, faults) {
                        map.insert(key, value);
                    }
                }
                None => note_name(name, K::WHAT, at, faults),
            }
            at.pop();
        }
        Some(map)
    }

    fn write(&self) -> Value {
        let entries = self
            .iter()
            .map(|(key, value)| (key.as_str().to_string(), value.write()));
        Value::Object(
            entries
                .filter(|(_, value)| !is_empty_table(value))
                .collect(),
        )
    }

    fn schema() -> Schema {
        Schema::Map {
            key: K::WHAT,
            example: K::EXAMPLE,
            value: Box::new(V::schema()),
        }
    }
}

// What does not depend on a type stands by itself, since the rest is there once
// for each type of list and table.

fn list_items<'v>(value: &'v Value, at: &Key, faults: &mut Faults) -> Option<&'v [Value]> {
    if value.as_array().is_none() {
        faults.add(at, format!("expected a list, got {}", describe(value)));
    }
    value.as_array().map(Vec::as_slice)
}

/// Notes the faults of item `n` of the list at `at`.
fn note_item(n: usize, inner: &Faults, at: &Key, faults: &mut Faults) {
    for fault in inner.iter() {
        let within = &fault.key.parts()[at.parts().len()..];
        let within: String = within.iter().map(|part| format!("{part}: ")).collect();
        let item = n + 1;
        faults.add(at, format!("item {item}: {within}{}", fault.reason));
    }
}

pub(crate) fn table_entries<'v>(
    value: &'v Value,
    at: &Key,
    faults: &mut Faults,
) -> Option<&'v Map<String, Value>> {
    if value.as_object().is_none() {
        faults.add(at, format!("expected a table, got {}", describe(value)));
    }
    value.as_object()
}

fn note_name(name: &str, what: &str, at: &Key, faults: &mut Faults) {
    faults.add(at, format!("{name:?} is not {what}"));
}

/// Declares a table of settings: the struct, its reading and writing, its schema.
///
/// After the key come the field, its type, and, where there is one, `alias`
/// with another name for the key, `default` with a JSON value, `generated` with
/// the name of a generator, `only` with the [`Scope`] of the variants that have
/// it, `example` with a value in TOML, and `secret` if nobody but the host may see it.
macro_rules! group {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])+
                $key:literal => $field:ident: $type:ty
                    $(, alias $alias:literal)?
                    $(, default $default:tt)?
                    $(, generated $generated:literal)?
                    $(, only $scope:ident)?
                    $(, example $example:literal)?
                    $(, secret $secret:literal)? ;
            )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: Option<$type>, )*
        }

        impl $crate::Model for $name {
            fn read(
                value: &serde_json::Value,
                at: &mut $crate::Key,
                faults: &mut $crate::Faults,
            ) -> Option<Self> {
                const NAMES: &[$crate::model::Name] = &[$(
                    $crate::model::Name {
                        key: $key,
                        alias: $crate::model::group!(@option $($alias)?),
                        secret: $crate::model::group!(@flag $($secret)?),
                    },
                )*];
                let table = $crate::model::read_table(value, NAMES, at, faults)?;
                let mut names = NAMES.iter();
                Some(Self {
                    $( $field: $crate::model::read_field(table, names.next(), at, faults), )*
                })
            }

            fn write(&self) -> serde_json::Value {
                let mut table = serde_json::Map::new();
                $( $crate::model::write_field(&mut table, $key, &self.$field); )*
                serde_json::Value::Object(table)
            }

            fn schema() -> $crate::Schema {
                static FIELDS: std::sync::LazyLock<std::sync::Arc<[$crate::Field]>> =
                    std::sync::LazyLock::new(|| std::sync::Arc::new([$(
                        $crate::Field {
                            name: $key,
                            doc: concat!($($field_doc, "\n"),+),
                            schema: <$type as $crate::Model>::schema(),
                            default: $crate::model::group!(@default $($default)?),
                            generated: $crate::model::group!(@option $($generated)?),
                            scope: $crate::model::group!(@scope $($scope)?),
                            alias: $crate::model::group!(@option $($alias)?),
                            example: $crate::model::group!(@option $($example)?),
                            secret: $crate::model::group!(@flag $($secret)?),
                        },
                    )*]));
                $crate::Schema::Table {
                    doc: concat!($($doc, "\n"),+),
                    fields: FIELDS.clone(),
                    others: None,
                }
            }
        }
    };
    (@default) => { None };
    (@default $default:tt) => { Some(serde_json::json!($default)) };
    (@option) => { None };
    (@option $text:literal) => { Some($text) };
    (@flag) => { false };
    (@flag $flag:literal) => { $flag };
    (@scope) => { $crate::Scope::All };
    (@scope $scope:ident) => { $crate::Scope::$scope };
}
pub(crate) use group;

/// The names of a field of a table, and whether it is a secret.
pub(crate) struct Name {
    pub(crate) key: &'static str,
    pub(crate) alias: Option<&'static str>,
    pub(crate) secret: bool,
}

/// The table at `at`, its unknown keys noted as faults.
pub(crate) fn read_table<'v>(
    value: &'v Value,
    known: &[Name],
    at: &mut Key,
    faults: &mut Faults,
) -> Option<&'v Map<String, Value>> {
    let table = table_entries(value, at, faults)?;
    for name in table.keys() {
        if known
            .iter()
            .any(|known| known.key == name || known.alias == Some(name))
        {
            continue;
        }
        let reason = match nearest(name, known.iter().map(|known| known.key)) {
            Some(meant) => format!("unknown key; did you mean {}?", at.child(meant)),
            None => "unknown key".to_string(),
        };
        faults.add(&at.child(name), reason);
    }
    Some(table)
}

pub(crate) fn read_field<T: Model>(
    table: &Map<String, Value>,
    name: Option<&Name>,
    at: &mut Key,
    faults: &mut Faults,
) -> Option<T> {
    let declared = name?;
    let (name, value) = find_field(table, declared, at, faults)?;
    at.push(name);
    let read = if declared.secret {
        let mut own = Faults::default();
        let read = T::read(value, at, &mut own);
        faults.absorb(own, |reason| without_numbers(reason, value));
        read
    } else {
        T::read(value, at, faults)
    };
    at.pop();
    read
}

/// The value of a field, and the name under which it was given.
fn find_field<'v>(
    table: &'v Map<String, Value>,
    name: &Name,
    at: &Key,
    faults: &mut Faults,
) -> Option<(&'static str, &'v Value)> {
    let by_key = table.get(name.key).map(|value| (name.key, value));
    let by_alias = name
        .alias
        .and_then(|alias| Some((alias, table.get(alias)?)));
    if let (Some(_), Some((alias, _))) = (by_key, by_alias) {
        let reason = format!(
            "the same setting as {}; give one of them",
            at.child(name.key)
        );
        faults.add(&at.child(alias), reason);
    }
    by_key.or(by_alias)
}

pub(crate) fn write_field<T: Model>(table: &mut Map<String, Value>, name: &str, field: &Option<T>) {
    if let Some(field) = field {
        let value = field.write();
        if !is_empty_table(&value) {
            table.insert(name.to_string(), value);
        }
    }
}

fn is_empty_table(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// A value in the words of an error message. Texts are not repeated: they may
/// be secrets.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null, which is no value (use unset to remove a setting)".into(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) if number.is_f64() => match whole(number) {
            Some(whole) => format!("the number {number} (a float; the integer is written {whole})"),
            None => format!("the number {number}"),
        },
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
    }
}

/// A reason that says nothing of the numbers in `value`. It has no text of it.
fn without_numbers(reason: String, value: &Value) -> String {
    match value {
        Value::Number(_) => reason.replace(&describe(value), "a number"),
        Value::Array(items) => items.iter().fold(reason, without_numbers),
        Value::Object(table) => table.values().fold(reason, without_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => reason,
    }
}

/// The integer that a float with nothing behind its point stands for.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = number.as_f64()?;
    // Up to there every integer has a float of its own.
    let is_exact = float.fract() == 0.0 && float.abs() < (1_u64 << 53) as f64;
    is_exact.then_some(float as i64)
}
