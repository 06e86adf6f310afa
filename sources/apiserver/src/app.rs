//! What all routes share.

use settings::Key;
use settings_agent::Host;
use settings_store::Store;
use settings_store::files::Folder;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::{Mutex as AsyncMutex, Notify};

/// The server's state. Cloning it shares it.
#[derive(Clone)]
pub struct App {
    /// The host.
    pub host: Arc<Host>,
    /// The settings. The lock is held across file work, which happens on
    /// another thread, so it is an asynchronous one.
    pub store: Arc<AsyncMutex<Store<Folder>>>,
    wanted: Arc<Wanted>,
}

/// What the background task is to apply next. Changes that arrive while it
/// works are collected, so that many commits restart a unit once.
#[derive(Default)]
struct Wanted {
    keys: Mutex<Option<Scope>>,
    changed: Notify,
}

enum Scope {
    Everything,
    Keys(BTreeSet<Key>),
}

impl App {
    /// Puts a host and its settings behind routes.
    pub fn new(host: Host, store: Store<Folder>) -> Self {
        Self {
            host: Arc::new(host),
            store: Arc::new(AsyncMutex::new(store)),
            wanted: Arc::new(Wanted::default()),
        }
    }

    /// Has what depends on `keys` (everything without them) brought up to date
    /// in the background.
    pub fn apply_soon(&self, keys: Option<Vec<Key>>) {
        let mut wanted = match self.wanted.keys.lock() {
            Ok(wanted) => wanted,
            Err(poisoned) => poisoned.into_inner(),
        };
        let before = wanted.take();
        *wanted = Some(match (before, keys) {
            (Some(Scope::Everything), _) | (_, None) => Scope::Everything,
            (Some(Scope::Keys(mut all)), Some(keys)) => {
                all.extend(keys);
                Scope::Keys(all)
            }
            (None, Some(keys)) => Scope::Keys(keys.into_iter().collect()),
        });
        drop(wanted);
        self.wanted.changed.notify_one();
    }

    /// Applies what [`App::apply_soon`] asks for, for ever.
    pub async fn apply_as_wanted(self) {
        loop {
            self.wanted.changed.notified().await;
            self.apply_wanted().await;
        }
    }

    /// Applies what is wanted now. Errors go to the journal: whoever asked has
    /// been answered long ago.
    pub async fn apply_wanted(&self) {
        let scope = match self.wanted.keys.lock() {
            Ok(mut wanted) => wanted.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        let Some(scope) = scope else { return };
        let settings = self.store.lock().await.effective();
        let host = Arc::clone(&self.host);
        let work = tokio::task::spawn_blocking(move || match scope {
            Scope::Everything => host.apply(&settings, None),
            Scope::Keys(keys) => {
                let keys: Vec<Key> = keys.into_iter().collect();
                host.apply(&settings, Some(&keys))
            }
        });
        match work.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("settings not applied: {error:#}"),
            Err(error) => tracing::error!("settings not applied: {error}"),
        }
    }
}
