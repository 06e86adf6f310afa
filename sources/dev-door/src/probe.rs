//! The probe's protocol: a line of JSON for each request, a line of JSON for
//! its answer, as many as the caller wants. A request has one key, which names
//! what is wanted; an answer has the key `ok` or `error`.
//!
//! `tests/exchanges.jsonl` shows each request with an answer. The tests here and
//! those of the client in test-vm both go by it.

use std::io::{self, BufRead, BufReader, Read, Write};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{inspect, run};

/// The longest request in bytes.
const LINE_LIMIT: u64 = 1 << 20;

/// What may be asked. Paths are absolute.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// The text of a file.
    Read(String),
    /// Replace the content of a file, which is made if need be.
    Write { path: String, content: String },
    /// What lies at a path; links are not followed.
    Stat(String),
    /// Run a program with arguments.
    Run(Vec<String>),
    /// The machine's memory; the value says nothing.
    Meminfo(bool),
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Found),
    Error(Failure),
}

/// What has come of a request.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found {
    Text(String),
    Written {},
    Status(inspect::Status),
    Ended(run::Ended),
    Memory(inspect::Memory),
}

/// Why a request came to nothing.
#[derive(Debug, Serialize)]
struct Failure {
    /// For people: of a system call the plain text of its error, since the
    /// caller knows what it asked for.
    message: String,
    /// The system call's error number, if it was one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let errno = error.chain().find_map(|cause| {
            let of_std = cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error);
            of_std.or_else(|| cause.downcast_ref::<Errno>().map(|errno| *errno as i32))
        });
        Self {
            message: format!("{error:#}"),
            errno,
        }
    }
}

/// Answers requests until there are no more.
pub fn converse(requests: impl Read, mut answers: impl Write) -> Result<()> {
    let mut requests = BufReader::new(requests);
    while let Some(line) = next_line(&mut requests).context("reading a request")? {
        let answer = match line.and_then(|line| answer(&line)) {
            Ok(found) => Answer::Ok(found),
            Err(error) => Answer::Error(error.into()),
        };
        let mut text = serde_json::to_vec(&answer).context("writing an answer as JSON")?;
        text.push(b'\n');
        answers.write_all(&text).context("sending an answer")?;
    }
    Ok(())
}

/// The next line; an error inside when it is too long, and then it is skipped
/// without being held. None at the end.
fn next_line(requests: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>>>> {
    let mut line = Vec::new();
    if requests.take(LINE_LIMIT + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LINE_LIMIT {
        requests.skip_until(b'\n')?;
        return Ok(Some(Err(anyhow!(
            "the request is longer than {LINE_LIMIT} bytes"
        ))));
    }
    Ok(Some(Ok(line)))
}

fn answer(line: &[u8]) -> Result<Found> {
    let request = serde_json::from_slice(line).context("the request is not valid")?;
    Ok(match request {
        Request::Read(path) => Found::Text(inspect::read(&path)?),
        Request::Write { path, content } => {
            inspect::write(&path, &content)?;
            Found::Written {}
        }
        Request::Stat(path) => Found::Status(inspect::stat(&path)?),
        Request::Run(command) => Found::Ended(run::run(&command, run::TIME_LIMIT)?),
        Request::Meminfo(_) => Found::Memory(inspect::memory()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The answers to `requests`, one for each line.
    fn talk(requests: impl AsRef<[u8]>) -> Vec<Value> {
        let mut answers = Vec::new();
        converse(requests.as_ref(), &mut answers).expect("conversation");
        String::from_utf8(answers)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn ask(request: Value) -> Value {
        let mut answers = talk(format!("{request}\n"));
        assert_eq!(answers.len(), 1, "{request}");
        answers.remove(0)
    }

    #[test]
    fn requests_and_answers_look_as_the_examples_say() {
        let requests = [
            Request::Read("/etc/motd".into()),
            Request::Write {
                path: "/etc/x".into(),
                content: "y".into(),
            },
            Request::Stat("/etc".into()),
            Request::Stat("/proc".into()),
            Request::Run(vec!["systemctl".into(), "is-system-running".into()]),
            Request::Meminfo(true),
            Request::Read("/var/lib/bulkhead/secret".into()),
        ];
        let status = |label: Option<&str>, mode: &str, filesystem: &str| inspect::Status {
            kind: "directory",
            mode: mode.into(),
            uid: 0,
            gid: 0,
            size: 80,
            label: label.map(str::to_string),
            filesystem: Some(filesystem.into()),
        };
        let denied = anyhow::Error::from(io::Error::from_raw_os_error(13));
        let answers = [
            Answer::Ok(Found::Text("text\n".into())),
            Answer::Ok(Found::Written {}),
            Answer::Ok(Found::Status(status(
                Some("system_u:object_r:etc_t:s0"),
                "0755",
                "tmpfs",
            ))),
            Answer::Ok(Found::Status(status(None, "0555", "proc"))),
            Answer::Ok(Found::Ended(run::Ended {
                status: 0,
                stdout: "running\n".into(),
                stderr: String::new(),
            })),
            Answer::Ok(Found::Memory(inspect::Memory {
                total: 2097152,
                available: 1048576,
            })),
            Answer::Error(denied.into()),
        ];
        let examples: Vec<Value> = include_str!("../tests/exchanges.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(examples.len(), requests.len());
        for ((example, request), answer) in examples.iter().zip(requests).zip(answers) {
            let parsed: Request =
                serde_json::from_value(example["request"].clone()).expect("request");
            assert_eq!(parsed, request);
            assert_eq!(
                serde_json::to_value(answer).expect("answer"),
                example["answer"]
            );
        }
    }

    #[test]
    fn each_request_is_answered() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file").display().to_string();
        let write = json!({"write": {"path": path, "content": "one\n"}});
        assert_eq!(ask(write), json!({"ok": {}}));
        assert_eq!(ask(json!({"read": path})), json!({"ok": "one\n"}));
        assert_eq!(ask(json!({"stat": path}))["ok"]["size"], 4);
        assert_eq!(
            ask(json!({"run": ["cat", path]})),
            json!({"ok": {"status": 0, "stdout": "one\n", "stderr": ""}})
        );
        let memory = ask(json!({"meminfo": true}));
        let number = |key: &str| memory["ok"][key].as_u64().expect("number");
        assert!(number("total") > number("available") && number("available") > 0);
    }

    #[test]
    fn failures_of_system_calls_have_their_number() {
        let absent = json!({"error": {
            "message": "No such file or directory (os error 2)",
            "errno": 2,
        }});
        for request in [
            json!({"read": "/does/not/exist"}),
            json!({"write": {"path": "/does/not/exist", "content": ""}}),
            json!({"stat": "/does/not/exist"}),
            json!({"run": ["/does/not/exist"]}),
        ] {
            assert_eq!(ask(request.clone()), absent, "{request}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_the_conversation_goes_on() {
        for (line, reason) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("hello", "expected value"),
            (r#"{"open":"/"}"#, "unknown variant `open`"),
            (r#"{"read":1}"#, "invalid type"),
            (r#"{"read":"/a","stat":"/b"}"#, "expected"),
            (r#"{"write":{"path":"/a"}}"#, "missing field `content`"),
            (
                r#"{"write":{"path":"/a","content":"","mode":1}}"#,
                "unknown field `mode`",
            ),
            (r#"{"read":"etc/motd"}"#, "absolute"),
            (r#"{"run":[]}"#, "names no program"),
            (r#"{"run":[["a"]]}"#, "invalid type"),
        ] {
            let answers = talk(format!("{line}\n{{\"meminfo\":true}}\n"));
            assert_eq!(answers.len(), 2, "{line}");
            let message = answers[0]["error"]["message"].as_str().expect("error");
            assert!(message.contains(reason), "{line}: {message}");
            assert!(answers[1]["ok"].is_object(), "{line}");
        }
        assert!(talk(b"\xff\n")[0]["error"].is_object());
    }

    #[test]
    fn a_request_may_be_as_long_as_the_limit() {
        let of_length = |length: usize| {
            let frame = r#"{"read":""}"#.len();
            format!(r#"{{"read":"{}"}}"#, "x".repeat(length - frame))
        };
        let limit = LINE_LIMIT as usize;
        for (length, reason) in [
            (limit, "absolute"),
            (limit + 1, "longer than 1048576 bytes"),
            (3 * limit, "longer than 1048576 bytes"),
        ] {
            // Also at the end of the stream, without a line break.
            for end in ["\n{\"meminfo\":true}\n", ""] {
                let answers = talk(of_length(length) + end);
                let message = answers[0]["error"]["message"].as_str().expect("error");
                assert!(message.contains(reason), "{length}: {message}");
                assert_eq!(answers.len(), if end.is_empty() { 1 } else { 2 });
            }
        }
    }
}
