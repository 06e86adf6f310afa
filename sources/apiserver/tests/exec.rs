//! Sessions of `/exec` over a real socket, with commands that run where the test runs.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use anyhow::{Result, bail};
use api_types::exec::{FromClient, Initialize, Size};
use api_types::websocket::{CloseCode, Decoder, Message};
use apiclient::exec::Ends;
use apiclient::{Client, exec};
use apiserver::exec::containers::{Containers, Later, Process, Started};
use apiserver::server::Limits;
use common::{Machine, Running};
use proptest::prelude::*;
use std::io::{Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The only container that there is.
struct Here;

struct HereProcess(Mutex<Child>);

impl Containers for Here {
    fn start<'a>(&'a self, what: &'a Initialize) -> Later<'a, Result<Started>> {
        Box::pin(async move {
            if what.target != "here" {
                bail!("the container {} does not run", what.target);
            }
            let (output, write) = pipe()?;
            let mut child = Command::new(&what.command[0])
                .args(&what.command[1..])
                .stdin(Stdio::piped())
                .stdout(write.try_clone()?)
                .stderr(write)
                .spawn()?;
            let input = child.stdin.take().unwrap();
            Ok(Started {
                input: tokio::net::unix::pipe::Sender::from_owned_fd(input.into())?,
                output: tokio::net::unix::pipe::Receiver::from_owned_fd(output.into())?,
                process: Box::new(HereProcess(Mutex::new(child))),
            })
        })
    }

    fn end_leftovers(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

impl Process for HereProcess {
    fn wait(&self) -> Later<'_, Result<u32>> {
        Box::pin(async {
            loop {
                if let Some(status) = self.0.lock().unwrap().try_wait()? {
                    return Ok(status.code().unwrap_or(137).unsigned_abs());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn resize(&self, _: Size) -> Later<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close_input(&self) -> Later<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn end(&self) -> Later<'_, ()> {
        Box::pin(async {
            let _ = self.0.lock().unwrap().kill();
            let _ = self.wait().await;
        })
    }

    fn forget(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
}

fn server() -> Running {
    let machine = Machine::new();
    let app = machine.app.clone().with_containers(Arc::new(Here));
    Running::of(Machine { app, ..machine }, Limits::default())
}

/// What a command wrote, and its status, when it got this to read.
fn run(socket: &Path, command: &[&str], given: Vec<u8>) -> Result<(Vec<u8>, u8)> {
    let (input, mut give) = pipe()?;
    let (mut take, output) = pipe()?;
    let giving = thread::spawn(move || give.write_all(&given));
    let taking = thread::spawn(move || {
        let mut taken = Vec::new();
        take.read_to_end(&mut taken).map(|_| taken)
    });
    let ends = Ends {
        input: input.as_fd(),
        output: output.as_fd(),
    };
    let command: Vec<_> = command.iter().map(Into::into).collect();
    let status = exec::run(&Client::new(socket), "here", &command, None, ends);
    drop((input, output));
    let _ = giving.join().unwrap();
    Ok((taking.join().unwrap()?, status?))
}

#[test]
fn what_goes_through_comes_back_whole() {
    let server = server();
    let given: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    let script = ["/bin/sh", "-c", "cat; exit 3"];
    let (taken, status) = run(&server.socket, &script, given.clone()).unwrap();
    assert_eq!(status, 3);
    assert!(taken == given, "{} bytes of {}", taken.len(), given.len());
}

#[test]
fn a_command_need_not_read() {
    let server = server();
    let script = ["/bin/sh", "-c", "echo done; echo complaint >&2"];
    let (taken, status) = run(&server.socket, &script, vec![0; 3_000_000]).unwrap();
    assert_eq!(status, 0);
    assert_eq!(String::from_utf8(taken).unwrap(), "done\ncomplaint\n");
}

/// A client that says what it likes.
struct Raw {
    stream: UnixStream,
    decoder: Decoder,
}

impl Raw {
    fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        let request = "GET /exec HTTP/1.1\r\nHost: any\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let accepted = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
        assert!(head.contains(accepted), "{head}");
        let decoder = Decoder::of_server();
        Self { stream, decoder }
    }

    /// A server that has heard enough may close before it has everything.
    fn say(&mut self, message: &Message) -> bool {
        let frame = message.encode(Some([1, 2, 3, 4]));
        self.stream.write_all(&frame).is_ok()
    }

    fn hear(&mut self) -> Message {
        let mut bytes = vec![0; 65536];
        loop {
            if let Some(message) = self.decoder.take().unwrap() {
                return message;
            }
            let length = self.stream.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "closed without a word");
            self.decoder.push(&bytes[..length]);
        }
    }

    fn hear_output(&mut self) -> String {
        loop {
            match self.hear() {
                Message::Binary(bytes) => return String::from_utf8(bytes).unwrap(),
                Message::Close(end) => panic!("{end:?}"),
                _ => {}
            }
        }
    }
}

fn initialize(target: &str, command: &[&str]) -> Message {
    let what = FromClient::Initialize(Initialize {
        command: command.iter().map(Into::into).collect(),
        target: target.to_string(),
        tty: None,
    });
    Message::Text(serde_json::to_string(&what).unwrap())
}

proptest! {
    #[test]
    fn any_bytes_are_messages_or_a_fault(bytes: Vec<u8>) {
        api_types::websocket::properties::decoding(&bytes);
    }
}

#[test]
fn what_breaks_the_rules_is_told() {
    let server = server();
    let flood = std::iter::once(initialize("here", &["/bin/sleep", "60"]))
        .chain((0..5000).map(|_| Message::Binary(vec![0; 512])));
    for (messages, expected) in [
        (vec![Message::Binary(vec![1])], CloseCode::POLICY),
        (vec![Message::Text("{".to_string())], CloseCode::INVALID),
        (vec![initialize("here", &[])], CloseCode::POLICY),
        (
            vec![initialize("nowhere", &["/bin/true"])],
            CloseCode::ERROR,
        ),
        (flood.collect(), CloseCode::SIZE),
    ] {
        let mut client = Raw::connect(&server.socket);
        let _ = messages.iter().all(|message| client.say(message));
        let end = loop {
            if let Message::Close(end) = client.hear() {
                break end;
            }
        };
        let (code, reason) = end.unwrap();
        assert_eq!(code, expected, "{reason}");
    }
}

#[test]
fn a_client_is_not_listened_to_while_much_is_held_for_its_process() {
    let server = server();
    let mut client = Raw::connect(&server.socket);
    client.say(&initialize("here", &["/bin/sleep", "60"]));
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // Each is as large as a message may be, and there are fewer than may be outstanding.
    let piece = Message::Binary(vec![0; 65536]);
    let taken = (0..1000).take_while(|_| client.say(&piece)).count();
    assert!((16..64).contains(&taken), "{taken} were taken");
}

#[test]
fn a_child_that_goes_on_writing_is_not_waited_for() {
    let server = server();
    for child in ["yes", "while sleep 0.1; do echo here || exit; done"] {
        let script = format!("echo first; {child} & exit 3");
        let (taken, status) = run(&server.socket, &["/bin/sh", "-c", &script], vec![]).unwrap();
        assert_eq!(status, 3, "{child}");
        assert!(taken.starts_with(b"first\n"), "{child}");
    }
}

#[test]
fn a_client_that_vanishes_leaves_no_process() {
    let server = server();
    let mut client = Raw::connect(&server.socket);
    let script = ["/bin/sh", "-c", "echo $$; exec sleep 1000000"];
    client.say(&initialize("here", &script));
    let process = client.hear_output();
    let process = Path::new("/proc").join(process.trim());
    assert!(process.exists());
    drop(client);
    let end = Instant::now() + Duration::from_secs(10);
    while process.exists() {
        assert!(Instant::now() < end, "{} is there", process.display());
        thread::sleep(Duration::from_millis(5));
    }
}
