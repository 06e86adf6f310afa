//! Runs a program for the probe: no input, output up to a limit, and no longer
//! than a while.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

/// How long a program may run.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// How much is kept of each output, in bytes.
const OUTPUT_LIMIT: usize = 4 << 20;

/// How often to look whether a program has ended that has closed its output.
const PERIOD: Duration = Duration::from_millis(5);

/// What the service manager tells us, and nobody whom we start.
const OWN_VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
];

/// A program that has ended.
#[derive(Debug, PartialEq, Serialize)]
pub struct Ended {
    /// Its exit status, or 128 and the number of the signal that ended it.
    pub status: i32,
    /// What it said; what is not UTF-8 is replaced.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// Runs `command`, a program with its arguments. When its output is not closed
/// and it has not ended within `limit`, it is killed with what it has started.
pub fn run(command: &[String], limit: Duration) -> Result<Ended> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("the request names no program");
    };
    let deadline = Instant::now() + limit;
    let mut command = Command::new(program);
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
    let mut child = command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let ended = follow(&mut child, deadline);
    if !matches!(ended, Ok(Some(_))) {
        // The child has not been waited for, so the group's number is still its own.
        let group = Pid::from_raw(child.id().try_into().context("process id")?);
        if let Err(error) = killpg(group, Signal::SIGKILL) {
            tracing::warn!("cannot kill {program}: {error}");
        }
        child.wait()?;
    }
    match ended? {
        Some(ended) => Ok(ended),
        None => bail!(
            "{program} was still running after {} seconds and has been killed",
            limit.as_secs_f32()
        ),
    }
}

/// Reads what the child says until it has ended; none when it takes too long.
fn follow(child: &mut Child, deadline: Instant) -> Result<Option<Ended>> {
    let mut stdout = Output::of(child.stdout.take().map(OwnedFd::from));
    let mut stderr = Output::of(child.stderr.take().map(OwnedFd::from));
    while stdout.pipe.is_some() || stderr.pipe.is_some() {
        let Some(left) = left(deadline) else {
            return Ok(None);
        };
        let mut open: Vec<&mut Output> = [&mut stdout, &mut stderr]
            .into_iter()
            .filter(|output| output.pipe.is_some())
            .collect();
        let ready = wait_for_any(&open, left)?;
        for (output, ready) in open.iter_mut().zip(ready) {
            if ready {
                output.read()?;
            }
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(Ended {
                status: number(status),
                stdout: stdout.text(),
                stderr: stderr.text(),
            }));
        }
        if left(deadline).is_none() {
            return Ok(None);
        }
        thread::sleep(PERIOD);
    }
}

/// Which of the outputs can be read; waits for the first one, up to `left`.
fn wait_for_any(outputs: &[&mut Output], left: Duration) -> Result<Vec<bool>> {
    let mut polled: Vec<PollFd> = outputs
        .iter()
        .filter_map(|output| output.pipe.as_ref())
        .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
        .collect();
    // Rounded up, lest the last millisecond is spent in a busy loop.
    let timeout =
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|fd| fd.any() == Some(true)).collect())
}

/// One output of a child.
struct Output {
    /// Where it comes from, until its end.
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Output {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(File::from),
            kept: Vec::new(),
        }
    }

    /// Reads what is there. Beyond the limit it is thrown away, so that the
    /// child can go on.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut bytes = [0; 16 << 10];
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let room = OUTPUT_LIMIT - self.kept.len();
                self.kept.extend(&bytes[..count.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

fn left(deadline: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

fn number(status: ExitStatus) -> i32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Ended> {
        run(&["sh", "-c", script].map(str::to_string), limit)
    }

    #[test]
    fn tells_status_and_output() {
        for (script, status, stdout, stderr) in [
            ("true", 0, "", ""),
            ("echo out; echo err >&2; exit 3", 3, "out\n", "err\n"),
            ("kill -9 $$", 137, "", ""),
            ("cat; pwd", 0, "/\n", ""),
            ("printf '\\377'", 0, "\u{fffd}", ""),
            ("exec >&- 2>&-; sleep 0.05; exit 4", 4, "", ""),
        ] {
            let expected = Ended {
                status,
                stdout: stdout.into(),
                stderr: stderr.into(),
            };
            assert_eq!(sh(script, TIME_LIMIT).expect(script), expected, "{script}");
        }
    }

    #[test]
    fn much_output_is_cut_and_does_not_stop_the_program() {
        let script = format!(
            "head -c {} /dev/zero; head -c 300000 /dev/zero >&2; exit 5",
            OUTPUT_LIMIT + 100_000
        );
        let ended = sh(&script, TIME_LIMIT).expect("ends");
        assert_eq!(
            (ended.status, ended.stdout.len(), ended.stderr.len()),
            (5, OUTPUT_LIMIT, 300_000)
        );
    }

    #[test]
    fn whatever_takes_too_long_is_killed_with_its_children() {
        for script in [
            "sleep 600",
            // The output is closed, the program goes on.
            "exec >&- 2>&-; sleep 600",
            // The program has ended, a child keeps the output open.
            "sleep 600 & exit 0",
            "while :; do echo x; done",
        ] {
            let started = Instant::now();
            let error = sh(script, Duration::from_millis(300)).expect_err(script);
            assert!(
                error.to_string().contains("still running after 0.3 s"),
                "{error}"
            );
            assert!(started.elapsed() < Duration::from_secs(60), "{script}");
        }
    }

    #[test]
    fn a_killed_program_leaves_nobody_behind() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("id");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        sh(&script, Duration::from_millis(500)).expect_err("too long");
        let id = std::fs::read_to_string(&file).expect("id");
        // Gone, or dead and waiting for init to notice; a loaded machine takes its
        // time to end what was killed.
        let is_dead = || {
            std::fs::read_to_string(format!("/proc/{}/status", id.trim()))
                .map_or(true, |status| status.contains("State:\tZ"))
        };
        let started = Instant::now();
        while !is_dead() {
            assert!(started.elapsed() < Duration::from_secs(20), "it still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
