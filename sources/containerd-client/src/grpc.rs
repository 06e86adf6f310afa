//! Calls of containerd: one message there and at least one back, over HTTP/2 on a Unix
//! socket.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use std::fmt;
use std::path::Path;
use tokio::net::UnixStream;

/// Codes of failures that are told apart here.
const NOT_FOUND: u32 = 5;
const ALREADY_EXISTS: u32 = 6;

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Bytes>,
    namespace: String,
}

/// What a service said about a call that failed.
#[derive(Debug)]
struct Refused {
    code: u32,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for Refused {}

/// What a call has come to, where what it asks about may be there or not.
pub(crate) enum Answer<T> {
    /// It was done.
    Done(T),
    /// What it speaks of is not there.
    NotFound,
    /// What it would make is there.
    AlreadyExists,
}

impl Client {
    /// Connects to the socket; everything is about what is in `namespace`.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self> {
        let connecting = || format!("cannot connect to containerd at {}", socket.display());
        let stream = UnixStream::connect(socket).await.with_context(connecting)?;
        let (sender, connection) = h2::client::handshake(stream)
            .await
            .with_context(connecting)?;
        // Its end ends calls too, which then say why.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            namespace: namespace.to_string(),
        })
    }

    /// Calls `method`, and takes it for a failure when something is missing or there.
    pub(crate) async fn call<R: Message + Default>(
        &self,
        method: &str,
        lease: Option<&str>,
        request: &impl Message,
    ) -> Result<R> {
        match self.ask(method, lease, request).await? {
            Answer::Done(answer) => Ok(answer),
            Answer::NotFound => bail!("{method} failed: it is not there"),
            Answer::AlreadyExists => bail!("{method} failed: it is there already"),
        }
    }

    /// Calls `method`, written as `service/Method` below `containerd.services`. What
    /// is made is held by `lease`.
    pub(crate) async fn ask<R: Message + Default>(
        &self,
        method: &str,
        lease: Option<&str>,
        request: &impl Message,
    ) -> Result<Answer<R>> {
        match self.send(method, lease, request).await {
            Ok(mut answers) => {
                let answer = answers.pop().context("the answer is empty")?;
                Ok(Answer::Done(answer))
            }
            Err(error) => match error.downcast_ref::<Refused>().map(|refused| refused.code) {
                Some(NOT_FOUND) => Ok(Answer::NotFound),
                Some(ALREADY_EXISTS) => Ok(Answer::AlreadyExists),
                _ => Err(error.context(format!("containerd's {method} failed"))),
            },
        }
    }

    /// Calls `method`, and returns all that it answers.
    pub(crate) async fn read<R: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Vec<R>> {
        let answers = self.send(method, None, request).await;
        answers.with_context(|| format!("containerd's {method} failed"))
    }

    /// Begins to call `method`.
    pub(crate) async fn open(
        &self,
        method: &str,
        lease: Option<&str>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = Request::post(format!("http://localhost/containerd.services.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", &self.namespace);
        if let Some(lease) = lease {
            request = request.header("containerd-lease", lease);
        }
        let request = request.body(()).context("cannot write the request")?;
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(request, false)?)
    }

    async fn send<R: Message + Default>(
        &self,
        method: &str,
        lease: Option<&str>,
        message: &impl Message,
    ) -> Result<Vec<R>> {
        let (response, mut stream) = self.open(method, lease).await?;
        stream.send_data(frame(message)?, true)?;
        let (head, mut body) = response.await?.into_parts();
        ensure!(head.status == 200, "it answered HTTP {}", head.status);
        let mut bytes = grpc_frames::receive_all(&mut body).await?;
        // What fails at once says so before any content.
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        check_status(&trailers)?;
        let mut answers = Vec::new();
        while let Some(answer) = unframe(&mut bytes)? {
            answers.push(answer);
        }
        ensure!(bytes.is_empty(), "the answer is cut short");
        Ok(answers)
    }
}

/// A message as it is sent.
pub(crate) fn frame(message: &impl Message) -> Result<Bytes> {
    grpc_frames::frame(&message.encode_to_vec())
}

/// Takes a message off, if a whole one is there.
pub(crate) fn unframe<R: Message + Default>(bytes: &mut BytesMut) -> Result<Option<R>> {
    let message = grpc_frames::unframe(bytes)?;
    message
        .map(|message| R::decode(message).context("cannot read the answer"))
        .transpose()
}

fn check_status(trailers: &HeaderMap) -> Result<()> {
    let text = |name: &str| {
        let value = trailers.get(name)?.to_str().ok()?;
        Some(value.to_string())
    };
    let code = text("grpc-status").context("the answer has no status")?;
    match code.parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(anyhow!(Refused {
            code,
            message: text("grpc-message").unwrap_or_default(),
        })),
        Err(_) => bail!("the answer has the status {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GetImage;

    #[test]
    fn messages_are_framed() {
        let message = GetImage {
            name: "a".to_string(),
        };
        let framed = frame(&message).unwrap();
        assert_eq!(framed.as_ref(), b"\0\0\0\0\x03\x0a\x01a");
        let mut bytes = BytesMut::from([b"\0\0\0\0\0", framed.as_ref()].concat().as_slice());
        assert_eq!(unframe(&mut bytes).unwrap(), Some(GetImage::default()));
        assert_eq!(unframe(&mut bytes).unwrap(), Some(message));
        for cut in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02\x0a"] {
            let mut bytes = BytesMut::from(cut);
            assert_eq!(unframe::<GetImage>(&mut bytes).unwrap(), None);
            assert_eq!(bytes, cut);
        }
        for bad in [&b"\x01\0\0\0\0"[..], b"\0\0\0\0\x01\x0a", b"\0\xff\0\0\0"] {
            let mut bytes = BytesMut::from(bad);
            assert!(unframe::<GetImage>(&mut bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_status_is_success_or_tells_why_not() {
        let check = |fields: &[(&'static str, &str)], expected: Option<&str>| {
            let mut trailers = HeaderMap::new();
            for (name, value) in fields {
                trailers.insert(*name, value.parse().unwrap());
            }
            let told = check_status(&trailers).err().map(|e| e.to_string());
            assert_eq!(told.as_deref(), expected);
        };
        check(&[("grpc-status", "0")], None);
        check(
            &[("grpc-status", "5"), ("grpc-message", "no image")],
            Some("no image (code 5)"),
        );
        check(&[], Some("the answer has no status"));
        check(
            &[("grpc-status", "x")],
            Some("the answer has the status \"x\""),
        );
    }
}
