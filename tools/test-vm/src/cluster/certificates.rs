//! The certificates of a control plane, made anew for each.

use super::write;
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::path::Path;

/// The year in which certificates of servers end. A clock that is set later finds them
/// expired, and one that is more than 15 years ahead is not believed by systemd at all.
const SERVERS_END: i32 = 2035;

/// An authority that signs certificates and is known by its own.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

/// A certificate and its key, both PEM.
pub(super) struct Certified {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What a certificate is for.
pub(super) enum Purpose<'a> {
    /// Serves under these names and addresses.
    Server(&'a [&'a str]),
    /// Authenticates as a user of this group, if it has one.
    Client { group: Option<&'a str> },
}

impl Authority {
    /// A new one with a key of its own.
    pub(super) fn new(name: &str) -> Result<Self> {
        let key = generate_key()?;
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .with_context(|| format!("cannot make the certificate of {name}"))?
            .pem();
        Ok(Self {
            certificate,
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its own certificate.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Certifies a new key for `name`.
    pub(super) fn issue(&self, name: &str, purpose: &Purpose<'_>) -> Result<Certified> {
        let key = generate_key()?;
        let mut params = match purpose {
            Purpose::Server(names) => params(name, names)?,
            Purpose::Client { .. } => params(name, &[])?,
        };
        if let Purpose::Server(_) = purpose {
            params.not_after = date_time_ymd(SERVERS_END, 1, 1);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server(_) => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client { .. } => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        if let Purpose::Client { group: Some(group) } = purpose {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot certify the key of {name}"))?;
        Ok(Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Writes its certificate and key as `<name>.crt` and `<name>.key`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write_pair(folder, name, &self.certificate, &self.key)
    }
}

impl Certified {
    /// Writes certificate and key as `<name>.crt` and `<name>.key`.
    pub(super) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write_pair(folder, name, &self.certificate, &self.key)
    }
}

/// A key pair for signatures that are no certificates, written as `<name>.key` and
/// `<name>.pub`.
pub(super) fn write_signing_key(folder: &Path, name: &str) -> Result<()> {
    let key = generate_key()?;
    write(folder, &format!("{name}.key"), &key.serialize_pem())?;
    write(folder, &format!("{name}.pub"), &key.public_key_pem())
}

fn generate_key() -> Result<KeyPair> {
    KeyPair::generate().context("cannot make a key")
}

fn params(name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)
        .with_context(|| format!("cannot put the names of {name} in a certificate"))?;
    params.distinguished_name.push(DnType::CommonName, name);
    // Valid whatever most clocks of a test say.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

fn write_pair(folder: &Path, name: &str, certificate: &str, key: &str) -> Result<()> {
    write(folder, &format!("{name}.crt"), certificate)?;
    write(folder, &format!("{name}.key"), key)
}
