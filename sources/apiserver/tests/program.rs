//! The program itself: readiness, and being killed at any moment.

#![allow(clippy::unwrap_used, reason = "a test")]

use apiclient::Client;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Server {
    child: Child,
    socket: PathBuf,
    /// What it has had its service manager keep, which is open in each that is started.
    kept: Option<RawFd>,
}

impl Server {
    /// Starts the program and returns when it says that it is ready.
    fn start(root: &Path) -> Self {
        Self::start_with(root, None)
    }

    /// The same with a socket that the service manager has kept.
    fn start_with(root: &Path, kept: Option<RawFd>) -> Self {
        let notify = root.join("notify");
        let _ = fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let socket = root.join("api.sock");
        // The shell puts the socket where the service manager would.
        let hand_over = match kept {
            Some(number) => format!("exec 3<&{number}; export LISTEN_PID=$$; "),
            None => String::new(),
        };
        let child = Command::new("sh")
            .arg("-c")
            .arg(hand_over + r#"exec "$0" "$@""#)
            .arg(env!("CARGO_BIN_EXE_apiserver"))
            .arg("--root")
            .arg(root)
            .arg("--socket-path")
            .arg(&socket)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "api")
            .env("NOTIFY_SOCKET", &notify)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            socket,
            kept: None,
        };
        // It may ask for more time first.
        loop {
            let (message, descriptor) = receive(&notified);
            match message.as_str() {
                "READY=1" => return server,
                "FDSTORE=1\nFDNAME=api" => server.kept = descriptor,
                _ => {}
            }
        }
    }

    /// The most memory that it has had, in bytes.
    fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = |line: &str| Some(line.strip_prefix("VmHWM:")?.trim().to_string());
        let most = status.lines().find_map(line).unwrap();
        most.trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that fails leaves none behind.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Who waits for an answer waits as long as somebody has the socket.
        if let Some(kept) = self.kept {
            nix::unistd::close(kept).unwrap();
        }
    }
}

/// A message to the service manager, and the descriptor that comes with it.
fn receive(notified: &UnixDatagram) -> (String, Option<RawFd>) {
    let mut bytes = [0; 64];
    let mut text = [IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::empty();
    let received = recvmsg::<()>(notified.as_raw_fd(), &mut text, Some(&mut room), flags).unwrap();
    let descriptor = received.cmsgs().unwrap().find_map(|along| match along {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let length = received.bytes;
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    (text, descriptor)
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

/// A container has the socket's file mounted, for which a second name of it stands here.
#[test]
fn whoever_has_the_socket_reaches_the_next_server_too() {
    let root = root();
    let mounted = root.path().join("mounted");
    let ask = |socket: &Path| Client::new(socket).send("GET", "/os", None).map(drop);
    let mut server = Server::start(root.path());
    let kept = server.kept.take();
    assert!(kept.is_some(), "nothing was given to be kept");
    fs::hard_link(&server.socket, &mounted).unwrap();
    server.kill();
    // Who comes while there is none waits for the next.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&mounted));
        std::thread::sleep(Duration::from_millis(100));
        let server = Server::start_with(root.path(), kept);
        assert_eq!(server.kept, None, "another one was given to be kept");
        waiting.join().unwrap().unwrap();
        ask(&mounted).unwrap();
        ask(&server.socket).unwrap();
        fs::remove_file(&server.socket).unwrap();
        server.kill();
        // Who has only the name is worth as much.
        let server = Server::start_with(root.path(), kept);
        assert!(
            server.kept.is_some(),
            "the new one was not given to be kept"
        );
        ask(&server.socket).unwrap();
    });
}

/// 64 transactions of 16 KiB that are open together, each asked for again and again, and
/// a hundred clients that say nothing or too little: what they cost is what they hold.
#[test]
fn many_clients_do_not_take_the_memory() {
    const HELD: u64 = 64 * 16 * 1024;
    let root = root();
    let server = Server::start(root.path());
    let before = server.most_memory();
    let silent: Vec<UnixStream> = (0..100)
        .map(|n| {
            let mut stream = UnixStream::connect(&server.socket).unwrap();
            let start: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /set",
                _ => b"PATCH /settings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(start).unwrap();
            stream
        })
        .collect();
    std::thread::scope(|scope| {
        for n in 0..64 {
            let client = Client::new(&server.socket);
            scope.spawn(move || {
                let values = vec!["x".repeat(1000); 16];
                let body = serde_json::json!({ "ntp": { "options": values } }).to_string();
                let uri = format!("/settings?tx=t{n}");
                client.send("PATCH", &uri, Some(body.as_bytes())).unwrap();
                for _ in 0..4 {
                    client.send("GET", &format!("/tx?tx=t{n}"), None).unwrap();
                }
            });
        }
    });
    let taken = server.most_memory() - before;
    assert!(taken < 8 * HELD, "{} KiB", taken / 1024);
    let open = Client::new(&server.socket).send("GET", "/tx/list", None);
    let open: Vec<String> = serde_json::from_slice(&open.unwrap().body).unwrap();
    assert_eq!(open.len(), 64);
    drop(silent);
    server.kill();
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
