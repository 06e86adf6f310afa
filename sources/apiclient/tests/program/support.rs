//! Running the program, and servers that follow a script.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

/// What a run of the program came to.
pub struct Outcome {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs the program with some words and this on standard input.
pub fn run(words: &[String], socket: Option<&Path>, input: &str) -> Outcome {
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

/// A server on a Unix socket that answers each connection with the next of some
/// answers, and takes down what it was sent.
pub struct Script {
    folder: TempDir,
    end: Arc<AtomicBool>,
    server: JoinHandle<Vec<String>>,
}

impl Script {
    pub fn new(answers: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let server = thread::spawn(move || {
            let mut requests = Vec::new();
            loop {
                let Ok((mut stream, _)) = listener.accept() else {
                    if ended.load(Ordering::SeqCst) {
                        return requests;
                    }
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let request = read_request(&mut stream);
                let unexpected = "HTTP/1.1 500 Unexpected\r\n\r\n".to_string();
                let answer = answers.get(requests.len()).unwrap_or(&unexpected);
                stream.write_all(answer.as_bytes()).unwrap();
                requests.push(request);
            }
        });
        Self {
            folder,
            end,
            server,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Everything that was asked for, once nobody asks any more.
    pub fn requests(self) -> Vec<String> {
        self.end.store(true, Ordering::SeqCst);
        self.server.join().unwrap()
    }
}

pub fn read_request(stream: &mut impl Read) -> String {
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

/// Serves documents over TCP for as long as the test runs; gives back its
/// address.
pub fn serve(documents: Vec<(String, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            let path = request.split(' ').nth(1).unwrap();
            let found = documents.iter().find(|(there, _)| there == path);
            let answer = match found {
                Some((_, document)) => format!("HTTP/1.1 200 OK\r\n\r\n{document}"),
                None => "HTTP/1.1 404 Not Found\r\n\r\n".to_string(),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}
