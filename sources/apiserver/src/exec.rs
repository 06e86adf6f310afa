//! `GET /exec`: commands in containers that serve the host, over a WebSocket.
//!
//! A session begins when the connection has been upgraded ([`Sessions::take`]). Three
//! things go on in it at once: messages are read, and taken apart; what the process is to
//! read is written to it, with a word to the client every now and then how far that has
//! come; and what the process writes is sent. Each end is stopped by the other's being
//! slow, and by nothing else. A client that is silent for too long is gone, or one that
//! nothing can be sent to, and so is then everything that runs for it.
//!
//! [`containers`] runs the processes.

pub mod containers;

use crate::http::Answer;
use anyhow::Result;
use api_types::exec::{Capacity, FromClient, FromServer, Initialize, MOST_OUTSTANDING, Size};
use api_types::websocket::{CloseCode, Decoder, Fault, Message, accept};
use containers::{Containers, Process, Started};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// How many sessions there may be at once.
const MOST_SESSIONS: usize = 64;
/// How often the client is asked whether it is there.
const PING: Duration = Duration::from_secs(2);
/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How many bytes are held for a process that does not read them. While there are more, its
/// client is not listened to.
const MOST_HELD: usize = 1 << 20;
/// How many messages that the process has got are worth a word to the client.
const WORTH_A_WORD: u64 = 128;
/// How long what a process wrote last is waited for in all, once it has ended. What it has
/// started may hold its output open for ever, and write to it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How many bytes that can be: two pipes and what the runtime copies between them.
const LAST_BYTES: usize = 256 << 10;
/// How long a client may take to read the end of a session.
const LAST_MESSAGE: Duration = Duration::from_secs(10);
/// How many messages may wait to be sent.
const QUEUE: usize = 16;
/// The most that is sent in one message.
const PIECE: usize = 32 * 1024;

/// The key of a request that asks for a WebSocket.
fn key_of(headers: &HeaderMap) -> Option<&str> {
    let says = |name, word: &str| {
        let words = headers.get_all(name).iter();
        words
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let asks = says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
        && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    asks.then_some(key)
}

/// The answer to a request for a session; nothing to any other.
pub(crate) fn upgrade(request: &Request<Body>) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    let is_exec = request.method() == Method::GET && path.trim_end_matches('/') == "/exec";
    let key = key_of(request.headers()).filter(|_| is_exec)?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accepted = HeaderValue::from_str(&accept(key)).ok()?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Some(response)
}

/// The answer to a request that no session comes of.
pub(crate) fn no_websocket() -> Answer {
    Answer::text(400, "commands are run over a WebSocket, which this is not")
}

/// All sessions.
pub struct Sessions {
    containers: Arc<dyn Containers>,
    places: Arc<Semaphore>,
    /// Becomes true when all have to end.
    ending: watch::Sender<bool>,
}

impl Sessions {
    /// Sessions whose commands run in `containers`.
    pub fn new(containers: Arc<dyn Containers>) -> Self {
        Self {
            containers,
            places: Arc::new(Semaphore::new(MOST_SESSIONS)),
            ending: watch::Sender::new(false),
        }
    }

    /// Ends what a server before this one has left, which may have been killed.
    pub(crate) async fn end_leftovers(&self) {
        self.containers.end_leftovers().await;
    }

    /// Holds a session over a connection, of which some bytes may have been read.
    pub(crate) async fn take(&self, stream: UnixStream, read: &[u8]) {
        let (input, output) = stream.into_split();
        let (client, sent) = Client::new(output);
        let mut ending = self.ending.subscribe();
        let end = match Arc::clone(&self.places).try_acquire_owned() {
            Err(_) => End::with(
                CloseCode::ERROR,
                format!("there are {MOST_SESSIONS} sessions already"),
            ),
            Ok(place) => tokio::select! {
                end = session(Arc::clone(&self.containers), place, &client, input, read) => end,
                // The process ends with what is dropped of the session.
                _ = ending.wait_for(|ending| *ending) => {
                    End::with(CloseCode::ERROR, "the server ends".to_string())
                }
            },
        };
        if let End::Told(code, reason) = end {
            client.send(Message::Close(Some((code, reason)))).await;
        }
        drop(client);
        // A client that does not read is left alone with its messages.
        let _ = tokio::time::timeout(LAST_MESSAGE, sent).await;
    }

    /// Ends all sessions, and returns when what ran in them is gone.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        let all = u32::try_from(MOST_SESSIONS).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await;
    }
}

/// How a session ends.
#[derive(Debug)]
enum End {
    /// The client is told.
    Told(CloseCode, String),
    /// There is nobody to be told.
    Gone,
}

impl End {
    fn with(code: CloseCode, reason: String) -> Self {
        Self::Told(code, reason)
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Told(fault.code, fault.reason.to_string())
    }
}

/// What is sent to a client goes through here.
#[derive(Clone)]
struct Client {
    queue: mpsc::Sender<Message>,
}

impl Client {
    /// Starts to send; the task ends when everything is sent.
    fn new(mut output: OwnedWriteHalf) -> (Self, JoinHandle<io::Result<()>>) {
        let (queue, mut messages) = mpsc::channel::<Message>(QUEUE);
        let sent = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                output.write_all(&message.encode(None)).await?;
            }
            output.shutdown().await
        });
        (Self { queue }, sent)
    }

    /// Sends a message when there is room. One who is gone gets none.
    async fn send(&self, message: Message) {
        let _ = self.queue.send(message).await;
    }

    /// Sends a message only if there is room: where there is none, those on the way say
    /// the same, that somebody is here.
    fn mention(&self, message: Message) {
        let _ = self.queue.try_send(message);
    }

    /// Asks the client every now and then whether it is there, until nothing can be sent
    /// to it any more.
    async fn ping(&self) {
        let mut pings = tokio::time::interval(PING);
        loop {
            tokio::select! {
                _ = pings.tick() => self.mention(Message::Ping(Vec::new())),
                () = self.queue.closed() => return,
            }
        }
    }

    async fn tell_capacity(&self, written: u64) {
        let capacity = FromServer::Capacity(Capacity {
            max_messages_outstanding: MOST_OUTSTANDING,
            messages_written: written,
        });
        // Numbers are always JSON.
        if let Ok(text) = serde_json::to_string(&capacity) {
            self.send(Message::Text(text)).await;
        }
    }
}

/// What a client has sent and the process has not got.
struct Outstanding {
    received: AtomicU64,
    written: AtomicU64,
}

/// What the process is to read.
enum Input {
    /// With the room that they take.
    Bytes(Vec<u8>, OwnedSemaphorePermit),
    End,
}

/// What comes of reading messages.
struct Incoming {
    initialize: mpsc::Sender<Initialize>,
    input: mpsc::UnboundedSender<Input>,
    size: watch::Sender<Option<Size>>,
    outstanding: Arc<Outstanding>,
    /// For what is held.
    room: Arc<Semaphore>,
    is_initialized: bool,
    is_complete: bool,
}

async fn session(
    containers: Arc<dyn Containers>,
    place: OwnedSemaphorePermit,
    client: &Client,
    stream: OwnedReadHalf,
    read: &[u8],
) -> End {
    let (initialize, mut initialized) = mpsc::channel(1);
    // No more is in it than may be outstanding, and its end.
    let (input, inputs) = mpsc::unbounded_channel();
    let (size, sizes) = watch::channel(None);
    let outstanding = Arc::new(Outstanding {
        received: AtomicU64::new(0),
        written: AtomicU64::new(0),
    });
    let incoming = Incoming {
        initialize,
        input,
        size,
        outstanding: Arc::clone(&outstanding),
        room: Arc::new(Semaphore::new(MOST_HELD)),
        is_initialized: false,
        is_complete: false,
    };
    client.tell_capacity(0).await;
    let reading = incoming.read(client, stream, read);
    let running = async {
        let Some(what) = initialized.recv().await else {
            return std::future::pending().await;
        };
        // Once begun it is not given up half-way; what comes of it is, and then ends.
        let starting = tokio::spawn(async move {
            let started = containers.start(&what).await?;
            tracing::info!("a command runs in the container {}", what.target);
            anyhow::Ok(Running::new(started, place))
        });
        let ran = async { run(client, starting.await??, inputs, sizes, &outstanding).await };
        match ran.await {
            Ok(status) => End::with(CloseCode::NORMAL, status.to_string()),
            Err(error) => End::with(CloseCode::ERROR, format!("{error:#}")),
        }
    };
    tokio::select! {
        end = reading => end,
        end = running => end,
        () = client.ping() => End::Gone,
    }
}

/// Stays with a process until it has ended; its exit status.
async fn run(
    client: &Client,
    running: Running,
    inputs: mpsc::UnboundedReceiver<Input>,
    mut sizes: watch::Receiver<Option<Size>>,
    outstanding: &Outstanding,
) -> Result<u32> {
    let Running {
        input,
        output,
        process,
    } = running;
    let feeding = feed(client, &process, input, inputs, outstanding);
    let resizing = async {
        while sizes.changed().await.is_ok() {
            let size = *sizes.borrow_and_update();
            if let Some(size) = size
                && let Err(error) = process.get().resize(size).await
            {
                tracing::warn!("cannot tell a terminal its size: {error:#}");
            }
        }
        std::future::pending::<()>().await;
    };
    let (ended, mut end) = watch::channel(false);
    let waiting = async {
        let waited = async {
            let status = process.get().wait().await;
            ended.send_replace(true);
            status
        };
        let (status, ()) = tokio::join!(waited, copy(client, output, &mut end));
        status
    };
    let status = tokio::select! {
        status = waiting => status?,
        () = feeding => unreachable!("it goes on for ever"),
        () = resizing => unreachable!("it goes on for ever"),
    };
    process.forget().await;
    Ok(status)
}

/// A process and its pipes.
struct Running {
    input: pipe::Sender,
    output: pipe::Receiver,
    process: Guard,
}

impl Running {
    fn new(started: Started, place: OwnedSemaphorePermit) -> Self {
        Self {
            input: started.input,
            output: started.output,
            process: Guard(Some((started.process, place))),
        }
    }
}

/// A process that does not outlive its session, nor gives its place to another one
/// before it has ended.
struct Guard(Option<(Box<dyn Process>, OwnedSemaphorePermit)>);

impl Guard {
    fn get(&self) -> &dyn Process {
        let (process, _) = self.0.as_ref().expect("it is taken at the end only");
        process.as_ref()
    }

    /// What has ended needs no end.
    async fn forget(mut self) {
        if let Some((process, _place)) = self.0.take() {
            process.forget().await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((process, place)) = self.0.take() {
            tokio::spawn(async move {
                process.end().await;
                process.forget().await;
                drop(place);
            });
        }
    }
}

/// Hands on what the process is to read; goes on for ever.
async fn feed(
    client: &Client,
    process: &Guard,
    input: pipe::Sender,
    mut inputs: mpsc::UnboundedReceiver<Input>,
    outstanding: &Outstanding,
) {
    let mut input = Some(input);
    while let Some(next) = inputs.recv().await {
        match next {
            Input::Bytes(bytes, _room) => {
                // What comes after the end, or for one that reads no more, is nobody's.
                if let Some(pipe) = &mut input
                    && pipe.write_all(&bytes).await.is_err()
                {
                    input = None;
                }
                let written = outstanding.written.fetch_add(1, Ordering::Relaxed) + 1;
                if written.is_multiple_of(WORTH_A_WORD) {
                    client.tell_capacity(written).await;
                }
            }
            Input::End => {
                if input.take().is_some()
                    && let Err(error) = process.get().close_input().await
                {
                    tracing::warn!("cannot end what a process reads: {error:#}");
                }
            }
        }
    }
    std::future::pending().await
}

/// Sends what the process writes, until there is no more. A client that reads slowly is
/// waited for, also when the process has ended; one that holds its output open is not.
async fn copy(client: &Client, mut output: pipe::Receiver, ended: &mut watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE];
    let (mut patience, mut expected) = (LAST_WORDS, LAST_BYTES);
    loop {
        let has_ended = *ended.borrow();
        let waiting = Instant::now();
        let silence = async {
            if ended.wait_for(|ended| *ended).await.is_ok() {
                tokio::time::sleep(patience).await;
            }
        };
        let length = tokio::select! {
            length = output.read(&mut piece) => length,
            () = silence => return,
        };
        let Ok(length @ 1..) = length else {
            return;
        };
        if has_ended {
            // A client that reads slowly has its time besides.
            patience = patience.saturating_sub(waiting.elapsed());
            let Some(left) = expected.checked_sub(length) else {
                return;
            };
            expected = left;
        }
        client.send(Message::Binary(piece[..length].to_vec())).await;
    }
}

impl Incoming {
    /// Reads messages until there is a reason to end.
    async fn read(mut self, client: &Client, mut stream: OwnedReadHalf, read: &[u8]) -> End {
        let mut decoder = Decoder::of_client();
        decoder.push(read);
        let mut bytes = vec![0; PIECE];
        loop {
            loop {
                let taken = match decoder.take() {
                    Ok(None) => break,
                    Ok(Some(message)) => self.take(client, message).await,
                    Err(fault) => Err(fault.into()),
                };
                if let Err(end) = taken {
                    return end;
                }
            }
            match tokio::time::timeout(SILENCE, stream.read(&mut bytes)).await {
                Ok(Ok(length @ 1..)) => decoder.push(&bytes[..length]),
                _ => return End::Gone,
            }
        }
    }

    async fn take(&mut self, client: &Client, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(message) => self.take_text(message),
                Err(_) => Err(End::with(
                    CloseCode::INVALID,
                    "a text is no message that is known".to_string(),
                )),
            },
            Message::Binary(bytes) => {
                self.must_be_initialized()?;
                let received = self.outstanding.received.fetch_add(1, Ordering::Relaxed) + 1;
                let written = self.outstanding.written.load(Ordering::Relaxed);
                if received - written > MOST_OUTSTANDING {
                    return Err(End::with(
                        CloseCode::SIZE,
                        format!("more than {MOST_OUTSTANDING} messages are outstanding"),
                    ));
                }
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.room).acquire_many_owned(size).await;
                if let Ok(room) = room {
                    let _ = self.input.send(Input::Bytes(bytes, room));
                }
                Ok(())
            }
            Message::Ping(bytes) => {
                client.mention(Message::Pong(bytes));
                Ok(())
            }
            Message::Pong(_) => Ok(()),
            Message::Close(_) => Err(End::Gone),
        }
    }

    fn take_text(&mut self, message: FromClient) -> Result<(), End> {
        match message {
            FromClient::Initialize(what) => {
                if std::mem::replace(&mut self.is_initialized, true) {
                    let reason = "a session is initialized once".to_string();
                    return Err(End::with(CloseCode::POLICY, reason));
                }
                if what.command.is_empty() {
                    let reason = "there is no command".to_string();
                    return Err(End::with(CloseCode::POLICY, reason));
                }
                let _ = self.initialize.try_send(what);
            }
            FromClient::ContentComplete => {
                self.must_be_initialized()?;
                if !std::mem::replace(&mut self.is_complete, true) {
                    let _ = self.input.send(Input::End);
                }
            }
            FromClient::Winch(size) => {
                self.must_be_initialized()?;
                self.size.send_replace(Some(size));
            }
        }
        Ok(())
    }

    fn must_be_initialized(&self) -> Result<(), End> {
        match self.is_initialized {
            true => Ok(()),
            false => Err(End::with(
                CloseCode::POLICY,
                "the first message has to be Initialize".to_string(),
            )),
        }
    }
}
