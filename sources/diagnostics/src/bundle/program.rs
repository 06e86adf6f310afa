//! Running a program that may write much, or never end.

use std::io::{Read, pipe};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a program may take.
const TIME: Duration = Duration::from_secs(60);

/// What a program writes to its outputs, without input, until it ends, has
/// written `limit` bytes, or has used up its time. The last line says which, if
/// it was not a good end.
pub fn run(words: &[&str], limit: usize) -> Result<Vec<u8>> {
    run_within(words, limit, TIME)
}

fn run_within(words: &[&str], limit: usize, time: Duration) -> Result<Vec<u8>> {
    let [program, arguments @ ..] = words else {
        bail!("there is no program to run");
    };
    let (mut reader, writer) = pipe().context("making a pipe")?;
    // The command holds the pipe's other end, so it must not live longer.
    let mut child = {
        let errors = writer.try_clone().context("making a pipe")?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .env("SYSTEMD_COLORS", "0")
            .env("SYSTEMD_PAGER", "")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", words.join(" ")))?
    };
    let (sender, receiver) = mpsc::sync_channel(4);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + time;
    let mut output = Vec::new();
    let stopped = loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => output.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("stopped after {} s", time.as_secs()));
            }
        }
        if output.len() >= limit {
            output.truncate(limit);
            break Some(format!("stopped after {limit} bytes"));
        }
    };
    if stopped.is_some() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for {program}"))?;
    let end = stopped.or_else(|| (!status.success()).then(|| status.to_string()));
    if let Some(end) = end {
        output.extend(format!("\n[{end}]\n").bytes());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_ends() {
        let time = Duration::from_secs(1);
        for (script, expected) in [
            ("echo out", "out\n"),
            (
                "echo out; echo why >&2; exit 3",
                "out\nwhy\n\n[exit status: 3]\n",
            ),
            ("cat; echo $HOME", "\n"),
            (
                "echo 123456789012345678901234567890",
                "12345678901234567890\n[stopped after 20 bytes]\n",
            ),
            (
                "echo begun; exec sleep 100",
                "begun\n\n[stopped after 1 s]\n",
            ),
        ] {
            let output = run_within(&["/bin/sh", "-c", script], 20, time);
            let output = String::from_utf8(output.expect(script)).expect("text");
            assert_eq!(output, expected, "{script}");
        }
        assert!(run(&["/does/not/exist"], 20).is_err());
        assert!(run(&[], 20).is_err());
    }
}
