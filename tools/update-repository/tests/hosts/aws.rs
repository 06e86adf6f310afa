//! Keys in KMS and Parameter Store: services that judge requests as AWS does, with real keys
//! behind them, and a process whose environment leads there.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context, Result, bail};
use aws_client::fake::{Answers, Fake, Site};
use aws_client::signature::Credentials;
use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sysutil::time::Time;
use test_vm::files::Manner;
use tls_client::fake::Authority;
use update_repository::{Holders, Keys, Progress, validate};

use crate::fixture::{ARCH, Fixture};

const REGION: &str = "eu-south-2";
/// Names the key to [`child`].
const KEY: &str = "BULKHEAD_TEST_KEY";

/// What is wrong with a service of KMS.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// It leaves out a zero that a signature begins with, and waits until one does.
    Short,
    OtherDigest,
    OtherAlgorithm,
    OtherKey,
    NotToSign,
    Denied(&'static str),
    NoSignature,
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

/// KMS with the key `alias/root`.
fn kms(fault: Fault) -> Box<Answers> {
    let (key, other) = (rsa(), rsa());
    let public: PublicKeyX509Der = key.public_key().as_der().unwrap();
    let public = STANDARD.encode(public.as_ref());
    Box::new(move |target, body| {
        let name = target.strip_prefix("TrentService.")?;
        let refused = |kind: &str| Some(Err((kind.to_string(), "no".to_string())));
        if matches!(fault, Fault::Denied(operation) if operation == name) {
            return refused("AccessDeniedException");
        }
        if body["KeyId"] != "alias/root" {
            return refused("NotFoundException");
        }
        let algorithms = match fault {
            Fault::NotToSign => json!(["RSASSA_PKCS1_V1_5_SHA_256"]),
            _ => json!(["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]),
        };
        Some(Ok(match name {
            "GetPublicKey" => json!({
                "KeyId": "arn:aws:kms:eu-south-2:111122223333:key/1",
                "KeySpec": "RSA_2048",
                "KeyUsage": "SIGN_VERIFY",
                "PublicKey": public,
                "SigningAlgorithms": algorithms,
            }),
            "Sign" => {
                if body["MessageType"] != "DIGEST" {
                    return refused("ValidationException");
                }
                if body["SigningAlgorithm"] != "RSASSA_PSS_SHA_256" {
                    return refused("InvalidKeyUsageException");
                }
                let digest = STANDARD.decode(body["Message"].as_str()?).ok()?;
                let digest = match fault {
                    Fault::OtherDigest => vec![0; 32],
                    _ => digest,
                };
                let digest = Digest::import_less_safe(&digest, &SHA256).ok()?;
                let key = if fault == Fault::OtherKey {
                    &other
                } else {
                    &key
                };
                let padding = match fault {
                    Fault::OtherAlgorithm => &RSA_PKCS1_SHA256,
                    _ => &RSA_PSS_SHA256,
                };
                let mut signature = vec![0; 256];
                loop {
                    key.sign_digest(padding, &digest, &mut signature).ok()?;
                    if fault != Fault::Short || signature[0] == 0 {
                        break;
                    }
                }
                if fault == Fault::Short {
                    signature.remove(0);
                }
                match fault {
                    Fault::NoSignature => json!({}),
                    _ => json!({ "Signature": STANDARD.encode(signature) }),
                }
            }
            _ => return None,
        }))
    })
}

/// KMS with a key on P-256.
fn kms_of_curve() -> Box<Answers> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public: PublicKeyX509Der = key.public_key().as_der().unwrap();
    let public = STANDARD.encode(public.as_ref());
    Box::new(move |target, body| {
        Some(Ok(match target {
            "TrentService.GetPublicKey" => json!({
                "KeySpec": "ECC_NIST_P256",
                "PublicKey": public,
                "SigningAlgorithms": ["ECDSA_SHA_256"],
            }),
            "TrentService.Sign" if body["SigningAlgorithm"] == "ECDSA_SHA_256" => {
                let digest = STANDARD.decode(body["Message"].as_str()?).ok()?;
                let digest = Digest::import_less_safe(&digest, &SHA256).ok()?;
                let signature = key.sign_digest(&digest).ok()?;
                json!({ "Signature": STANDARD.encode(signature.as_ref()) })
            }
            _ => return None,
        }))
    })
}

/// Parameter Store with `/keys/root`.
fn ssm(kind: &'static str, value: String) -> Box<Answers> {
    Box::new(move |target, body| {
        if target != "AmazonSSM.GetParameter" {
            return None;
        }
        if body["Name"] != "/keys/root" {
            return Some(Err(("ParameterNotFound".to_string(), String::new())));
        }
        let value = match body["WithDecryption"] == Value::Bool(true) {
            true => value.clone(),
            false => "AQICAHgencrypted".to_string(),
        };
        Some(Ok(json!({ "Parameter": { "Type": kind, "Value": value } })))
    })
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

/// Makes a repository with the key that the environment names, and looks at it as a host.
#[test]
#[ignore = "it is run by the tests below, with an environment of its own"]
fn child() {
    let made = || -> Result<String> {
        let mut fixture = Fixture::new();
        let key = env::var(KEY)?.parse()?;
        let holders = Holders::new(vec![key], 1)?;
        let folder = fixture.folder.path().join("keys-elsewhere");
        let until = Time::now().plus(86_400);
        fixture.keys = match Keys::make(&folder, (&holders, &holders), until, false)? {
            Progress::Taken(keys) => keys,
            Progress::Waits(_) => bail!("it waits"),
        };
        let held = fs::read_to_string(folder.join("root.key"))?;
        assert_eq!(held.trim(), env::var(KEY)?);
        fixture.release("2.0.0", 1..100);
        let server = fixture.serve(Manner::Ranges);
        let at = |path: &str| format!("http://127.0.0.1:{}/{path}", server.port);
        let (metadata, targets) = (at(&format!("v/{ARCH}")), at("targets"));
        let checked = validate(fixture.keys.root(), &metadata, &targets)?;
        let first = checked.first().context("nothing is released")?;
        Ok(format!("good: {}", first.update.version))
    };
    match made() {
        Ok(said) => println!("said {said}"),
        Err(error) => println!("said {error:#}"),
    }
}

/// What becomes of a repository with this key, where a service of AWS answers so, and what
/// the service saw.
fn made(service: &str, key: &str, answers: Box<Answers>) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let host = format!("{service}.{REGION}.amazonaws.com");
    let authority = Authority::generate();
    let trusted = folder.path().join("authority.pem");
    fs::write(&trusted, authority.certificate()).unwrap();
    let site = Site {
        host: host.clone(),
        service: service.to_string(),
        region: REGION.to_string(),
        credentials: Credentials {
            access_key: "AKIA".to_string(),
            secret_key: "secret".to_string(),
            session_token: None,
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = authority.server_config(&host);
    let fake = Fake::answering(listener, site, tls, answers).unwrap();
    fs::create_dir(folder.path().join(".aws")).unwrap();
    fs::write(
        folder.path().join(".aws/credentials"),
        "[fleet]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n",
    )
    .unwrap();
    fs::write(
        folder.path().join(".aws/config"),
        format!("[profile fleet]\nregion = {REGION}\n"),
    )
    .unwrap();
    let ended = Command::new(env::current_exe().unwrap())
        .args(["--exact", "aws::child", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", folder.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HTTPS_PROXY", format!("http://{}", fake.address()))
        .env("SSL_CERT_FILE", &trusted)
        .env(KEY, key)
        .output()
        .unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    let said = text.lines().find_map(|line| line.split_once("said "));
    let said = said.unwrap_or_else(|| {
        let error = String::from_utf8_lossy(&ended.stderr);
        panic!("it said nothing: {text}{error}")
    });
    assert!(!text.contains("secret"), "{text}");
    (said.1.to_string(), fake.log())
}

#[test]
fn kms_signs_a_repository_that_hosts_take() {
    for answers in [kms(Fault::None), kms(Fault::Short), kms_of_curve()] {
        let (said, log) = made("kms", "aws-kms://fleet/alias/root", answers);
        assert_eq!(said, "good: 2.0.0");
        assert!(log.iter().all(|line| line == "200 by a proxy"), "{log:?}");
        assert!(log.len() > 5, "{log:?}");
    }
}

#[test]
fn a_key_in_a_parameter_signs_a_repository_that_hosts_take() {
    let of_rsa: Pkcs8V1Der = rsa().as_der().unwrap();
    let edwards = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    for der in [of_rsa.as_ref(), edwards.as_ref()] {
        let answers = ssm("SecureString", pem(der));
        let (said, log) = made("ssm", "aws-ssm://fleet/keys/root", answers);
        assert_eq!(said, "good: 2.0.0");
        assert!(log.iter().all(|line| line == "200 by a proxy"), "{log:?}");
    }
}

#[test]
fn what_kms_does_wrong_is_said() {
    let host = "kms.eu-south-2.amazonaws.com";
    let denied = |operation: &str| {
        format!(
            "{host} refuses kms:{operation} (AccessDeniedException: no); a policy of the role has \
             to allow kms:{operation}"
        )
    };
    let no_signature =
        "what KMS gives is no signature of the key alias/root by RSASSA_PSS_SHA_256".to_string();
    for (fault, expected) in [
        (Fault::OtherDigest, no_signature.clone()),
        (Fault::OtherAlgorithm, no_signature.clone()),
        (Fault::OtherKey, no_signature),
        (Fault::NoSignature, "KMS gives no signature".to_string()),
        (Fault::Denied("GetPublicKey"), denied("GetPublicKey")),
        (Fault::Denied("Sign"), denied("Sign")),
        (
            Fault::NotToSign,
            "the key alias/root of KMS is RSA_2048 and signs by RSASSA_PKCS1_V1_5_SHA_256: make \
             one that signs and verifies, RSA_2048 or larger, or ECC_NIST_P256"
                .to_string(),
        ),
    ] {
        let (said, _) = made("kms", "aws-kms://fleet/alias/root", kms(fault));
        assert!(said.ends_with(&expected), "{fault:?}: {said}");
    }
    let (said, _) = made("kms", "aws-kms://fleet/alias/other", kms(Fault::None));
    assert!(
        said.ends_with("refuses kms:GetPublicKey (NotFoundException: no)"),
        "{said}"
    );
    let (said, log) = made("kms", "aws-kms://nobody/alias/root", kms(Fault::None));
    assert!(
        said.contains("there are no credentials: the profile nobody"),
        "{said}"
    );
    assert!(log.is_empty());
}

#[test]
fn what_is_wrong_with_a_parameter_is_said() {
    let good: Pkcs8V1Der = rsa().as_der().unwrap();
    let good = pem(good.as_ref());
    for (parameter, kind, value, expected) in [
        (
            "root",
            "String",
            good.clone(),
            "the parameter /keys/root is not encrypted",
        ),
        (
            "root",
            "SecureString",
            "?".to_string(),
            "the parameter /keys/root holds no key",
        ),
        ("other", "SecureString", good, "ParameterNotFound"),
    ] {
        let key = format!("aws-ssm://fleet/keys/{parameter}");
        let (said, _) = made("ssm", &key, ssm(kind, value));
        assert!(said.contains(expected), "{said}");
    }
}
