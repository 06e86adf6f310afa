//! Holds the namespaces of a pod, which live as long as a process is in them.
//!
//! It is the first process of the pod's PID namespace where containers share one, so
//! it waits for processes that lost their parent. Nothing else is its job.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::process::ExitCode;

fn main() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot wait for signals: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until it is told to end.
fn hold() -> nix::Result<()> {
    // Blocked and taken one by one, they need no handler, and the kernel throws none
    // away though this is the first process of a namespace.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD]
        .into_iter()
        .collect();
    signals.thread_block()?;
    loop {
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(());
        }
        reap();
    }
}

/// Waits for all children that have ended; several signals may have become one.
fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => {}
            // There is none, or none that has ended.
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
