//! What all routes share.

use crate::exec::Sessions;
use crate::exec::containers::{Containers, HostContainers};
use settings::Key;
use settings_agent::{Applied, Host};
use settings_store::Store;
use settings_store::files::Folder;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio::task::JoinError;

/// The server's state. Cloning it shares it.
#[derive(Clone)]
pub struct App {
    /// The host.
    pub host: Arc<Host>,
    /// The settings. The lock is held across file work, which happens on
    /// another thread, so it is an asynchronous one.
    pub store: Arc<AsyncMutex<Store<Folder>>>,
    /// Commands that run in containers.
    pub(crate) sessions: Arc<Sessions>,
    wanted: Arc<Wanted>,
    /// Held while files are written and units restarted, so that nobody writes
    /// older settings over newer ones.
    applying: Arc<AsyncMutex<()>>,
    /// Held by the thread that has something done to ephemeral storage.
    pub(crate) ephemeral_storage: Arc<Mutex<()>>,
    /// Held by the thread that has an update command started.
    pub(crate) updates: Arc<Mutex<()>>,
}

/// What the background task is to apply next. Changes that arrive while it
/// works are collected, so that many commits restart a unit once.
#[derive(Default)]
struct Wanted {
    keys: Mutex<Option<Scope>>,
    changed: Notify,
}

/// What a change of the store is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the client asks for it later.
    Nothing,
    /// It is applied in the background.
    ApplySoon,
    /// It is applied before the answer.
    Apply,
}

/// What a change of the store came to.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The keys that it touched.
    pub keys: Vec<Key>,
    /// What applying it did, if that was waited for.
    pub applied: Option<Applied>,
}

/// Why the store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The store refused it.
    #[error(transparent)]
    Refused(#[from] settings_store::Error),
    /// It broke off.
    #[error("the change did not finish")]
    Unfinished(#[from] JoinError),
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
            sessions: Arc::new(Sessions::new(Arc::new(HostContainers::default()))),
            wanted: Arc::new(Wanted::default()),
            applying: Arc::default(),
            ephemeral_storage: Arc::default(),
            updates: Arc::default(),
        }
    }

    /// The same with other containers than the host's.
    pub fn with_containers(self, containers: Arc<dyn Containers>) -> Self {
        Self {
            sessions: Arc::new(Sessions::new(containers)),
            ..self
        }
    }

    /// Changes the store on another thread, for that waits for the disk, and has what
    /// depends on the changed keys applied. Once begun it ends, even if nobody waits
    /// for it any more: what is stored is applied.
    pub async fn change(
        &self,
        then: Then,
        edit: impl FnOnce(&mut Store<Folder>) -> Result<Vec<Key>, settings_store::Error>
        + Send
        + 'static,
    ) -> Result<Changed, ChangeError> {
        let app = self.clone();
        let work = tokio::spawn(async move {
            let mut store = Arc::clone(&app.store).lock_owned().await;
            let stored = tokio::task::spawn_blocking(move || edit(&mut store)).await?;
            let keys = stored?;
            let applied = match then {
                Then::Nothing => None,
                Then::ApplySoon => {
                    app.apply_soon(Some(keys.clone()));
                    None
                }
                Then::Apply => Some(app.apply(Some(keys.clone())).await),
            };
            Ok(Changed { keys, applied })
        });
        work.await?
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

    /// Applies what is wanted now; when this returns, everything asked for before
    /// the call has been applied. Errors go to the journal: whoever asked has been
    /// answered long ago.
    pub async fn apply_wanted(&self) {
        // The turn comes first: who waits for it here finds nothing that another
        // task has taken and not applied yet.
        let turn = Arc::clone(&self.applying).lock_owned().await;
        let scope = match self.wanted.keys.lock() {
            Ok(mut wanted) => wanted.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        let keys = match scope {
            None => return,
            Some(Scope::Everything) => None,
            Some(Scope::Keys(keys)) => Some(keys.into_iter().collect()),
        };
        drop(self.apply_in_turn(turn, keys).await);
    }

    /// Brings what depends on `keys` (everything without them) up to date with the
    /// settings that hold when it is its turn. Once begun it ends, even if nobody
    /// waits for it any more.
    pub async fn apply(&self, keys: Option<Vec<Key>>) -> Applied {
        let app = self.clone();
        let work = tokio::spawn(async move {
            let turn = Arc::clone(&app.applying).lock_owned().await;
            app.apply_in_turn(turn, keys).await
        });
        work.await.unwrap_or_else(not_applied)
    }

    async fn apply_in_turn(&self, turn: OwnedMutexGuard<()>, keys: Option<Vec<Key>>) -> Applied {
        let settings = self.store.lock().await.effective();
        let host = Arc::clone(&self.host);
        let work = tokio::task::spawn_blocking(move || {
            let applied = host.apply(&settings, keys.as_deref());
            drop(turn);
            applied
        });
        work.await.unwrap_or_else(not_applied)
    }
}

fn not_applied(error: JoinError) -> Applied {
    tracing::error!("settings not applied: {error}");
    Applied {
        failures: vec![format!("settings not applied: {error}")],
        ..Applied::default()
    }
}
