//! A metadata service for tests, as strict as the real one and more.
//!
//! It holds one machine's data and answers nothing that a careful client would
//! not ask: each method has its paths, each path its date, a token is asked for
//! with a lifetime and then needed, and stops being good when that is over. What
//! goes wrong on real machines can be asked for in [`Behaviour`].
//!
//! It listens where it is told to, so a test of this workspace gives it a port of
//! the loopback, and a test with a network of its own the real address. It
//! cannot tell how many hops a packet has come.

use crate::{DATE, TOKEN_PATH};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest lifetime of a token that may be asked for, in seconds.
const LONGEST_LIFETIME: u64 = 21_600;
/// The header that says how long a token is to be good for, or is.
const LIFETIME: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Dates of paths besides our own that there are.
const DATES: &[&str] = &["latest", DATE];

/// What the service knows of the machine that asks: contents by their path below
/// the date, such as `user-data` and `meta-data/instance-id`.
pub type Instance = BTreeMap<String, Vec<u8>>;

/// What the service does wrong, each at most as often as its number says.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Connections that are closed without an answer, first of all.
    pub hang_up: u32,
    /// Requests that are then answered with 503.
    pub unavailable: u32,
    /// Good tokens that are refused with 401.
    pub refuse_token: u32,
    /// Requests for a token are refused with 403, always.
    pub off: bool,
    /// Tokens are good for no longer than this.
    pub token_lifetime: Option<Duration>,
}

/// A service that runs until it is dropped.
pub struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    instance: Instance,
    behaviour: Behaviour,
    tokens: BTreeMap<String, Instant>,
    given: u32,
    requests: Vec<String>,
    stop: bool,
}

impl Fake {
    /// Starts at a free port of the loopback.
    pub fn start(instance: Instance, behaviour: Behaviour) -> io::Result<Self> {
        Self::listen(TcpListener::bind("127.0.0.1:0")?, instance, behaviour)
    }

    /// Starts on a socket that listens already.
    pub fn listen(
        listener: TcpListener,
        instance: Instance,
        behaviour: Behaviour,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            instance,
            behaviour,
            tokens: BTreeMap::new(),
            given: 0,
            requests: Vec::new(),
            stop: false,
        }));
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("fake-imds".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if lock(&shared).stop {
                        return;
                    }
                    // A client that goes away is the client's business.
                    let _ = stream.and_then(|stream| serve(stream, &shared));
                }
            })?;
        Ok(Self {
            address,
            state,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far with the status of its answer: `GET /latest/x 404`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }

    /// Changes what the service knows.
    pub fn change(&self, change: impl FnOnce(&mut Instance)) {
        change(&mut lock(&self.state).instance);
    }

    /// Has all tokens given so far run out.
    pub fn expire_tokens(&self) {
        lock(&self.state).tokens.clear();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        lock(&self.state).stop = true;
        // Wakes the thread up, which then sees that it is to end.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    if take(&mut lock(state).behaviour.hang_up) {
        return Ok(());
    }
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = Request::read(&mut stream)?;
    let (status, body) = {
        let mut state = lock(state);
        let (status, body) = state.answer(&request);
        let line = format!("{} {} {status}", request.method, request.path);
        state.requests.push(line);
        (status, body)
    };
    // Clients of AWS' own want to hear how long a token is good for.
    let lifetime = match request.header(LIFETIME) {
        Some(seconds) if status == 200 => format!("{LIFETIME}: {seconds}\r\n"),
        _ => String::new(),
    };
    write!(
        stream,
        "HTTP/1.1 {status} Fake\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         {lifetime}Connection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// Takes one off, if there is one.
fn take(count: &mut u32) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request
                .parse(&bytes)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))?;
            if parsed.is_complete() {
                return Ok(Self {
                    method: request.method.unwrap_or_default().to_string(),
                    path: request.path.unwrap_or_default().to_string(),
                    headers: request
                        .headers
                        .iter()
                        .map(|header| {
                            let value = String::from_utf8_lossy(header.value).into_owned();
                            (header.name.to_ascii_lowercase(), value)
                        })
                        .collect(),
                });
            }
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece)?;
            if count == 0 || bytes.len() > 16 * 1024 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&piece[..count]);
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(there, _)| there == name);
        named.next().map(|(_, value)| value.as_str())
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, Vec<u8>) {
        if take(&mut self.behaviour.unavailable) {
            return (503, Vec::new());
        }
        let is_token_path = request.path == TOKEN_PATH;
        let expected = if is_token_path { "PUT" } else { "GET" };
        if request.method != expected {
            return (405, Vec::new());
        }
        if is_token_path {
            self.give_token(request)
        } else {
            self.give_data(request)
        }
    }

    fn give_token(&mut self, request: &Request) -> (u16, Vec<u8>) {
        // The service gives no token to what came by way of a proxy.
        if self.behaviour.off || request.header("x-forwarded-for").is_some() {
            return (403, Vec::new());
        }
        let seconds = request
            .header(LIFETIME)
            .and_then(|seconds| seconds.parse().ok());
        let Some(seconds @ 1..=LONGEST_LIFETIME) = seconds else {
            return (400, Vec::new());
        };
        let lifetime = Duration::from_secs(seconds);
        let lifetime = self
            .behaviour
            .token_lifetime
            .map_or(lifetime, |limit| limit.min(lifetime));
        self.given += 1;
        let token = format!("AQAAA-token-{}==", self.given);
        self.tokens.insert(token.clone(), Instant::now() + lifetime);
        (200, token.into_bytes())
    }

    fn give_data(&mut self, request: &Request) -> (u16, Vec<u8>) {
        let token = request.header("x-aws-ec2-metadata-token");
        let is_good = token
            .and_then(|token| self.tokens.get(token))
            .is_some_and(|end| Instant::now() < *end);
        if !is_good || take(&mut self.behaviour.refuse_token) {
            return (401, Vec::new());
        }
        let content = below_date(&request.path).and_then(|path| self.instance.get(&path));
        match content {
            Some(content) => (200, content.clone()),
            None => (404, Vec::new()),
        }
    }
}

/// The path below its date. The list of interfaces ends each of its lines in a
/// slash, to which clients add another, so there alone two are one.
fn below_date(path: &str) -> Option<String> {
    let (date, path) = path.strip_prefix('/')?.split_once('/')?;
    if !DATES.contains(&date) {
        return None;
    }
    const MACS: &str = "meta-data/network/interfaces/macs/";
    Some(match path.strip_prefix(MACS) {
        Some(below) => format!("{MACS}{}", below.replacen("//", "/", 1)),
        None => path.to_string(),
    })
}
