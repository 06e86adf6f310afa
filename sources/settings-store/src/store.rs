//! The store: layers of settings, transactions over them, commits to disk.

use crate::disk::{self, Release, State};
use crate::files::Files;
use crate::history::{History, Origin};
use crate::pending::{Change, Pending, Strength};
use serde_json::{Map, Value};
use settings::{Document, Faults, Key, Settings, limits};
use std::collections::BTreeSet;
use std::time::SystemTime;

/// Why the store refuses something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The values do not fit the model.
    #[error("{0}")]
    Invalid(Faults),
    /// No such setting exists.
    #[error("{0} is not a setting")]
    Unknown(Key),
    /// The transaction's name cannot be used.
    #[error("a transaction's name has 1 to 256 characters, none of them a control character")]
    TransactionName,
    /// Nothing is pending in the transaction.
    #[error("transaction {0:?} holds no changes")]
    NothingPending(String),
    /// A generated value may not take the place of the user's.
    #[error("{0} was set by the user; a weak value cannot replace it")]
    Weakened(Key),
    /// The history does not reach there.
    #[error("no change {0} is kept; see the history for those that are")]
    NoSuchChange(u64),
    /// Too many transactions are open.
    #[error("{limit} transactions are open already; commit or delete one of them")]
    TooManyTransactions {
        /// How many there may be.
        limit: usize,
    },
    /// Open transactions take up too much memory.
    #[error("open transactions hold more than {limit} bytes; commit or delete one of them")]
    PendingTooLarge {
        /// How many bytes they may hold together.
        limit: usize,
    },
    /// The settings would become too large to store.
    #[error("the settings would take up more than {limit} bytes")]
    TooLarge {
        /// How large they may be.
        limit: usize,
    },
    /// The disk failed.
    #[error("cannot store the settings")]
    Disk(#[source] std::io::Error),
}

/// The layers that settings come from, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// From the image.
    pub defaults: Document,
    /// From the host.
    pub generated: Document,
    /// From the user.
    pub user: Document,
}

impl Layers {
    /// What holds: each layer over the one below.
    pub fn effective(&self) -> Document {
        let mut settings = self.defaults.clone();
        settings.merge(&self.generated);
        settings.merge(&self.user);
        settings
    }
}

/// A store that was just opened, and what was found wrong with it.
#[derive(Debug)]
pub struct Opened<F> {
    /// The store, which is always usable.
    pub store: Store<F>,
    /// Damage that was passed over, for people.
    pub complaints: Vec<String>,
}

/// Settings, their transactions and their place on disk.
#[derive(Debug)]
pub struct Store<F> {
    files: F,
    release: Release,
    clock: fn() -> SystemTime,
    state: State,
    current_is_good: bool,
    pending: Pending,
}

impl<F: Files> Store<F> {
    /// Opens the store that `files` hold. Damage never stops it.
    pub fn open(files: F, release: Release) -> Opened<F> {
        Self::open_with_clock(files, release, SystemTime::now)
    }

    /// The same with another clock than the machine's.
    pub fn open_with_clock(files: F, release: Release, clock: fn() -> SystemTime) -> Opened<F> {
        let loaded = disk::load(&files, &release);
        Opened {
            store: Self {
                files,
                release,
                clock,
                state: loaded.state,
                current_is_good: loaded.current_is_good,
                pending: Pending::default(),
            },
            complaints: loaded.complaints,
        }
    }

    /// The layers as they are committed.
    pub fn layers(&self) -> Layers {
        Layers {
            defaults: self.release.defaults.clone(),
            generated: self.state.generated.clone(),
            user: self.state.user.clone(),
        }
    }

    /// The settings that hold.
    pub fn effective(&self) -> Document {
        self.layers().effective()
    }

    /// Whether user data was looked at before.
    pub fn user_data_done(&self) -> bool {
        self.state.user_data_done
    }

    /// Adds a tree of values (without an outer `settings`) to a transaction.
    pub fn set(&mut self, tx: &str, tree: &Value, strength: Strength) -> Result<(), Error> {
        let values = Document::from_value(tree).map_err(Error::Invalid)?;
        if let Some(variant) = &self.release.variant {
            let foreign = values.foreign_to(variant);
            if !foreign.is_empty() {
                return Err(Error::Invalid(foreign));
            }
        }
        self.pending.set(tx, &values, strength)
    }

    /// Adds removals to a transaction.
    pub fn unset(&mut self, tx: &str, keys: &[Key]) -> Result<(), Error> {
        use settings::Model;
        let schema = Settings::schema();
        if let Some(unknown) = keys.iter().find(|key| !schema.knows(key)) {
            return Err(Error::Unknown(unknown.clone()));
        }
        self.pending.unset(tx, keys)
    }

    /// The open transactions.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Drops a transaction and says which keys it held.
    pub fn drop_transaction(&mut self, tx: &str) -> Vec<Key> {
        self.pending
            .take(tx)
            .map(|change| change.keys())
            .unwrap_or_default()
    }

    /// Makes a transaction's changes durable and says which keys they touch. If
    /// that fails, the transaction stays as it was.
    pub fn commit(&mut self, tx: &str) -> Result<Vec<Key>, Error> {
        let change = self
            .pending
            .take(tx)
            .ok_or_else(|| Error::NothingPending(tx.to_string()))?;
        match self.apply(&change) {
            Ok(keys) => Ok(keys),
            Err(error) => {
                self.pending.restore(tx, change);
                Err(error)
            }
        }
    }

    /// Makes durable, in one step, what a boot has found out: what user data
    /// asks for, if it was looked at and needs no second look, and what the host
    /// has generated. Nothing is written if nothing is new.
    ///
    /// If the disk fails, the new settings hold all the same until the machine
    /// restarts: at boot there is nobody who could try again.
    pub fn commit_boot(
        &mut self,
        user_data: Option<&Document>,
        generated: Document,
    ) -> Result<(), Error> {
        let mut state = self.state.clone();
        if let Some(user_data) = user_data {
            let before = state.all_of_user();
            state.user.merge(user_data);
            state.user_data_done = true;
            if !user_data.is_empty() {
                self.note(&mut state, Origin::UserData, &user_data.keys(), before);
            }
        }
        state.generated = generated;
        if state == self.state {
            return Ok(());
        }
        check(&state)?;
        let saved = self.save(state.clone());
        if matches!(saved, Err(Error::Disk(_))) {
            self.state = state;
        }
        saved
    }

    /// The last changes.
    pub fn history(&self) -> &History {
        &self.state.history
    }

    /// Gives the user's settings the values that they had after change `id`, in one
    /// durable step, and says which keys that touches. Open transactions stay open.
    pub fn roll_back(&mut self, id: u64) -> Result<Vec<Key>, Error> {
        let history = &self.state.history;
        let tree = history
            .after(id, || self.state.all_of_user())
            .ok_or(Error::NoSuchChange(id))?;
        let mut state = self.state.clone();
        let before = state.all_of_user();
        (state.user, state.parked, _) = disk::sift(tree, &self.release);
        let touched = differing(&self.state.user, &state.user);
        if touched.is_empty() && state.parked == self.state.parked {
            return Ok(touched);
        }
        check(&state)?;
        self.note(&mut state, Origin::Rollback, &touched, before);
        self.save(state)?;
        Ok(touched)
    }

    fn apply(&mut self, change: &Change) -> Result<Vec<Key>, Error> {
        let before = self.state.all_of_user();
        let (mut state, touched) = changed(self.state.clone(), change)?;
        self.note(&mut state, Origin::Api, &touched, before);
        self.save(state)?;
        Ok(touched)
    }

    fn note(&self, state: &mut State, origin: Origin, keys: &[Key], before: Map<String, Value>) {
        state.history.add(origin, keys, before, (self.clock)());
    }

    fn save(&mut self, state: State) -> Result<(), Error> {
        let size = |document: &Document| document.to_value().to_string().len();
        if size(&state.user) + size(&state.generated) > limits::DOCUMENT_BYTES {
            return Err(Error::TooLarge {
                limit: limits::DOCUMENT_BYTES,
            });
        }
        if let Err(error) = disk::save(&self.files, &state, &self.release, self.current_is_good) {
            // Which names the files have now is uncertain; the disk says.
            self.current_is_good = disk::load(&self.files, &self.release).current_is_good;
            return Err(Error::Disk(error));
        }
        self.current_is_good = true;
        self.state = state;
        Ok(())
    }
}

/// The state after a change, and the keys that it touched.
fn changed(mut state: State, change: &Change) -> Result<(State, Vec<Key>), Error> {
    let mut touched: BTreeSet<Key> = BTreeSet::new();
    for key in &change.unset {
        let removed = state.user.unset(key);
        if removed.is_empty() {
            touched.insert(key.clone());
        }
        touched.extend(removed);
    }
    for key in change.weak.keys() {
        if state.user.get(&key).is_some() {
            return Err(Error::Weakened(key));
        }
        touched.insert(key);
    }
    touched.extend(change.strong.keys());
    state.user.merge(&change.strong);
    state.generated.merge(&change.weak);
    check(&state)?;
    Ok((state, touched.into_iter().collect()))
}

/// The keys whose values are not the same in both.
fn differing(a: &Document, b: &Document) -> Vec<Key> {
    let keys: BTreeSet<Key> = a.keys().into_iter().chain(b.keys()).collect();
    let differ = |key: &Key| a.get(key) != b.get(key);
    keys.into_iter().filter(differ).collect()
}

/// Two documents within the limits can exceed them together.
fn check(state: &State) -> Result<(), Error> {
    for layer in [&state.user, &state.generated] {
        Document::from_value(&layer.to_value()).map_err(Error::Invalid)?;
    }
    Ok(())
}
