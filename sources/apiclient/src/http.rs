//! HTTP/1.1 as far as a client needs it, without a connection.

use std::io;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status in words.
    pub reason: String,
    /// Where to look instead.
    pub location: Option<String>,
    /// What proves that a WebSocket is meant.
    pub accept: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Escapes what may not stand in a request's first line, so that a quoted key
/// can be typed as it is. What is escaped already stays so.
pub fn escape(uri: &str) -> String {
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

/// What the head of an answer says.
struct Head {
    status: u16,
    reason: String,
    location: Option<String>,
    accept: Option<String>,
    /// Where the body begins.
    end: usize,
    body: Body,
}

/// How long a body is.
enum Body {
    Bytes(usize),
    Chunks,
    UntilTheEnd,
}

/// The head of an answer; `None` while it is not all there.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad("its answer is not HTTP")),
    };
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let status = response.code.unwrap_or_default();
    let chunked =
        header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked"));
    let body = match header("content-length") {
        _ if matches!(status, 100..=199 | 204 | 304) => Body::Bytes(0),
        _ if chunked => Body::Chunks,
        Some(length) => {
            let length = length.parse();
            Body::Bytes(length.map_err(|_| bad("its answer has an odd length"))?)
        }
        None => Body::UntilTheEnd,
    };
    Ok(Some(Head {
        status,
        reason: response.reason.unwrap_or_default().to_string(),
        location: header("location").map(str::to_string),
        accept: header("sec-websocket-accept").map(str::to_string),
        end,
        body,
    }))
}

/// How long an answer is as a whole, where its beginning says so already.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let head = head(bytes).ok().flatten()?;
    match head.body {
        Body::Bytes(length) => head.end.checked_add(length),
        Body::Chunks | Body::UntilTheEnd => None,
    }
}

/// Takes an answer apart.
pub fn parse(bytes: &[u8]) -> io::Result<Answer> {
    if bytes.is_empty() {
        return Err(bad("it closed the connection without an answer"));
    }
    let head = head(bytes)?.ok_or_else(|| bad("its answer is cut off"))?;
    let rest = &bytes[head.end..];
    let body = match head.body {
        Body::Chunks => unchunk(rest)?,
        Body::UntilTheEnd => rest.to_vec(),
        Body::Bytes(length) => rest
            .get(..length)
            .ok_or_else(|| bad("its answer is cut off"))?
            .to_vec(),
    };
    Ok(Answer {
        status: head.status,
        reason: head.reason,
        location: head.location,
        accept: head.accept,
        body,
    })
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
            let answer = parse(text.as_bytes()).expect(text);
            assert_eq!(
                (answer.status, answer.body.as_slice()),
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
