//! Requests and answers as the routes see them, without a connection.

use serde::Serialize;

/// A request whose body has arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Takes a path with a query apart.
    pub fn new(method: &str, path_and_query: &str, body: Vec<u8>) -> Self {
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((path_and_query, ""));
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect();
        Self {
            method: method.to_string(),
            path: path.to_string(),
            query,
            body,
        }
    }

    /// The first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(there, _)| there == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Undoes form encoding. What is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(digits, 16).ok())?
        });
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The type of the body; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status: 200,
                content_type: Some("application/json"),
                body,
            },
            Err(error) => Self::text(500, format!("cannot write JSON: {error}")),
        }
    }

    /// 204, done.
    pub fn done() -> Self {
        Self {
            status: 204,
            content_type: None,
            body: Vec::new(),
        }
    }

    /// A plain text, as errors are.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: Some("text/plain; charset=utf-8"),
            body: text.into().into_bytes(),
        }
    }

    /// The body as text, for tests and logs.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a route answers: an error is an answer too.
pub type Reply = Result<Answer, Answer>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let request = Request::new("GET", "/x?a=b%22c+d&e&f=g=h&%zz=%4&=", Vec::new());
        assert_eq!(request.path, "/x");
        let expected = [
            ("a", "b\"c d"),
            ("e", ""),
            ("f", "g=h"),
            ("%zz", "%4"),
            ("", ""),
        ];
        let expected: Vec<(String, String)> = expected
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into();
        assert_eq!(request.query, expected);
        assert_eq!(request.parameter("a"), Some("b\"c d"));
        assert_eq!(request.parameter("x"), None);
    }
}
