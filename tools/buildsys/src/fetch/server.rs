//! A mirror on the loopback interface that behaves as badly as a test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does instead of answering a request as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Announces all of the file, sends this much of it, and closes.
    CutAfter(usize),
    /// Sends all of the file though a part was asked for.
    IgnoreRange,
    /// Sends a part that begins elsewhere than asked.
    WrongPart,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Faults by path, used up one per request.
    faults: HashMap<String, Vec<Fault>>,
    requests: Vec<String>,
}

/// A running server; it ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let weak = Arc::downgrade(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(state) = weak.upgrade() else { break };
                // A client that goes away in the middle is its own business.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &state)));
            }
        });
        Self { address, state }
    }

    /// Base address of the main archive.
    pub fn base(&self) -> String {
        format!("http://{}/debian", self.address)
    }

    /// Puts a file at a path below the server's root.
    pub fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.state
            .lock()
            .unwrap()
            .files
            .insert(path.to_string(), content.into());
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path).unwrap();
    }

    /// Makes the next requests for a path fail, one after the other.
    pub fn fail(&self, path: &str, faults: &[Fault]) {
        let mut faults = faults.to_vec();
        faults.reverse();
        self.state
            .lock()
            .unwrap()
            .faults
            .insert(path.to_string(), faults);
    }

    /// The requests since the last call, as "path" or "path from offset".
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread, which then finds the state gone.
        self.state = Arc::default();
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_string();
    let mut start = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            start = range.trim().trim_end_matches('-').parse::<usize>().ok();
        }
    }
    let (content, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(match start {
            Some(start) => format!("{path} from {start}"),
            None => path.clone(),
        });
        let fault = state.faults.get_mut(&path).and_then(Vec::pop);
        (state.files.get(&path).cloned(), fault)
    };
    let answer = |status: &str, headers: &str, length: usize| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n"
        )
    };
    if let Some(Fault::Status(status)) = fault {
        return stream.write_all(answer(&format!("{status} Faulty"), "", 0).as_bytes());
    }
    let Some(content) = content else {
        return stream.write_all(answer("404 Not Found", "", 0).as_bytes());
    };
    let start = start.filter(|_| fault != Some(Fault::IgnoreRange));
    let (head, body) = match start {
        None => (answer("200 OK", "", content.len()), &content[..]),
        Some(start) if start >= content.len() => {
            (answer("416 Range Not Satisfiable", "", 0), &content[..0])
        }
        Some(start) => {
            let start = start - usize::from(fault == Some(Fault::WrongPart));
            let (last, all) = (content.len() - 1, content.len());
            let range = format!("Content-Range: bytes {start}-{last}/{all}\r\n");
            (
                answer("206 Partial Content", &range, all - start),
                &content[start..],
            )
        }
    };
    stream.write_all(head.as_bytes())?;
    match fault {
        Some(Fault::CutAfter(length)) => stream.write_all(&body[..length.min(body.len())]),
        _ => stream.write_all(body),
    }
}
