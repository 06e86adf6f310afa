//! Base64, in which some platforms hand user data over.

use crate::document::is_gzip;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Launchers pad or do not.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Undoes base64, broken into lines or not.
pub fn base64(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    ENGINE
        .decode(text)
        .map_err(|error| anyhow::anyhow!("not base64: {error}"))
}

/// What `bytes` are in base64, if that is what they look like and it is a text or
/// gzip. A settings document never does: it has a dot, a bracket or a quote in it.
pub fn guess_base64(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n\t ".contains(byte);
    if bytes.iter().all(u8::is_ascii_whitespace) || !bytes.iter().all(is_base64) {
        return None;
    }
    let is_sensible = |plain: &Vec<u8>| is_gzip(plain) || std::str::from_utf8(plain).is_ok();
    base64(bytes).ok().filter(is_sensible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_lines_and_padding() {
        for text in [
            "W3NldHRpbmdzXQ==",
            "W3NldHRpbmdzXQ",
            " W3NldHRp\r\nbmdzXQ==\n",
        ] {
            assert_eq!(base64(text.as_bytes()).expect(text), b"[settings]");
            assert_eq!(
                guess_base64(text.as_bytes()).as_deref(),
                Some(&b"[settings]"[..])
            );
        }
        assert_eq!(guess_base64(b"H4sI").as_deref(), Some(&b"\x1f\x8b\x08"[..]));
        // A word decodes to something, but not to anything that is meant.
        for text in [
            "[settings]",
            "settings.motd = 'x'",
            "W3N=dHRp",
            "test",
            "",
            " \n",
        ] {
            assert_eq!(guess_base64(text.as_bytes()), None, "{text}");
        }
        assert!(base64(b"W3N*").is_err());
    }
}
