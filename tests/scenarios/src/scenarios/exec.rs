//! Commands in host containers, run by the client of the API.

use super::host_containers::Host;
use anyhow::{Context, Result, bail, ensure};
use api_types::exec::{Size, Tty};
use apiclient::Client;
use apiclient::exec::{self, Ends};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread;

/// The container in which they run.
const TARGET: &str = "control";
/// Bytes that go through one session.
const MUCH: usize = 100_000_000;
/// Sessions at once.
const MANY: usize = 16;
/// Arguments by which processes are found.
const MARK: &str = "7654321";
const OTHER_MARK: &str = "7654322";

/// Whether commands run as they should in the container `control`.
pub(crate) fn check(host: &Host<'_>) -> Result<()> {
    let client = &host.client();
    let script = ["sh", "-c", "echo said; echo complained >&2; exit 7"];
    let (said, status) = run(client, &script, None)?;
    ensure!(status == 7, "a command that exits with 7 gives {status}");
    for expected in ["said\n", "complained\n"] {
        ensure!(said.contains(expected), "a command wrote {said:?}");
    }
    let missing = run(client, &["no-such-program"], None);
    ensure!(missing.is_err(), "a program that is not there: {missing:?}");

    let size = Some(Size {
        rows: 33,
        cols: 101,
    });
    let tty = Some(Tty { size });
    let (said, status) = run(client, &["busybox", "stty", "size"], tty)?;
    ensure!(
        (said.trim(), status) == ("33 101", 0),
        "the terminal says {said:?}"
    );
    sessions_at_once(client)?;
    much_goes_through(client)?;
    a_client_vanishes(host)
}

/// Runs a command; what happens at its ends is for `work`. Its input ends when that drops
/// it.
pub(super) fn session<T: Send>(
    client: &Client,
    target: &str,
    command: &[&str],
    tty: Option<Tty>,
    work: impl FnOnce(PipeWriter, PipeReader) -> Result<T> + Send,
) -> Result<(T, Result<u8>)> {
    let ((input, give), (take, output)) = (pipe()?, pipe()?);
    let command: Vec<_> = command.iter().map(Into::into).collect();
    thread::scope(|scope| {
        let working = scope.spawn(|| work(give, take));
        let ends = Ends {
            input: input.as_fd(),
            output: output.as_fd(),
        };
        let status = exec::run(client, target, &command, tty, ends);
        drop((input, output));
        let Ok(worked) = working.join() else {
            bail!("what looks at a command has panicked");
        };
        // What its client says can be the reason.
        let worked = worked.with_context(|| format!("the client ended with {status:?}"))?;
        Ok((worked, status))
    })
}

/// What a command writes that gets nothing to read, and its status.
fn run(client: &Client, command: &[&str], tty: Option<Tty>) -> Result<(String, u8)> {
    run_in(client, TARGET, command, tty)
}

/// The same in the container `target`.
pub(super) fn run_in(
    client: &Client,
    target: &str,
    command: &[&str],
    tty: Option<Tty>,
) -> Result<(String, u8)> {
    let (said, status) = session(client, target, command, tty, |give, mut take| {
        let mut said = String::new();
        take.read_to_string(&mut said)?;
        drop(give);
        Ok(said)
    })?;
    Ok((said, status?))
}

/// Each waits for all the others.
fn sessions_at_once(client: &Client) -> Result<()> {
    let script = format!(
        "echo up >> /tmp/up; for second in $(busybox seq 120); do \
         test $(busybox wc -l < /tmp/up) = {MANY} && echo all && exit; sleep 1; done; exit 1"
    );
    let script = ["sh", "-c", script.as_str()];
    thread::scope(|scope| {
        let sessions = [(); MANY].map(|()| scope.spawn(|| run(client, &script, None)));
        for session in sessions {
            let Ok(ran) = session.join() else {
                bail!("a session has panicked");
            };
            let (said, status) = ran?;
            ensure!(
                (said.as_str(), status) == ("all\n", 0),
                "one of {MANY} sessions has said {said:?}"
            );
        }
        Ok(())
    })
}

/// Bytes of which no two pieces are the same.
fn bytes() -> impl Iterator<Item = [u8; 8]> {
    let numbers = (0..MUCH as u64 / 8).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers.map(u64::to_be_bytes)
}

fn much_goes_through(client: &Client) -> Result<()> {
    let ((), status) = session(client, TARGET, &["cat"], None, |give, take| {
        let giving = thread::spawn(move || {
            let mut give = std::io::BufWriter::new(give);
            bytes().try_for_each(|piece| give.write_all(&piece))?;
            give.flush()
        });
        let mut take = BufReader::new(take);
        let mut place = 0;
        for expected in bytes() {
            let mut taken = [0; 8];
            take.read_exact(&mut taken)
                .with_context(|| format!("only {place} bytes have come back"))?;
            ensure!(taken == expected, "what came back differs at {place}");
            place += taken.len();
        }
        ensure!(take.read(&mut [0])? == 0, "more came back than was sent");
        match giving.join() {
            Ok(given) => given.context("it did not take all"),
            Err(_) => bail!("what gives has panicked"),
        }
    })?;
    let status = status?;
    ensure!(status == 0, "cat ended with {status}");
    Ok(())
}

/// What runs for a client ends with it, and so does what that has started.
fn a_client_vanishes(host: &Host<'_>) -> Result<()> {
    let client = &host.client();
    let script = format!("sleep {MARK} & while true; do echo here; sleep 1; done");
    let ((), status) = session(client, TARGET, &["sh", "-c", &script], None, |_, take| {
        let mut line = String::new();
        BufReader::new(take).read_line(&mut line)?;
        ensure!(line == "here\n", "it says {line:?}");
        let running = processes(client)?;
        ensure!(running.contains(MARK), "it runs not: {running}");
        Ok(())
    })?;
    ensure!(status.is_err(), "its client ended with {status:?}");
    host.wait("what ran for it is gone", || {
        processes(client).is_ok_and(|processes| !processes.contains(MARK))
    })
}

/// What runs ends with the server that it runs by, too, as soon as there is another one.
pub(crate) fn the_server_is_killed(host: &Host<'_>) -> Result<()> {
    let client = &host.client();
    // It neither reads nor writes, so nothing else tells it.
    let script = format!("sleep {OTHER_MARK} & echo here; sleep 120");
    let script = ["sh", "-c", script.as_str()];
    let (started, start) = channel();
    let status = thread::scope(|scope| {
        let running = scope.spawn(|| {
            session(client, TARGET, &script, None, move |give, mut take| {
                BufReader::new(&mut take).read_line(&mut String::new())?;
                let running = processes(client)?;
                ensure!(running.contains(OTHER_MARK), "it runs not: {running}");
                started.send(())?;
                take.read_to_end(&mut Vec::new())?;
                drop(give);
                Ok(())
            })
        });
        if start.recv().is_ok() {
            // Who kills it goes with it, for that runs by it, too.
            let _ = run_in(client, "admin", &["sh", "-c", KILL_SERVER], None);
        }
        match running.join() {
            Ok(ended) => ended.map(|((), status)| status),
            Err(_) => bail!("what looks at a command has panicked"),
        }
    })?;
    ensure!(
        status.is_err(),
        "without its server it ended with {status:?}"
    );
    host.wait("what ran by the server before is gone", || {
        processes(client).is_ok_and(|processes| !processes.contains(OTHER_MARK))
    })
}

/// As only one with superpowers may.
const KILL_SERVER: &str = "busybox chroot /.bottlerocket/rootfs /usr/bin/systemctl kill \
                           --kill-whom=main --signal=KILL apiserver.service";

/// The command lines of all processes of the container but of what looks at them.
fn processes(client: &Client) -> Result<String> {
    let script = "for process in /proc/[0-9]*; do \
                  tr '\\0' ' ' < $process/cmdline; echo; done 2>/dev/null";
    let script = script.replace("tr ", "busybox tr ");
    Ok(run(client, &["sh", "-c", &script], None)?.0)
}
