//! Signatures of EFI programs.
//!
//! A signature has no time in it and RSA PKCS#1 v1.5 no chance, so that one file
//! under one key is one sequence of bytes. [`digest`] is what the firmware
//! compares, and is the same with and without a signature.

use crate::certificate::{self, issuer_and_serial};
use crate::der::{self, BIT_STRING, OCTET_STRING, SEQUENCE, SET};
use crate::pe::{Pe, put_u32};
use anyhow::{Context, Result};
use rsa::RsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256};

const SIGNED_DATA: &[u32] = &[1, 2, 840, 113549, 1, 7, 2];
const CONTENT_TYPE: &[u32] = &[1, 2, 840, 113549, 1, 9, 3];
const MESSAGE_DIGEST: &[u32] = &[1, 2, 840, 113549, 1, 9, 4];
const RSA_ENCRYPTION: &[u32] = &[1, 2, 840, 113549, 1, 1, 1];
const SHA256: &[u32] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];
/// SPC_INDIRECT_DATA_OBJID: the signed content is the digest of something else.
const INDIRECT_DATA: &[u32] = &[1, 3, 6, 1, 4, 1, 311, 2, 1, 4];
/// SPC_PE_IMAGE_DATA_OBJID: that something is a PE image.
const PE_IMAGE_DATA: &[u32] = &[1, 3, 6, 1, 4, 1, 311, 2, 1, 15];

/// Signatures begin on this boundary; what fills up to it is part of the digest.
const ALIGNMENT: usize = 8;
/// Length, revision and type before each signature.
const ENTRY_HEADER_SIZE: usize = 8;
const REVISION: u16 = 0x0200;
const TYPE_PKCS7: u16 = 0x0002;

/// A private key with its certificate.
pub struct Signer {
    key: RsaPrivateKey,
    certificate: Vec<u8>,
}

impl Signer {
    /// From the texts of a PKCS#8 key and of its X.509 certificate.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self> {
        let key = RsaPrivateKey::from_pkcs8_pem(key).context("the text holds no RSA key")?;
        let certificate = certificate::from_pem(certificate)?;
        issuer_and_serial(&certificate).context("the certificate is unusable")?;
        let modulus = key.n().to_bytes_be();
        if !certificate
            .windows(modulus.len())
            .any(|bytes| bytes == modulus)
        {
            anyhow::bail!("the certificate belongs to another key");
        }
        Ok(Self { key, certificate })
    }
}

/// The SHA-256 digest of an EFI program by which firmware judges it.
pub fn digest(program: &[u8]) -> Result<[u8; 32]> {
    let program = without_signature(program)?;
    let pe = Pe::parse(&program).context("the file cannot be signed")?;
    let mut hash = Sha256::new();
    hash.update(&program[..pe.checksum_at()]);
    hash.update(&program[pe.checksum_at() + 4..pe.certificate_table_at()]);
    hash.update(&program[pe.certificate_table_at() + 8..pe.headers_size]);
    let mut sections: Vec<_> = pe
        .sections
        .iter()
        .filter(|section| section.raw_size > 0)
        .collect();
    sections.sort_by_key(|section| section.raw_offset);
    let mut hashed = pe.headers_size;
    for section in sections {
        hash.update(&program[section.raw_offset..section.raw_offset + section.raw_size]);
        hashed += section.raw_size;
    }
    // The specification counts bytes here instead of looking where they lie.
    if let Some(rest) = program.get(hashed..) {
        hash.update(rest);
    }
    Ok(hash.finalize().into())
}

/// `program` with one signature, in place of any that it had.
pub fn sign(program: &[u8], signer: &Signer) -> Result<Vec<u8>> {
    let mut signed = without_signature(program)?;
    let pe = Pe::parse(&signed)?;
    let signature = signature(&digest(&signed)?, signer)?;
    let length = ENTRY_HEADER_SIZE + signature.len();
    let padded = length.next_multiple_of(ALIGNMENT);
    let at = signed.len();
    put_u32(&mut signed, pe.certificate_table_at(), u32::try_from(at)?);
    put_u32(
        &mut signed,
        pe.certificate_table_at() + 4,
        u32::try_from(padded)?,
    );
    // The length includes the padding, as other signers have it.
    signed.extend(u32::try_from(padded)?.to_le_bytes());
    signed.extend(REVISION.to_le_bytes());
    signed.extend(TYPE_PKCS7.to_le_bytes());
    signed.extend(signature);
    signed.resize(at + padded, 0);
    Ok(signed)
}

/// `program` as it was before it was signed, except that it ends on the boundary
/// that signatures need: the form in which builds under different keys compare.
pub fn without_signature(program: &[u8]) -> Result<Vec<u8>> {
    let pe = Pe::parse(program).context("the file cannot be signed")?;
    let mut bare = program.to_vec();
    if pe.signatures.1 > 0 {
        bare.truncate(pe.signatures.0);
    }
    bare[pe.certificate_table_at()..pe.certificate_table_at() + 8].fill(0);
    bare.resize(bare.len().next_multiple_of(ALIGNMENT), 0);
    Ok(bare)
}

/// A PKCS#7 SignedData over `digest`.
fn signature(digest: &[u8; 32], signer: &Signer) -> Result<Vec<u8>> {
    let sha256 = der::algorithm(SHA256);
    // SpcPeImageData: no flags, and a link to a file with an empty name.
    let file = der::element(
        der::context(0),
        &[&der::element(
            der::context(2),
            &[&der::element(der::context_primitive(0), &[])],
        )],
    );
    let image_data = der::element(SEQUENCE, &[&der::element(BIT_STRING, &[&[0]]), &file]);
    let indirect_data = [
        der::element(SEQUENCE, &[&der::oid(PE_IMAGE_DATA), &image_data]),
        der::element(SEQUENCE, &[&sha256, &der::element(OCTET_STRING, &[digest])]),
    ]
    .concat();
    // Tag and length of the content are not part of what is digested.
    let content_digest = Sha256::digest(&indirect_data);

    let attribute = |name, value: &[u8]| {
        der::element(SEQUENCE, &[&der::oid(name), &der::element(SET, &[value])])
    };
    // In the order that DER wants of a set: by their bytes, here by length.
    let attributes = [
        attribute(CONTENT_TYPE, &der::oid(INDIRECT_DATA)),
        attribute(
            MESSAGE_DIGEST,
            &der::element(OCTET_STRING, &[&content_digest]),
        ),
    ]
    .concat();
    // They are signed as a set, and stored under a tag of their own.
    let signature = certificate::sign(&signer.key, &der::element(SET, &[&attributes]))?;

    let (issuer, serial) = issuer_and_serial(&signer.certificate)?;
    let signer_info = der::element(
        SEQUENCE,
        &[
            &der::integer(&[1]),
            &der::element(SEQUENCE, &[issuer, serial]),
            &sha256,
            &der::element(der::context(0), &[&attributes]),
            &der::algorithm(RSA_ENCRYPTION),
            &der::element(OCTET_STRING, &[&signature]),
        ],
    );
    let content = der::element(
        SEQUENCE,
        &[
            &der::oid(INDIRECT_DATA),
            &der::element(
                der::context(0),
                &[&der::element(SEQUENCE, &[&indirect_data])],
            ),
        ],
    );
    let signed_data = der::element(
        SEQUENCE,
        &[
            &der::integer(&[1]),
            &der::element(SET, &[&sha256]),
            &content,
            &der::element(der::context(0), &[&signer.certificate]),
            &der::element(SET, &[&signer_info]),
        ],
    );
    Ok(der::element(
        SEQUENCE,
        &[
            &der::oid(SIGNED_DATA),
            &der::element(der::context(0), &[&signed_data]),
        ],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::{key, key_pem};
    use crate::pe::tests::pe_file;
    use rsa::Pkcs1v15Sign;

    fn signer() -> Signer {
        let certificate = certificate::self_signed("Test db", key()).unwrap();
        Signer::from_pem(&key_pem(), &certificate::to_pem(&certificate).unwrap()).unwrap()
    }

    /// What a verifier does, step by step.
    fn verify(program: &[u8]) -> Result<()> {
        let pe = Pe::parse(program)?;
        let (at, size) = pe.signatures;
        let mut rest = &program[at + ENTRY_HEADER_SIZE..at + size];
        let mut info = der::expect(&mut rest, SEQUENCE)?.content;
        assert_eq!(der::read(&mut info)?.whole, der::oid(SIGNED_DATA));
        let mut data = der::expect(&mut info, der::context(0))?.content;
        let mut data = der::expect(&mut data, SEQUENCE)?.content;
        der::expect(&mut data, der::INTEGER)?;
        der::expect(&mut data, SET)?;
        let mut content = der::expect(&mut data, SEQUENCE)?.content;
        assert_eq!(der::read(&mut content)?.whole, der::oid(INDIRECT_DATA));
        let mut content = der::expect(&mut content, der::context(0))?.content;
        let content = der::expect(&mut content, SEQUENCE)?.content;
        if !content.ends_with(&digest(program)?) {
            anyhow::bail!("another digest");
        }
        der::expect(&mut data, der::context(0))?;
        let mut signers = der::expect(&mut data, SET)?.content;
        let mut signer = der::expect(&mut signers, SEQUENCE)?.content;
        der::expect(&mut signer, der::INTEGER)?;
        der::expect(&mut signer, SEQUENCE)?;
        der::expect(&mut signer, SEQUENCE)?;
        let attributes = der::expect(&mut signer, der::context(0))?.content;
        if !attributes.ends_with(&Sha256::digest(content)) {
            anyhow::bail!("another content");
        }
        der::expect(&mut signer, SEQUENCE)?;
        let signature = der::expect(&mut signer, OCTET_STRING)?.content;
        let signed = Sha256::digest(der::element(SET, &[attributes]));
        key()
            .to_public_key()
            .verify(Pkcs1v15Sign::new::<Sha256>(), &signed, signature)?;
        Ok(())
    }

    #[test]
    fn a_signature_holds_until_a_byte_changes() {
        for length in [3, 0x200, 5000] {
            let program = pe_file(&vec![0x90; length]);
            let signed = sign(&program, &signer()).unwrap();
            verify(&signed).unwrap();
            assert_eq!(digest(&signed).unwrap(), digest(&program).unwrap());
            for at in [0x40, 0x390, 0x401, program.len() - 1] {
                let mut altered = signed.clone();
                altered[at] ^= 1;
                assert!(verify(&altered).is_err(), "byte {at:#x}");
            }
        }
    }

    #[test]
    fn signing_again_changes_nothing() {
        let mut program = pe_file(b"code");
        program.extend(b"appended"[..5].iter());
        let signed = sign(&program, &signer()).unwrap();
        assert!(signed == sign(&program, &signer()).unwrap());
        assert!(signed == sign(&signed, &signer()).unwrap());
        let bare = without_signature(&signed).unwrap();
        assert!(bare.starts_with(&program) && bare.len() < program.len() + ALIGNMENT);
        verify(&signed).unwrap();
    }

    #[test]
    fn only_the_keys_own_certificate_is_taken() {
        let other = {
            let mut certificate = certificate::self_signed("Test db", key()).unwrap();
            let modulus = key().n().to_bytes_be();
            let at = certificate
                .windows(8)
                .position(|bytes| bytes == &modulus[..8])
                .unwrap();
            certificate[at + 20] ^= 1;
            certificate::to_pem(&certificate).unwrap()
        };
        let error = Signer::from_pem(&key_pem(), &other)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("another key"), "{error}");
        assert!(sign(b"no program", &signer()).is_err());
    }
}
