//! `settings.pki`.

use crate::Scalar;
use crate::model::{describe, group};
use crate::types::{Identifier, base64_decode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bundles of certificates by name.
pub type Pki = BTreeMap<Identifier, Bundle>;

group! {
    /// A bundle of certificates.
    pub struct Bundle {
        /// Base64 of one or more certificates in PEM form, or an empty text.
        "data" => data: PemBundle;
        /// True: the host trusts these certificates. Otherwise they are taken
        /// out of what it trusts.
        "trusted" => trusted: bool;
    }
}

/// Base64 of PEM certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemBundle(String);

impl PemBundle {
    const LIMIT: usize = 1024 * 1024;

    /// The base64 text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for PemBundle {
    const WHAT: &'static str = "base64 of certificates in PEM form";
    const EXAMPLE: &'static str = "\"\"";

    fn check(value: &Value) -> Result<Self, String> {
        let text = value
            .as_str()
            .ok_or_else(|| format!("expected {}, got {}", Self::WHAT, describe(value)))?;
        let pem = String::from_utf8(base64_decode(text, Self::LIMIT)?)
            .map_err(|_| "what the base64 holds is not PEM but binary data".to_string())?;
        if !pem.trim().is_empty() {
            check_certificates(&pem)?;
        }
        Ok(Self(text.to_string()))
    }

    fn value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Checks that every block is a certificate and that there is one. Text between
/// the blocks is allowed (RFC 7468, section 2).
fn check_certificates(pem: &str) -> Result<(), String> {
    let mut count = 0;
    let mut lines = pem.lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.trim().strip_prefix("-----BEGIN ") else {
            continue;
        };
        count += 1;
        let fault = |what: &str| format!("PEM block {count}: {what}");
        let label = label
            .strip_suffix("-----")
            .ok_or_else(|| fault("its first line is cut off"))?;
        if label != "CERTIFICATE" {
            return Err(fault("it is not a certificate"));
        }
        let mut body = String::new();
        loop {
            let line = lines.next().ok_or_else(|| fault("its end is missing"))?;
            if line.trim() == "-----END CERTIFICATE-----" {
                break;
            }
            body.push_str(line.trim());
        }
        let der = STANDARD
            .decode(&body)
            .map_err(|_| fault("it is not base64"))?;
        if !is_certificate(&der) {
            return Err(fault("it is not an X.509 certificate"));
        }
    }
    if count == 0 {
        return Err("it holds no PEM block \"-----BEGIN CERTIFICATE-----\"".into());
    }
    Ok(())
}

/// True if `der` has the outline of an X.509 certificate (RFC 5280, 4.1): a
/// sequence of a sequence, a sequence and a bit string, and nothing after it.
/// Signature and dates are not looked at: roots are trusted by being named.
fn is_certificate(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let parse = || {
        let (certificate, rest) = element(der, SEQUENCE)?;
        let (_, inner) = element(certificate, SEQUENCE)?;
        let (_, inner) = element(inner, SEQUENCE)?;
        let (signature, inner) = element(inner, BIT_STRING)?;
        Some(rest.is_empty() && inner.is_empty() && !signature.is_empty())
    };
    parse().unwrap_or(false)
}

/// Splits an element with the tag `tag` into its content and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut size = usize::from(length);
    if length & 0x80 != 0 {
        let count = usize::from(length & 0x7f);
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        let (digits, after) = rest.split_at(count);
        size = digits
            .iter()
            .fold(0, |size, digit| size << 8 | usize::from(*digit));
        rest = after;
    }
    (first == tag && rest.len() >= size).then(|| rest.split_at(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The outline of a certificate, which is all that is looked at.
    fn certificate() -> Vec<u8> {
        vec![0x30, 0x08, 0x30, 0x00, 0x30, 0x00, 0x03, 0x02, 0x00, 0x01]
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        )
    }

    #[test]
    fn bundles() {
        let one = pem("CERTIFICATE", &certificate());
        for good in [
            String::new(),
            one.clone(),
            format!("{one}{one}"),
            format!("# my root\n{one}\ntext\n{one}"),
        ] {
            let value = json!(STANDARD.encode(&good));
            assert!(PemBundle::check(&value).is_ok(), "{good}");
        }
        let mut cut = certificate();
        cut.pop();
        let mut more = certificate();
        more.push(0);
        for (bad, reason) in [
            ("hello".to_string(), "holds no PEM block"),
            (pem("PRIVATE KEY", &certificate()), "not a certificate"),
            (pem("CERTIFICATE", &cut), "not an X.509 certificate"),
            (pem("CERTIFICATE", &more), "not an X.509 certificate"),
            (pem("CERTIFICATE", b""), "not an X.509 certificate"),
            (format!("{one}{}", pem("CERTIFICATE", b"x")), "block 2"),
            (one[..one.len() - 10].to_string(), "its end is missing"),
            ("-----BEGIN CERTIFICATE".to_string(), "cut off"),
        ] {
            let value = json!(STANDARD.encode(&bad));
            let error = PemBundle::check(&value).expect_err(&bad);
            assert!(error.contains(reason), "{bad}: {error}");
        }
        for bad in [
            json!("not base64!"),
            json!("aGk"),
            json!(STANDARD.encode([0xff, 0xfe])),
            json!(3),
        ] {
            assert!(PemBundle::check(&bad).is_err(), "{bad}");
        }
    }
}
