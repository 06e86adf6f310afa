//! HTTP/1.1 over a Unix socket, one request per connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer that is taken.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// How long the server may be silent; reboot waits for inhibitors to be asked.
const SILENCE: Duration = Duration::from_secs(120);

/// A server behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
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
            } => write!(f, "Status {status} when {method}ing {uri}: {body}"),
        }
    }
}

impl std::error::Error for Error {}

impl Client {
    /// A client for the server at `socket`. Nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
        }
    }

    /// Sends a request. A status other than 2xx is an error.
    pub fn send(&self, method: &str, uri: &str, body: Option<&[u8]>) -> Result<Answer, Error> {
        let (status, reason, body) =
            self.exchange(method, uri, body)
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
        body: Option<&[u8]>,
    ) -> io::Result<(u16, String, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let body = body.unwrap_or_default();
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\n",
            escape(uri)
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
        let received = (&stream).take(ANSWER_LIMIT).read_to_end(&mut answer);
        parse(&answer).or_else(|error| {
            sent?;
            received?;
            Err(error)
        })
    }
}

/// Escapes what may not stand in a request's first line, so that a quoted key
/// can be typed as it is. What is escaped already stays so.
fn escape(uri: &str) -> String {
    let mut escaped = String::with_capacity(uri.len());
    for byte in uri.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Escapes a text for use as the value of a query parameter.
pub fn escape_value(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Takes an answer apart into status, its text, and body.
fn parse(bytes: &[u8]) -> io::Result<(u16, String, Vec<u8>)> {
    if bytes.is_empty() {
        return Err(bad("it closed the connection without an answer"));
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Err(bad("its answer is cut off")),
        Err(_) => return Err(bad("its answer is not HTTP")),
    };
    let status = response.code.unwrap_or_default();
    let reason = response.reason.unwrap_or_default().to_string();
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let rest = &bytes[head..];
    let body = if header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked"))
    {
        unchunk(rest)?
    } else if let Some(length) = header("content-length") {
        let length: usize = length
            .parse()
            .map_err(|_| bad("its answer has an odd length"))?;
        rest.get(..length)
            .ok_or_else(|| bad("its answer is cut off"))?
            .to_vec()
    } else {
        rest.to_vec()
    };
    Ok((status, reason, body))
}

fn unchunk(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let cut_off = || bad("its answer is cut off");
        let (used, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Err(cut_off()),
            Err(_) => return Err(bad("its answer is not HTTP")),
        };
        if size == 0 {
            return Ok(body);
        }
        let size = usize::try_from(size).map_err(|_| cut_off())?;
        let chunk = bytes[used..].get(..size).ok_or_else(cut_off)?;
        body.extend_from_slice(chunk);
        bytes = bytes[used + size..]
            .strip_prefix(b"\r\n")
            .ok_or_else(cut_off)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let good: &[(&str, u16, &str)] = &[
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"),
            (
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
                404,
                "abcde",
            ),
        ];
        for (text, status, body) in good {
            let (got, _, bytes) = parse(text.as_bytes()).expect(text);
            assert_eq!(
                (got, bytes.as_slice()),
                (*status, body.as_bytes()),
                "{text}"
            );
        }
        for text in [
            "",
            "HTTP/1.1 200",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(
            escape("/settings?keys=settings.a.\"b.c\"&x=%22 ü"),
            "/settings?keys=settings.a.%22b.c%22&x=%22%20%C3%BC"
        );
        assert_eq!(
            escape_value("settings.a.\"b&c\"+"),
            "settings.a.%22b%26c%22%2B"
        );
    }
}
