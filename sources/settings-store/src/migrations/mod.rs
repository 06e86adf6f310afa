//! Stored settings of other releases, brought to the names and values of this one.
//!
//! Most changes of the model need nothing here: a new setting has no stored value, a
//! new default is not stored, and what a release does not take is put aside until one
//! does. A migration is for the rare setting that goes on under another name or with
//! other words for its values.
//!
//! A migration is data, and a store says which ones it has been through. So a release
//! that is older than a migration can still take it back: it reads from the file what
//! the newer release did. Each of them exchanges two things, and doing that twice is
//! doing nothing; forward and backward are the same step, and no document is lost on
//! either way, whatever is in it.

mod table;

pub use table::table;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use settings::Key;

/// One step from the settings of a release to those of a later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Migration {
    /// A setting or a table goes on under another name. Neither of the two lies in
    /// the other.
    Rename {
        /// Its name before.
        from: String,
        /// Its name after.
        to: String,
    },
    /// A setting has another word for one of its values.
    Value {
        /// The setting.
        key: String,
        /// The value before.
        from: Value,
        /// The value after.
        to: Value,
    },
}

/// What brings a tree from one list of migrations to another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Way {
    steps: Vec<Migration>,
    /// Migrations of the stored list that this release cannot read.
    pub unknown: usize,
}

impl Way {
    /// The way from a store that has been through `stored` to a release whose table
    /// is `table`: back to where the two part, then forward.
    pub fn between(stored: &[Value], table: &[Migration]) -> Self {
        let stored: Vec<Option<Migration>> = stored
            .iter()
            .map(|step| Migration::deserialize(step).ok())
            .collect();
        let common = stored
            .iter()
            .zip(table)
            .take_while(|(stored, ours)| stored.as_ref() == Some(*ours))
            .count();
        let back = &stored[common..];
        let mut steps: Vec<Migration> = back.iter().rev().flatten().cloned().collect();
        steps.extend_from_slice(&table[common..]);
        Self {
            steps,
            unknown: back.iter().filter(|step| step.is_none()).count(),
        }
    }

    /// Takes a tree of settings along the way.
    pub fn walk(&self, tree: &mut Map<String, Value>) {
        for step in &self.steps {
            step.exchange(tree);
        }
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Migration {
    /// Does the step, or takes it back.
    fn exchange(&self, tree: &mut Map<String, Value>) {
        match self {
            Self::Rename { from, to } => {
                if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
                    exchange_places(tree, &from, &to);
                }
            }
            Self::Value { key, from, to } => {
                let place = key
                    .parse()
                    .ok()
                    .and_then(|key: Key| place(tree, key.parts()));
                if let Some(value) = place {
                    if value == from {
                        *value = to.clone();
                    } else if value == to {
                        *value = from.clone();
                    }
                }
            }
        }
    }
}

/// Puts what lies at each of two places at the other one. Where that cannot be done,
/// because a value that is no table is in the way, nothing is done.
fn exchange_places(tree: &mut Map<String, Value>, a: &Key, b: &Key) {
    let nested = a.touches(b);
    if nested || !can_hold(tree, a.parts()) || !can_hold(tree, b.parts()) {
        return;
    }
    let at_a = take(tree, a.parts());
    let at_b = take(tree, b.parts());
    if let Some(value) = at_a {
        put(tree, b.parts(), value);
    }
    if let Some(value) = at_b {
        put(tree, a.parts(), value);
    }
}

fn place<'t>(tree: &'t mut Map<String, Value>, parts: &[String]) -> Option<&'t mut Value> {
    let (first, rest) = parts.split_first()?;
    let value = tree.get_mut(first)?;
    if rest.is_empty() {
        return Some(value);
    }
    place(value.as_object_mut()?, rest)
}

/// True if every part of the name but the last is a table or not there.
fn can_hold(tree: &Map<String, Value>, parts: &[String]) -> bool {
    match parts {
        [] => false,
        [_] => true,
        [first, rest @ ..] => match tree.get(first) {
            None => true,
            Some(Value::Object(table)) => can_hold(table, rest),
            Some(_) => false,
        },
    }
}

/// Removes a value, and the tables that become empty by that.
fn take(tree: &mut Map<String, Value>, parts: &[String]) -> Option<Value> {
    let (first, rest) = parts.split_first()?;
    if rest.is_empty() {
        return tree.remove(first);
    }
    let table = tree.get_mut(first)?.as_object_mut()?;
    let taken = take(table, rest)?;
    if table.is_empty() {
        tree.remove(first);
    }
    Some(taken)
}

fn put(tree: &mut Map<String, Value>, parts: &[String], value: Value) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        tree.insert(first.clone(), value);
        return;
    }
    let table = tree
        .entry(first)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(table) = table {
        put(table, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use settings::{Model, Settings};

    fn rename(from: &str, to: &str) -> Migration {
        Migration::Rename {
            from: from.into(),
            to: to.into(),
        }
    }

    fn walked(tree: &Value, stored: &[Value], table: &[Migration]) -> Value {
        let mut tree = tree.as_object().expect("a table").clone();
        Way::between(stored, table).walk(&mut tree);
        Value::Object(tree)
    }

    fn stored(table: &[Migration]) -> Vec<Value> {
        table
            .iter()
            .map(|step| serde_json::to_value(step).expect("JSON"))
            .collect()
    }

    #[test]
    fn steps() {
        let value = Migration::Value {
            key: "a.b".into(),
            from: "old".into(),
            to: "new".into(),
        };
        for (step, before, after) in [
            (rename("a", "b"), json!({}), json!({})),
            (rename("a", "b"), json!({"a": 1}), json!({"b": 1})),
            (
                rename("a.x", "b.y"),
                json!({"a": {"x": 1}}),
                json!({"b": {"y": 1}}),
            ),
            (
                rename("a.x", "b.y"),
                json!({"a": {"x": 1, "z": 2}, "b": {"z": 3}}),
                json!({"a": {"z": 2}, "b": {"y": 1, "z": 3}}),
            ),
            // What nobody knew there before makes room, and comes back.
            (
                rename("a", "b"),
                json!({"a": 1, "b": 2}),
                json!({"a": 2, "b": 1}),
            ),
            // A table takes along what is not known in it.
            (
                rename("a", "b"),
                json!({"a": {"future": 1}}),
                json!({"b": {"future": 1}}),
            ),
            // Nothing is overwritten to make room.
            (
                rename("a.x", "b.y"),
                json!({"a": {"x": 1}, "b": 2}),
                json!({"a": {"x": 1}, "b": 2}),
            ),
            (rename("a", "a.x"), json!({"a": 1}), json!({"a": 1})),
            (rename("a..", "b"), json!({"a": 1}), json!({"a": 1})),
            (
                value.clone(),
                json!({"a": {"b": "old"}}),
                json!({"a": {"b": "new"}}),
            ),
            (
                value.clone(),
                json!({"a": {"b": "x"}}),
                json!({"a": {"b": "x"}}),
            ),
            (value, json!({"a": "old"}), json!({"a": "old"})),
        ] {
            assert_eq!(
                walked(&before, &[], std::slice::from_ref(&step)),
                after,
                "{step:?}"
            );
            let back = walked(&after, &stored(std::slice::from_ref(&step)), &[]);
            assert_eq!(back, before, "back from {step:?}");
        }
    }

    #[test]
    fn ways_part_where_the_lists_do() {
        let (a, b, c) = (rename("a", "x"), rename("b", "y"), rename("c", "z"));
        let both = [a.clone(), b.clone()];
        assert!(Way::between(&stored(&both), &both).is_empty());
        let way = Way::between(&stored(&both), &[a.clone(), c.clone()]);
        assert_eq!(way.steps, [b.clone(), c]);
        let mut list = stored(std::slice::from_ref(&a));
        list.push(json!({"kind": "of a later release"}));
        list.extend(stored(std::slice::from_ref(&b)));
        let way = Way::between(&list, &[a]);
        assert_eq!((way.steps, way.unknown), (vec![b], 1));
    }

    /// The names of migrations must be those of settings on the side where they are.
    #[test]
    fn the_table_leads_to_settings_that_there_are() {
        let schema = Settings::schema();
        let table = table();
        for (n, step) in table.iter().enumerate() {
            let later = &table[n + 1..];
            let key = match step {
                Migration::Rename { to, .. } => to,
                Migration::Value { key, .. } => key,
            };
            let moved_on = later
                .iter()
                .any(|step| matches!(step, Migration::Rename { from, .. } if key.starts_with(from.as_str())));
            let key: Key = key.parse().expect("a key");
            assert!(moved_on || schema.knows(&key), "{key} is not a setting");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c"]).prop_map(String::from)
    }

    /// Trees as they are stored: without empty tables, and with few enough names that
    /// migrations hit them.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![prop::sample::select(vec![
            json!("old"),
            json!("new"),
            json!(1),
            json!([])
        ])];
        leaf.prop_recursive(3, 24, 3, |inner| {
            prop::collection::btree_map(name(), inner, 1..4)
                .prop_map(|table| Value::Object(table.into_iter().collect()))
        })
        .prop_map(|value| match value {
            Value::Object(_) => value,
            value => json!({ "a": value }),
        })
    }

    fn migrations() -> impl Strategy<Value = Vec<Migration>> {
        let key = || prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join("."));
        let step = prop_oneof![
            (key(), key()).prop_map(|(from, to)| Migration::Rename { from, to }),
            key().prop_map(|key| Migration::Value {
                key,
                from: "old".into(),
                to: "new".into(),
            }),
        ];
        prop::collection::vec(step, 0..6)
    }

    proptest! {
        #[test]
        fn forward_then_backward_is_the_identity(tree in tree(), table in migrations()) {
            let there = walked(&tree, &[], &table);
            prop_assert_eq!(walked(&there, &stored(&table), &[]), tree);
        }

        #[test]
        fn a_detour_over_another_release_changes_nothing(
            tree in tree(), shared in migrations(), ours in migrations(), theirs in migrations(),
        ) {
            let ours = [shared.clone(), ours].concat();
            let theirs = [shared, theirs].concat();
            let there = walked(&tree, &stored(&ours), &theirs);
            prop_assert_eq!(walked(&there, &stored(&theirs), &ours), tree);
        }
    }
}
