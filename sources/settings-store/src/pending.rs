//! Changes that are not committed yet, by the name of their transaction.

use crate::store::Error;
use serde_json::Value;
use settings::{Document, Key, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Transactions that may be open at once.
const TRANSACTIONS: usize = 256;
/// Bytes that all open transactions may hold together.
const TOTAL_BYTES: usize = 8 * limits::DOCUMENT_BYTES;
/// Bytes of a transaction's name.
const NAME_BYTES: usize = 256;

/// Who a value is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strength {
    /// The user: the value stays until it is changed or unset.
    #[default]
    Strong,
    /// The host, on its own: the value gives way to the user's.
    Weak,
}

impl std::fmt::Display for Strength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Strong => "strong",
            Self::Weak => "weak",
        })
    }
}

/// What one transaction is going to change. Removals come first, then values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Settings and tables to remove.
    pub unset: BTreeSet<Key>,
    /// Values of the user.
    pub strong: Document,
    /// Values of the host.
    pub weak: Document,
}

impl Change {
    /// Everything that it touches.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: BTreeSet<Key> = self.unset.clone();
        keys.extend(self.strong.keys());
        keys.extend(self.weak.keys());
        keys.into_iter().collect()
    }

    /// All values, as `GET /tx` shows them.
    pub fn values(&self) -> Document {
        let mut values = self.weak.clone();
        values.merge(&self.strong);
        values
    }

    fn bytes(&self) -> usize {
        fn weigh(value: &Value) -> usize {
            32 + match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(weigh).sum(),
                Value::Object(table) => table
                    .iter()
                    .map(|(name, value)| name.len() + weigh(value))
                    .sum(),
                _ => 0,
            }
        }
        let keys: usize = self.unset.iter().map(|key| key.to_string().len()).sum();
        keys + weigh(&self.strong.to_value()) + weigh(&self.weak.to_value())
    }
}

/// The open transactions.
#[derive(Debug, Default)]
pub struct Pending {
    open: BTreeMap<String, (Change, usize)>,
}

impl Pending {
    /// Adds values to a transaction, over what is in it.
    pub fn set(&mut self, tx: &str, values: &Document, strength: Strength) -> Result<(), Error> {
        self.change(tx, |change| match strength {
            Strength::Strong => change.strong.merge(values),
            Strength::Weak => change.weak.merge(values),
        })
    }

    /// Adds removals to a transaction; what it was going to set there is dropped.
    pub fn unset(&mut self, tx: &str, keys: &[Key]) -> Result<(), Error> {
        self.change(tx, |change| {
            for key in keys {
                change.strong.unset(key);
                change.weak.unset(key);
                change.unset.insert(key.clone());
            }
        })
    }

    fn change(&mut self, tx: &str, edit: impl FnOnce(&mut Change)) -> Result<(), Error> {
        if tx.is_empty() || tx.len() > NAME_BYTES || tx.chars().any(char::is_control) {
            return Err(Error::TransactionName);
        }
        let (mut change, was) = self.open.get(tx).cloned().unwrap_or_default();
        edit(&mut change);
        if change.unset.is_empty() && change.strong.is_empty() && change.weak.is_empty() {
            return Ok(());
        }
        if !self.open.contains_key(tx) && self.open.len() >= TRANSACTIONS {
            return Err(Error::TooManyTransactions {
                limit: TRANSACTIONS,
            });
        }
        let bytes = change.bytes();
        let total: usize = self.open.values().map(|(_, bytes)| bytes).sum();
        if total - was + bytes > TOTAL_BYTES {
            return Err(Error::PendingTooLarge { limit: TOTAL_BYTES });
        }
        self.open.insert(tx.to_string(), (change, bytes));
        Ok(())
    }

    /// What a transaction holds; an unknown one holds nothing.
    pub fn get(&self, tx: &str) -> Change {
        self.open
            .get(tx)
            .map(|(change, _)| change.clone())
            .unwrap_or_default()
    }

    /// Ends a transaction and says what it held.
    pub fn take(&mut self, tx: &str) -> Option<Change> {
        self.open.remove(tx).map(|(change, _)| change)
    }

    /// Puts back what [`Pending::take`] took.
    pub(crate) fn restore(&mut self, tx: &str, change: Change) {
        let bytes = change.bytes();
        self.open.insert(tx.to_string(), (change, bytes));
    }

    /// Names of the transactions that hold something.
    pub fn names(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }
}
