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
