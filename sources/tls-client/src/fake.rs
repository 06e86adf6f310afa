//! A certificate authority and a server that it vouches for.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// How somebody serves who has this certificate and its key, both PEM.
pub fn server(certificate: &str, key: &str) -> Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.context("reading the certificate")?],
            key.context("reading the key")?,
        )
        .context("taking certificate and key")?;
    Ok(Arc::new(config))
}

/// Somebody who signs certificates.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that nobody trusts yet.
    pub fn generate() -> Self {
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
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How a server speaks that has a certificate for `name`.
    pub fn server_config(&self, name: &str) -> Arc<ServerConfig> {
        let identity = self.identity(name);
        server(&identity, &identity).expect("a configuration")
    }

    /// A certificate for `name` and its key, PEM one after the other.
    pub fn identity(&self, name: &str) -> String {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![name.to_string()])
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .expect("a certificate");
        certificate.pem() + &key.serialize_pem()
    }

    /// A server with a certificate for `name`, which takes one request and answers
    /// it; the request's first line comes back.
    pub fn serve(&self, name: &str, answer: &'static [u8]) -> (u16, JoinHandle<String>) {
        let config = self.server_config(name);
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let port = listener.local_addr().expect("an address").port();
        let served = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut stream = BufReader::new(begin(&config, stream));
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

/// TLS on top of a connection that a client has made.
pub fn begin(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
    StreamOwned::new(connection, stream)
}
