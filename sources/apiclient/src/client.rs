//! The server's client: HTTP/1.1 over a Unix socket, one request per connection.

use crate::http;
use api_types::websocket;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer that is taken.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// How long the server may be silent; reboot waits for inhibitors to be asked.
const SILENCE: Duration = Duration::from_secs(120);
/// What requests say about their connection.
const CLOSE: &str = "Connection: close\r\n";

/// A server behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    silence: Duration,
}

/// An answer of the server with a status of success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code and its text, as in `200 OK`.
    pub status: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// The server cannot be reached, or does not speak HTTP.
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        cause: io::Error,
    },
    /// The server refused. Programs look for the code in the message, so its
    /// form is fixed.
    Refused {
        /// The status code.
        status: u16,
        /// The request's method.
        method: String,
        /// The request's path and query.
        uri: String,
        /// What the server said.
        body: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { socket, cause } => {
                write!(f, "cannot talk to the API at {}: {cause}", socket.display())
            }
            Self::Refused {
                status,
                method,
                uri,
                body,
            } => write!(
                f,
                "Status {status} when {method}ing {uri}: {}",
                body.trim_end()
            ),
        }
    }
}

impl std::error::Error for Error {}

impl Client {
    /// A client for the server at `socket`. Nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
            silence: SILENCE,
        }
    }

    /// The same client, which bears that much silence of the server.
    pub fn patient(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Sends a request. A status other than 2xx is an error.
    pub fn send(&self, method: &str, uri: &str, body: Option<&[u8]>) -> Result<Answer, Error> {
        let answered = self.exchange(method, uri, CLOSE, body);
        let (_, bytes) = answered.map_err(|cause| self.broken(cause))?;
        let answer = http::parse(&bytes).map_err(|cause| self.broken(cause))?;
        if (200..300).contains(&answer.status) {
            return Ok(Answer {
                status: format!("{} {}", answer.status, answer.reason),
                body: answer.body,
            });
        }
        Err(refused(method, uri, answer))
    }

    /// Asks for a WebSocket: the connection, and what of it has been read already.
    pub(crate) fn open(&self, uri: &str, key: &str) -> Result<(UnixStream, Vec<u8>), Error> {
        let upgrade = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n"
        );
        let answered = self.exchange("GET", uri, &upgrade, None);
        let (stream, mut bytes) = answered.map_err(|cause| self.broken(cause))?;
        let answer = http::parse(&bytes).map_err(|cause| self.broken(cause))?;
        if answer.status != 101 || answer.accept != Some(websocket::accept(key)) {
            return Err(refused("GET", uri, answer));
        }
        let begin = http::length(&bytes).unwrap_or(bytes.len());
        Ok((stream, bytes.split_off(begin)))
    }

    fn broken(&self, cause: io::Error) -> Error {
        Error::Connection {
            socket: self.socket.clone(),
            cause,
        }
    }

    /// The connection, and the bytes of the answer to a request. `connection` is header
    /// lines, each with its end.
    fn exchange(
        &self,
        method: &str,
        uri: &str,
        connection: &str,
        body: Option<&[u8]>,
    ) -> io::Result<(UnixStream, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(self.silence))?;
        stream.set_write_timeout(Some(self.silence))?;
        let body = body.unwrap_or_default();
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: localhost\r\n{connection}\
             Content-Type: application/json\r\n",
            http::escape(uri)
        );
        // A request with a body may have an empty one; one without has none.
        if !body.is_empty() || !matches!(method, "GET" | "DELETE" | "HEAD") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let received = read_answer(&mut (&stream).take(ANSWER_LIMIT), &mut answer);
        // A server that refuses a long body answers and closes before it has
        // all of it; what it says is worth more than the broken pipe.
        if answer.is_empty() {
            sent.and(received)?;
        }
        Ok((stream, answer))
    }
}

fn refused(method: &str, uri: &str, answer: http::Answer) -> Error {
    Error::Refused {
        status: answer.status,
        method: method.to_string(),
        uri: uri.to_string(),
        body: String::from_utf8_lossy(&answer.body).into_owned(),
    }
}

/// Reads an answer up to where it says that it ends, or else up to the end.
pub(crate) fn read_answer(stream: &mut impl Read, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    let mut length = None;
    while length.is_none_or(|length| answer.len() < length) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if length.is_none() {
            length = http::length(answer);
        }
    }
    Ok(())
}
