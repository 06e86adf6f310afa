//! X.509 certificates for the keys of Secure Boot: self-signed, without a clock.

use crate::der::{self, BIT_STRING, BOOLEAN, OCTET_STRING, SEQUENCE, SET, UTF8_STRING};
use anyhow::{Context, Result};
use rsa::pkcs8::EncodePublicKey;
use rsa::pkcs8::der::pem::{self, LineEnding};
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest, Sha256};

/// The object identifier of RSA with SHA-256.
const SHA256_WITH_RSA: &[u32] = &[1, 2, 840, 113549, 1, 1, 11];
const COMMON_NAME: &[u32] = &[2, 5, 4, 3];
const BASIC_CONSTRAINTS: &[u32] = &[2, 5, 29, 19];
const SUBJECT_KEY_IDENTIFIER: &[u32] = &[2, 5, 29, 14];

/// Firmware asks for a period and then mostly takes no notice of it. This one
/// begins before any machine in question and ends where the short form of a
/// date does.
const NOT_BEFORE: &[u8] = b"200101000000Z";
const NOT_AFTER: &[u8] = b"491231235959Z";
const UTC_TIME: u8 = 0x17;

const PEM_LABEL: &str = "CERTIFICATE";

/// A certificate for `key`, signed by itself, as DER. The same key and name give
/// the same bytes; the serial number is made from the public key.
pub fn self_signed(common_name: &str, key: &RsaPrivateKey) -> Result<Vec<u8>> {
    let public_key = key
        .to_public_key()
        .to_public_key_der()
        .context("cannot encode the public key")?;
    let key_digest = Sha256::digest(public_key.as_bytes());
    let mut serial = [0; 16];
    serial.copy_from_slice(&key_digest[..16]);
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and always of one length

    let name = der::element(
        SEQUENCE,
        &[&der::element(
            SET,
            &[&der::element(
                SEQUENCE,
                &[
                    &der::oid(COMMON_NAME),
                    &der::element(UTF8_STRING, &[common_name.as_bytes()]),
                ],
            )],
        )],
    );
    let validity = der::element(
        SEQUENCE,
        &[
            &der::element(UTC_TIME, &[NOT_BEFORE]),
            &der::element(UTC_TIME, &[NOT_AFTER]),
        ],
    );
    let is_authority = der::element(SEQUENCE, &[&der::element(BOOLEAN, &[&[0xff]])]);
    let identifier = der::element(OCTET_STRING, &[&key_digest[..20]]);
    let extensions = der::element(
        SEQUENCE,
        &[
            &der::element(
                SEQUENCE,
                &[
                    &der::oid(BASIC_CONSTRAINTS),
                    &der::element(BOOLEAN, &[&[0xff]]),
                    &der::element(OCTET_STRING, &[&is_authority]),
                ],
            ),
            &der::element(
                SEQUENCE,
                &[
                    &der::oid(SUBJECT_KEY_IDENTIFIER),
                    &der::element(OCTET_STRING, &[&identifier]),
                ],
            ),
        ],
    );
    let algorithm = der::algorithm(SHA256_WITH_RSA);
    let to_be_signed = der::element(
        SEQUENCE,
        &[
            &der::element(der::context(0), &[&der::integer(&[2])]), // version 3
            &der::integer(&serial),
            &algorithm,
            &name, // issuer
            &validity,
            &name, // subject
            public_key.as_bytes(),
            &der::element(der::context(3), &[&extensions]),
        ],
    );
    let signature = sign(key, &to_be_signed)?;
    Ok(der::element(
        SEQUENCE,
        &[
            &to_be_signed,
            &algorithm,
            &der::element(BIT_STRING, &[&[0], &signature]),
        ],
    ))
}

/// The certificate as text.
pub fn to_pem(certificate: &[u8]) -> Result<String> {
    pem::encode_string(PEM_LABEL, LineEnding::LF, certificate)
        .map_err(|error| anyhow::anyhow!("cannot encode a certificate: {error}"))
}

/// The certificate in a text, as DER.
pub fn from_pem(text: &str) -> Result<Vec<u8>> {
    match pem::decode_vec(text.as_bytes()) {
        Ok((PEM_LABEL, certificate)) => Ok(certificate),
        Ok((label, _)) => anyhow::bail!("the text holds a {label} instead of a {PEM_LABEL}"),
        Err(error) => anyhow::bail!("the text holds no certificate: {error}"),
    }
}

/// SHA-256 of a certificate, by which people compare them.
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Issuer and serial number, both as whole elements.
pub(crate) fn issuer_and_serial(certificate: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut rest = certificate;
    let mut rest = der::expect(&mut rest, SEQUENCE)?.content;
    let mut fields = der::expect(&mut rest, SEQUENCE)?.content;
    let mut serial = der::read(&mut fields)?;
    if serial.tag == der::context(0) {
        serial = der::expect(&mut fields, der::INTEGER)?;
    }
    der::expect(&mut fields, SEQUENCE)?; // the algorithm
    let issuer = der::expect(&mut fields, SEQUENCE)?;
    Ok((issuer.whole, serial.whole))
}

/// RSA PKCS#1 v1.5 over SHA-256, which has no chance in it.
pub(crate) fn sign(key: &RsaPrivateKey, message: &[u8]) -> Result<Vec<u8>> {
    key.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message))
        .context("cannot sign")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rsa::pkcs8::EncodePrivateKey;
    use rsa::rand_core::{CryptoRng, Error, RngCore};
    use std::sync::LazyLock;

    /// Makes the tests' key the same in each run.
    struct Counter(u64);

    impl RngCore for Counter {
        fn next_u32(&mut self) -> u32 {
            self.next_u64() as u32
        }

        fn next_u64(&mut self) -> u64 {
            self.0 += 1;
            let digest = Sha256::digest(self.0.to_le_bytes());
            u64::from_le_bytes(digest[..8].try_into().unwrap())
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = self.next_u64() as u8);
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Counter {}

    static KEY: LazyLock<RsaPrivateKey> =
        LazyLock::new(|| RsaPrivateKey::new(&mut Counter(0), 2048).unwrap());

    pub fn key() -> &'static RsaPrivateKey {
        &KEY
    }

    pub fn key_pem() -> String {
        KEY.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
    }

    #[test]
    fn one_key_has_one_certificate_that_it_signed() {
        let certificate = self_signed("Test db", key()).unwrap();
        assert_eq!(certificate, self_signed("Test db", key()).unwrap());
        let mut rest = certificate.as_slice();
        let mut rest = der::expect(&mut rest, SEQUENCE).unwrap().content;
        let to_be_signed = der::expect(&mut rest, SEQUENCE).unwrap().whole;
        der::expect(&mut rest, SEQUENCE).unwrap();
        let signature = &der::expect(&mut rest, BIT_STRING).unwrap().content[1..];
        let scheme = Pkcs1v15Sign::new::<Sha256>();
        key()
            .to_public_key()
            .verify(scheme, &Sha256::digest(to_be_signed), signature)
            .unwrap();
    }

    #[test]
    fn text_form_survives() {
        let certificate = self_signed("Test db", key()).unwrap();
        let text = to_pem(&certificate).unwrap();
        assert_eq!(from_pem(&text).unwrap(), certificate);
        assert!(
            from_pem(&key_pem())
                .unwrap_err()
                .to_string()
                .contains("PRIVATE KEY")
        );
        assert!(from_pem("nothing").is_err());
    }

    #[test]
    fn issuer_and_serial_are_found() {
        let certificate = self_signed("Test db", key()).unwrap();
        let (issuer, serial) = issuer_and_serial(&certificate).unwrap();
        assert!(issuer.ends_with(b"Test db"));
        assert_eq!(serial[..2], [der::INTEGER, 16]);
        assert!(issuer_and_serial(&certificate[..20]).is_err());
    }
}
