//! The program itself: what it sends, prints and exits with.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// A server that answers each connection with the next of some answers, and
/// takes down what it was sent.
struct Script {
    folder: TempDir,
    server: JoinHandle<Vec<String>>,
}

impl Script {
    fn new(answers: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let answers: Vec<String> = answers.iter().map(|answer| answer.to_string()).collect();
        let server = thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                requests.push(read_request(&mut stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        Self { folder, server }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    fn requests(self) -> Vec<String> {
        self.server.join().unwrap()
    }
}

fn read_request(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

struct Outcome {
    status: i32,
    out: String,
    err: String,
}

fn run(words: &[&str], socket: Option<&Path>, input: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apiclient"));
    command
        .args(words)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(socket) = socket {
        command.env("BULKHEAD_API_SOCKET", socket);
    }
    let mut child = command.spawn().unwrap();
    // Not every command reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const LIST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n[\"settings.motd\"]";

/// A request without the random end of its transaction's name.
fn normal(request: &str) -> String {
    match request.split_once("?tx=apiclient-") {
        Some((before, after)) => {
            let (command, rest) = after.split_once('-').unwrap();
            assert!(rest.as_bytes()[..16].iter().all(u8::is_ascii_alphanumeric));
            format!("{before}?tx=apiclient-{command}-…{}", &rest[16..])
        }
        None => request.to_string(),
    }
}

#[test]
fn requests_as_they_travel() {
    let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    for (words, input, expected) in [
        (
            vec!["set", "motd=a b", "x=1"],
            "",
            vec![
                format!(
                    "PATCH /settings/keypair?tx=apiclient-set-… HTTP/1.1\r\n{head}Content-Length: 38\r\n\r\n\
                     {{\"request_payload\":[\"motd=a b\",\"x=1\"]}}"
                ),
                format!(
                    "POST /tx/commit_and_apply?tx=apiclient-set-… HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n"
                ),
            ],
        ),
        (
            vec!["apply"],
            "[settings]\nmotd = 'x'",
            vec![
                format!(
                    "PATCH /settings?tx=apiclient-apply-… HTTP/1.1\r\n{head}Content-Length: 12\r\n\r\n{{\"motd\":\"x\"}}"
                ),
                format!(
                    "POST /tx/commit_and_apply?tx=apiclient-apply-… HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n"
                ),
            ],
        ),
        (
            vec!["raw", "-u", "/x?y=\"z\"", "-m", "POST", "-d", "[1]"],
            "",
            vec![format!(
                "POST /x?y=%22z%22 HTTP/1.1\r\n{head}Content-Length: 3\r\n\r\n[1]"
            )],
        ),
        (
            vec!["-u", "/x"],
            "",
            vec![format!("GET /x HTTP/1.1\r\n{head}\r\n")],
        ),
        (
            vec!["reboot"],
            "",
            vec![format!(
                "POST /actions/reboot HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n"
            )],
        ),
    ] {
        let answers: Vec<&str> = expected.iter().map(|_| DONE).collect();
        let script = Script::new(&answers);
        let outcome = run(&words, Some(&script.socket()), input);
        let requests: Vec<String> = script
            .requests()
            .iter()
            .map(|request| normal(request))
            .collect();
        assert_eq!(requests, expected, "{words:?}");
        assert_eq!(
            (outcome.status, outcome.out.as_str(), outcome.err.as_str()),
            (0, "", "")
        );
    }
}

#[test]
fn output_and_exit_status() {
    let refused = "HTTP/1.1 423 Locked\r\nContent-Length: 6\r\n\r\nlocked";
    for (words, answer, status, out, err) in [
        (
            vec!["raw", "-u", "/x"],
            LIST,
            0,
            "[\"settings.motd\"]\n",
            "",
        ),
        (
            vec!["raw", "-v", "-u", "/x"],
            LIST,
            0,
            "[\"settings.motd\"]\n",
            "200 OK\n",
        ),
        (
            vec!["get", "/x"],
            LIST,
            0,
            "[\n  \"settings.motd\"\n]\n",
            "",
        ),
        (
            vec!["raw", "-m", "POST", "-u", "/x"],
            refused,
            1,
            "",
            "Status 423 when POSTing /x: locked\n",
        ),
        (
            vec!["get", "/x"],
            "HTTP/1.1 200 OK\r\n\r\nno JSON",
            1,
            "",
            "the answer to /x is not JSON; try raw -u /x: expected ident at line 1 column 2\n",
        ),
    ] {
        let script = Script::new(&[answer]);
        let outcome = run(&words, Some(&script.socket()), "");
        script.requests();
        assert_eq!(outcome.status, status, "{words:?}");
        assert_eq!(
            (outcome.out.as_str(), outcome.err.as_str()),
            (out, err),
            "{words:?}"
        );
    }
}

#[test]
fn usage_goes_to_stderr_with_status_2() {
    for (words, start) in [
        (vec!["--help"], "Usage: apiclient [SUBCOMMAND]"),
        (vec!["set", "-h"], "Usage: apiclient set KEY=VALUE"),
        (
            vec![],
            "apiclient: no subcommand\n\nUsage: apiclient [SUBCOMMAND]",
        ),
        (
            vec!["get", "--nothing"],
            "apiclient: unknown argument \"--nothing\"\n\nUsage: apiclient get",
        ),
    ] {
        let outcome = run(&words, None, "");
        assert_eq!(outcome.status, 2, "{words:?}");
        assert_eq!(outcome.out, "");
        assert!(outcome.err.starts_with(start), "{words:?}: {}", outcome.err);
    }
}

#[test]
fn without_a_server_the_socket_is_named() {
    let outcome = run(&["get"], Some(Path::new("/nowhere/sock")), "");
    assert_eq!(outcome.status, 1);
    assert_eq!(
        outcome.err,
        "cannot talk to the API at /nowhere/sock: No such file or directory (os error 2)\n"
    );
    // The flag is stronger than the environment.
    let words = ["get", "-s", "/elsewhere/sock"];
    let outcome = run(&words, Some(Path::new("/nowhere/sock")), "");
    assert!(outcome.err.contains("/elsewhere/sock"), "{}", outcome.err);
}

#[test]
fn a_document_that_is_refused_leaves_nothing_pending() {
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad";
    let script = Script::new(&[refused, DONE]);
    let outcome = run(&["apply", "-"], Some(&script.socket()), "settings.x = 1");
    assert_eq!(outcome.status, 1);
    assert!(
        normal(&outcome.err)
            .starts_with("Status 400 when PATCHing /settings?tx=apiclient-apply-…: bad")
    );
    let requests = script.requests();
    assert!(
        requests[1].starts_with("DELETE /tx?tx=apiclient-apply-"),
        "{}",
        requests[1]
    );
}
