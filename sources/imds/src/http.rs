//! As much of HTTP/1.1 as one request over one connection needs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The largest head of an answer.
const HEAD_LIMIT: usize = 16 * 1024;
/// The most that coding in chunks may add to a body.
const CHUNK_OVERHEAD: usize = 64 * 1024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, at most the limit and one byte.
    pub body: Vec<u8>,
}

/// Asks and reads the answer, all of it within `timeout`.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    header: (&str, &str),
    limit: usize,
    timeout: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    let (name, value) = header;
    let host = server.ip();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n\
         Content-Length: 0\r\n{name}: {value}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    read_answer(&mut Until { stream, deadline }, limit)
}

/// A stream that is read until a moment, however slowly the bytes come.
struct Until {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Until {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(into)
    }
}

/// Where a body ends.
enum Length {
    Known(usize),
    Chunked,
    /// Where the connection ends.
    Open,
}

/// Reads an answer of which at most `limit` bytes of the body and one more are
/// wanted.
pub fn read_answer(stream: &mut impl Read, limit: usize) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let (status, length, body_at) = loop {
        if let Some(head) = parse_head(&bytes)? {
            break head;
        }
        if bytes.len() > HEAD_LIMIT {
            return Err(invalid("the head of the answer is too long"));
        }
        if read_more(stream, &mut bytes)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    };
    let mut body = bytes.split_off(body_at);
    let enough = match length {
        Length::Known(length) => length.min(limit + 1),
        Length::Chunked => limit + 1 + CHUNK_OVERHEAD,
        Length::Open => limit + 1,
    };
    while body.len() < enough {
        if read_more(stream, &mut body)? == 0 {
            if matches!(length, Length::Known(_)) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            break;
        }
    }
    if matches!(length, Length::Chunked) {
        body = unchunk(&body, limit + 1)?;
    }
    body.truncate(enough.min(limit + 1));
    Ok(Answer { status, body })
}

/// The status, the body's length and where it begins, once the head is whole.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(u16, Length, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer
        .parse(bytes)
        .map_err(|error| invalid(&format!("not an answer of HTTP: {error}")))?;
    let (httparse::Status::Complete(body_at), Some(status)) = (parsed, answer.code) else {
        return Ok(None);
    };
    let header = |name: &str| {
        let mut named = answer
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named
            .next()
            .map(|header| String::from_utf8_lossy(header.value).trim().to_string())
    };
    let length = match (header("transfer-encoding"), header("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Length::Chunked,
        (Some(coding), _) => return Err(invalid(&format!("unknown coding {coding:?}"))),
        (None, Some(length)) => Length::Known(
            length
                .parse()
                .map_err(|_| invalid(&format!("odd length {length:?}")))?,
        ),
        (None, None) if status == 204 || status == 304 => Length::Known(0),
        (None, None) => Length::Open,
    };
    Ok(Some((status, length, body_at)))
}

/// Takes a chunked body apart, up to `enough` bytes of it.
fn unchunk(mut rest: &[u8], enough: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < enough {
        let size = httparse::parse_chunk_size(rest).map_err(|_| invalid("an odd chunk"))?;
        let httparse::Status::Complete((start, size)) = size else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).map_err(|_| invalid("an odd chunk"))?;
        rest = &rest[start..];
        let there = size.min(rest.len());
        body.extend_from_slice(&rest[..there.min(enough - body.len())]);
        if body.len() >= enough {
            break;
        }
        rest = size
            .checked_add(2)
            .and_then(|end| rest.get(end..))
            .ok_or(ErrorKind::UnexpectedEof)?;
    }
    Ok(body)
}

fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(count) => {
                bytes.extend_from_slice(&piece[..count]);
                return Ok(count);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What the system says when a read takes longer than it may.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, limit: usize) -> Result<(u16, String), String> {
        let answer = read_answer(&mut text.as_bytes(), limit).map_err(|error| error.to_string())?;
        Ok((
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
        ))
    }

    #[test]
    fn answers_of_every_kind() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc"),
            ("HTTP/1.0 200 OK\r\n\r\nabc", "abc"),
            ("HTTP/1.1 204 Nothing\r\n\r\n", ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
                "abc",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nabcdefghijklmnopqrst",
                "abcdefghijk",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nabcdefghijklmnopqrst\r\n0\r\n\r\n",
                "abcdefghijk",
            ),
        ] {
            let (status, body) = read(text, 10).expect(text);
            assert!([200, 204].contains(&status));
            assert_eq!(body, expected, "{text}");
        }
    }

    #[test]
    fn answers_that_are_cut_off_or_odd_are_errors() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\nab\r\n0\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            &endless,
        ] {
            assert!(read(text, 100).is_err(), "{text:.80}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            head in "(HTTP/1\\.1 200 OK\r\n((Content-Length: [0-9a-f-]{0,20}|Transfer-Encoding: chunked)\r\n)?\r\n)?",
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [head.as_bytes(), &rest].concat();
            if let Ok(answer) = read_answer(&mut &bytes[..], 50) {
                prop_assert!(answer.body.len() <= 51);
            }
        }
    }
}
