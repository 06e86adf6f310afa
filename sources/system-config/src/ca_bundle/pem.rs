//! Certificates in PEM (RFC 7468), read strictly: a program that reads the trust
//! store may stop at the first thing that it does not understand.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in `text`, in DER. Lines outside of the markers are
/// explanatory text and may be anything but other markers.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>> {
    let mut certificates = Vec::new();
    let mut body: Option<String> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        match &mut body {
            None if line == BEGIN => body = Some(String::new()),
            None if line.starts_with("-----") => {
                bail!("line {number}: {line:?} begins no certificate")
            }
            None => {}
            Some(base64) if line == END => {
                let der = STANDARD
                    .decode(&*base64)
                    .with_context(|| format!("certificate that ends in line {number}"))?;
                check_certificate(&der)
                    .with_context(|| format!("certificate that ends in line {number}"))?;
                certificates.push(der);
                body = None;
            }
            Some(_) if line.starts_with("-----") => {
                bail!("line {number}: a certificate has no end before it")
            }
            Some(base64) => base64.push_str(line),
        }
    }
    match body {
        Some(_) => bail!("the last certificate has no end"),
        None if certificates.is_empty() && !text.trim().is_empty() => {
            bail!("there is no certificate in it")
        }
        None => Ok(certificates),
    }
}

/// One certificate as PEM.
pub fn encode(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("{BEGIN}\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(END);
    text.push('\n');
    text
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Checks the outer shape of RFC 5280's `Certificate`: a sequence of the signed
/// part, the signature's algorithm and the signature, and nothing else.
fn check_certificate(der: &[u8]) -> Result<()> {
    let (content, rest) = element(der, SEQUENCE)?;
    let (_, content) = element(content, SEQUENCE).context("signed part")?;
    let (_, content) = element(content, SEQUENCE).context("signature algorithm")?;
    let (_, content) = element(content, BIT_STRING).context("signature")?;
    if !rest.is_empty() || !content.is_empty() {
        bail!("not a certificate: bytes are left over");
    }
    Ok(())
}

/// Splits a DER element with the given tag into its content and what follows.
fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let split = || {
        let (&found, rest) = der.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        (found == tag).then_some(())?;
        rest.split_at_checked(length)
    };
    split().context("not a certificate")
}

/// The smallest thing that has a certificate's shape.
#[cfg(test)]
pub fn example(number: u8) -> Vec<u8> {
    vec![
        SEQUENCE, 9, SEQUENCE, 1, number, SEQUENCE, 0, BIT_STRING, 2, 0, 0,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        let long = {
            let mut der = vec![SEQUENCE, 0x82, 1, 8, SEQUENCE, 0x81, 0xff];
            der.extend([7; 0xff]);
            der.extend([SEQUENCE, 0, BIT_STRING, 2, 0, 0]);
            der
        };
        let all = vec![example(1), long, example(2)];
        let text: String = all
            .iter()
            .map(|der| format!("some words\n{}\n", encode(der)))
            .collect();
        assert_eq!(certificates(&text).expect("read"), all);
        assert_eq!(
            certificates("  \n").expect("nothing"),
            Vec::<Vec<u8>>::new()
        );
    }

    #[test]
    fn everything_else_is_refused() {
        let good = encode(&example(1));
        let with_body = |der: &[u8]| encode(der);
        for (text, expected) in [
            ("rubbish".to_owned(), "there is no certificate"),
            (good.replace(END, ""), "no end"),
            (format!("{BEGIN}\n{good}"), "no end before it"),
            (
                good.replace("CERTIFICATE", "PRIVATE KEY"),
                "begins no certificate",
            ),
            (format!("{BEGIN}\n%%%\n{END}\n"), "ends in line 3"),
            (with_body(&[1, 2, 3]), "not a certificate"),
            (with_body(&[&example(1)[..], &[0]].concat()), "left over"),
            (with_body(&example(1)[..8]), "not a certificate"),
            (
                with_body(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]),
                "not a certificate",
            ),
            (with_body(&[SEQUENCE, 0x80]), "not a certificate"),
        ] {
            let error = format!("{:#}", certificates(&text).expect_err("refused"));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
