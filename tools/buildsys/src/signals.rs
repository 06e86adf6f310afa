//! Ctrl-C and its like: the work stops, nothing is left behind.
//!
//! A signal kills every sandbox at once and makes [`check`] fail from then on, so
//! each job unwinds through its own clean-up. What does not come to its end in
//! time is cut off: the store is safe under a kill at any point.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

/// Time for jobs to clean up after a signal.
const GRACE: Duration = Duration::from_secs(10);

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static GENTLY: AtomicBool = AtomicBool::new(false);

/// From now on the first signal kills nothing: whoever asks [`interrupted`] ends
/// the work in its own way and time. A second signal still ends it at once.
pub fn end_gently() {
    GENTLY.store(true, Ordering::SeqCst);
}

/// The work was ended by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    signal: i32,
}

impl Interrupted {
    /// What a shell reports for a program that the signal has killed.
    pub fn exit_code(self) -> i32 {
        128 + self.signal
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            SIGINT => write!(f, "interrupted"),
            SIGTERM => write!(f, "terminated"),
            signal => write!(f, "ended by signal {signal}"),
        }
    }
}

impl std::error::Error for Interrupted {}

/// Handles SIGINT, SIGTERM and SIGHUP from now on. A `main` calls this once.
pub fn install() -> Result<()> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot set signal handlers")?;
    let handle = move || {
        let mut signals = signals.forever();
        let Some(signal) = signals.next() else { return };
        RECEIVED.store(signal, Ordering::SeqCst);
        if GENTLY.load(Ordering::SeqCst) {
            if let Some(signal) = signals.next() {
                sandbox::shut_down();
                std::process::exit(Interrupted { signal }.exit_code());
            }
            return;
        }
        sandbox::shut_down();
        let _ = thread::Builder::new().spawn(move || {
            thread::sleep(GRACE);
            std::process::exit(Interrupted { signal }.exit_code());
        });
        // Who asks twice does not want to wait.
        if let Some(signal) = signals.next() {
            std::process::exit(Interrupted { signal }.exit_code());
        }
    };
    thread::Builder::new()
        .name("signals".to_string())
        .spawn(handle)
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// The signal that has ended the work, if one has.
pub fn interrupted() -> Option<Interrupted> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(Interrupted { signal }),
    }
}

/// Fails once the work is to stop: after a signal, or when the calling thread's
/// job was cancelled. Long loops call this now and then.
pub fn check() -> Result<()> {
    if let Some(interrupted) = interrupted() {
        return Err(interrupted.into());
    }
    if sandbox::Group::current().is_some_and(|group| group.is_cancelled()) {
        anyhow::bail!("cancelled because another job failed");
    }
    Ok(())
}
