//! The client's end of a session of `/exec`.
//!
//! One loop waits for all that can happen: messages of the server, input, a place for
//! output, signals, and time for a ping. Input is read only when the server takes more of
//! it, and messages only when what came before is written, so neither end is ahead of the
//! other by more than a few pieces. Pings go on meanwhile: a pager that is not read on
//! does not end the session.

use crate::client::Client;
use crate::terminal::{Terminal, Told};
use anyhow::{Context, Result, bail};
use api_types::exec::{FromClient, FromServer, Initialize, Tty};
use api_types::websocket::{CloseCode, Decoder, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often the server is told that we are here.
const PING: Duration = Duration::from_secs(2);
/// How long it may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// The most that is read at once.
const PIECE: usize = 32 * 1024;

/// What the command has instead of our terminal.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// What it reads.
    pub input: BorrowedFd<'a>,
    /// Where goes what it writes.
    pub output: BorrowedFd<'a>,
}

/// Runs a command in the host container `target` and stays until it has ended; its exit
/// status.
pub fn run(
    client: &Client,
    target: &str,
    command: &[OsString],
    tty: Option<Tty>,
    ends: Ends<'_>,
) -> Result<u8> {
    start(client, target, command, tty)?.hold(ends, None)
}

/// The same in our own terminal.
pub(crate) fn run_in_terminal(
    client: &Client,
    target: &str,
    command: &[OsString],
    ends: Ends<'_>,
) -> Result<u8> {
    let terminal = Terminal::take()?;
    let size = terminal.size();
    start(client, target, command, Some(Tty { size }))?.hold(ends, Some(&terminal))
}

fn start(client: &Client, target: &str, command: &[OsString], tty: Option<Tty>) -> Result<Session> {
    // What a WebSocket handshake wants: 16 bytes by chance, in base64.
    let key = STANDARD.encode([(); 2].map(|()| chance().to_le_bytes()).concat());
    let (stream, bytes) = client.open("/exec", &key)?;
    stream
        .set_nonblocking(true)
        .context("cannot set up the connection")?;
    let mut decoder = Decoder::of_server();
    decoder.push(&bytes);
    let mut session = Session {
        stream,
        decoder,
        unsent: Vec::new(),
        unwritten: Vec::new(),
        sent: 0,
        allowed: 0,
        end: None,
    };
    session.say(&FromClient::Initialize(Initialize {
        command: command.to_vec(),
        target: target.to_string(),
        tty,
    }))?;
    Ok(session)
}

/// Bits by chance.
fn chance() -> u64 {
    RandomState::new().hash_one(())
}

struct Session {
    stream: UnixStream,
    decoder: Decoder,
    /// Bytes for the server.
    unsent: Vec<u8>,
    /// Bytes of the command's.
    unwritten: Vec<u8>,
    /// Messages of input.
    sent: u64,
    /// How many the server takes.
    allowed: u64,
    /// How the server has ended the session.
    end: Option<(CloseCode, String)>,
}

/// What may be ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Messages,
    Sending,
    Input,
    Output,
    Signals,
}

impl Session {
    /// Hands on what comes, until the command has ended.
    fn hold(mut self, ends: Ends<'_>, terminal: Option<&Terminal>) -> Result<u8> {
        let mut input = Some(ends.input);
        let mut heard = Instant::now();
        let mut ping = heard + PING;
        loop {
            while self.end.is_none()
                && let Some(message) = self.decoder.take()?
            {
                self.take(message)?;
            }
            if self.unwritten.is_empty()
                && let Some(end) = self.end.take()
            {
                // Whether it hears that we have understood is all the same to us.
                self.send(&Message::Close(None));
                let _ = send_on(self.stream.as_fd(), &mut self.unsent);
                return status(end);
            }
            if Instant::now() >= ping {
                ping += PING;
                // A server that is behind hears of us by what it has not read.
                if self.unsent.is_empty() {
                    self.send(&Message::Ping(Vec::new()));
                }
            }
            let listens = self.unwritten.is_empty();
            if listens && heard.elapsed() > SILENCE {
                bail!("the server has been silent for {} s", SILENCE.as_secs());
            }
            let takes_input = self.sent < self.allowed && self.unsent.is_empty();
            let ready = {
                let server = self.stream.as_fd();
                let waited = [
                    (End::Messages, Some(server).filter(|_| listens)),
                    (
                        End::Sending,
                        Some(server).filter(|_| !self.unsent.is_empty()),
                    ),
                    (End::Input, input.filter(|_| takes_input)),
                    (End::Output, Some(ends.output).filter(|_| !listens)),
                    (End::Signals, terminal.map(Terminal::signals)),
                ];
                wait(&waited, ping)?
            };
            if !listens {
                // What was not listened to was not silent.
                heard = Instant::now();
            }
            for end in ready {
                match end {
                    End::Messages => {
                        let bytes = self.receive()?;
                        heard = Instant::now();
                        self.decoder.push(&bytes);
                    }
                    End::Sending => {
                        if send_on(self.stream.as_fd(), &mut self.unsent).is_err() {
                            // It takes no more. What it has said about that is still to come.
                            self.unsent.clear();
                        }
                    }
                    End::Input => match take_in(ends.input).context("cannot read the input")? {
                        None => {}
                        Some(bytes) if bytes.is_empty() => {
                            input = None;
                            self.say(&FromClient::ContentComplete)?;
                        }
                        Some(bytes) => {
                            self.sent += 1;
                            self.send(&Message::Binary(bytes));
                        }
                    },
                    End::Output => send_on(ends.output, &mut self.unwritten)
                        .context("cannot write the output")?,
                    End::Signals => match terminal.map(Terminal::told).transpose()?.flatten() {
                        Some(Told::End(status)) => return Ok(status),
                        Some(Told::Resized) => {
                            if let Some(size) = terminal.and_then(Terminal::size) {
                                self.say(&FromClient::Winch(size))?;
                            }
                        }
                        None => {}
                    },
                }
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Binary(bytes) => self.unwritten.extend_from_slice(&bytes),
            Message::Text(text) => {
                let FromServer::Capacity(capacity) = serde_json::from_str(&text)
                    .with_context(|| format!("the server says {text:?}, which is not known"))?;
                self.allowed = capacity
                    .messages_written
                    .saturating_add(capacity.max_messages_outstanding);
            }
            Message::Ping(bytes) => self.send(&Message::Pong(bytes)),
            Message::Pong(_) => {}
            Message::Close(end) => {
                let unsaid = (CloseCode::ERROR, "it does not say why".to_string());
                self.end = Some(end.unwrap_or(unsaid));
            }
        }
        Ok(())
    }

    /// Puts a message among those to be sent.
    fn send(&mut self, message: &Message) {
        let mask = (chance() as u32).to_le_bytes();
        self.unsent.extend_from_slice(&message.encode(Some(mask)));
    }

    fn say(&mut self, what: &FromClient) -> Result<()> {
        let text = serde_json::to_string(what).context("cannot write a message")?;
        self.send(&Message::Text(text));
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>> {
        match take_in(self.stream.as_fd()).context("cannot hear the server")? {
            Some(bytes) if bytes.is_empty() => bail!("the server has broken off"),
            bytes => Ok(bytes.unwrap_or_default()),
        }
    }
}

/// The exit status that a session ended with.
fn status((code, reason): (CloseCode, String)) -> Result<u8> {
    match code {
        CloseCode::NORMAL => Ok(reason.parse().unwrap_or(1)),
        _ => bail!("{reason}"),
    }
}

/// Waits until something is ready or the time has come; which are ready.
fn wait(waited: &[(End, Option<BorrowedFd<'_>>)], until: Instant) -> Result<Vec<End>> {
    let (ends, mut polled): (Vec<End>, Vec<PollFd>) = waited
        .iter()
        .filter_map(|(end, fd)| {
            let flags = match end {
                End::Sending | End::Output => PollFlags::POLLOUT,
                End::Messages | End::Input | End::Signals => PollFlags::POLLIN,
            };
            Some((*end, PollFd::new((*fd)?, flags)))
        })
        .unzip();
    let time = until.saturating_duration_since(Instant::now());
    // A part of a millisecond is a whole one: nobody waits in circles.
    let time = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, time) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("cannot wait"),
    }
    let ready = ends.iter().zip(&polled);
    Ok(ready
        .filter(|(_, polled)| polled.any().unwrap_or(true))
        .map(|(end, _)| *end)
        .collect())
}

/// Reads what is there; nothing at the end, and `None` if there is nothing yet.
fn take_in(from: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; PIECE];
    match read(from, &mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            Ok(Some(bytes))
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes as much as is taken, at most as much as a pipe that is ready takes for sure:
/// of one that we share we must not change how it waits.
fn send_on(to: BorrowedFd<'_>, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    let length = bytes.len().min(nix::libc::PIPE_BUF);
    match write(to, &bytes[..length]) {
        Ok(written) => {
            bytes.drain(..written);
            Ok(())
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}
