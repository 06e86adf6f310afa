//! `exec` in a terminal, with a server that does what a test wants.

use api_types::exec::{Capacity, FromClient, FromServer, Size};
use api_types::websocket::{CloseCode, Decoder, Message, accept};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

/// A session in a terminal, and the server's end of it.
struct Session {
    terminal: std::os::fd::OwnedFd,
    /// Held open, so that the terminal stays.
    _other: std::os::fd::OwnedFd,
    client: Child,
    stream: UnixStream,
    decoder: Decoder,
}

const SIZE: Size = Size {
    rows: 33,
    cols: 101,
};

impl Session {
    fn start() -> Self {
        let size = Winsize {
            ws_row: SIZE.rows,
            ws_col: SIZE.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let client = Command::new(env!("CARGO_BIN_EXE_apiclient"))
            .args(["exec", "admin", "sh"])
            .env("BULKHEAD_API_SOCKET", &socket)
            .stdin(end())
            .stdout(end())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let request = crate::support::read_request(&mut stream);
        let (_, key) = request.split_once("Sec-WebSocket-Key: ").unwrap();
        let (key, _) = key.split_once('\r').unwrap();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept(key)
        );
        stream.write_all(answer.as_bytes()).unwrap();
        let mut session = Self {
            terminal: pair.master,
            _other: pair.slave,
            client,
            stream,
            decoder: Decoder::of_client(),
        };
        let expected = "{\"Initialize\":{\"command\":[{\"Unix\":[115,104]}],\"target\":\"admin\",\
                        \"tty\":{\"size\":{\"rows\":33,\"cols\":101}}}}";
        assert_eq!(session.hear(), Message::Text(expected.to_string()));
        session
    }

    fn say(&mut self, message: &Message) {
        self.stream.write_all(&message.encode(None)).unwrap();
    }

    /// The next message but for pings.
    fn hear(&mut self) -> Message {
        let mut bytes = [0; 4096];
        loop {
            match self.decoder.take().unwrap() {
                Some(Message::Ping(_)) => continue,
                Some(message) => return message,
                None => {}
            }
            let length = self.stream.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "the client is gone");
            self.decoder.push(&bytes[..length]);
        }
    }

    fn signal(&self, signal: Signal) {
        let client = Pid::from_raw(self.client.id().try_into().unwrap());
        kill(client, signal).unwrap();
    }

    /// Whether the terminal hands keys on as they are.
    fn is_raw(&self) -> bool {
        let flags = tcgetattr(&self.terminal).unwrap().local_flags;
        !flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// How the client ends; the terminal is then as it was.
    fn end(self) -> (i32, String) {
        let terminal = self.terminal;
        let output = self.client.wait_with_output().unwrap();
        let flags = tcgetattr(&terminal).unwrap().local_flags;
        let all = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        assert!(flags.contains(all), "{flags:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), complaint)
    }
}

fn text(message: &FromClient) -> Message {
    Message::Text(serde_json::to_string(message).unwrap())
}

#[test]
fn keys_and_sizes_are_handed_on_and_the_terminal_is_given_back() {
    let mut session = Session::start();
    assert!(session.is_raw());
    let capacity = FromServer::Capacity(Capacity {
        max_messages_outstanding: 1,
        messages_written: 0,
    });
    session.say(&Message::Text(serde_json::to_string(&capacity).unwrap()));
    nix::unistd::write(&session.terminal, b"\x03").unwrap();
    assert_eq!(session.hear(), Message::Binary(vec![3]));
    // No more may be outstanding, and the next key waits.
    nix::unistd::write(&session.terminal, b"x").unwrap();
    session.signal(Signal::SIGWINCH);
    assert_eq!(session.hear(), text(&FromClient::Winch(SIZE)));
    session.say(&Message::Binary(b"bye".to_vec()));
    session.say(&Message::Close(Some((CloseCode::NORMAL, "7".to_string()))));
    let mut said = [0; 3];
    let mut terminal = std::fs::File::from(session.terminal.try_clone().unwrap());
    terminal.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"bye");
    assert_eq!(session.end(), (7, String::new()));
}

#[test]
fn whatever_ends_it_gives_the_terminal_back() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let session = Session::start();
        session.signal(signal);
        assert_eq!(session.end(), (128 + signal as i32, String::new()));
    }
    let mut session = Session::start();
    let end = (CloseCode::ERROR, "no such container".to_string());
    session.say(&Message::Close(Some(end)));
    let complaint = "cannot run \"sh\" in admin: no such container\n";
    assert_eq!(session.end(), (1, complaint.to_string()));
    let session = Session::start();
    session.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let complaint = "cannot run \"sh\" in admin: the server has broken off\n";
    assert_eq!(session.end(), (1, complaint.to_string()));
    let mut session = Session::start();
    session.stream.write_all(&[0xff; 20]).unwrap();
    let (status, complaint) = session.end();
    assert_eq!(status, 1, "{complaint}");
}
