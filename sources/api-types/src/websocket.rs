//! Messages of a WebSocket (RFC 6455), as bytes of a connection: as much of it as
//! [`crate::exec`] needs. A message is one frame; one in several is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::fmt;

/// What a server hashes together with a client's key (section 1.3).
const ACCEPTED: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The largest message that is taken.
pub const LARGEST: usize = 1 << 16;
/// The most bytes that a message may have which is about the connection (section 5.5).
const LARGEST_CONTROL: usize = 125;

/// What a server answers to the key of a client's handshake.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{ACCEPTED}")))
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// Asks whether the other end is there; is answered with the same bytes.
    Ping(Vec<u8>),
    /// The answer.
    Pong(Vec<u8>),
    /// The end, with the reason where one is given.
    Close(Option<(CloseCode, String)>),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// All is done.
    pub const NORMAL: Self = Self(1000);
    /// What came is no WebSocket.
    pub const PROTOCOL: Self = Self(1002);
    /// What came is of a kind that is not taken.
    pub const UNSUPPORTED: Self = Self(1003);
    /// What came is not what it should be, such as text that is no JSON.
    pub const INVALID: Self = Self(1007);
    /// What came was not allowed at that time.
    pub const POLICY: Self = Self(1008);
    /// Too much came.
    pub const SIZE: Self = Self(1009);
    /// Something failed at this end.
    pub const ERROR: Self = Self(1011);
}

/// Bytes that are not taken, and what the connection is closed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How to tell the other end.
    pub code: CloseCode,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Fault {}

const fn fault(code: CloseCode, reason: &'static str) -> Fault {
    Fault { code, reason }
}

impl Message {
    /// The frame, masked where a client sends it (section 5.3).
    pub fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let closing;
        let (opcode, payload): (u8, &[u8]) = match self {
            Self::Text(text) => (1, text.as_bytes()),
            Self::Binary(bytes) => (2, bytes),
            Self::Close(None) => (8, &[]),
            Self::Close(Some((code, reason))) => {
                let fits = |end: &usize| reason.is_char_boundary(*end);
                let end = reason.len().min(LARGEST_CONTROL - 2);
                let end = (0..=end).rev().find(fits).unwrap_or_default();
                closing = [&code.0.to_be_bytes(), &reason.as_bytes()[..end]].concat();
                (8, &closing)
            }
            Self::Ping(bytes) => (9, bytes),
            Self::Pong(bytes) => (10, bytes),
        };
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x80 | opcode);
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => frame.push(masked | length as u8),
            length @ 126..=0xffff => {
                frame.push(masked | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(masked | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| frame.extend_from_slice(mask));
        let start = frame.len();
        frame.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply(mask, &mut frame[start..]);
        }
        frame
    }
}

/// Masks bytes, or unmasks them.
fn apply(mask: [u8; 4], bytes: &mut [u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Takes messages off the bytes that arrive.
#[derive(Debug)]
pub struct Decoder {
    /// Whether frames have to be masked: those of clients have to be, and those of
    /// servers must not.
    masked: bool,
    bytes: Vec<u8>,
    /// How many bytes of these are taken.
    taken: usize,
}

impl Decoder {
    /// For what a client sends.
    pub fn of_client() -> Self {
        Self::new(true)
    }

    /// For what a server sends.
    pub fn of_server() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self {
            masked,
            bytes: Vec::new(),
            taken: 0,
        }
    }

    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    pub fn take(&mut self) -> Result<Option<Message>, Fault> {
        let bytes = &self.bytes[self.taken..];
        let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(fault(CloseCode::PROTOCOL, "a frame has bits of extensions"));
        }
        if opcode == 0 || !is_last {
            return Err(fault(
                CloseCode::UNSUPPORTED,
                "a message comes in several frames",
            ));
        }
        let is_control = opcode & 8 != 0;
        if (second & 0x80 != 0) != self.masked {
            return Err(fault(CloseCode::PROTOCOL, "a frame is masked wrongly"));
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        let length = match usize::try_from(length) {
            Ok(length) if length <= LARGEST => length,
            _ => return Err(fault(CloseCode::SIZE, "a message is too large")),
        };
        if is_control && length > LARGEST_CONTROL {
            return Err(fault(CloseCode::PROTOCOL, "a control frame is too large"));
        }
        let (mask, rest) = match (self.masked, rest.split_first_chunk()) {
            (false, _) => ([0; 4], rest),
            (true, Some((mask, rest))) => (*mask, rest),
            (true, None) => return Ok(None),
        };
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let mut payload = payload.to_vec();
        self.taken = self.bytes.len() - rest.len() + length;
        apply(mask, &mut payload);
        message(opcode, payload).map(Some)
    }
}

fn message(opcode: u8, payload: Vec<u8>) -> Result<Message, Fault> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|_| fault(CloseCode::INVALID, "a text is not UTF-8"))
    };
    Ok(match opcode {
        1 => Message::Text(text(payload)?),
        2 => Message::Binary(payload),
        8 => Message::Close(match payload.split_first_chunk() {
            Some((code, reason)) => {
                Some((CloseCode(u16::from_be_bytes(*code)), text(reason.to_vec())?))
            }
            None if payload.is_empty() => None,
            None => return Err(fault(CloseCode::PROTOCOL, "a close frame is cut off")),
        }),
        9 => Message::Ping(payload),
        10 => Message::Pong(payload),
        _ => return Err(fault(CloseCode::PROTOCOL, "a frame is of an unknown kind")),
    })
}

/// Properties that hold for all bytes, for fuzzing and tests.
pub mod properties {
    use super::Decoder;

    /// Any bytes, in whatever pieces they come, are messages or a fault; and what is
    /// taken for a message is the same when it is written and read again.
    pub fn decoding(bytes: &[u8]) {
        let (piece, bytes) = bytes.split_first().unwrap_or((&0, &[]));
        for masked in [true, false] {
            let mask = masked.then_some([1, 2, 3, 4]);
            let mut whole = Decoder::new(masked);
            whole.push(bytes);
            let mut again = Decoder::new(masked);
            for piece in bytes.chunks(usize::from(*piece).max(1)) {
                again.push(piece);
            }
            while let Ok(Some(message)) = whole.take() {
                assert_eq!(again.take(), Ok(Some(message.clone())));
                let mut other = Decoder::new(masked);
                other.push(&message.encode(mask));
                assert_eq!(other.take(), Ok(Some(message)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_the_specification_says() {
        let accepted = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// The examples of section 5.7.
    #[test]
    fn frames_are_those_of_the_specification() {
        let hello = Message::Text("Hello".into());
        let long = |length| Message::Binary(vec![7; length]);
        for (message, mask, head) in [
            (
                &hello,
                None,
                &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f][..],
            ),
            (
                &hello,
                Some([0x37, 0xfa, 0x21, 0x3d]),
                &[
                    0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
                ],
            ),
            (
                &Message::Ping(b"Hello".to_vec()),
                None,
                &[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f],
            ),
            (&long(256), None, &[0x82, 0x7e, 0x01, 0x00, 7]),
            (&long(65536), None, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0, 7]),
            (
                &Message::Close(Some((CloseCode::NORMAL, "0".into()))),
                None,
                &[0x88, 0x03, 0x03, 0xe8, b'0'],
            ),
            (&Message::Close(None), None, &[0x88, 0]),
            (&Message::Pong(Vec::new()), None, &[0x8a, 0]),
        ] {
            let frame = message.encode(mask);
            assert!(frame.starts_with(head), "{message:?}: {frame:x?}");
            let mut decoder = Decoder::new(mask.is_some());
            // Byte by byte, there is nothing before the last one.
            for byte in &frame[..frame.len() - 1] {
                decoder.push(&[*byte]);
                assert_eq!(decoder.take(), Ok(None));
            }
            decoder.push(&frame[frame.len() - 1..]);
            decoder.push(&frame);
            for _ in 0..2 {
                assert_eq!(decoder.take().as_ref(), Ok(&Some(message.clone())));
            }
            assert_eq!(decoder.take(), Ok(None));
        }
    }

    #[test]
    fn a_reason_is_cut_to_what_a_close_frame_holds() {
        let reason = "ä".repeat(100);
        let frame = Message::Close(Some((CloseCode::ERROR, reason))).encode(None);
        assert_eq!(frame[1], 124);
        let mut decoder = Decoder::of_server();
        decoder.push(&frame);
        let expected = Message::Close(Some((CloseCode::ERROR, "ä".repeat(61))));
        assert_eq!(decoder.take(), Ok(Some(expected)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let large = [&[0x82, 0x7f][..], &(1u64 << 40).to_be_bytes()].concat();
        for (bytes, code) in [
            (&[0x01, 0x00][..], CloseCode::UNSUPPORTED),
            (&[0x80, 0x00], CloseCode::UNSUPPORTED),
            (&[0xc1, 0x00], CloseCode::PROTOCOL),
            (&[0x83, 0x00], CloseCode::PROTOCOL),
            (&[0x81, 0x80, 1, 2, 3, 4], CloseCode::PROTOCOL),
            (&[0x89, 126, 1, 0], CloseCode::PROTOCOL),
            (&[0x88, 1, 3], CloseCode::PROTOCOL),
            (&[0x81, 1, 0xff], CloseCode::INVALID),
            (&large, CloseCode::SIZE),
        ] {
            let mut decoder = Decoder::of_server();
            decoder.push(bytes);
            let refused = decoder.take().expect_err("it was taken");
            assert_eq!(refused.code, code, "{bytes:x?}");
        }
        let mut decoder = Decoder::of_client();
        decoder.push(&[0x81, 0x00]);
        assert_eq!(decoder.take().map_err(|f| f.code), Err(CloseCode::PROTOCOL));
    }
}
