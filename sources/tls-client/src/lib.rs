//! TLS for what the host itself sends.
//!
//! Whom it trusts is in the file that every other program reads, too: the image's
//! authorities, with those of `settings.pki` added and taken out.

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

/// A connection to `host` on top of `stream`, whose certificate is from one of those in
/// the file `trusted`. What is wrong with it is told at the first read or write.
pub fn connect(
    stream: TcpStream,
    host: &str,
    trusted: &Path,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(trusted)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading {}", trusted.display()))?;
    let mut roots = RootCertStore::empty();
    // A single odd certificate costs itself alone.
    let (taken, _) = roots.add_parsable_certificates(certificates);
    ensure!(taken > 0, "{} holds no certificate", trusted.display());
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string())
        .with_context(|| format!("{host} is no name that a certificate can have"))?;
    let connection =
        ClientConnection::new(Arc::new(config), name).context("beginning a connection with TLS")?;
    Ok(StreamOwned::new(connection, stream))
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    /// Somebody who signs certificates.
    pub(crate) struct Authority {
        certificate: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub(crate) fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate").pem();
            Self {
                certificate,
                issuer: Issuer::new(params, key),
            }
        }

        /// Its own certificate.
        pub(crate) fn certificate(&self) -> &str {
            &self.certificate
        }

        /// A server with a certificate for `name`, which takes one request and answers
        /// it; the request's first line comes back.
        pub(crate) fn serve(&self, name: &str, answer: &'static [u8]) -> (u16, JoinHandle<String>) {
            let key = KeyPair::generate().expect("a key");
            let certificate = CertificateParams::new(vec![name.to_string()])
                .and_then(|params| params.signed_by(&key, &self.issuer))
                .expect("a certificate");
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            let config =
                ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .expect("versions")
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate.der().clone()], key)
                    .expect("a configuration");
            let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
            let port = listener.local_addr().expect("an address").port();
            let served = thread::spawn(move || {
                let (stream, _) = listener.accept().expect("a connection");
                let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                let mut first = String::new();
                // Who does not trust us says nothing.
                if stream.read_line(&mut first).is_ok() {
                    stream.get_mut().write_all(answer).expect("answered");
                }
                first.trim_end().to_string()
            });
            (port, served)
        }
    }
}
