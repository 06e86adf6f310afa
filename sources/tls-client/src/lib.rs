//! TLS for what the host itself sends.
//!
//! Whom it trusts is in the file that every other program reads, too: the image's
//! authorities, with those of `settings.pki` added and taken out. The file is read for each
//! connection, so that a change of the settings holds at once.

#[cfg(feature = "fake")]
pub mod fake;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// How to speak to servers whose certificate is from one of the authorities in the file
/// `trusted`.
pub fn config(trusted: &Path) -> Result<Arc<ClientConfig>> {
    let certificates = certificates(trusted)?;
    trusting(certificates).with_context(|| format!("trusting {}", trusted.display()))
}

/// How to speak to servers whose certificate is from one of these authorities.
pub fn trusting(authorities: Vec<CertificateDer<'_>>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    // A single odd certificate costs itself alone.
    let (taken, _) = roots.add_parsable_certificates(authorities);
    ensure!(taken > 0, "there is no certificate of an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of the authorities in the file `trusted`.
pub fn certificates(trusted: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(trusted)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading {}", trusted.display()))
}

/// The name that a server's certificate has to have.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_string())
        .with_context(|| format!("{host} is no name that a certificate can have"))
}

/// A connection to `host` on top of `stream`, whose certificate is from one of those in
/// the file `trusted`. What is wrong with it is told at the first read or write.
pub fn connect(
    stream: TcpStream,
    host: &str,
    trusted: &Path,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection = ClientConnection::new(config(trusted)?, server_name(host)?)
        .context("beginning a connection with TLS")?;
    Ok(StreamOwned::new(connection, stream))
}
