//! The sandboxes of this process that run now, so that all can be ended at once.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A set of sandboxes that end together.
///
/// A thread [`enter`](Self::enter)s a group; what it starts from then on belongs
/// to it. Once [`cancel`](Self::cancel)led, a group starts nothing any more.
#[derive(Clone, Debug, Default)]
pub struct Group(Arc<AtomicBool>);

thread_local! {
    static CURRENT: RefCell<Option<Group>> = const { RefCell::new(None) };
}

/// Process 1 of each living sandbox, by pid. The lock is held over spawn and
/// reaping, so a pid in here is never another process's.
static LIVING: Mutex<BTreeMap<i32, Option<Group>>> = Mutex::new(BTreeMap::new());

static SHUT_DOWN: AtomicBool = AtomicBool::new(false);

impl Group {
    /// A group with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this the group of what the calling thread starts, until the guard is
    /// dropped.
    pub fn enter(&self) -> GroupGuard {
        GroupGuard {
            before: CURRENT.replace(Some(self.clone())),
        }
    }

    /// The group that the calling thread has entered.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Kills everything in the group, for good.
    pub fn cancel(&self) {
        let living = living();
        self.0.store(true, Ordering::SeqCst);
        for (pid, group) in living.iter() {
            if group
                .as_ref()
                .is_some_and(|group| Arc::ptr_eq(&group.0, &self.0))
            {
                end(*pid);
            }
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Leaves the group when dropped.
#[must_use]
pub struct GroupGuard {
    before: Option<Group>,
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        CURRENT.replace(self.before.take());
    }
}

/// Kills every sandbox that this process has started; none can be started any
/// more.
pub fn shut_down() {
    let living = living();
    SHUT_DOWN.store(true, Ordering::SeqCst);
    for pid in living.keys() {
        end(*pid);
    }
}

/// Whether [`shut_down`] was called.
pub(crate) fn is_shut_down() -> bool {
    SHUT_DOWN.load(Ordering::SeqCst)
}

/// The table, locked; no invariant spans a panic, so poison means nothing.
pub(crate) fn living() -> MutexGuard<'static, BTreeMap<i32, Option<Group>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(pid: i32) {
    // The only error left is that it has ended already.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}
