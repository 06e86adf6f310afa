//! VMware: the property `guestinfo.userdata` of the machine, and
//! `guestinfo.userdata.encoding`, which says how it is written.
//!
//! The hypervisor is asked over a channel of its own ([`crate::rpci`]). Neither VMware's
//! tools nor a driver are needed.

use crate::rpci::{Channel, Port};
use crate::{Source, encoding};
use anyhow::{Context, Result, bail};
use std::path::Path;
use sysutil::vmware;

const DATA: &str = "guestinfo.userdata";
const ENCODING: &str = "guestinfo.userdata.encoding";
/// The name of an encoding is never longer.
const ENCODING_LIMIT: usize = 64;

/// The machine's properties.
pub struct VmwareGuestinfo;

impl Source for VmwareGuestinfo {
    fn name(&self) -> &'static str {
        "VMware guestinfo"
    }

    fn location(&self) -> String {
        DATA.into()
    }

    fn read(&self, _: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        match vmware::Port::open() {
            Some(mut port) => read(&mut port, limit),
            None => Ok(None),
        }
    }
}

fn read(port: &mut impl Port, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut channel = Channel::open(port)?;
    let Some(encoding) = property(&mut channel, ENCODING, ENCODING_LIMIT)? else {
        return property(&mut channel, DATA, limit);
    };
    let encoding = String::from_utf8_lossy(&encoding)
        .trim()
        .to_ascii_lowercase();
    match encoding.as_str() {
        "" => property(&mut channel, DATA, limit),
        // That it is compressed as well is seen from its first bytes.
        "base64" | "b64" | "gzip+base64" | "gz+base64" | "gzip+b64" | "gz+b64" => {
            // Base64 takes up a third more, and lines.
            let Some(text) = property(&mut channel, DATA, limit * 2)? else {
                return Ok(None);
            };
            encoding::base64(&text)
                .with_context(|| format!("{DATA}, which {ENCODING} says is {encoding:?}"))
                .map(Some)
        }
        _ => bail!(
            "{ENCODING} is {encoding:?}: use base64, gzip+base64, or leave it out for a plain text"
        ),
    }
}

/// A property of the machine, or as much of it as shows that it has more than `limit`
/// bytes.
fn property(
    channel: &mut Channel<'_, impl Port>,
    name: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>> {
    // The answer has two characters in front.
    let answer = channel
        .ask(&format!("info-get {name}"), limit + 3)
        .with_context(|| format!("ask for {name}"))?;
    match answer.get(..2) {
        Some(b"1 ") => Ok(Some(answer[2..].to_vec()).filter(|value| !value.is_empty())),
        // There is no such property.
        Some(b"0 ") => Ok(None),
        _ => bail!("the hypervisor's answer about {name} has neither 1 nor 0 in front"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpci::tests::Hypervisor;

    fn read_from(properties: &[(&str, &str)]) -> Result<Option<String>> {
        let mut hypervisor = Hypervisor::with(properties);
        let read = read(&mut hypervisor, 100);
        hypervisor.assert_closed();
        Ok(read?.map(|bytes| String::from_utf8(bytes).expect("a text")))
    }

    #[test]
    fn every_encoding_is_undone() {
        const TEXT: &str = "[settings]\nmotd = 'x'\n";
        const BASE64: &str = "W3NldHRpbmdzXQptb3RkID0gJ3gnCg==";
        assert_eq!(read_from(&[]).expect("nothing"), None);
        assert_eq!(read_from(&[(DATA, "")]).expect("nothing"), None);
        assert_eq!(read_from(&[(ENCODING, "b64")]).expect("nothing"), None);
        for (encoding, data) in [
            (None, TEXT),
            (Some(""), TEXT),
            (Some("base64"), BASE64),
            (Some("B64"), BASE64),
            (Some("gzip+base64"), BASE64),
            (Some("gz+b64"), BASE64),
        ] {
            let encoding = encoding.map(|encoding| (ENCODING, encoding));
            let properties: Vec<_> = encoding.into_iter().chain([(DATA, data)]).collect();
            let read = read_from(&properties).expect(data);
            assert_eq!(read.as_deref(), Some(TEXT), "{encoding:?}");
        }
    }

    #[test]
    fn no_more_is_read_than_asked_for() {
        let long = "x".repeat(5_000);
        let read = read_from(&[(DATA, &long)])
            .expect("a text")
            .expect("a text");
        assert_eq!(read.len(), 101);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (properties, reason) in [
            (
                [(ENCODING, "rot13"), (DATA, "x")],
                "encoding is \"rot13\": use base64",
            ),
            (
                [(ENCODING, "base64"), (DATA, "*")],
                "guestinfo.userdata, which guestinfo.userdata.encoding says is \"base64\": not base64",
            ),
        ] {
            let error = format!("{:#}", read_from(&properties).expect_err(reason));
            assert!(error.contains(reason), "{error}");
        }
    }
}
