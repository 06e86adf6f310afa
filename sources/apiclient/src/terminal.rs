//! The terminal that we run in.

use anyhow::{Context, Result};
use api_types::exec::Size;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::stdin;
use std::os::fd::{AsFd, BorrowedFd};

/// Signals that would end us and leave the terminal as it is.
const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Our terminal, whose keys are handed on as they are while this is there.
pub struct Terminal {
    before: Termios,
    signals: SignalFd,
}

/// What a signal tells.
pub enum Told {
    /// The terminal is of another size.
    Resized,
    /// We are to end, with this status.
    End(u8),
}

impl Terminal {
    /// Takes the terminal of standard input.
    pub fn take() -> Result<Self> {
        let mut told: SigSet = ENDING.into_iter().collect();
        told.add(Signal::SIGWINCH);
        told.thread_block().context("cannot wait for signals")?;
        let signals = SignalFd::with_flags(&told, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot wait for signals")?;
        let before = tcgetattr(stdin()).context("standard input is no terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).context("cannot set up the terminal")?;
        Ok(Self { before, signals })
    }

    /// How large it is, where that is known.
    pub fn size(&self) -> Option<Size> {
        let (rows, cols) = sysutil::sys::window_size(stdin().as_fd()).ok()?;
        Some(Size { rows, cols })
    }

    /// Is ready when there is something to be told.
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// What there is to be told.
    pub fn told(&self) -> Result<Option<Told>> {
        let signal = self.signals.read_signal();
        let signal = signal.context("cannot read signals")?;
        Ok(signal.map(|signal| match signal.ssi_signo {
            number if number == Signal::SIGWINCH as u32 => Told::Resized,
            number => Told::End(128 | number as u8),
        }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What the process has written last was for a raw terminal.
        if let Err(error) = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.before) {
            eprintln!("cannot restore the terminal, which `reset` does: {error}");
        }
    }
}
