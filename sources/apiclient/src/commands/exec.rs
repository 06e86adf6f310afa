//! `exec`: a command in a container of the host.

use crate::cli::{Command, Flag, Hint, Matches, Operands, Subcommand, Takes};
use crate::context::Context;
use crate::exec::{self, Ends};
use anyhow::{Context as _, Result};
use api_types::exec::Tty;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::AsFd;

const TTY: Flag = Flag {
    names: &["-t", "--tty"],
    takes: Takes::Nothing,
    help: "with a terminal, which is the default if standard input and output are terminals",
};
const NO_TTY: Flag = Flag {
    names: &["-T", "--no-tty"],
    takes: Takes::Nothing,
    help: "without a terminal",
};

/// `exec`.
pub const SUBCOMMAND: Subcommand = Subcommand {
    name: "exec",
    summary: "run a command in a host container",
    forms: &["exec [-t|-T] [--] TARGET [--] COMMAND [ARGUMENT]..."],
    about: &[
        "Runs a command in the host container TARGET, such as admin or control, and exits with \
         its status, or with 128 and the number of the signal that ended it. Flags stand before \
         COMMAND; what follows it is handed on, but global flags are recognised even there, \
         unless a -- stands before.",
    ],
    examples: &["exec admin bash", "exec -T control -- ls -h /"],
    flags: &[TTY, NO_TTY],
    operands: Operands::ThenVerbatim(Hint::Choice(&["admin", "control"])),
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Exec::parse(&matches)?)),
};

#[derive(Debug, PartialEq)]
struct Exec {
    target: String,
    command: Vec<OsString>,
    /// Whether there is to be a terminal; `None` to decide by where we run.
    tty: Option<bool>,
}

impl Exec {
    fn parse(matches: &Matches) -> Result<Self, String> {
        let (target, command) = match matches.raw_operands() {
            [] => return Err("TARGET is missing".into()),
            [_] => return Err("COMMAND is missing".into()),
            [target, command @ ..] => (target, command),
        };
        let target = target.to_str().ok_or("TARGET is not UTF-8")?.to_string();
        let tty = match (matches.has(&TTY), matches.has(&NO_TTY)) {
            (true, true) => return Err("--tty and --no-tty do not go together".into()),
            (true, false) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        Ok(Self {
            target,
            command: command.to_vec(),
            tty,
        })
    }
}

impl Command for Exec {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let wants_terminal = self
            .tty
            .unwrap_or_else(|| stdin().is_terminal() && stdout().is_terminal());
        let (client, target, command) = (context.client(), &self.target, &self.command);
        let (input, output) = (stdin(), stdout());
        let ends = Ends {
            input: input.as_fd(),
            output: output.as_fd(),
        };
        let ran = if wants_terminal && input.is_terminal() {
            exec::run_in_terminal(client, target, command, ends)
        } else {
            let tty = wants_terminal.then_some(Tty { size: None });
            exec::run(client, target, command, tty, ends)
        };
        ran.with_context(|| format!("cannot run {:?} in {target}", self.command[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;

    #[test]
    fn lines() {
        let exec = |target: &str, command: &[&str], tty| Exec {
            target: target.into(),
            command: command.iter().map(OsString::from).collect(),
            tty,
        };
        for (line, expected) in [
            ("admin ls", Ok(exec("admin", &["ls"], None))),
            (
                "-t admin ls -l",
                Ok(exec("admin", &["ls", "-l"], Some(true))),
            ),
            (
                "admin -T ls -t",
                Ok(exec("admin", &["ls", "-t"], Some(false))),
            ),
            (
                "--no-tty -- admin ls",
                Ok(exec("admin", &["ls"], Some(false))),
            ),
            ("-- admin -x", Ok(exec("admin", &["-x"], None))),
            ("admin -- ls -t", Ok(exec("admin", &["ls", "-t"], None))),
            ("-- admin -- ls", Ok(exec("admin", &["ls"], None))),
            (
                "admin ls -- -l",
                Ok(exec("admin", &["ls", "--", "-l"], None)),
            ),
            (
                "admin -- ls -- -l",
                Ok(exec("admin", &["ls", "--", "-l"], None)),
            ),
            ("", Err("TARGET is missing")),
            ("-t", Err("TARGET is missing")),
            ("admin", Err("COMMAND is missing")),
            ("admin --", Err("COMMAND is missing")),
            ("-x admin ls", Err("unknown flag \"-x\"")),
            (
                "-t -T admin ls",
                Err("--tty and --no-tty do not go together"),
            ),
        ] {
            let parsed = matches_of(&SUBCOMMAND, line).and_then(|matches| Exec::parse(&matches));
            assert_eq!(parsed, expected.map_err(str::to_string), "{line}");
        }
    }
}
