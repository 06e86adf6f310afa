//! Cleartext signatures (RFC 9580, section 7), as `InRelease` files have them.
//!
//! Only what archive signatures need: version 4 keys and signatures, RSA and
//! Ed25519, SHA-2. The keyring is a file that we ship and so trust as it is: the
//! signatures in it are read for the dates on which keys expire, not verified.
//! A full OpenPGP library would cost minutes of every first build.

use crate::release::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, signature};
use std::collections::BTreeMap;
use std::fmt;

/// Larger than any signed index; what is longer is refused unread.
const MAX_MESSAGE: usize = 32 << 20;

/// Why a message is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The message has no cleartext signature.
    #[error("it carries no readable signature: {0}")]
    Unreadable(&'static str),
    /// The keyring cannot be read.
    #[error("the keyring is malformed: {0}")]
    Keyring(&'static str),
    /// A signature of a known key does not match the text.
    #[error("the signature of key {0} does not match the text, so it was altered")]
    Wrong(Fingerprint),
    /// There is no signature by a known key.
    #[error("no key in the keyring has signed it (it is signed by {0})")]
    UnknownKeys(String),
    /// The key was good once.
    #[error("it is signed by key {key}, which expired on {expired}")]
    ExpiredKey {
        /// The key.
        key: Fingerprint,
        /// When it expired.
        expired: Timestamp,
    },
    /// The signature was good once.
    #[error("the signature of key {key} expired on {expired}")]
    ExpiredSignature {
        /// The key.
        key: Fingerprint,
        /// When it expired.
        expired: Timestamp,
    },
}

/// Fingerprint of a version 4 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 20]);

impl Fingerprint {
    /// Of the body of a public key packet.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let length = u16::try_from(body.len()).ok()?;
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(&[0x99]);
        hash.update(&length.to_be_bytes());
        hash.update(body);
        Some(Self(hash.finish().as_ref().try_into().ok()?))
    }

    /// The fingerprint as bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    fn key_id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[12..]);
        id
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keys that may sign, subkeys included.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: BTreeMap<Fingerprint, Key>,
}

#[derive(Clone, Debug)]
struct Key {
    created: u32,
    /// Seconds after `created`; none, for ever.
    lifetime: Option<u32>,
    public: PublicKey,
}

impl Key {
    fn expires(&self) -> Option<Timestamp> {
        let lifetime = self.lifetime?;
        Some(Timestamp::from_unix(
            i64::from(self.created) + i64::from(lifetime),
        ))
    }
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ed25519([u8; 32]),
}

impl Keyring {
    /// The keyring of Debian's archive, a file of this repository.
    pub fn debian() -> Result<Self, SignatureError> {
        Self::parse(include_bytes!("../keyring/debian-archive-keyring.gpg"))
    }

    /// Reads exported public keys (binary, not armoured). Keys of kinds that are
    /// not supported are left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let mut keys = BTreeMap::new();
        let mut current = None;
        let mut packets = Reader(bytes);
        while !packets.0.is_empty() {
            let (tag, body) = packets.packet().ok_or(SignatureError::Keyring(
                "a packet is cut short or of an unknown form",
            ))?;
            match tag {
                Tag::PublicKey | Tag::PublicSubkey => {
                    current = Key::parse(body);
                    if let Some((fingerprint, key)) = &current {
                        keys.insert(*fingerprint, key.clone());
                    }
                }
                Tag::Signature => {
                    let Some((fingerprint, _)) = &current else {
                        continue;
                    };
                    // Certifications of the key, and bindings of a subkey; the
                    // latest one that is read holds.
                    if let Some(found) = Signature::parse(body)
                        && matches!(found.kind, 0x10..=0x13 | 0x18 | 0x1f)
                        && let Some(lifetime) = found.key_lifetime
                        && let Some(key) = keys.get_mut(fingerprint)
                    {
                        key.lifetime = Some(lifetime).filter(|seconds| *seconds > 0);
                    }
                }
                Tag::Other => {}
            }
        }
        if keys.is_empty() {
            return Err(SignatureError::Keyring(
                "it has no key of a kind that is supported",
            ));
        }
        Ok(Self { keys })
    }

    fn find(&self, signature: &Signature<'_>) -> Option<(&Fingerprint, &Key)> {
        self.keys.iter().find(
            |(fingerprint, _)| match (signature.issuer, signature.issuer_id) {
                (Some(issuer), _) => issuer == fingerprint.0,
                (None, Some(id)) => id == fingerprint.key_id(),
                (None, None) => false,
            },
        )
    }
}

impl Key {
    fn parse(body: &[u8]) -> Option<(Fingerprint, Self)> {
        let mut reader = Reader(body);
        if reader.byte()? != 4 {
            return None;
        }
        let created = reader.u32()?;
        let public = match reader.byte()? {
            RSA | RSA_SIGN_ONLY => PublicKey::Rsa {
                modulus: reader.integer()?.to_vec(),
                exponent: reader.integer()?.to_vec(),
            },
            EDDSA => {
                let curve_length = reader.byte()?.into();
                let curve = reader.take(curve_length)?;
                let point = reader.integer()?;
                match point.split_first() {
                    Some((0x40, point)) if curve == ED25519_CURVE => {
                        PublicKey::Ed25519(point.try_into().ok()?)
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((
            Fingerprint::of(body)?,
            Self {
                created,
                lifetime: None,
                public,
            },
        ))
    }
}

/// A text together with who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Exactly the text that the signature covers.
    pub text: String,
    /// Keys whose signatures match.
    pub signers: Vec<Fingerprint>,
}

/// Verifies a cleartext-signed message at the time `now`.
///
/// One good signature by a key of the keyring is enough, but a wrong one by such
/// a key is an error even next to good ones. Signatures of other keys do not
/// count either way.
pub fn verify_cleartext(
    message: &[u8],
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Signed, SignatureError> {
    let message = Cleartext::parse(message)?;
    let mut signers = Vec::new();
    let mut strangers = Vec::new();
    let mut expired = None;
    let mut packets = Reader(&message.signatures);
    while !packets.0.is_empty() {
        let (tag, body) = packets
            .packet()
            .ok_or(SignatureError::Unreadable("a packet in it is cut short"))?;
        if !matches!(tag, Tag::Signature) {
            return Err(SignatureError::Unreadable(
                "there is something else among its signatures",
            ));
        }
        let Some(signature) = Signature::parse(body) else {
            continue;
        };
        let Some((fingerprint, key)) = keyring.find(&signature) else {
            strangers.push(signature.issuer_name());
            continue;
        };
        if !signature.matches(key, &message.canonical) {
            return Err(SignatureError::Wrong(*fingerprint));
        }
        if let Some(when) = key.expires().filter(|when| *when <= now) {
            expired = Some(SignatureError::ExpiredKey {
                key: *fingerprint,
                expired: when,
            });
        } else if let Some(when) = signature.expires().filter(|when| *when <= now) {
            expired = Some(SignatureError::ExpiredSignature {
                key: *fingerprint,
                expired: when,
            });
        } else {
            signers.push(*fingerprint);
        }
    }
    if !signers.is_empty() {
        return Ok(Signed {
            text: message.text,
            signers,
        });
    }
    Err(expired.unwrap_or_else(|| {
        SignatureError::UnknownKeys(match strangers.len() {
            0 => "no key at all".to_string(),
            _ => strangers.join(", "),
        })
    }))
}

/// The parts of a cleartext-signed message.
struct Cleartext {
    /// The text with its lines ended by `\n`.
    text: String,
    /// The text in the form that is hashed: lines joined by CR LF.
    canonical: String,
    /// The signature packets.
    signatures: Vec<u8>,
}

impl Cleartext {
    fn parse(message: &[u8]) -> Result<Self, SignatureError> {
        use SignatureError::Unreadable;
        if message.len() > MAX_MESSAGE {
            return Err(Unreadable("it is far longer than an index"));
        }
        let message = std::str::from_utf8(message).map_err(|_| Unreadable("it is not text"))?;
        let mut lines = message.lines().map(str::trim_end);
        if lines.next() != Some("-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(Unreadable("it does not begin as a signed message does"));
        }
        // Armour headers ("Hash: …"), which the signature repeats, up to an
        // empty line. Anything else here would look signed and is not.
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            if !line.starts_with("Hash: ") {
                return Err(Unreadable("it has an unknown line before the text"));
            }
        }
        let mut text: Vec<&str> = Vec::new();
        loop {
            match lines.next() {
                None => return Err(Unreadable("the signature is missing at its end")),
                Some("-----BEGIN PGP SIGNATURE-----") => break,
                Some(line) => match line.strip_prefix('-') {
                    None => text.push(line),
                    Some("") => text.push(""),
                    Some(rest) => text.push(
                        rest.strip_prefix(' ')
                            .ok_or(Unreadable("a line begins with a dash"))?,
                    ),
                },
            }
        }
        let mut armour = String::new();
        let mut in_headers = true;
        loop {
            match lines.next() {
                None => return Err(Unreadable("the signature is cut short")),
                Some("-----END PGP SIGNATURE-----") => break,
                Some("") => in_headers = false,
                Some(line) if in_headers && line.contains(": ") => {}
                // The checksum guards against accidents, which the signature does too.
                Some(line) if line.starts_with('=') => {}
                Some(line) => {
                    in_headers = false;
                    armour.push_str(line);
                }
            }
        }
        if lines.any(|line| !line.is_empty()) {
            return Err(Unreadable("there is something after the signature"));
        }
        let signatures = STANDARD
            .decode(armour)
            .map_err(|_| Unreadable("the signature is not base64"))?;
        let canonical = text.join("\r\n");
        let mut text = text.join("\n");
        text.push('\n');
        Ok(Self {
            text,
            canonical,
            signatures,
        })
    }
}

const RSA: u8 = 1;
const RSA_SIGN_ONLY: u8 = 3;
pub(crate) const EDDSA: u8 = 22;
pub(crate) const ED25519_CURVE: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
const SHA256: u8 = 8;
const SHA384: u8 = 9;
pub(crate) const SHA512: u8 = 10;

/// A version 4 signature packet.
struct Signature<'a> {
    kind: u8,
    algorithm: u8,
    hash: u8,
    /// From the version to the end of the hashed subpackets: what is hashed
    /// after the text.
    hashed: &'a [u8],
    values: &'a [u8],
    created: Option<u32>,
    lifetime: Option<u32>,
    key_lifetime: Option<u32>,
    issuer: Option<[u8; 20]>,
    issuer_id: Option<[u8; 8]>,
}

impl<'a> Signature<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.byte()? != 4 {
            return None;
        }
        let (kind, algorithm, hash) = (reader.byte()?, reader.byte()?, reader.byte()?);
        let hashed_length = usize::from(reader.u16()?);
        let hashed_subpackets = reader.take(hashed_length)?;
        let hashed = body.get(..6 + hashed_length)?;
        let unhashed_length = usize::from(reader.u16()?);
        let unhashed_subpackets = reader.take(unhashed_length)?;
        let _quick_check = reader.u16()?;
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            hashed,
            values: reader.0,
            created: None,
            lifetime: None,
            key_lifetime: None,
            issuer: None,
            issuer_id: None,
        };
        signature.read_subpackets(hashed_subpackets, true)?;
        signature.read_subpackets(unhashed_subpackets, false)?;
        Some(signature)
    }

    /// What is not hashed may only name the key, which is a hint: a wrong one
    /// leads to a signature that does not match.
    fn read_subpackets(&mut self, area: &[u8], hashed: bool) -> Option<()> {
        let mut reader = Reader(area);
        while !reader.0.is_empty() {
            let length = reader.length()?;
            let (kind, mut body) = {
                let (kind, body) = reader.take(length)?.split_first()?;
                (*kind, Reader(body))
            };
            match (kind & 0x7f, hashed) {
                (2, true) => self.created = Some(body.u32()?),
                (3, true) => self.lifetime = Some(body.u32()?),
                (9, true) => self.key_lifetime = Some(body.u32()?),
                (16, _) => self.issuer_id = Some(body.0.try_into().ok()?),
                (33, _) if body.byte()? == 4 => self.issuer = Some(body.0.try_into().ok()?),
                // Preferences, flags and notes, which change nothing here.
                (4..=8 | 11 | 12 | 20..=40, _) => {}
                // The signer says that who does not know this must not accept.
                (_, true) if kind & 0x80 != 0 => return None,
                _ => {}
            }
        }
        Some(())
    }

    fn expires(&self) -> Option<Timestamp> {
        let lifetime = self.lifetime.filter(|seconds| *seconds > 0)?;
        Some(Timestamp::from_unix(
            i64::from(self.created?) + i64::from(lifetime),
        ))
    }

    fn issuer_name(&self) -> String {
        match (self.issuer, self.issuer_id) {
            (Some(issuer), _) => hex::encode_upper(issuer),
            (None, Some(id)) => hex::encode_upper(id),
            (None, None) => "a key that it does not name".to_string(),
        }
    }

    /// Whether this is `key`'s signature of `canonical`, a text.
    fn matches(&self, key: &Key, canonical: &str) -> bool {
        const TEXT: u8 = 0x01;
        if self.kind != TEXT || self.created.is_none_or(|created| created < key.created) {
            return false;
        }
        let Ok(hashed_length) = u32::try_from(self.hashed.len()) else {
            return false;
        };
        let mut signed = Vec::with_capacity(canonical.len() + self.hashed.len() + 6);
        signed.extend_from_slice(canonical.as_bytes());
        signed.extend_from_slice(self.hashed);
        signed.extend_from_slice(&[4, 0xff]);
        signed.extend_from_slice(&hashed_length.to_be_bytes());
        let mut values = Reader(self.values);
        match (&key.public, self.algorithm) {
            (PublicKey::Rsa { modulus, exponent }, RSA | RSA_SIGN_ONLY) => {
                let parameters = match self.hash {
                    SHA256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    SHA384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    SHA512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    _ => return false,
                };
                let public = signature::RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                };
                let value = values
                    .integer()
                    .and_then(|value| padded(value, modulus.len()));
                value.is_some_and(|value| public.verify(parameters, &signed, &value).is_ok())
            }
            (PublicKey::Ed25519(point), EDDSA) => {
                let algorithm = match self.hash {
                    SHA256 => &digest::SHA256,
                    SHA384 => &digest::SHA384,
                    SHA512 => &digest::SHA512,
                    _ => return false,
                };
                let mut half = || values.integer().and_then(|value| padded(value, 32));
                let (Some(mut value), Some(s)) = (half(), half()) else {
                    return false;
                };
                value.extend_from_slice(&s);
                let digest = digest::digest(algorithm, &signed);
                signature::UnparsedPublicKey::new(&signature::ED25519, point)
                    .verify(digest.as_ref(), &value)
                    .is_ok()
            }
            _ => false,
        }
    }
}

/// `value` with leading zeros, which integers are written without.
fn padded(value: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut found = vec![0; length.checked_sub(value.len())?];
    found.extend_from_slice(value);
    Some(found)
}

enum Tag {
    Signature,
    PublicKey,
    PublicSubkey,
    Other,
}

/// Reads from the front of a slice; `None` where it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A multiprecision integer: its length in bits, then its bytes.
    fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        let leading = bytes
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(bytes.len());
        Some(&bytes[leading..])
    }

    /// The length of a packet of the new format or of a subpacket.
    fn length(&mut self) -> Option<usize> {
        match self.byte()? {
            short @ 0..=191 => Some(short.into()),
            first @ 192..=223 => {
                Some(((usize::from(first) - 192) << 8) + usize::from(self.byte()?) + 192)
            }
            255 => usize::try_from(self.u32()?).ok(),
            // Subpackets have one more bit of two-byte lengths, packets have
            // partial lengths here; neither occurs in what we read.
            _ => None,
        }
    }

    fn packet(&mut self) -> Option<(Tag, &'a [u8])> {
        let header = self.byte()?;
        let (tag, length) = if header & 0xc0 == 0xc0 {
            (header & 0x3f, self.length()?)
        } else if header & 0xc0 == 0x80 {
            let length = match header & 3 {
                0 => self.byte()?.into(),
                1 => self.u16()?.into(),
                2 => usize::try_from(self.u32()?).ok()?,
                _ => return None,
            };
            ((header >> 2) & 0x0f, length)
        } else {
            return None;
        };
        let tag = match tag {
            2 => Tag::Signature,
            6 => Tag::PublicKey,
            14 => Tag::PublicSubkey,
            _ => Tag::Other,
        };
        Some((tag, self.take(length)?))
    }
}

#[cfg(test)]
mod tests;
