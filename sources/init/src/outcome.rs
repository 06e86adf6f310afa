//! How a boot ends that does not reach the system.

use crate::log;
use nix::sys::reboot::{RebootMode, reboot};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What a failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The message stays for 5 seconds, then the machine restarts.
    After5Seconds,
    /// The message stays.
    Never,
}

/// What was attempted, and why it did not work.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// With the cause.
    pub fn new(attempt: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self(format!("{attempt}: {cause}"))
    }

    /// Without a further cause.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For `map_err`: `cannot <action> <path>: <cause>`.
    pub fn on<E: fmt::Display>(action: &'static str, path: &Path) -> impl Fn(E) -> Self {
        let path = path.display().to_string();
        move |cause| Self(format!("cannot {action} {path}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says why the boot ends, and ends it.
pub fn fatal(failure: &Failure, restart: Restart) -> ! {
    log::error(&format!("FATAL: {failure}"));
    match restart {
        Restart::After5Seconds => {
            std::thread::sleep(Duration::from_secs(5));
            restart_now()
        }
        Restart::Never => {
            log::error("no image works, so the machine stops here; power it off and on to retry");
            end(RebootMode::RB_HALT_SYSTEM)
        }
    }
}

/// Restarts the machine.
pub fn restart_now() -> ! {
    end(RebootMode::RB_AUTOBOOT)
}

fn end(mode: RebootMode) -> ! {
    nix::unistd::sync();
    match reboot(mode) {
        Ok(never) => match never {},
        // The kernel panics when this program ends, which restarts or stops the
        // machine as well.
        Err(error) => panic!("cannot restart: {error}"),
    }
}
