//! From the bytes that a platform hands over to settings.

use flate2::read::GzDecoder;
use settings::{Document, Faults, Key, limits};
use std::io::Read;

/// Formats that other systems take as user data, by how they begin.
const FOREIGN: &[(&str, &str)] = &[
    ("#!", "a script; Bulkhead runs none"),
    ("#cloud-config", "cloud-config"),
    ("#cloud-boothook", "a cloud-init boot hook"),
    ("## template:", "a cloud-init template"),
    ("Content-Type:", "a MIME multipart document"),
    ("MIME-Version:", "a MIME multipart document"),
    ("From nobody", "a MIME multipart document"),
    ("{\"ignition\"", "an Ignition document"),
    ("<powershell>", "a PowerShell script"),
];

/// Reads user data: a TOML document with a table `[settings]`, as it is or
/// compressed by gzip. `None` if it is empty or white space.
pub fn read(bytes: Vec<u8>) -> Result<Option<Document>, Faults> {
    let bytes = check_size(bytes, "user data")?;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        decompress(&bytes)?
    } else {
        bytes
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        fault(format!("user data is not text: byte {good} is not UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let start = text.trim_start();
    for (prefix, what) in FOREIGN {
        let begins = start
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if begins {
            return Err(fault(format!(
                "user data is {what}; only a TOML document of settings is taken"
            )));
        }
    }
    Document::from_toml(text)
}

fn fault(reason: String) -> Faults {
    Faults::one(Key::root(), reason)
}

fn check_size(bytes: Vec<u8>, what: &str) -> Result<Vec<u8>, Faults> {
    if bytes.len() > limits::DOCUMENT_BYTES {
        return Err(fault(format!(
            "{what} is larger than {} bytes, which is the most that is taken",
            limits::DOCUMENT_BYTES
        )));
    }
    Ok(bytes)
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, Faults> {
    let mut plain = Vec::new();
    // One byte more than is taken, so that a bomb is noticed and not unpacked.
    let limit = limits::DOCUMENT_BYTES as u64 + 1;
    GzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut plain)
        .map_err(|error| fault(format!("user data is damaged gzip: {error}")))?;
    check_size(plain, "decompressed user data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("memory takes bytes");
        encoder.finish().expect("memory takes bytes")
    }

    const GOOD: &str = "[settings]\nmotd = 'x'\n";

    #[test]
    fn plain_and_compressed_mean_the_same() {
        let plain = read(GOOD.into()).expect("good user data");
        assert!(plain.is_some());
        assert_eq!(read(gzip(GOOD.as_bytes())), Ok(plain.clone()));
        assert_eq!(read(format!("\u{feff}{GOOD}").into_bytes()), Ok(plain));
        for nothing in [&b""[..], b" \n", &gzip(b""), &gzip(b"\n")] {
            assert_eq!(read(nothing.to_vec()), Ok(None));
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let bomb = gzip(&vec![b'#'; 64 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        let mut damaged = gzip(GOOD.as_bytes());
        let end = damaged.len() - 6;
        damaged[end] ^= 1;
        let cut = gzip(GOOD.as_bytes())[..15].to_vec();
        let large = format!("{GOOD}#{}", "x".repeat(10 * 1024 * 1024));
        for (bytes, reason) in [
            (b"#!/bin/sh\necho".to_vec(), "user data is a script"),
            (
                b"\n#cloud-config\na: b".to_vec(),
                "user data is cloud-config",
            ),
            (b"#Cloud-Config\n".to_vec(), "user data is cloud-config"),
            (gzip(b"#!/bin/sh\n"), "user data is a script"),
            (
                b"Content-Type: multipart/mixed; boundary=\"x\"\n".to_vec(),
                "user data is a MIME multipart document",
            ),
            (
                b"MIME-Version: 1.0\n".to_vec(),
                "user data is a MIME multipart document",
            ),
            (
                b"{\"ignition\": {}}".to_vec(),
                "user data is an Ignition document",
            ),
            (large.into_bytes(), "user data is larger than 2097152 bytes"),
            (bomb, "decompressed user data is larger than 2097152 bytes"),
            (damaged, "user data is damaged gzip"),
            (cut, "user data is damaged gzip"),
            (
                b"[settings]\nmotd = \"\xff\"".to_vec(),
                "byte 19 is not UTF-8",
            ),
            (
                b"[settings]\nmotd = 1".to_vec(),
                "line 2: settings.motd: expected",
            ),
            (b"motd = 'x'".to_vec(), "no top-level table [settings]"),
        ] {
            let faults = read(bytes).expect_err(reason).to_string();
            assert!(faults.contains(reason), "{faults}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            properties::user_data(&bytes);
            properties::user_data(&[&[0x1f, 0x8b][..], &bytes].concat());
            properties::user_data(&gzip(&bytes));
        }
    }
}
