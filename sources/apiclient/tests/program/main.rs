//! The program itself: how its requests look, and what it says without a server.

#![allow(clippy::unwrap_used, reason = "a test")]

mod exchanges;
mod support;
mod terminal;

use std::path::Path;
use support::{Script, run};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

#[test]
fn requests_as_they_travel() {
    let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    for (line, expected) in [
        (
            "raw -u /x?y=\"z\" -m POST -d [1]",
            format!("POST /x?y=%22z%22 HTTP/1.1\r\n{head}Content-Length: 3\r\n\r\n[1]"),
        ),
        ("-u /x", format!("GET /x HTTP/1.1\r\n{head}\r\n")),
        (
            "reboot",
            format!("POST /actions/reboot HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n"),
        ),
    ] {
        let script = Script::new(vec!["HTTP/1.1 204 No Content\r\n\r\n".into()]);
        let outcome = run(&words(line), Some(&script.socket()), "");
        assert_eq!(script.requests(), [expected], "{line}");
        assert_eq!(
            (outcome.status, outcome.out, outcome.err),
            (0, String::new(), String::new())
        );
    }
}

#[test]
fn exec_asks_for_a_websocket() {
    let script = Script::new(vec!["HTTP/1.1 501 Not Implemented\r\n\r\nlater".into()]);
    let outcome = run(&words("exec admin ls -l"), Some(&script.socket()), "");
    assert_eq!(
        outcome.err,
        "cannot run \"ls\" in admin: Status 501 when GETing /exec: later\n"
    );
    assert_eq!((outcome.status, outcome.out.as_str()), (1, ""));
    let request = script.requests().remove(0);
    for line in [
        "GET /exec HTTP/1.1\r\n",
        "\r\nConnection: Upgrade\r\n",
        "\r\nUpgrade: websocket\r\n",
        "\r\nSec-WebSocket-Version: 13\r\n",
    ] {
        assert!(request.contains(line), "{request}");
    }
    let (_, key) = request.split_once("Sec-WebSocket-Key: ").unwrap();
    assert_eq!(key.find('\r'), Some(24), "{request}");
    assert_eq!(&key[22..24], "==");
}

#[test]
fn usage_goes_to_stderr_with_status_2() {
    for (line, start) in [
        ("--help", "Usage: apiclient [SUBCOMMAND]"),
        ("set -h", "Usage: apiclient set KEY=VALUE"),
        (
            "",
            "apiclient: no subcommand\n\nUsage: apiclient [SUBCOMMAND]",
        ),
        (
            "get --nothing",
            "apiclient: unknown flag \"--nothing\"\n\nUsage: apiclient get",
        ),
        (
            "update aply",
            "apiclient: unknown subcommand \"aply\"; did you mean apply?\n\n\
             Usage: apiclient update check\n",
        ),
    ] {
        let outcome = run(&words(line), None, "");
        assert_eq!(outcome.status, 2, "{line}");
        assert_eq!(outcome.out, "");
        assert!(outcome.err.starts_with(start), "{line}: {}", outcome.err);
    }
}

#[test]
fn without_a_server_the_socket_is_named() {
    let outcome = run(&words("get"), Some(Path::new("/nowhere/sock")), "");
    assert_eq!(outcome.status, 1);
    assert_eq!(
        outcome.err,
        "cannot talk to the API at /nowhere/sock: No such file or directory (os error 2)\n"
    );
    // The flag is stronger than the environment.
    let line = words("get -s /elsewhere/sock");
    let outcome = run(&line, Some(Path::new("/nowhere/sock")), "");
    assert!(outcome.err.contains("/elsewhere/sock"), "{}", outcome.err);
}
