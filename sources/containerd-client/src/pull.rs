//! Pulling an image from a registry: containerd does it, and asks for credentials.
//!
//! containerd syncs its database but not the files of layers, so that a power cut soon
//! after a pull would leave an image that counts as whole and whose files are empty.
//! An image is therefore pulled under another name first, and gets its own once
//! everything is on the disk. What is found under the other name later is what a cut has
//! left; it is removed with its layers and pulled anew.
//!
//! containerd waits for ever for the rest of what a registry has begun to send. It tells how
//! far a pull is while that gets on, and a pull of which it tells nothing for long is given up.

use crate::api::{
    AUTH_CREDENTIALS, AUTH_NONE, AUTH_REFRESH, Any, AuthRequest, AuthResponse, ImageStore, Nothing,
    Platform, Registry, Resolver, StreamInit, Transfer, TransferOptions, Unpack,
};
use crate::grpc::{Client, frame, unframe};
use crate::{SNAPSHOTTER, image};
use anyhow::{Context, Error, Result, anyhow};
use bytes::BytesMut;
use h2::{RecvStream, SendStream};
use prost::Message;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How to log in to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// As this user, with this password.
    User(String, String),
    /// With a token that gives others.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user, _) => f.debug_tuple("User").field(user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.debug_tuple("IdentityToken").finish_non_exhaustive(),
        }
    }
}

/// Pulls the image called `reference` for `holder`, beside whom others may pull it.
/// `hosts` is the folder that knows of registries' mirrors; `log_in` says how to log in to a
/// host, `sync` has what was written reach the disk. After `patience` without progress it
/// fails.
pub async fn pull<L>(
    client: &Client,
    reference: &str,
    holder: &str,
    hosts: &Path,
    log_in: impl Fn(String) -> L + Send + 'static,
    patience: Duration,
    sync: impl FnOnce() -> Result<()>,
) -> Result<()>
where
    L: Future<Output = Result<Option<Credentials>>> + Send,
{
    let pulling = format!("{reference} (being pulled for {holder})");
    image::remove(client, &pulling).await?;
    // containerd remembers the names of streams beyond their end, also those of a program
    // before this one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    let this_time = format!("{reference}, {}-{now}", std::process::id());
    let credentials = Stream::open(client, format!("credentials for {this_time}")).await?;
    let progress = Stream::open(client, format!("progress of {this_time}")).await?;
    let platform = Platform {
        os: "linux".to_string(),
        architecture: image::architecture().to_string(),
    };
    let source = Registry {
        reference: reference.to_string(),
        resolver: Some(Resolver {
            auth_stream: credentials.id.clone(),
            host_dir: hosts.display().to_string(),
        }),
    };
    let destination = ImageStore {
        name: pulling.clone(),
        platforms: vec![platform.clone()],
        unpacks: vec![Unpack {
            platform: Some(platform),
            snapshotter: SNAPSHOTTER.to_string(),
        }],
    };
    let transfer = Transfer {
        source: Some(Any::of("containerd.types.transfer.OCIRegistry", &source)),
        destination: Some(Any::of(
            "containerd.types.transfer.ImageStore",
            &destination,
        )),
        options: Some(TransferOptions {
            progress_stream: progress.id.clone(),
        }),
    };
    let failed_login = answer_for_credentials(credentials, log_in);
    let transferring = client.call::<Nothing>("transfer.v1.Transfer/Transfer", None, &transfer);
    let transferred = tokio::select! {
        transferred = transferring => transferred,
        // Who calls no more has ended it.
        stalled = progress.silence(patience) => Err(stalled),
    };
    transferred
        // Whoever could not log in was most likely refused for that.
        .map_err(|error| match take(&failed_login) {
            Some(login) => error.context(format!("{login:#}")),
            None => error,
        })
        .with_context(|| format!("cannot pull {reference}"))?;
    let pulled = image::find(client, &pulling).await?;
    let target = pulled.and_then(|image| image.target);
    let target = target.with_context(|| format!("{reference} was pulled and is not there"))?;
    sync()?;
    image::name(client, None, reference, target, &[]).await?;
    image::remove(client, &pulling).await
}

/// The last error of who could not log in.
type FailedLogin = Arc<Mutex<Option<Error>>>;

fn take(failed: &FailedLogin) -> Option<Error> {
    lock(failed).take()
}

fn lock(failed: &FailedLogin) -> MutexGuard<'_, Option<Error>> {
    failed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream of messages beside the calls.
struct Stream {
    id: String,
    sender: SendStream<bytes::Bytes>,
    body: RecvStream,
    /// What has come of a message that is not whole.
    bytes: BytesMut,
}

impl Stream {
    /// Opens one, which calls know by the name `id`.
    async fn open(client: &Client, id: String) -> Result<Self> {
        let opening = || format!("cannot open a stream for {id}");
        let (response, mut sender) = client
            .open("streaming.v1.Streaming/Stream", None)
            .await
            .with_context(opening)?;
        let kind = "containerd.services.streaming.v1.StreamInit";
        send(&mut sender, kind, &StreamInit { id: id.clone() }).with_context(opening)?;
        let body = response.await.with_context(opening)?.into_body();
        let mut stream = Self {
            id: id.clone(),
            sender,
            body,
            bytes: BytesMut::new(),
        };
        // That it knows the stream is its first answer.
        stream.receive().await?.with_context(opening)?;
        Ok(stream)
    }

    /// The next message, `None` at its end.
    async fn receive(&mut self) -> Result<Option<Any>> {
        receive(&mut self.body, &mut self.bytes).await
    }

    /// Waits until nothing has come for `patience`, and says so.
    async fn silence(mut self, patience: Duration) -> Error {
        while let Ok(next) = tokio::time::timeout(patience, self.receive()).await {
            if !matches!(next, Ok(Some(_))) {
                // What it belongs to ends with it, or never.
                tokio::time::sleep(patience).await;
                break;
            }
        }
        anyhow!("no progress for {} s", patience.as_secs())
    }
}

/// Goes on to answer, on `stream`, containerd's questions how to log in.
fn answer_for_credentials<L>(
    mut stream: Stream,
    log_in: impl Fn(String) -> L + Send + 'static,
) -> FailedLogin
where
    L: Future<Output = Result<Option<Credentials>>> + Send,
{
    let failed = FailedLogin::default();
    let failing = failed.clone();
    tokio::spawn(async move {
        // What goes wrong here, the pull says.
        while let Ok(Some(question)) = stream.receive().await {
            let Ok(question) = AuthRequest::decode(question.value.as_slice()) else {
                return;
            };
            let credentials = match log_in(question.host).await {
                Ok(credentials) => credentials,
                Err(error) => {
                    *lock(&failing) = Some(error);
                    None
                }
            };
            let kind = "containerd.types.transfer.AuthResponse";
            if send(&mut stream.sender, kind, &answer(credentials)).is_err() {
                return;
            }
        }
    });
    failed
}

fn answer(credentials: Option<Credentials>) -> AuthResponse {
    let (kind, username, secret) = match credentials {
        None => (AUTH_NONE, String::new(), String::new()),
        Some(Credentials::User(user, password)) => (AUTH_CREDENTIALS, user, password),
        Some(Credentials::IdentityToken(token)) => (AUTH_REFRESH, String::new(), token),
    };
    AuthResponse {
        kind,
        secret,
        username,
    }
}

fn send(sender: &mut SendStream<bytes::Bytes>, kind: &str, message: &impl Message) -> Result<()> {
    Ok(sender.send_data(frame(&Any::of(kind, message))?, false)?)
}

/// The next message of a stream, `None` at its end.
async fn receive(body: &mut RecvStream, bytes: &mut BytesMut) -> Result<Option<Any>> {
    loop {
        if let Some(message) = unframe(bytes)? {
            return Ok(Some(message));
        }
        if !grpc_frames::receive(body, bytes).await? {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use h2::server::SendResponse;
    use std::future::poll_fn;
    use std::time::Instant;
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{mpsc, watch};

    /// A stand-in for containerd that asks once how to log in to `host`, and whose pulls fail
    /// once it has the answer, which it gives away.
    async fn serve(
        stream: UnixStream,
        host: &'static str,
        answer: watch::Sender<Option<AuthResponse>>,
    ) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let method = request.uri().path().to_string();
                if method.ends_with("Streaming/Stream") {
                    ask(request.into_body(), respond, host, answer).await;
                    return;
                }
                let is_pull = method.ends_with("Transfer/Transfer");
                if is_pull {
                    let mut answered = answer.subscribe();
                    answered.wait_for(Option::is_some).await.unwrap();
                }
                let mut stream = begin(respond);
                stream
                    .send_data(frame(&Nothing {}).unwrap(), false)
                    .unwrap();
                let mut trailers = http::HeaderMap::new();
                let status = if is_pull { 2 } else { 0 };
                trailers.insert("grpc-status", status.into());
                trailers.insert("grpc-message", "401 Unauthorized".parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            });
        }
    }

    fn begin(mut respond: SendResponse<bytes::Bytes>) -> SendStream<bytes::Bytes> {
        let head = http::Response::builder().status(200).body(()).unwrap();
        respond.send_response(head, false).unwrap()
    }

    /// Knows a stream from its first message on, which names it.
    async fn know(
        body: &mut RecvStream,
        bytes: &mut BytesMut,
        respond: SendResponse<bytes::Bytes>,
    ) -> (String, SendStream<bytes::Bytes>) {
        let named = receive(body, bytes).await.unwrap().unwrap();
        let id = StreamInit::decode(named.value.as_slice()).unwrap().id;
        let mut stream = begin(respond);
        send(&mut stream, "google.protobuf.Empty", &Nothing {}).unwrap();
        (id, stream)
    }

    async fn ask(
        mut body: RecvStream,
        respond: SendResponse<bytes::Bytes>,
        host: &str,
        answer: watch::Sender<Option<AuthResponse>>,
    ) {
        let mut bytes = BytesMut::new();
        let (id, mut stream) = know(&mut body, &mut bytes, respond).await;
        if !id.starts_with("credentials for r/a:1, ") {
            // As long as there is a client.
            while let Ok(Some(_)) = receive(&mut body, &mut bytes).await {}
            return;
        }
        let question = AuthRequest {
            host: host.to_string(),
            reference: String::new(),
        };
        send(&mut stream, "AuthRequest", &question).unwrap();
        let said = receive(&mut body, &mut bytes).await.unwrap().unwrap();
        let said = AuthResponse::decode(said.value.as_slice()).unwrap();
        answer.send(Some(said)).unwrap();
    }

    /// Pulls by a stand-in for containerd that answers over one connection; why that fails,
    /// and what the stand-in has given away.
    fn failure<L, S, R>(
        log_in: impl Fn(String) -> L + Send + 'static,
        patience: Duration,
        answer: impl FnOnce(UnixStream) -> S,
        given_away: impl Future<Output = R>,
    ) -> (String, R)
    where
        L: Future<Output = Result<Option<Credentials>>> + Send,
        S: Future<Output = ()> + Send + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).unwrap();
            let client = Client::connect(&socket, "space");
            let (client, connection) = tokio::join!(client, listener.accept());
            tokio::spawn(answer(connection.unwrap().0));
            let (client, hosts) = (client.unwrap(), Path::new("/hosts"));
            let pulled = pull(
                &client,
                "r/a:1",
                "admin",
                hosts,
                log_in,
                patience,
                || Ok(()),
            );
            let error = format!("{:#}", pulled.await.unwrap_err());
            (error, given_away.await)
        })
    }

    /// What a pull from a registry comes to that lets nobody in, and how it was asked to.
    fn pulled(host: &'static str) -> (String, AuthResponse) {
        let (sender, answer) = watch::channel(None);
        let log_in = |host: String| async move {
            match host.as_str() {
                "known" => Ok(Some(Credentials::User("jo".into(), "secret".into()))),
                "free" => Ok(None),
                _ => bail!("there is no role"),
            }
        };
        let serve = move |stream| serve(stream, host, sender);
        let given_away = async { answer.borrow().clone().unwrap() };
        failure(log_in, Duration::from_secs(60), serve, given_away)
    }

    #[test]
    fn who_cannot_log_in_learns_why() {
        let refused = "cannot pull r/a:1: containerd's transfer.v1.Transfer/Transfer failed: \
                       401 Unauthorized (code 2)";
        for (host, kind, user, expected) in [
            ("known", AUTH_CREDENTIALS, "jo", refused),
            ("free", AUTH_NONE, "", refused),
            (
                "other",
                AUTH_NONE,
                "",
                "cannot pull r/a:1: there is no role: containerd's transfer.v1.Transfer/Transfer \
                 failed: 401 Unauthorized (code 2)",
            ),
        ] {
            let (error, answer) = pulled(host);
            assert_eq!(error, expected);
            assert_eq!((answer.kind, answer.username.as_str()), (kind, user));
        }
    }

    /// A stand-in for containerd that says ten times how far a pull is, and then nothing any
    /// more. What it is asked, and whether that was given up, goes to `asked`.
    async fn stall(stream: UnixStream, progress: Duration, asked: mpsc::Sender<String>) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let method = request.uri().path().to_string();
                let mut body = request.into_body();
                let mut bytes = BytesMut::new();
                if method.ends_with("Streaming/Stream") {
                    let (id, mut stream) = know(&mut body, &mut bytes, respond).await;
                    for _ in 0..10 {
                        tokio::time::sleep(progress).await;
                        if id.starts_with("progress of r/a:1, ") {
                            send(&mut stream, "Progress", &Nothing {}).unwrap();
                        }
                    }
                    while let Ok(Some(_)) = receive(&mut body, &mut bytes).await {}
                } else if method.ends_with("Transfer/Transfer") {
                    let ended = poll_fn(|context| respond.poll_reset(context)).await;
                    asked.send(format!("{ended:?}")).await.unwrap();
                } else {
                    let mut stream = begin(respond);
                    stream
                        .send_data(frame(&Nothing {}).unwrap(), false)
                        .unwrap();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", 0.into());
                    stream.send_trailers(trailers).unwrap();
                }
            });
        }
    }

    #[test]
    fn a_pull_that_gets_no_further_is_given_up() {
        let (progress, patience) = (Duration::from_millis(200), Duration::from_secs(1));
        let started = Instant::now();
        let (sender, mut asked) = mpsc::channel(1);
        let stall = move |stream| stall(stream, progress, sender);
        let log_in = |_| async { Ok(None) };
        let given_away = async { asked.recv().await.unwrap() };
        let (error, ended) = failure(log_in, patience, stall, given_away);
        assert_eq!(error, "cannot pull r/a:1: no progress for 1 s");
        assert!(ended.contains("CANCEL"), "containerd was told {ended}");
        let taken = started.elapsed();
        assert!(taken >= 10 * progress + patience, "after {taken:?}");
    }
}
