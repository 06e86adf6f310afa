//! The program itself: readiness, and being killed at any moment.

#![allow(clippy::unwrap_used, reason = "a test")]

use apiclient::Client;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts the program and returns when it says that it is ready.
    fn start(root: &Path) -> Self {
        let notify = root.join("notify");
        let _ = fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let socket = root.join("api.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_apiserver"))
            .arg("--root")
            .arg(root)
            .arg("--socket-path")
            .arg(&socket)
            .env("NOTIFY_SOCKET", &notify)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut message = [0; 64];
        let length = notified.recv(&mut message).unwrap();
        assert!(message[..length].starts_with(b"READY=1"));
        Self { child, socket }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/lib")).unwrap();
    fs::write(root.path().join("usr/lib/os-release"), "VARIANT_ID=test\n").unwrap();
    root
}

#[test]
fn when_it_is_ready_the_socket_is_there_for_its_group() {
    let root = root();
    let server = Server::start(root.path());
    let mode = fs::metadata(&server.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let answer = Client::new(&server.socket)
        .send("GET", "/os", None)
        .unwrap();
    assert!(
        String::from_utf8(answer.body)
            .unwrap()
            .contains("\"variant_id\":\"test\"")
    );
    server.kill();
    // The socket that is left over is in nobody's way.
    Server::start(root.path()).kill();
}

/// Kills the server while it commits. What it had answered for is there when it
/// comes back, and at most the one commit that was under way beyond it.
#[test]
fn killed_at_any_moment_it_comes_back_with_what_it_had_answered_for() {
    let root = root();
    let mut confirmed = 0;
    for round in 0..12 {
        let server = Server::start(root.path());
        let client = Client::new(&server.socket);
        let answer = client
            .send("GET", "/settings?keys=settings.motd", None)
            .unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        let found = body
            .trim_start_matches("{\"motd\":\"n")
            .trim_end_matches("\"}");
        let found: u32 = found.parse().unwrap_or_default();
        assert!(
            found == confirmed || found == confirmed + 1,
            "{found} after {confirmed} was confirmed"
        );
        let committing = std::thread::spawn(move || {
            let mut done = found;
            loop {
                let body = format!("{{\"motd\":\"n{}\"}}", done + 1);
                let sent = client
                    .send("PATCH", "/settings?tx=t", Some(body.as_bytes()))
                    .and_then(|_| client.send("POST", "/tx/commit?tx=t", None));
                match sent {
                    Ok(_) => done += 1,
                    Err(_) => return done,
                }
            }
        });
        std::thread::sleep(Duration::from_millis(15 + 7 * round));
        server.kill();
        confirmed = committing.join().unwrap();
    }
    assert!(confirmed > 0, "something was committed");
}
