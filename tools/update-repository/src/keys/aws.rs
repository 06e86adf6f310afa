//! Keys in AWS: KMS signs with those that never leave it, and Systems Manager's Parameter
//! Store keeps private keys as encrypted parameters.
//!
//! Requests are `aws-client`'s, as on hosts. Here is what a workstation adds: profiles in
//! files, its own proxy and authorities (decision 52).

use super::profiles::Surroundings;
use super::source::{Fault, canonical, keypair, pem};
use anyhow::{Context, Result, bail, ensure};
use aws_client::call::{Call, Way};
use aws_client::region::domain;
use aws_client::signature::Credentials;
use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use sysutil::time::Time;
use tough::async_trait;
use tough::schema::key::Key;
use tough::sign::Sign;

const RSA: &str = "RSASSA_PSS_SHA_256";
const ECDSA: &str = "ECDSA_SHA_256";

/// The key `key` of KMS, for whom `profile` says.
pub(super) fn kms(profile: Option<&str>, key: &str) -> Result<Box<dyn Sign>> {
    let around = Surroundings::of_process();
    // arn:PARTITION:kms:REGION:ACCOUNT:key/ID names its region itself.
    let region = key.starts_with("arn:").then(|| key.split(':').nth(3));
    let service = Service::find("kms", &around, profile, region.flatten())?;
    let asked = service.ask("TrentService", "GetPublicKey", &json!({ "KeyId": key }))?;
    let answer: PublicKey = serde_json::from_value(asked)
        .with_context(|| format!("{} says nothing of a public key", service.host))?;
    let (public, algorithm) = answer.read(key)?;
    Ok(Box::new(Kms {
        service,
        key: key.to_string(),
        modulus: answer.modulus(),
        public,
        algorithm,
    }))
}

/// The private key in a parameter, for whom `profile` says.
pub(super) fn ssm(profile: Option<&str>, parameter: &str) -> Result<Box<dyn Sign>> {
    let service = Service::find("ssm", &Surroundings::of_process(), profile, None)?;
    let question = json!({ "Name": parameter, "WithDecryption": true });
    let answer = service.ask("AmazonSSM", "GetParameter", &question)?;
    let text = |name: &str| answer["Parameter"][name].as_str();
    ensure!(
        text("Type") == Some("SecureString"),
        "the parameter {parameter} is not encrypted: make it a SecureString, and a new key"
    );
    let value = text("Value").with_context(|| format!("{parameter} has no value"))?;
    keypair(value.as_bytes()).with_context(|| format!("the parameter {parameter} holds no key"))
}

/// A service, and who asks.
struct Service {
    name: &'static str,
    host: String,
    region: String,
    credentials: Credentials,
    /// What names a proxy.
    environment: Vec<String>,
    /// Whom this machine trusts, as calls read it.
    trusted: tempfile::NamedTempFile,
}

impl Service {
    fn find(
        name: &'static str,
        around: &Surroundings,
        profile: Option<&str>,
        region: Option<&str>,
    ) -> Result<Self> {
        let found = around.who(profile, region, Time::now())?;
        Ok(Self {
            name,
            host: format!("{name}.{}.{}", found.region, domain(&found.region)),
            region: found.region,
            credentials: found.credentials,
            environment: around.proxy(),
            trusted: trusted()?,
        })
    }

    fn ask(&self, interface: &str, operation: &str, body: &Value) -> Result<Value> {
        let call = Call {
            host: &self.host,
            service: self.name,
            region: &self.region,
            interface,
            operation,
            body,
        };
        let way = Way {
            trusted: self.trusted.path(),
            environment: &self.environment,
        };
        match call.ask(&self.credentials, way, Time::now()) {
            Err(error @ aws_client::call::Error::Way { .. }) if !self.environment.is_empty() => {
                Err(error).context("HTTPS_PROXY is what counts as the proxy of the settings here")
            }
            asked => Ok(asked?),
        }
    }
}

fn trusted() -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    for certificate in rustls_native_certs::load_native_certs().certs {
        file.write_all(pem("CERTIFICATE", &certificate).as_bytes())
            .context("cannot write a temporary file")?;
    }
    Ok(file)
}

/// What KMS says of a key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PublicKey {
    public_key: String,
    key_spec: String,
    #[serde(default)]
    signing_algorithms: Vec<String>,
}

impl PublicKey {
    /// The key, and how it signs.
    fn read(&self, key: &str) -> Result<(Key, &'static str)> {
        let can = |algorithm: &str| self.signing_algorithms.iter().any(|one| one == algorithm);
        let algorithm = match self.key_spec.as_str() {
            "ECC_NIST_P256" if can(ECDSA) => ECDSA,
            spec if spec.starts_with("RSA_") && can(RSA) => RSA,
            spec => bail!(
                "the key {key} of KMS is {spec} and signs by {}: make one that signs and verifies, \
                 RSA_2048 or larger, or ECC_NIST_P256",
                match self.signing_algorithms.is_empty() {
                    true => "nothing".to_string(),
                    false => self.signing_algorithms.join(", "),
                }
            ),
        };
        let odd = || format!("what KMS says is the public half of {key} is none");
        let der = STANDARD.decode(&self.public_key).with_context(odd)?;
        let public: Key = pem("PUBLIC KEY", &der).parse().with_context(odd)?;
        Ok((canonical(public), algorithm))
    }

    /// How many bytes a signature of RSA has.
    fn modulus(&self) -> usize {
        let bits = self.key_spec.strip_prefix("RSA_");
        bits.and_then(|bits| bits.parse::<usize>().ok())
            .unwrap_or(0)
            / 8
    }
}

/// A key of KMS.
struct Kms {
    service: Service,
    key: String,
    public: Key,
    algorithm: &'static str,
    modulus: usize,
}

impl Kms {
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        let question = json!({
            "KeyId": self.key,
            // What is signed may be longer than what KMS takes.
            "Message": STANDARD.encode(Sha256::digest(message)),
            "MessageType": "DIGEST",
            "SigningAlgorithm": self.algorithm,
        });
        let answer = self.service.ask("TrentService", "Sign", &question)?;
        let signature = answer["Signature"].as_str();
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        let signature = padded(signature.context("KMS gives no signature")?, self.modulus);
        ensure!(
            self.is_signed(message, &signature),
            "what KMS gives is no signature of the key {} by {}",
            self.key,
            self.algorithm
        );
        Ok(signature)
    }

    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.public {
            Key::Rsa { keyval, .. } => {
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &keyval.public[..])
                    .verify(message, signature)
            }
            Key::Ecdsa { keyval, .. } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &keyval.public[..])
                    .verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// KMS may leave out zeros that a signature of RSA begins with; hosts want all its bytes.
fn padded(signature: Vec<u8>, modulus: usize) -> Vec<u8> {
    let zeros = modulus.saturating_sub(signature.len());
    [vec![0; zeros], signature].concat()
}

#[async_trait]
impl Sign for Kms {
    fn tuf_key(&self) -> Key {
        self.public.clone()
    }

    async fn sign(
        &self,
        message: &[u8],
        _: &(dyn SecureRandom + Sync),
    ) -> std::result::Result<Vec<u8>, Fault> {
        Ok(self.signature(message)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_rsa_have_all_their_bytes() {
        assert_eq!(padded(vec![1, 2], 4), [0, 0, 1, 2]);
        assert_eq!(padded(vec![1, 2], 2), [1, 2]);
        assert_eq!(padded(vec![1, 2], 0), [1, 2]);
    }

    #[test]
    fn keys_that_do_not_sign_as_hosts_verify_are_refused() {
        for (spec, algorithms) in [
            ("RSA_2048", &["RSASSA_PKCS1_V1_5_SHA_256"][..]),
            ("RSA_2048", &[]),
            ("ECC_NIST_P384", &["ECDSA_SHA_384"]),
            ("ECC_SECG_P256K1", &["ECDSA_SHA_256"]),
            ("HMAC_256", &[]),
        ] {
            let answer = PublicKey {
                public_key: String::new(),
                key_spec: spec.to_string(),
                signing_algorithms: algorithms.iter().map(ToString::to_string).collect(),
            };
            let error = answer.read("alias/root").unwrap_err().to_string();
            let expected = format!("the key alias/root of KMS is {spec} and signs by ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
