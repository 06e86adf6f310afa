//! `update`: the host's updates.
//!
//! The server answers before an update command is done; whoever wants to know
//! looks at `/updates/status` until the most recent command is a new one of the
//! wanted kind. While a command runs, the server has no status to give (423).

use crate::cli::{Command, Flag, Matches, Operands, Subcommand, Takes};
use crate::client::Error;
use crate::context::Context;
use anyhow::{Context as _, Result, bail};
use api_types::{UpdateCommand, UpdateCommandStatus, UpdateState, UpdateStatus};
use serde_json::Value;
use std::thread;
use std::time::Duration;

const FIRST_CHECK: Flag = Flag {
    names: &["-c", "--check"],
    takes: Takes::Nothing,
    help: "look for updates first; done if there is none, or if one waits for a reboot already",
};
const REBOOT: Flag = Flag {
    names: &["-r", "--reboot"],
    takes: Takes::Nothing,
    help: "reboot into the update once it is in place",
};

/// `update check`.
pub const CHECK: Subcommand = Subcommand {
    name: "update check",
    summary: "look for updates and show what there is",
    forms: &["update check"],
    about: &["Asks the update repository, and shows the state of updates as JSON."],
    examples: &["update check"],
    flags: &[],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |_| Ok(Box::new(Check)),
};

/// `update apply`.
pub const APPLY: Subcommand = Subcommand {
    name: "update apply",
    summary: "download an update and choose it for the next boot",
    forms: &["update apply [OPTION]..."],
    about: &[
        "Downloads the update that `update check` has found, verifies it and makes it boot next. \
         It is used from the next boot on.",
    ],
    examples: &["update apply --check --reboot"],
    flags: &[FIRST_CHECK, REBOOT],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |matches| Ok(Box::new(Apply::parse(&matches))),
};

/// `update cancel`.
pub const CANCEL: Subcommand = Subcommand {
    name: "update cancel",
    summary: "boot the running version next, not the update",
    forms: &["update cancel"],
    about: &[
        "Undoes that an update boots next. The update itself stays, so that applying it again \
         downloads nothing.",
    ],
    examples: &["update cancel"],
    flags: &[],
    operands: Operands::None,
    ours: false,
    hidden: false,
    parse: |_| Ok(Box::new(Cancel)),
};

#[derive(Debug)]
struct Check;

#[derive(Debug, PartialEq)]
struct Apply {
    check: bool,
    reboot: bool,
}

#[derive(Debug)]
struct Cancel;

impl Apply {
    fn parse(matches: &Matches) -> Self {
        Self {
            check: matches.has(&FIRST_CHECK),
            reboot: matches.has(&REBOOT),
        }
    }
}

impl Command for Check {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        let (_, shown) = REFRESH.run(context)?;
        context.print_json(&shown)?;
        Ok(0)
    }
}

impl Command for Apply {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        if self.check {
            let (status, shown) = REFRESH.run(context)?;
            context.print_json(&shown)?;
            if matches!(status.update_state, UpdateState::Idle | UpdateState::Ready) {
                return Ok(0);
            }
        }
        PREPARE.run(context)?;
        ACTIVATE.run(context)?;
        if self.reboot {
            context.send("POST", "/actions/reboot", None)?;
        }
        Ok(0)
    }
}

impl Command for Cancel {
    fn run(&self, context: &mut Context<'_>) -> Result<u8> {
        DEACTIVATE.run(context)?;
        Ok(0)
    }
}

/// Something that the host's updater does in the background.
struct Action {
    uri: &'static str,
    /// What is being done, for errors.
    what: &'static str,
    /// What the status calls it.
    command: UpdateCommand,
    /// How long to wait between two looks.
    interval: Duration,
    /// How often to look.
    looks: u32,
}

const REFRESH: Action = Action {
    uri: "/actions/refresh-updates",
    what: "looking for updates",
    command: UpdateCommand::Refresh,
    interval: Duration::from_millis(100),
    looks: 100,
};
const PREPARE: Action = Action {
    uri: "/actions/prepare-update",
    what: "downloading the update",
    command: UpdateCommand::Prepare,
    interval: Duration::from_millis(500),
    looks: 1200,
};
const ACTIVATE: Action = Action {
    uri: "/actions/activate-update",
    what: "choosing the update for the next boot",
    command: UpdateCommand::Activate,
    interval: Duration::from_millis(100),
    looks: 50,
};
const DEACTIVATE: Action = Action {
    uri: "/actions/deactivate-update",
    what: "cancelling the update",
    command: UpdateCommand::Deactivate,
    interval: Duration::from_millis(100),
    looks: 50,
};

/// How many looks may fail for another reason than that a command is running.
const MOST_FAILURES: u32 = 5;
/// How many looks in a row may find that nothing is running and that it has not ended. A
/// command that was killed leaves that behind.
const MOST_SILENCE: u32 = 10;

impl Action {
    /// Starts it and waits until it is done; gives back the status then.
    fn run(&self, context: &mut Context<'_>) -> Result<(UpdateStatus, Value)> {
        // Before the first refresh of a boot there is no status.
        let before = match look(context) {
            Ok((status, _)) => status.most_recent_command.map(|command| command.timestamp),
            Err(error) if refused_with(&error, 404) => None,
            Err(error) => return Err(error),
        };
        context.send("POST", self.uri, None)?;
        let (mut failures, mut silence) = (0, 0);
        for _ in 0..self.looks {
            thread::sleep(self.interval);
            let (status, shown) = match look(context) {
                Ok(found) => found,
                Err(error) if refused_with(&error, 423) => {
                    silence = 0;
                    continue;
                }
                Err(error) => {
                    failures += 1;
                    if failures >= MOST_FAILURES {
                        return Err(error.context(format!(
                            "gave up {}: {failures} looks at its state failed",
                            self.what
                        )));
                    }
                    continue;
                }
            };
            let recent = (status.most_recent_command.as_ref()).filter(|recent| {
                recent.cmd_type == self.command && before.as_ref() != Some(&recent.timestamp)
            });
            let Some(recent) = recent else {
                silence += 1;
                if silence >= MOST_SILENCE {
                    bail!(
                        "{} ended without saying how; the journal of the host's updater may tell",
                        self.what
                    );
                }
                continue;
            };
            if recent.cmd_status == UpdateCommandStatus::Success {
                return Ok((status, shown));
            }
            match recent.stderr.as_deref().map(str::trim) {
                None | Some("") => bail!("{} failed", self.what),
                Some(reason) => bail!("{} failed: {reason}", self.what),
            }
        }
        bail!(
            "{} is not done after {} s; it may go on, `apiclient get /updates/status` shows how \
             far it is",
            self.what,
            (self.interval * self.looks).as_secs_f32()
        )
    }
}

/// The status in types, and as it came.
fn look(context: &mut Context<'_>) -> Result<(UpdateStatus, Value)> {
    let shown = context.get_json("/updates/status")?;
    let status = serde_json::from_value(shown.clone())
        .context("the answer to /updates/status is not a status")?;
    Ok((status, shown))
}

fn refused_with(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused { status, .. }) if *status == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::matches_of;
    use crate::client::Client;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn lines() {
        for (line, check, reboot) in [
            ("", false, false),
            ("-c", true, false),
            ("-r", false, true),
            ("--reboot --check", true, true),
        ] {
            let matches = matches_of(&APPLY, line).expect(line);
            assert_eq!(Apply::parse(&matches), Apply { check, reboot });
        }
        assert!(matches_of(&APPLY, "now").is_err());
        assert!(matches_of(&CHECK, "-c").is_err());
    }

    fn status(timestamp: &str, kind: &str, how: &str) -> String {
        let body = format!(
            r#"{{"update_state":"Available","available_updates":["1.1.0"],"chosen_update":null,
            "active_partition":null,"staging_partition":null,"most_recent_command":{{
            "cmd_type":"{kind}","cmd_status":"{how}","timestamp":"{timestamp}",
            "exit_status":null,"stderr":" no route\n"}}}}"#
        );
        format!("HTTP/1.1 200 OK\r\n\r\n{body}")
    }

    /// Runs an action against a server that gives these answers; gives back the
    /// outcome and how many were asked for.
    fn against(action: &Action, answers: &[String]) -> (Result<UpdateState>, usize) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let (outcome, asked) = thread::scope(|scope| {
            let (done, ended) = std::sync::mpsc::channel::<()>();
            let server = scope.spawn(move || {
                let mut asked = 0;
                while let Err(std::sync::mpsc::TryRecvError::Empty) = ended.try_recv() {
                    let Ok((mut stream, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    stream.set_nonblocking(false).expect("a stream");
                    // No request of these has a body, and all fit into one read.
                    let mut request = [0; 4096];
                    assert!(stream.read(&mut request).expect("a request") > 0);
                    let answer = answers.get(asked).or(answers.last());
                    let answer = answer.expect("an answer");
                    stream.write_all(answer.as_bytes()).expect("a client");
                    asked += 1;
                }
                asked
            });
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut context = Context::new(Client::new(&socket), false, &mut out, &mut err);
            let outcome = action.run(&mut context);
            drop(done);
            (outcome, server.join().expect("a server"))
        });
        (outcome.map(|(status, _)| status.update_state), asked)
    }

    #[test]
    fn waiting_for_the_updater() {
        let quick = |looks| Action {
            interval: Duration::from_millis(1),
            looks,
            ..REFRESH
        };
        let refused = |code: &str| format!("HTTP/1.1 {code} X\r\n\r\nno");
        let (none, locked, broken) = (refused("404"), refused("423"), refused("500"));
        let started = "HTTP/1.1 204 No Content\r\n\r\n".to_string();
        let old = status("1", "refresh", "Success");
        let new = status("2", "refresh", "Success");
        let other = status("2", "prepare", "Success");
        let failed = status("2", "refresh", "Failed");
        let same = |answer: &String, times: usize| vec![answer.clone(); times];
        for (name, looks, answers, expected, asked) in [
            (
                "no status at first",
                9,
                vec![none.clone(), started.clone(), locked.clone(), new.clone()],
                Ok(()),
                4,
            ),
            (
                "the status of an earlier command, and that of another",
                9,
                vec![
                    old.clone(),
                    started.clone(),
                    old.clone(),
                    other,
                    new.clone(),
                ],
                Ok(()),
                5,
            ),
            (
                "four failures, and locks, which are none",
                20,
                [
                    vec![old.clone(), started.clone()],
                    same(&broken, 2),
                    same(&locked, 9),
                    same(&none, 2),
                    vec![new.clone()],
                ]
                .concat(),
                Ok(()),
                16,
            ),
            (
                "five failures",
                20,
                [vec![old.clone(), started.clone()], same(&broken, 5)].concat(),
                Err("gave up looking for updates: 5 looks at its state failed: Status 500 when"),
                7,
            ),
            (
                "never done",
                7,
                vec![old.clone(), started.clone(), locked.clone()],
                Err("looking for updates is not done after 0.007 s"),
                9,
            ),
            (
                "ended without a word",
                99,
                [
                    vec![old.clone(), started.clone()],
                    same(&old, 9),
                    vec![locked.clone(), old.clone()],
                ]
                .concat(),
                Err("looking for updates ended without saying how"),
                22,
            ),
            (
                "failed",
                9,
                vec![none, started, failed],
                Err("looking for updates failed: no route"),
                3,
            ),
            (
                "locked before it starts",
                9,
                vec![locked.clone()],
                Err("Status 423 when GETing /updates/status: no"),
                1,
            ),
            (
                "refused",
                9,
                vec![old, locked],
                Err("Status 423 when POSTing /actions/refresh-updates: no"),
                2,
            ),
        ] {
            let (outcome, times) = against(&quick(looks), &answers);
            match (outcome, expected) {
                (Ok(state), Ok(())) => assert_eq!(state, UpdateState::Available, "{name}"),
                (Err(error), Err(start)) => {
                    assert!(format!("{error:#}").starts_with(start), "{name}: {error:#}");
                }
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
            assert_eq!(times, asked, "{name}");
        }
    }

    #[test]
    fn patience_is_that_of_the_interface() {
        for (action, interval, total) in [
            (REFRESH, 100, 10),
            (PREPARE, 500, 600),
            (ACTIVATE, 100, 5),
            (DEACTIVATE, 100, 5),
        ] {
            assert_eq!(action.interval, Duration::from_millis(interval));
            assert_eq!(action.interval * action.looks, Duration::from_secs(total));
        }
    }
}
