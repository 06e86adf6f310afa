//! HTTP/1.1 as far as a static file server needs it: whole files and ranges of them.
//!
//! Whoever answers is not trusted. Nothing waits for ever: a connection has
//! [`SILENCE`] for each step, and a body must come at [`SLOWEST`] on the whole, so that a
//! server that drips does not hold an update up. How much is taken is the caller's
//! business: bodies come in pieces.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_RANGE, HOST, RANGE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes a second that a body must bring, once [`SILENCE`] is over.
const SLOWEST: u64 = 16 * 1024;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another scheme than http, or an address without a host.
    #[error("{0} is no address that begins with http:// and names a host")]
    Address(String),
    /// The server cannot be reached.
    #[error("cannot connect to {host}")]
    Connect {
        /// Name and port.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server said nothing for too long.
    #[error("{url} was silent for {seconds} s", seconds = SILENCE.as_secs())]
    Silent {
        /// What was asked for.
        url: String,
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
            Self::Connect { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Slow { .. } | Self::Address(_) | Self::NotFound { .. } | Self::Range { .. } => {
                false
            }
        }
    }
}

/// A connection to the server of an address, made when it is needed and kept.
pub struct Server {
    url: Url,
    sender: Option<SendRequest<Empty<Bytes>>>,
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
    begun: Instant,
    bytes: u64,
}

impl Server {
    /// Nothing is sent yet.
    pub fn new(url: Url) -> Self {
        Self { url, sender: None }
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

    async fn send(&mut self, range: Option<&Range<u64>>) -> Result<Response<Incoming>, HttpError> {
        let host = self.host()?;
        let mut request =
            Request::get(&self.url[url::Position::BeforePath..url::Position::AfterQuery])
                .header(HOST, &host)
                .header(
                    USER_AGENT,
                    concat!("bulkhead-updater/", env!("CARGO_PKG_VERSION")),
                );
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let request = request
            .body(Empty::new())
            .map_err(|_| HttpError::Address(self.url.to_string()))?;
        if let Some(sender) = self.sender.take().filter(|sender| !sender.is_closed()) {
            // The server may have ended a connection that was kept, which is no failure.
            if let Ok(answer) = self.send_by(sender, request.clone()).await {
                return Ok(answer);
            }
        }
        let sender = self.connect(&host).await?;
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

    fn host(&self) -> Result<String, HttpError> {
        let refused = || HttpError::Address(self.url.to_string());
        match (self.url.scheme(), self.url.host_str(), self.url.port()) {
            ("http", Some(host), None) => Ok(host.to_string()),
            ("http", Some(host), Some(port)) => Ok(format!("{host}:{port}")),
            _ => Err(refused()),
        }
    }

    async fn connect(&self, host: &str) -> Result<SendRequest<Empty<Bytes>>, HttpError> {
        let connect = async {
            let port = self.url.port_or_known_default().unwrap_or(80);
            let name = self.url.host_str().unwrap_or_default();
            // IPv6 addresses have brackets in addresses only.
            let name = name.trim_start_matches('[').trim_end_matches(']');
            TcpStream::connect((name, port)).await
        };
        let failed = |source| HttpError::Connect {
            host: host.to_string(),
            source,
        };
        let stream = match timeout(SILENCE, connect).await {
            Ok(stream) => stream.map_err(failed)?,
            Err(_) => return Err(failed(std::io::ErrorKind::TimedOut.into())),
        };
        let (sender, connection) = self.in_time(http1::handshake(TokioIo::new(stream))).await?;
        // What it ends with is told by the request that is at work.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, hyper::Error>>,
    ) -> Result<T, HttpError> {
        let url = || self.url.to_string();
        match timeout(SILENCE, work).await {
            Ok(done) => done.map_err(|source| HttpError::Broken { url: url(), source }),
            Err(_) => Err(HttpError::Silent { url: url() }),
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
            begun: Instant::now(),
            bytes: 0,
        }
    }
}

impl Body {
    /// The next piece; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = match timeout(SILENCE, self.answer.body_mut().frame()).await {
                Err(_) => {
                    return Err(HttpError::Silent {
                        url: self.url.to_string(),
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
            if is_too_slow(self.bytes, spent) {
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

fn is_too_slow(bytes: u64, spent: Duration) -> bool {
    spent > SILENCE + Duration::from_secs(bytes / SLOWEST)
}

/// Fetches for `tough`.
#[derive(Clone, Copy, Debug)]
pub struct Http;

#[async_trait]
impl Transport for Http {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let mut server = Server::new(url.clone());
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
        let after = |bytes, seconds| is_too_slow(bytes, Duration::from_secs(seconds));
        assert!(!after(1, 30));
        assert!(after(100, 31));
        assert!(!after(SLOWEST * 600, 600));
        assert!(after(SLOWEST * 500, 600));
    }

    #[test]
    fn addresses() {
        for (url, host) in [
            ("http://a.example/x", Some("a.example")),
            ("http://[::1]:8080/x", Some("[::1]:8080")),
            ("file:///x", None),
        ] {
            let server = Server::new(url.parse().unwrap());
            assert_eq!(server.host().ok().as_deref(), host, "{url}");
        }
    }
}
