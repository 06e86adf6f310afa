//! HTTP/1.1 as far as a static file server needs it: whole files and ranges of them, with
//! what leads to where they are.
//!
//! Whoever answers is not trusted. Nothing waits for ever: a connection has
//! [`Connector::silence`] for each step, and a body must come at [`SLOWEST`] on the whole, or at
//! its share of that where others come beside it, so that a server that drips does not hold an
//! update up. How much is taken is the caller's business: bodies come in pieces.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_RANGE, HOST, LOCATION, RANGE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use crate::connect::{ConnectError, Connector, Origin};

/// Bytes a second that a body must bring, once a server may not be silent any more.
const SLOWEST: u64 = 16 * 1024;
/// How often a request is sent elsewhere.
const REDIRECTS: usize = 5;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another scheme than those of HTTP, or an address without a host.
    #[error("{0} is no address that begins with http:// or https:// and names a host")]
    Address(String),
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server sends on to where nobody should go.
    #[error("{url} is redirected to {to}, which is refused: {why}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where it is said to be.
        to: String,
        /// The reason.
        why: &'static str,
    },
    /// The server said nothing for too long.
    #[error("{url} was silent for {} s", after.as_secs())]
    Silent {
        /// What was asked for.
        url: String,
        /// For so long.
        after: Duration,
    },
    /// The body comes too slowly.
    #[error("{url} brought {bytes} bytes in {seconds} s, which is too slow")]
    Slow {
        /// What was asked for.
        url: String,
        /// What came.
        bytes: u64,
        /// In which time.
        seconds: u64,
    },
    /// The connection broke, or does not speak HTTP.
    #[error("the connection to {url} broke")]
    Broken {
        /// What was asked for.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// There is no such file.
    #[error("{url} does not exist")]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// Another answer than the file.
    #[error("{url} was answered with {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// A range that was not asked for.
    #[error("{url} was asked for bytes {}-{} and sent {sent:?}", range.start, range.end - 1)]
    Range {
        /// What was asked for.
        url: String,
        /// The range.
        range: Range<u64>,
        /// What the answer calls it.
        sent: String,
    },
}

impl HttpError {
    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_passing(),
            Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Slow { .. }
            | Self::Address(_)
            | Self::Redirect { .. }
            | Self::NotFound { .. }
            | Self::Range { .. } => false,
        }
    }
}

/// A file on a server, and a connection to it, made when it is needed and kept.
pub struct Server {
    connector: Connector,
    url: Url,
    /// Where the file was found last, which redirects can have led to.
    place: Url,
    sender: Option<SendRequest<Empty<Bytes>>>,
    /// Bytes a second that a body must bring.
    slowest: u64,
}

/// What an answer holds.
pub enum Answer {
    /// What was asked for.
    Part(Body),
    /// The whole file, for the server knows no ranges.
    Whole(Body),
}

/// The body of an answer, piece by piece.
pub struct Body {
    url: Url,
    answer: Response<Incoming>,
    silence: Duration,
    begun: Instant,
    bytes: u64,
    slowest: u64,
}

impl Server {
    /// Nothing is sent yet.
    pub fn new(connector: Connector, url: Url) -> Self {
        Self {
            connector,
            place: url.clone(),
            url,
            sender: None,
            slowest: SLOWEST,
        }
    }

    /// The same file, where it was found last, for another connection.
    pub fn another(&self) -> Self {
        Self {
            connector: self.connector.clone(),
            url: self.url.clone(),
            place: self.place.clone(),
            sender: None,
            slowest: self.slowest,
        }
    }

    /// From now on so many bodies come at once over the same line.
    pub fn shared_by(&mut self, bodies: usize) {
        self.slowest = SLOWEST / (bodies.max(1) as u64);
    }

    /// The file.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Asks for all of the file.
    pub async fn get(&mut self) -> Result<Body, HttpError> {
        let answer = self.send(None).await?;
        match answer.status() {
            StatusCode::OK => Ok(self.body(answer)),
            status => Err(self.refused(status)),
        }
    }

    /// Asks for a part of the file, which is not empty.
    pub async fn get_range(&mut self, range: &Range<u64>) -> Result<Answer, HttpError> {
        let answer = self.send(Some(range)).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let header = answer.headers().get(CONTENT_RANGE);
                let sent = header
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                let expected = format!("bytes {}-{}/", range.start, range.end - 1);
                if !sent.starts_with(&expected) {
                    return Err(HttpError::Range {
                        url: self.url.to_string(),
                        range: range.clone(),
                        sent: sent.chars().take(80).collect(),
                    });
                }
                Ok(Answer::Part(self.body(answer)))
            }
            StatusCode::OK => Ok(Answer::Whole(self.body(answer))),
            status => Err(self.refused(status)),
        }
    }

    /// Asks where the file was found last, and follows redirects.
    async fn send(&mut self, range: Option<&Range<u64>>) -> Result<Response<Incoming>, HttpError> {
        if self.place != self.url {
            match self.send_once(range).await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                // A place that was redirected to can be good for a while only.
                _ => self.go_to(self.url.clone()),
            }
        }
        let mut to = String::new();
        for _ in 0..=REDIRECTS {
            let answer = self.send_once(range).await?;
            let Some(location) = location(&answer) else {
                return Ok(answer);
            };
            // A query can be a secret: the signature of who may fetch.
            let shown = location.split('?').next().unwrap_or_default();
            to = shown.chars().take(200).collect();
            let place = redirected(&self.place, &location);
            self.go_to(place.map_err(|why| self.not_redirected(&to, why))?);
        }
        Err(self.not_redirected(&to, "it goes on for too long"))
    }

    fn go_to(&mut self, place: Url) {
        if Origin::of(&place) != Origin::of(&self.place) {
            self.sender = None;
        }
        self.place = place;
    }

    fn not_redirected(&self, to: &str, why: &'static str) -> HttpError {
        HttpError::Redirect {
            url: self.url.to_string(),
            to: to.to_string(),
            why,
        }
    }

    async fn send_once(
        &mut self,
        range: Option<&Range<u64>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let not_asked = || HttpError::Address(self.place.to_string());
        let origin = Origin::of(&self.place).ok_or_else(not_asked)?;
        let path = &self.place[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::get(path).header(HOST, origin.authority()).header(
            USER_AGENT,
            concat!("bulkhead-updater/", env!("CARGO_PKG_VERSION")),
        );
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let request = request.body(Empty::new()).map_err(|_| not_asked())?;
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            // The server may have ended a connection that was kept, which is no failure.
            if let Ok(answer) = self.send_by(sender, request.clone()).await {
                return Ok(answer);
            }
        }
        let stream = self.connector.connect(&origin).await?;
        let (sender, connection) = self.in_time(http1::handshake(TokioIo::new(stream))).await?;
        // What it ends with is told by the request that is at work.
        tokio::spawn(connection);
        self.send_by(sender, request).await
    }

    async fn send_by(
        &mut self,
        mut sender: SendRequest<Empty<Bytes>>,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        let sent = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answer = self.in_time(sent).await?;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, hyper::Error>>,
    ) -> Result<T, HttpError> {
        let url = || self.url.to_string();
        let after = self.connector.silence();
        match timeout(after, work).await {
            Ok(done) => done.map_err(|source| HttpError::Broken { url: url(), source }),
            Err(_) => Err(HttpError::Silent { url: url(), after }),
        }
    }

    fn refused(&self, status: StatusCode) -> HttpError {
        let url = self.url.to_string();
        match status {
            // Buckets that may not be listed say "forbidden" for what is not there.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => {
                HttpError::NotFound { url }
            }
            status => HttpError::Status { url, status },
        }
    }

    fn body(&self, answer: Response<Incoming>) -> Body {
        Body {
            url: self.url.clone(),
            answer,
            silence: self.connector.silence(),
            begun: Instant::now(),
            bytes: 0,
            slowest: self.slowest,
        }
    }
}

impl Body {
    /// The next piece; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = match timeout(self.silence, self.answer.body_mut().frame()).await {
                Err(_) => {
                    return Err(HttpError::Silent {
                        url: self.url.to_string(),
                        after: self.silence,
                    });
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => {
                    let url = self.url.to_string();
                    return Err(HttpError::Broken { url, source });
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            self.bytes += piece.len() as u64;
            let spent = self.begun.elapsed();
            if is_too_slow(self.bytes, spent, self.silence, self.slowest) {
                return Err(HttpError::Slow {
                    url: self.url.to_string(),
                    bytes: self.bytes,
                    seconds: spent.as_secs(),
                });
            }
            return Ok(Some(piece));
        }
    }
}

/// Where an answer sends on to.
fn location(answer: &Response<Incoming>) -> Option<String> {
    match answer.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let location = answer.headers().get(LOCATION)?;
            Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
        }
        _ => None,
    }
}

/// The address that `from` is redirected to, or why that is refused.
fn redirected(from: &Url, location: &str) -> Result<Url, &'static str> {
    let to = from.join(location).map_err(|_| "it is no address")?;
    let origin = Origin::of(&to).ok_or("it is no address of a web server")?;
    match from.scheme() == "https" && !origin.is_tls() {
        true => Err("it leads out of TLS"),
        false => Ok(to),
    }
}

fn is_too_slow(bytes: u64, spent: Duration, silence: Duration, slowest: u64) -> bool {
    spent > silence + Duration::from_secs(bytes / slowest)
}

/// Fetches for `tough`.
#[derive(Clone, Debug)]
pub struct Http(pub Connector);

#[async_trait]
impl Transport for Http {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let mut server = Server::new(self.0.clone(), url.clone());
        let mut body = (server.get().await).map_err(|error| transport_error(&url, error))?;
        // A task of its own, since what `tough` takes must be shareable among threads. It
        // ends when nobody takes the pieces any more.
        let (pieces, mut taken) = mpsc::channel(1);
        tokio::spawn(async move {
            // The connection lives as long as this does.
            let _server = server;
            while let Some(piece) = body.next().await.transpose() {
                let piece = piece.map_err(|error| transport_error(&url, error));
                let is_last = piece.is_err();
                if pieces.send(piece).await.is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Box::pin(stream::poll_fn(move |context| {
            taken.poll_recv(context)
        })))
    }
}

fn transport_error(url: &Url, error: HttpError) -> TransportError {
    let kind = match error {
        HttpError::NotFound { .. } => TransportErrorKind::FileNotFound,
        HttpError::Address(_) => TransportErrorKind::UnsupportedUrlScheme,
        _ => TransportErrorKind::Other,
    };
    TransportError::new_with_cause(kind, url, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_too_slow_and_a_slow_line_is_not() {
        let seconds = Duration::from_secs;
        let after = |bytes, spent| is_too_slow(bytes, seconds(spent), seconds(30), SLOWEST);
        assert!(!after(1, 30));
        assert!(after(100, 31));
        assert!(!after(SLOWEST * 600, 600));
        assert!(after(SLOWEST * 500, 600));
    }

    #[test]
    fn redirects() {
        let from = |url: &str, location: &str| {
            let to = redirected(&url.parse().unwrap(), location);
            to.map(|url| url.to_string())
        };
        for (url, location, expected) in [
            ("https://a.example/b/c", "d?e", "https://a.example/b/d?e"),
            (
                "https://a.example/b",
                "//c.example/d",
                "https://c.example/d",
            ),
            (
                "http://a.example/b",
                "https://c.example/d",
                "https://c.example/d",
            ),
            ("http://a.example/b", "/d", "http://a.example/d"),
        ] {
            assert_eq!(from(url, location).as_deref(), Ok(expected));
        }
        for (url, location) in [
            ("https://a.example/b", "http://a.example/b"),
            ("http://a.example/b", "file:///etc/passwd"),
            ("http://a.example/b", "https://["),
        ] {
            assert!(from(url, location).is_err(), "{location}");
        }
    }
}
