//! What travels over the WebSocket of `GET /exec`.
//!
//! Binary messages are what the process reads, on the way to the host, and what it
//! writes, on the way back. Text messages are JSON: [`FromClient`] and [`FromServer`]. The
//! close message holds the exit status as a decimal number.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;

/// How many messages of a client's may be on the way and not yet with the process. With
/// more the server ends the session.
pub const MOST_OUTSTANDING: u64 = 1024;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// What to run: the first message.
    Initialize(Initialize),
    /// The process gets no more to read.
    ContentComplete,
    /// The terminal is of another size.
    Winch(Size),
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialize {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The container.
    pub target: String,
    /// The terminal that it is to have, if any.
    pub tty: Option<Tty>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tty {
    /// How large it is, where that is known.
    pub size: Option<Size>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    /// How much more it takes.
    Capacity(Capacity),
}

/// How many messages a client may send: those that the process has got and as many more
/// as may be outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// How many may be on the way.
    pub max_messages_outstanding: u64,
    /// How many the process has got.
    pub messages_written: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_compatible_programs_write_them() {
        let size = Size { rows: 24, cols: 80 };
        let initialize = |tty| {
            FromClient::Initialize(Initialize {
                command: vec!["ls".into(), "/".into()],
                target: "admin".into(),
                tty,
            })
        };
        for (message, json) in [
            (
                initialize(None),
                r#"{"Initialize":{"command":[{"Unix":[108,115]},{"Unix":[47]}],"target":"admin","tty":null}}"#,
            ),
            (
                initialize(Some(Tty { size: Some(size) })),
                r#"{"Initialize":{"command":[{"Unix":[108,115]},{"Unix":[47]}],"target":"admin","tty":{"size":{"rows":24,"cols":80}}}}"#,
            ),
            (FromClient::ContentComplete, r#""ContentComplete""#),
            (
                FromClient::Winch(size),
                r#"{"Winch":{"rows":24,"cols":80}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).expect("JSON"), json);
            let read: FromClient = serde_json::from_str(json).expect(json);
            assert_eq!(read, message);
        }
        let capacity = FromServer::Capacity(Capacity {
            max_messages_outstanding: 1024,
            messages_written: 128,
        });
        let json = r#"{"Capacity":{"max_messages_outstanding":1024,"messages_written":128}}"#;
        assert_eq!(serde_json::to_string(&capacity).expect("JSON"), json);
        let read: FromServer = serde_json::from_str(json).expect(json);
        assert_eq!(read, capacity);
    }
}
