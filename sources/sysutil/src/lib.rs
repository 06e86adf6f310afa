//! What every program of the host needs and none should write twice: set-up
//! of `main` and of logging, atomic file writes, child processes whose stderr
//! ends up in the error, systemd's readiness protocol and socket activation,
//! os-release, moments as text, lines on the console, Secure Boot's state, VMware's port, and
//! the few system calls that nothing safe wraps ([`sys`]; unsafe code is there, in [`listen`]
//! and in [`vmware`] only).
//!
//! Start at [`main_with`]. Anything with knowledge of a particular file or
//! unit belongs to the program that owns it, not here.

pub mod console;
pub mod efi;
pub mod fs;
pub mod listen;
pub mod log;
pub mod notify;
pub mod os_release;
pub mod process;
pub mod sys;
pub mod time;
pub mod vmware;

use std::process::ExitCode;

/// Runs a program's work as its `main` should: logging is set up, and an
/// error is printed once, with its whole chain of causes, before exit status 1.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     sysutil::main_with("resolver", || Ok(()))
/// }
/// ```
pub fn main_with<F>(name: &str, work: F) -> ExitCode
where
    F: FnOnce() -> anyhow::Result<()>,
{
    log::init(tracing::Level::INFO);
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
