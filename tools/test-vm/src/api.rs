//! A small client for the guest's API: one request a connection, HTTP/1.1 over the
//! Unix socket.

use crate::socket;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// An API to talk to.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// What the API answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Header fields: lower-case name and value.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header field called `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Api {
    /// The API at `socket`.
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_path_buf(),
        }
    }

    /// Where the socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request and returns the answer, whatever its status.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let body = body.map(Value::to_string);
        self.send(
            method,
            path,
            body.as_deref().map(|body| ("application/json", body)),
        )
    }

    /// The same with any document: its media type, and what it says.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        document: Option<(&str, &str)>,
    ) -> Result<Response> {
        let attempt = || format!("cannot send {method} {path} to {}", self.socket.display());
        let mut stream = socket::connect(&self.socket)?;
        stream
            .set_read_timeout(Some(ANSWER_TIME))
            .with_context(attempt)?;
        let kind = document.map_or(String::new(), |(kind, _)| {
            format!("Content-Type: {kind}\r\n")
        });
        let body = document.map_or("", |(_, body)| body);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).with_context(attempt)?;
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .with_context(|| format!("{method} {path} was not answered"))?;
        parse_response(&bytes).with_context(|| format!("the answer to {method} {path} is not HTTP"))
    }

    /// Sends a request whose answer must have a status of success, and returns the
    /// JSON in it; null when the body is empty.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let response = self.request(method, path, body)?;
        if !(200..300).contains(&response.status) {
            bail!(
                "{method} {path} was answered with {}: {}",
                response.status,
                response.text()
            );
        }
        if response.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&response.body).with_context(|| {
            format!(
                "the answer to {method} {path} is not JSON: {}",
                response.text()
            )
        })
    }

    /// Reads `path`.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json("GET", path, None)
    }

    /// Whether the API answers.
    pub fn answers(&self) -> bool {
        self.request("GET", "/os", None)
            .is_ok_and(|response| response.status == 200)
    }
}

/// Parses an answer that the server ended by closing the connection.
fn parse_response(bytes: &[u8]) -> Result<Response> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the header does not end")?;
    let head = std::str::from_utf8(&bytes[..end]).context("the header is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .context("the first line has no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    let find = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let rest = &bytes[end + 4..];
    let body =
        if find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            dechunk(rest).context("the chunks of the body do not fit together")?
        } else if let Some(length) = find("content-length") {
            let length: usize = length.parse().context("the length is not a number")?;
            rest.get(..length)
                .context("the body is shorter than announced")?
                .to_vec()
        } else {
            rest.to_vec()
        };
    Ok(Response {
        status,
        headers,
        body,
    })
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_answers() {
        let check = |text: &str, status: u16, body: &str| {
            let response = parse_response(text.as_bytes()).unwrap();
            assert_eq!(
                (response.status, response.text().as_str()),
                (status, body),
                "{text}"
            );
        };
        check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiX", 200, "hi");
        check("HTTP/1.1 200 OK\r\n\r\nto the end", 200, "to the end");
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n",
            200,
            "abc",
        );
        for bad in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1\r\n\r\n",
            "SMTP\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(parse_response(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_response(&body);
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            answer.extend(&body);
            let _ = parse_response(&answer);
        }
    }
}
