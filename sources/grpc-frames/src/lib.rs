//! How messages of gRPC lie in bodies of HTTP/2: each behind five bytes, which say that it is
//! not compressed, and its length.

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;

/// Bytes of the largest message that is taken, and of all of a body.
const LARGEST: usize = 1 << 20;

/// Puts an encoded message behind its five bytes.
pub fn frame(message: &[u8]) -> Result<Bytes> {
    let length = u32::try_from(message.len()).context("the message is too large")?;
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    Ok(bytes.freeze())
}

/// Takes an encoded message off, if a whole one is there.
pub fn unframe(bytes: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some((head, rest)) = bytes.split_first_chunk::<5>() else {
        return Ok(None);
    };
    ensure!(head[0] == 0, "the message is compressed");
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    ensure!(length <= LARGEST, "the message is too large");
    if rest.len() < length {
        return Ok(None);
    }
    bytes.advance(head.len());
    Ok(Some(bytes.split_to(length).freeze()))
}

/// Adds what comes next of a body to `bytes`; whether anything did before its end.
pub async fn receive(body: &mut RecvStream, bytes: &mut BytesMut) -> Result<bool> {
    let Some(chunk) = body.data().await else {
        return Ok(false);
    };
    let chunk = chunk?;
    body.flow_control().release_capacity(chunk.len())?;
    bytes.extend_from_slice(&chunk);
    Ok(true)
}

/// All of a body.
pub async fn receive_all(body: &mut RecvStream) -> Result<BytesMut> {
    let mut bytes = BytesMut::new();
    while receive(body, &mut bytes).await? {
        ensure!(bytes.len() <= LARGEST, "the messages are too large");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        let framed = frame(b"abc").unwrap();
        assert_eq!(framed.as_ref(), b"\0\0\0\0\x03abc");
        let mut bytes = BytesMut::from([b"\0\0\0\0\0", framed.as_ref()].concat().as_slice());
        assert_eq!(unframe(&mut bytes).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(unframe(&mut bytes).unwrap().as_deref(), Some(&b"abc"[..]));
        for cut in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a"] {
            let mut bytes = BytesMut::from(cut);
            assert_eq!(unframe(&mut bytes).unwrap(), None);
            assert_eq!(bytes, cut);
        }
        for bad in [&b"\x01\0\0\0\0"[..], b"\0\xff\0\0\0"] {
            assert!(unframe(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
