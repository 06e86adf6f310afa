//! The server's client: HTTP/1.1 over a Unix socket, one request per connection.

use crate::http;
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
        self.send_with(method, uri, CLOSE, body)
    }

    /// The same, with header lines about the connection, each with its end.
    pub fn send_with(
        &self,
        method: &str,
        uri: &str,
        connection: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer, Error> {
        let http::Answer {
            status,
            reason,
            body,
            ..
        } = self
            .exchange(method, uri, connection, body)
            .map_err(|cause| Error::Connection {
                socket: self.socket.clone(),
                cause,
            })?;
        if (200..300).contains(&status) {
            return Ok(Answer {
                status: format!("{status} {reason}"),
                body,
            });
        }
        Err(Error::Refused {
            status,
            method: method.to_string(),
            uri: uri.to_string(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn exchange(
        &self,
        method: &str,
        uri: &str,
        connection: &str,
        body: Option<&[u8]>,
    ) -> io::Result<http::Answer> {
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
        // A server that refuses a long body answers and closes before it has
        // all of it; what it says is worth more than the broken pipe.
        let mut answer = Vec::new();
        let received = read_answer(&mut (&stream).take(ANSWER_LIMIT), &mut answer);
        http::parse(&answer).or_else(|error| {
            sent?;
            received?;
            Err(error)
        })
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
