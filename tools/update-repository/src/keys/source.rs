//! Where keys are, and using them.

use super::aws;
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use sysutil::fs::write_atomic;
use tough::async_trait;
use tough::key_source::KeySource;
use tough::schema::key::Key;
use tough::sign::{Sign, parse_keypair};

pub(super) type Fault = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Where a key is, of which this machine can make use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file that holds it.
    File(PathBuf),
    /// A key of AWS' KMS, which signs itself.
    Kms {
        /// Whose credentials are used, if not those that programs use by themselves.
        profile: Option<String>,
        /// Its identity, alias or ARN.
        key: String,
    },
    /// A parameter of AWS' Systems Manager that holds it, encrypted.
    Ssm {
        /// As above.
        profile: Option<String>,
        /// The parameter's name, from the slash on.
        parameter: String,
    },
}

/// A key that a role is given.
#[derive(Clone)]
pub enum NewKey {
    /// It is drawn, and lies in the folder.
    Drawn,
    /// It is somewhere else; the folder says where.
    At(Source),
    /// It is this one; the folder has a copy, of the key or of what says where it is.
    Copied(Vec<u8>),
    /// Somebody else has it.
    Public(Box<Key>),
}

impl FromStr for NewKey {
    type Err = anyhow::Error;

    /// `new`, an address as of a [`Source`], or the path of a file that has a key, or the
    /// public half of one.
    fn from_str(text: &str) -> Result<Self> {
        if text == "new" {
            return Ok(Self::Drawn);
        }
        if Source::is_address(text) {
            return text.parse().map(Self::At);
        }
        let bytes = fs::read(text).with_context(|| format!("cannot read {text}"))?;
        Ok(match public(&bytes) {
            Some(key) => Self::Public(Box::new(key)),
            None => Self::Copied(bytes),
        })
    }
}

impl NewKey {
    /// Puts it into a file, unless it is somebody else's, and says what its public half is.
    pub(super) fn place(&self, path: &Path) -> Result<Key> {
        if let Self::At(Source::File(there)) = self {
            ensure!(
                there.parent() != path.parent(),
                "{} is in the folder itself: name it without file://",
                there.display()
            );
        }
        let bytes = match self {
            Self::Public(key) => return Ok((**key).clone()),
            Self::Drawn => draw()?,
            Self::At(source) => format!("{source}\n").into_bytes(),
            Self::Copied(bytes) => bytes.clone(),
        };
        write_atomic(path, &bytes, 0o600)?;
        let source = Source::in_file(path)?;
        let signer = (source.signer()).with_context(|| match self {
            Self::At(source) => format!("cannot use the key at {source}"),
            _ => "cannot use a key".to_string(),
        })?;
        Ok(signer.tuf_key())
    }
}

/// The public half of a key, as [`NewKey`] reads it: that of an address, or of a file, in
/// which the key is drawn first if it is to be `new`.
pub fn public_key(text: &str, new: bool) -> Result<String> {
    if new {
        ensure!(!Source::is_address(text), "a key is drawn into a file");
        let path = Path::new(text);
        ensure!(
            !path.exists(),
            "{text} exists already; keys are never overwritten"
        );
        write_atomic(path, &draw()?, 0o600)?;
    }
    let key = Source::named(text)?.signer()?.tuf_key();
    serde_json::to_string_pretty(&key).context("cannot write the public half")
}

impl Source {
    /// Whether a text is to be an address, and not a path.
    fn is_address(text: &str) -> bool {
        text.contains("://")
    }

    /// What is at an address, or in a file.
    pub fn named(text: &str) -> Result<Self> {
        match Self::is_address(text) {
            true => text.parse(),
            false => Self::in_file(Path::new(text)),
        }
    }

    /// What a file is the source of: the key in it, or that at the address in it.
    pub(super) fn in_file(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if Self::is_address(text.trim()) => text.trim().parse(),
            _ => Ok(Self::File(path.to_path_buf())),
        }
    }

    /// The key, to be used.
    pub fn signer(&self) -> Result<Box<dyn Sign>> {
        match self {
            Self::File(path) => {
                keypair(&read(path)?).with_context(|| format!("{} holds no key", path.display()))
            }
            Self::Kms { profile, key } => aws::kms(profile.as_deref(), key),
            Self::Ssm { profile, parameter } => aws::ssm(profile.as_deref(), parameter),
        }
    }
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let odd = || {
            format!(
                "{text} is no address of a key: file:///PATH, aws-kms://[PROFILE]/KEY or \
                 aws-ssm://[PROFILE]/PARAMETER"
            )
        };
        let (scheme, rest) = text.split_once("://").with_context(odd)?;
        let (host, path) = rest.split_once('/').with_context(odd)?;
        let profile = (!host.is_empty()).then(|| host.to_string());
        // What other tools write parameters with is of no meaning for reading.
        let path = path.split('?').next().unwrap_or_default();
        ensure!(!path.is_empty(), odd());
        match (scheme, &profile) {
            ("file", None) => Ok(Self::File(PathBuf::from(rest))),
            ("aws-kms", _) => Ok(Self::Kms {
                profile,
                key: path.to_string(),
            }),
            ("aws-ssm", _) => Ok(Self::Ssm {
                profile,
                parameter: format!("/{path}"),
            }),
            _ => bail!(odd()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |profile: &Option<String>| profile.clone().unwrap_or_default();
        match self {
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Kms { profile, key } => write!(f, "aws-kms://{}/{key}", host(profile)),
            Self::Ssm { profile, parameter } => write!(f, "aws-ssm://{}{parameter}", host(profile)),
        }
    }
}

/// A key that is at hand already.
pub(super) struct Ready(pub Arc<dyn Sign>);

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ready")
    }
}

#[async_trait]
impl KeySource for Ready {
    async fn as_sign(&self) -> std::result::Result<Box<dyn Sign>, Fault> {
        Ok(Box::new(Shared(self.0.clone())))
    }

    async fn write(&self, _: &str, _: &str) -> std::result::Result<(), Fault> {
        Err("keys are not written through their users".into())
    }
}

struct Shared(Arc<dyn Sign>);

#[async_trait]
impl Sign for Shared {
    fn tuf_key(&self) -> Key {
        self.0.tuf_key()
    }

    async fn sign(
        &self,
        message: &[u8],
        random: &(dyn aws_lc_rs::rand::SecureRandom + Sync),
    ) -> std::result::Result<Vec<u8>, Fault> {
        self.0.sign(message, random).await
    }
}

/// The public half of a key in a file that holds that, as [`public_key`] writes it, or in
/// PEM.
fn public(bytes: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(bytes).ok()?;
    let key = serde_json::from_str(text).ok();
    key.or_else(|| text.parse().ok()).map(canonical)
}

/// The same key, written as `tough` writes it: the identity of a key is that of its text.
pub(super) fn canonical(mut key: Key) -> Key {
    match &mut key {
        Key::Rsa { keyval, .. } => keyval.public = keyval.public.to_vec().into(),
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => {
            keyval.public = keyval.public.to_vec().into();
        }
        Key::Ed25519 { keyval, .. } => keyval.public = keyval.public.to_vec().into(),
    }
    key
}

/// A private key: of RSA, P-256 or Ed25519, in PKCS #8 or PEM.
pub(super) fn keypair(bytes: &[u8]) -> Result<Box<dyn Sign>> {
    // Those of PEM that are not of RSA `tough` does not take.
    let der = || {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let text = text.strip_prefix("-----BEGIN PRIVATE KEY-----")?;
        let text = text.strip_suffix("-----END PRIVATE KEY-----")?;
        let text: String = text.split_whitespace().collect();
        STANDARD.decode(text).ok()
    };
    match (parse_keypair(bytes), der()) {
        (Ok(pair), _) => Ok(Box::new(pair)),
        (Err(_), Some(der)) => Ok(Box::new(parse_keypair(&der)?)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Bytes as PEM.
pub(super) fn pem(tag: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        lines.join("\n")
    )
}

fn draw() -> Result<Vec<u8>> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.ok().context("cannot draw a key")?;
    Ok(document.as_ref().to_vec())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
