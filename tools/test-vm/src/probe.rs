//! A client for the probe of the dev door, which looks inside a machine that has no
//! shell. What travels is shown in `sources/dev-door/tests/exchanges.jsonl`.

use crate::socket;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// TCP port of the probe inside the guest.
pub const PROBE_PORT: u16 = 7275;

/// How long an answer may take; programs run for half a minute of the guest's time.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// The longest answer in bytes: what the door sends at most, if each byte of it has to
/// be escaped.
const ANSWER_LIMIT: u64 = 64 << 20;

/// A connection to a guest's probe, which takes any number of requests.
///
/// When the guest refuses something, the error is (or holds) a [`Refused`]; any other
/// error means that the conversation has broken.
pub struct Probe<S: Read + Write> {
    stream: BufReader<S>,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// `file`, `directory`, `symlink`, `socket`, `fifo`, `block` or `character`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The permissions in octal, such as `0755`.
    pub mode: String,
    /// Who owns it.
    pub uid: u32,
    /// Whose group it has.
    pub gid: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its SELinux label; none where there are no labels.
    pub label: Option<String>,
    /// The type of the file system that it lies on, such as `erofs`.
    pub filesystem: Option<String>,
}

/// A program that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ended {
    /// Its exit status, or 128 and the number of the signal that ended it.
    pub status: i32,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// The guest's memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}

/// What the guest says when it does not do what it is asked. Found in an error by
/// `error.downcast_ref::<Refused>()`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// Why, such as `Permission denied (os error 13)`.
    pub message: String,
    /// The number of the system call's error, if it was one that failed.
    pub errno: Option<i32>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refused {}

/// A line of the probe. Kept apart from its content, which depends on the request.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Error(Refused),
}

impl Probe<UnixStream> {
    /// Connects by the Unix socket at `socket`, which leads to the guest's probe.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = socket::connect(socket)?;
        stream
            .set_read_timeout(Some(ANSWER_TIME))
            .with_context(|| format!("cannot set up {}", socket.display()))?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> Probe<S> {
    /// The probe at the other end of `stream`, whose time limits are the caller's.
    pub fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The text of the file at `path`; what is not UTF-8 in it is replaced.
    pub fn read(&mut self, path: &str) -> Result<String> {
        self.ask(&json!({"read": path}))
            .with_context(|| format!("cannot read {path} in the guest"))
    }

    /// Makes `content` all that is in the file at `path`.
    pub fn write(&mut self, path: &str, content: &str) -> Result<()> {
        self.ask(&json!({"write": {"path": path, "content": content}}))
            .map(|_: Value| ())
            .with_context(|| format!("cannot write {path} in the guest"))
    }

    /// What lies at `path` itself: links are not followed.
    pub fn stat(&mut self, path: &str) -> Result<Status> {
        self.ask(&json!({"stat": path}))
            .with_context(|| format!("cannot look at {path} in the guest"))
    }

    /// Runs a program with arguments, whatever its exit status. It gets no input, is
    /// killed after 30 seconds, and of each output up to 4 MiB are kept.
    pub fn run(&mut self, command: &[&str]) -> Result<Ended> {
        self.ask(&json!({"run": command}))
            .with_context(|| format!("cannot run `{}` in the guest", command.join(" ")))
    }

    /// How much memory the guest has and how much is available.
    pub fn meminfo(&mut self) -> Result<Memory> {
        self.ask(&json!({"meminfo": true}))
            .context("cannot ask for the guest's memory")
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("{request}\n").as_bytes())
            .and_then(|()| stream.flush())
            .context("the probe takes no request")?;
        let mut line = Vec::new();
        (&mut self.stream)
            .take(ANSWER_LIMIT)
            .read_until(b'\n', &mut line)
            .context("the probe does not answer")?;
        if line.last() != Some(&b'\n') {
            bail!(
                "the probe's answer breaks off after {} bytes; is the guest down?",
                line.len()
            );
        }
        let shown = || {
            let start = &line[..line.len().min(200)];
            format!(
                "the probe's answer is not understood: {}",
                String::from_utf8_lossy(start).trim_end()
            )
        };
        match serde_json::from_slice(&line).with_context(shown)? {
            Answer::Ok(found) => serde_json::from_value(found).with_context(shown),
            Answer::Error(refused) => Err(refused.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io;
    use std::os::unix::net::UnixListener;
    use std::thread;

    const EXAMPLES: &str = include_str!("../../../sources/dev-door/tests/exchanges.jsonl");

    fn examples() -> VecDeque<Value> {
        EXAMPLES
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Expects the requests of the examples in order, and gives their answers.
    struct Guest {
        examples: VecDeque<Value>,
        request: Vec<u8>,
        answer: VecDeque<u8>,
    }

    impl Write for Guest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.request.extend(bytes);
            if self.request.ends_with(b"\n") {
                let example = self.examples.pop_front().unwrap();
                let request: Value = serde_json::from_slice(&self.request).unwrap();
                assert_eq!(request, example["request"]);
                self.request.clear();
                self.answer
                    .extend(format!("{}\n", example["answer"]).bytes());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Guest {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.answer.read(bytes)
        }
    }

    #[test]
    fn talks_as_the_examples_show() {
        let mut probe = Probe::over(Guest {
            examples: examples(),
            request: Vec::new(),
            answer: VecDeque::new(),
        });
        assert_eq!(probe.read("/etc/motd").unwrap(), "text\n");
        probe.write("/etc/x", "y").unwrap();
        let status = probe.stat("/etc").unwrap();
        assert_eq!(
            (status.kind.as_str(), status.mode.as_str(), status.size),
            ("directory", "0755", 80)
        );
        assert_eq!(status.label.as_deref(), Some("system_u:object_r:etc_t:s0"));
        assert_eq!(status.filesystem.as_deref(), Some("tmpfs"));
        assert_eq!(probe.stat("/proc").unwrap().label, None);
        let ended = probe.run(&["systemctl", "is-system-running"]).unwrap();
        assert_eq!((ended.status, ended.stdout.as_str()), (0, "running\n"));
        assert_eq!(
            probe.meminfo().unwrap(),
            Memory {
                total: 2 << 20,
                available: 1 << 20
            }
        );
        let error = probe.read("/var/lib/bulkhead/secret").unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().unwrap().errno, Some(13));
        assert_eq!(
            format!("{error:#}"),
            "cannot read /var/lib/bulkhead/secret in the guest: Permission denied (os error 13)"
        );
        assert!(probe.stream.get_ref().examples.is_empty());
    }

    #[test]
    fn a_broken_conversation_is_no_refusal() {
        for (answer, reason) in [
            ("", "breaks off after 0 bytes"),
            ("{\"ok\":\"te", "breaks off after 9 bytes"),
            ("\n", "not understood"),
            ("{}\n", "not understood"),
            ("{\"ok\":5}\n", "not understood: {\"ok\":5}"),
            ("{\"error\":5}\n", "not understood"),
            ("hello\n", "not understood: hello"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("probe.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let guest = thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let error = Probe::connect(&path).unwrap().read("/a").unwrap_err();
            assert!(error.downcast_ref::<Refused>().is_none(), "{answer}");
            let text = format!("{error:#}");
            assert!(
                text.contains("cannot read /a") && text.contains(reason),
                "{text}"
            );
            guest.join().unwrap();
        }
    }
}
