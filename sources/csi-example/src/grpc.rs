//! Calls over HTTP/2 on a Unix socket, answered and made: one message there, one back.

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use grpc_frames::frame;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};

/// Codes of failures.
const INVALID: u32 = 3;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
/// What every message is sent as.
const CONTENT_TYPE: &str = "application/grpc";

/// Why a call is not answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    code: u32,
    message: String,
}

impl Refusal {
    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: INVALID,
            message: message.into(),
        }
    }

    /// There is no such method.
    pub fn unknown(method: &str) -> Self {
        Self {
            code: UNIMPLEMENTED,
            message: format!("{method} is not known here"),
        }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self {
            code: INTERNAL,
            message: format!("{error:#}"),
        }
    }
}

/// What a call is answered with: an encoded message.
pub type Answer = Result<Vec<u8>, Refusal>;

/// Decodes a request.
pub fn decode<R: Message + Default>(request: &[u8]) -> Result<R, Refusal> {
    R::decode(request).map_err(|error| Refusal::invalid(error.to_string()))
}

/// Listens at a socket, which may be there from a process that has ended.
pub fn listen(socket: &Path) -> Result<UnixListener> {
    let listening = || format!("cannot listen at {}", socket.display());
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(listening);
        }
        _ => {}
    }
    UnixListener::bind(socket).with_context(listening)
}

/// Answers calls, of which a method is written as `service/Method`. While one is answered,
/// all others wait.
pub async fn serve(
    listener: UnixListener,
    answer: impl Fn(&str, &[u8]) -> Answer + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    while let Ok((stream, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            // Whoever hangs up ends calls by it, and has no use for the reason.
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, response))) = connection.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let method = request.uri().path().trim_start_matches('/').to_string();
                    let Ok(message) = read(request.into_body()).await else {
                        return;
                    };
                    let answer = answer(&method, &message);
                    if let Err(refusal) = &answer {
                        eprintln!("{method}: {}", refusal.message);
                    }
                    let _ = respond(response, answer);
                });
            }
        });
    }
}

fn respond(mut response: SendResponse<Bytes>, answer: Answer) -> Result<()> {
    let head = Response::builder()
        .header("content-type", CONTENT_TYPE)
        .body(())?;
    let mut stream = response.send_response(head, false)?;
    let (code, message) = match answer {
        Ok(message) => {
            stream.send_data(frame(&message)?, false)?;
            (0, String::new())
        }
        Err(refusal) => (refusal.code, refusal.message),
    };
    stream.send_trailers(trailers(code, &message)?)?;
    Ok(())
}

/// What ends an answer. What is not for one line of text is left out.
fn trailers(code: u32, message: &str) -> Result<HeaderMap> {
    let message = message.replace(|c: char| !(' '..='~').contains(&c) || c == '%', " ");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers.insert("grpc-message", HeaderValue::from_str(&message)?);
    Ok(trailers)
}

/// Calls `method` of who answers at `socket`.
pub async fn call<R: Message + Default>(
    socket: &Path,
    method: &str,
    request: &impl Message,
) -> Result<R> {
    let stream = UnixStream::connect(socket).await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let head = Request::post(format!("http://localhost/{method}"))
        .header("content-type", CONTENT_TYPE)
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = sender.ready().await?.send_request(head, false)?;
    stream.send_data(frame(&request.encode_to_vec())?, true)?;
    let answer = read(response.await?.into_body()).await?;
    Ok(R::decode(answer)?)
}

/// The only message of a request or an answer.
async fn read(mut body: RecvStream) -> Result<Bytes> {
    only_message(grpc_frames::receive_all(&mut body).await?)
}

fn only_message(mut bytes: BytesMut) -> Result<Bytes> {
    let message = grpc_frames::unframe(&mut bytes)?.context("there is no whole message")?;
    ensure!(bytes.is_empty(), "there is more than a message");
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        let framed = frame(b"abc").unwrap();
        assert_eq!(framed.as_ref(), b"\0\0\0\0\x03abc");
        assert_eq!(only_message(framed.into()).unwrap().as_ref(), b"abc");
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\0a",
            b"\x01\0\0\0\0",
        ] {
            assert!(only_message(BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reasons_are_a_line_of_text() {
        let trailers = trailers(13, "a\nb 5%").unwrap();
        assert_eq!(trailers["grpc-status"], "13");
        assert_eq!(trailers["grpc-message"], "a b 5 ");
    }
}
