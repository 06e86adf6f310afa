//! `apiclient` against a server on a real socket, and clients that misbehave.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use apiclient::cli;
use apiserver::server;
use common::Running;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What the tests here do with a running server.
trait Talk {
    fn client(&self, line: &str) -> Result<String, String>;
    fn wait_for(&self, path: &str, text: &str);
    fn send(&self, bytes: &[u8]) -> String;
}

impl Talk for Running {
    /// Runs a command line; words are separated by spaces.
    fn client(&self, line: &str) -> Result<String, String> {
        client(&self.socket, &line.split(' ').collect::<Vec<_>>())
    }

    fn wait_for(&self, path: &str, text: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.machine.read(path) != text {
            assert!(Instant::now() < end, "{path}: {}", self.machine.read(path));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends bytes as they are and reads until the server closes.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        // A server that has heard enough may close before it has everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn client(socket: &Path, words: &[&str]) -> Result<String, String> {
    let words: Vec<_> = words.iter().map(Into::into).collect();
    let invocation = cli::parse(&words, Some(socket.into())).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    match apiclient::run(&invocation, &mut out, &mut err) {
        Ok(0) => Ok(String::from_utf8(out).unwrap()),
        Ok(_) => Err(String::from_utf8(err).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[test]
fn a_session() {
    let running = Running::start();
    let ok = |line: &str| running.client(line).unwrap();
    assert_eq!(
        ok("get settings.motd"),
        "{\n  \"settings\": {\n    \"motd\": \"Hello\"\n  }\n}\n"
    );
    assert_eq!(ok("set motd=Hi"), "");
    running.wait_for("etc/motd", "Hi\n");
    assert_eq!(
        ok("get settings.motd --canonicalize"),
        r#"{"settings":{"motd":"Hi"}}"#
    );
    assert_eq!(ok(r#"set --json {"settings":{"motd":"42"}}"#), "");
    running.wait_for("etc/motd", "42\n");
    assert_eq!(ok("unset settings.motd"), "");
    running.wait_for("etc/motd", "Hello\n");
    assert_eq!(
        ok(r#"set kernel.sysctl."vm.max-x"=a"b&c+%41 kernel.sysctl.y=z"#),
        ""
    );
    assert_eq!(
        ok(r#"raw -u /settings?keys=settings.kernel.sysctl."vm.max-x""#),
        "{\"kernel\":{\"sysctl\":{\"vm.max-x\":\"a\\\"b&c+%41\"}}}\n"
    );
    assert_eq!(
        ok(r#"get settings.kernel.sysctl."vm --canonicalize"#),
        r#"{"settings":{"kernel":{"sysctl":{"vm.max-x":"a\"b&c+%41"}}}}"#
    );
    assert_eq!(ok(r#"unset kernel.sysctl."vm.max-x""#), "");
    assert_eq!(
        ok("get settings.kernel.sysctl --canonicalize"),
        r#"{"settings":{"kernel":{"sysctl":{"y":"z"}}}}"#
    );
    assert_eq!(ok("raw -u /tx/apply -m POST"), "");
    assert!(ok("get").contains("\"version_id\": \"0.1.0\""));
    assert!(!ok("get --exclude os. --exclude os").contains("version_id"));
    assert!(ok("get /configuration-files").contains("\"path\": \"/etc/motd\""));
    assert!(ok("report").starts_with("boot         where"));
    assert_eq!(ok("report user-data"), "there is no user data\n");
    assert_eq!(
        ok("report user-data -f json"),
        r#"{"looked-at":true,"stopped":false,"sources":[]}"#
    );
    assert_eq!(ok("reboot"), "");
    assert!(
        running
            .machine
            .units
            .take()
            .contains(&"reboot host".to_string())
    );
}

#[test]
fn documents_are_applied_together_or_not_at_all() {
    let running = Running::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        format!("file://{}", folder.path().join(name).display())
    };
    let one = file(
        "one",
        "[settings]\nmotd = 'one'\nntp.time-servers = ['one']",
    );
    let two = file("two", r#"{"settings": {"motd": "two"}}"#);
    let bad = file("bad", "[settings]\nmtod = 'bad'");
    running.client(&format!("apply {one} {two}")).unwrap();
    running.wait_for("etc/motd", "two\n");
    running.wait_for("etc/chrony.conf", "pool one\n");
    let error = running.client(&format!("apply {two} {bad}")).unwrap_err();
    assert!(
        error.starts_with("Status 400 when PATCHing /settings?tx=apiclient-apply-"),
        "{error}"
    );
    assert!(
        error.ends_with("settings.mtod: unknown key; did you mean settings.motd?"),
        "{error}"
    );
    assert_eq!(running.client("raw -u /tx/list").unwrap(), "[]\n");
    // "[settings]\nmotd = 'b64'"
    running
        .client("apply base64:W3NldHRpbmdzXQptb3RkID0gJ2I2NCc=")
        .unwrap();
    running.wait_for("etc/motd", "b64\n");
}

#[test]
fn changes_are_explained_and_taken_back() {
    let running = Running::start();
    let ok = |line: &str| running.client(line).unwrap();
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&ok(line)).unwrap() };
    let changed = json("set motd=one -o json");
    assert_eq!(changed["changed"], serde_json::json!(["settings.motd"]));
    assert_eq!(changed["files"], serde_json::json!(["/etc/motd"]));
    // It was waited for, so it is there.
    assert_eq!(running.machine.read("etc/motd"), "one\n");
    assert_eq!(ok("set motd=two"), "");
    assert_eq!(running.machine.read("etc/motd"), "two\n");
    assert_eq!(ok("diff"), "settings.motd\n  - \"Hello\"\n  + \"two\"\n");
    let explained = ok("explain motd");
    for part in [
        "settings.motd\n",
        "value       \"two\"  (set by the user)\n",
        "default     \"Hello\"\n",
        "writes      motd\n",
    ] {
        assert!(explained.contains(part), "{explained}");
    }
    let refused = running.client("explain mtod").unwrap_err();
    assert!(
        refused.ends_with("did you mean settings.motd?"),
        "{refused}"
    );
    let history = json("history --json");
    let last = history[1]["id"].as_u64().unwrap();
    assert!(ok("history").contains("settings.motd\n"));
    assert_eq!(ok(&format!("rollback {last}")), "");
    assert_eq!(running.machine.read("etc/motd"), "one\n");
    assert!(
        running
            .client("rollback 4711")
            .unwrap_err()
            .starts_with("Status 404 when POSTing")
    );
    assert!(ok("complete-key ntp.").contains("ntp.time-servers\n"));
}

#[test]
fn refusals_name_status_method_and_path() {
    let running = Running::start();
    for (line, expected) in [
        (
            "raw -u /updates/status",
            "Status 404 when GETing /updates/status: there is no update status: nobody has looked for updates yet",
        ),
        (
            "raw -m POST -u /tx/commit?tx=x",
            "Status 422 when POSTing /tx/commit?tx=x: transaction \"x\" holds no changes",
        ),
        (
            "get /settings?keys=dns",
            "Status 404 when GETing /settings?keys=dns: settings.dns is not set",
        ),
        (
            "report cis",
            "Status 501 when GETing /report/cis?type=bottlerocket: this release does not have /report/cis",
        ),
    ] {
        assert_eq!(running.client(line).unwrap_err(), expected);
    }
    let error = running.client("set motd=1").unwrap_err();
    assert!(
        error.starts_with("Status 400 when PATCHing /settings/keypair?tx=apiclient-set-"),
        "{error}"
    );
    let error = client(Path::new("/nowhere/api.sock"), &["get"]).unwrap_err();
    assert!(
        error.starts_with("cannot talk to the API at /nowhere/api.sock: "),
        "{error}"
    );
}

#[test]
fn sixty_four_clients_at_once() {
    let running = Running::start();
    thread::scope(|scope| {
        for n in 0..64 {
            let running = &running;
            scope.spawn(move || {
                let line = format!("set kernel.sysctl.k{n}=v{n} motd=from-{n}");
                running.client(&line).unwrap();
            });
        }
    });
    let all = running
        .client("get settings.kernel.sysctl settings.motd")
        .unwrap();
    for n in 0..64 {
        assert!(all.contains(&format!("\"k{n}\": \"v{n}\"")), "{n}");
    }
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let motd = all["settings"]["motd"].as_str().unwrap();
    running.wait_for("etc/motd", &format!("{motd}\n"));
    assert_eq!(running.client("raw -u /tx/list").unwrap(), "[]\n");
}

#[test]
fn the_socket_is_for_owner_and_group_alone() {
    let running = Running::start();
    let mode = std::fs::metadata(&running.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn long_bodies_are_refused() {
    let running = Running::start();
    let body = format!("{{\"motd\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    for length in ["Content-Length: ", "X: "] {
        let chunked = if length == "X: " {
            "Transfer-Encoding: chunked\r\n"
        } else {
            ""
        };
        let mut request = format!(
            "PATCH /settings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{}\r\n{chunked}\r\n",
            body.len()
        )
        .into_bytes();
        if !chunked.is_empty() {
            request.extend(format!("{:x}\r\n", body.len()).bytes());
        }
        request.extend(body.bytes());
        let answer = running.send(&request);
        assert!(answer.starts_with("HTTP/1.1 413"), "{length}{answer}");
        assert!(answer.contains("larger than 2097152 bytes"), "{answer}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long");
    std::fs::write(&path, &body).unwrap();
    let error = running
        .client(&format!("apply file://{}", path.display()))
        .unwrap_err();
    assert!(error.contains("more than 2097152 bytes"), "{error}");
}

#[test]
fn silent_and_odd_clients_keep_nobody_from_being_served() {
    let running = Running::with(server::Limits {
        connections: 32,
        read: Duration::from_millis(500),
        write: Duration::from_millis(500),
    });
    let mut silent: Vec<UnixStream> = (0..100)
        .map(|n| {
            let mut stream = UnixStream::connect(&running.socket).unwrap();
            let start: &[u8] = match n % 4 {
                0 => b"",
                1 => b"GET /set",
                2 => b"GET /os HTTP/1.1\r\nHost: x\r\n",
                _ => b"PATCH /settings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            };
            // The server may have lost patience by now.
            let _ = stream.write_all(start);
            stream
        })
        .collect();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"GET / HTTP/9\r\n\r\n",
        b"\r\n\r\n\r\n",
        &[0xff; 100_000],
    ] {
        running.send(bytes);
    }
    running.client("set motd=served").unwrap();
    running.wait_for("etc/motd", "served\n");
    // All of them have been turned away.
    for stream in &mut silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_turned_away() {
    let running = Running::with(server::Limits {
        write: Duration::from_millis(300),
        ..server::Limits::default()
    });
    let list = serde_json::json!({ "ntp": { "options": vec!["x".repeat(1000); 1000] } });
    running.client(&format!("set -j {list}")).unwrap();
    let mut stream = UnixStream::connect(&running.socket).unwrap();
    stream
        .write_all(b"GET /settings HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    // Nothing is read until the server has gone.
    let end = Instant::now() + Duration::from_secs(60);
    while stream.write_all(b"\r").is_ok() {
        assert!(Instant::now() < end, "still being served");
        thread::sleep(Duration::from_millis(20));
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.len() < 1_000_000, "{}", answer.len());
}

#[test]
fn a_connection_can_be_used_again() {
    let running = Running::start();
    let mut stream = UnixStream::connect(&running.socket).unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /tx HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{}") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
