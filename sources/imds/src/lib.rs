//! A client of EC2's instance metadata service, version 2 of its protocol.
//!
//! Before anything is read a token is asked for, which every request then
//! carries; an answer of 401 asks for a new one, once. Paths are below a pinned
//! date, so that what an answer looks like never changes under us. All of a
//! [`Client`]'s requests together have one budget of time, and within it what may
//! pass by itself is tried again: a machine that starts has no address yet, and
//! the service is not there from the first moment. What another try cannot
//! change is an error at once.
//!
//! The service is reached over the link alone: no proxy, no names, no TLS, which
//! is why [`http`] is enough. What the answers mean is up to the callers,
//! `early-boot` and `settings-agent`. With the feature `fake` there is a strict
//! service for tests in [`fake`].

#[cfg(feature = "fake")]
pub mod fake;
#[doc(hidden)]
pub mod http;

use http::Answer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The path of what says which instance it is, where, and of which type.
pub const IDENTITY_DOCUMENT: &str = "dynamic/instance-identity/document";

/// Where the service is, over IPv4 and over IPv6.
pub const ENDPOINTS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        80,
    ),
];

/// The version of the paths that is asked for.
pub const DATE: &str = "2021-07-15";

/// Where a token is asked for.
const TOKEN_PATH: &str = "/latest/api/token";
/// How long a token is to be good for, in seconds. A boot needs no more.
const TOKEN_SECONDS: u32 = 60;
/// The largest token that is believed.
const TOKEN_LIMIT: usize = 1024;
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// The first and the longest pause between two tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The budget is used up.
    #[error("the metadata service gave no answer to {path} within {} s: {last}", .budget.as_secs_f32())]
    Budget {
        /// What was asked for.
        path: String,
        /// The budget.
        budget: Duration,
        /// What the last try met with.
        last: String,
    },
    /// The service is switched off for this machine.
    #[error("the metadata service is switched off for this machine (403 to a request for a token)")]
    Off,
    /// A token that was just given is not accepted.
    #[error("the metadata service refuses its own token for {path}")]
    Refused {
        /// What was asked for.
        path: String,
    },
    /// An answer that nothing is known to help against.
    #[error("the metadata service answered {path} with status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// The status.
        status: u16,
    },
}

/// How a client goes about it.
pub struct Options {
    /// Where the service may be; each try goes through them.
    pub endpoints: Vec<SocketAddr>,
    /// How long all requests of the client may take together.
    pub budget: Duration,
    /// Waits until another try is worth while: for the time given, or less if
    /// something has happened meanwhile.
    pub wait: Box<dyn FnMut(Duration) + Send>,
}

impl Options {
    /// The real service, asked for as long as `budget`.
    pub fn with_budget(budget: Duration) -> Self {
        Self {
            endpoints: ENDPOINTS.to_vec(),
            budget,
            wait: Box::new(std::thread::sleep),
        }
    }
}

/// A client of the service.
pub struct Client {
    options: Options,
    deadline: Instant,
    token: Option<String>,
}

/// What becomes of a try.
enum Try<T> {
    Done(T),
    /// It may be better later; why it was not good now.
    Later(String),
}

impl Client {
    /// A client whose budget starts now.
    pub fn new(options: Options) -> Self {
        Self {
            deadline: Instant::now() + options.budget,
            options,
            token: None,
        }
    }

    /// What lies at `path` below the date, such as `user-data` or
    /// `meta-data/instance-id`, at most `limit` bytes and one more. `None` if
    /// there is nothing.
    pub fn get(&mut self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let path = format!("/{DATE}/{path}");
        let mut renewed = false;
        self.persistently(&path, |client| {
            loop {
                let token = match client.token.clone() {
                    Some(token) => token,
                    None => match client.ask_for_token()? {
                        Try::Done(token) => client.token.insert(token).clone(),
                        Try::Later(why) => return Ok(Try::Later(why)),
                    },
                };
                let header = ("X-aws-ec2-metadata-token", token.as_str());
                let answer = match client.request("GET", &path, header, limit) {
                    Try::Done(answer) => answer,
                    Try::Later(why) => return Ok(Try::Later(why)),
                };
                return match answer.status {
                    200 => Ok(Try::Done(Some(answer.body))),
                    404 => Ok(Try::Done(None)),
                    401 if !renewed => {
                        renewed = true;
                        client.token = None;
                        continue;
                    }
                    401 => Err(Error::Refused { path: path.clone() }),
                    status => later_or_never(&path, status),
                };
            }
        })
    }

    /// As [`Client::get`], for what is a short text without which the caller
    /// cannot go on; white space around it is taken off.
    pub fn text(&mut self, path: &str) -> Result<Option<String>, Error> {
        const TEXT_LIMIT: usize = 64 * 1024;
        let bytes = self.get(path, TEXT_LIMIT)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string()))
    }

    fn ask_for_token(&mut self) -> Result<Try<String>, Error> {
        let seconds = TOKEN_SECONDS.to_string();
        let header = ("X-aws-ec2-metadata-token-ttl-seconds", seconds.as_str());
        let answer = match self.request("PUT", TOKEN_PATH, header, TOKEN_LIMIT) {
            Try::Done(answer) => answer,
            Try::Later(why) => return Ok(Try::Later(why)),
        };
        match answer.status {
            200 => Ok(match String::from_utf8(answer.body) {
                Ok(token) if is_token(&token) => Try::Done(token),
                // Never sent back: it would end up in a header.
                _ => Try::Later("what it gave is no token".into()),
            }),
            403 => Err(Error::Off),
            status => later_or_never(TOKEN_PATH, status),
        }
    }

    /// Tries until it is done, another try cannot help, or the budget is used up.
    fn persistently<T>(
        &mut self,
        path: &str,
        mut attempt: impl FnMut(&mut Self) -> Result<Try<T>, Error>,
    ) -> Result<T, Error> {
        let [mut pause, longest] = PAUSES;
        let mut before = Duration::ZERO;
        loop {
            let why = match attempt(self)? {
                Try::Done(result) => return Ok(result),
                Try::Later(why) => why,
            };
            tracing::debug!(path, why, "the metadata service is tried again");
            let left = self.left();
            (self.options.wait)(pause.min(left));
            if self.left().is_zero() {
                return Err(Error::Budget {
                    path: path.to_string(),
                    budget: self.options.budget,
                    last: why,
                });
            }
            (before, pause) = (pause, (before + pause).min(longest));
        }
    }

    /// One request, at the first endpoint that takes it.
    fn request(
        &mut self,
        method: &str,
        path: &str,
        header: (&str, &str),
        limit: usize,
    ) -> Try<Answer> {
        let mut reasons = Vec::new();
        for &endpoint in &self.options.endpoints {
            let timeout = REQUEST.min(self.left());
            if timeout.is_zero() {
                break;
            }
            match http::request(endpoint, method, path, header, limit, timeout) {
                Ok(answer) => return Try::Done(answer),
                Err(error) => reasons.push(format!("{endpoint}: {error}")),
            }
        }
        if reasons.is_empty() {
            reasons.push("no time was left for a request".into());
        }
        Try::Later(reasons.join("; "))
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// What a status that is neither an answer nor a refusal of the token means.
fn later_or_never<T>(path: &str, status: u16) -> Result<Try<T>, Error> {
    match status {
        // Too many requests, and whatever troubles the service itself.
        408 | 425 | 429 | 500.. => Ok(Try::Later(format!("status {status}"))),
        status => Err(Error::Status {
            path: path.to_string(),
            status,
        }),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_LIMIT && text.bytes().all(|c| c.is_ascii_graphic())
}
