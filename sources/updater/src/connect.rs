//! Connections to the servers that updates come from: through a proxy where the settings
//! say so, and with TLS where the address does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig};
use url::{Host, Url};

/// How long a server may say nothing, unless a connector is told otherwise.
const SILENCE: Duration = Duration::from_secs(30);
/// Whom the host trusts, below its root: the image's authorities and those of
/// `settings.pki`.
const TRUSTED: &str = "etc/ssl/certs/ca-certificates.crt";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server, or the proxy that leads to it, cannot be reached.
    #[error("cannot connect to {host}")]
    Unreachable {
        /// Name and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy does not lead to the server.
    #[error("the proxy {proxy} refused a connection to {host} with status {status}")]
    Refused {
        /// Name and port of the proxy.
        proxy: String,
        /// Name and port of the server.
        host: String,
        /// The proxy's answer.
        status: StatusCode,
    },
    /// The proxy does not speak HTTP, or hung up.
    #[error("cannot ask the proxy {proxy} for a connection to {host}")]
    Proxy {
        /// Name and port of the proxy.
        proxy: String,
        /// Name and port of the server.
        host: String,
        /// Why.
        source: hyper::Error,
    },
    /// It is not the server that it should be, or TLS with it is not possible.
    #[error("no trusted connection to {host}")]
    Tls {
        /// Name and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It is not known whom to trust.
    #[error("cannot tell whether to trust {host}")]
    Trust {
        /// Name and port.
        host: String,
        /// Why.
        source: anyhow::Error,
    },
}

impl ConnectError {
    /// Whether it may go away by trying again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Proxy { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Tls { source, .. } => !is_of_another(source),
            Self::Trust { .. } => false,
        }
    }
}

/// Whether a connection failed for the server's certificate, which stays as it is, rather than
/// for what a server or a proxy in trouble says.
fn is_of_another(error: &io::Error) -> bool {
    let reason = error.get_ref().and_then(|reason| reason.downcast_ref());
    matches!(
        reason,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// A server, as an address names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    is_tls: bool,
    host: Host,
    port: u16,
}

impl Origin {
    /// The server of an address that begins with `http://` or `https://`.
    pub fn of(url: &Url) -> Option<Self> {
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self {
            is_tls,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// Whether TLS is spoken with it.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// As in the header `Host`: without a port that goes without saying.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (false, 80) | (true, 443) => self.host.to_string(),
            _ => self.host_and_port(),
        }
    }

    fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name that is looked up and that a certificate has to have: an IPv6 address has
    /// brackets in addresses only.
    fn name(&self) -> String {
        match &self.host {
            Host::Ipv6(address) => address.to_string(),
            host => host.to_string(),
        }
    }

    /// What rules about proxies are asked about.
    fn uri(&self) -> Option<Uri> {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}/", self.host_and_port()).parse().ok()
    }
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub enum Trusted {
    /// The authorities in this file, which is read for each connection.
    File(PathBuf),
    /// These.
    These(Arc<ClientConfig>),
}

impl Trusted {
    /// Those whom every program of a host trusts, whose root is `root`.
    pub fn of_host(root: &Path) -> Self {
        Self::File(root.join(TRUSTED))
    }
}

/// Makes connections.
#[derive(Clone, Debug)]
pub struct Connector {
    trusted: Trusted,
    proxies: Arc<Matcher>,
    silence: Duration,
}

/// A connection, whatever it is made of.
pub type Connection = Box<dyn Stream>;

/// What a connection can do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// As told.
    pub fn new(trusted: Trusted, proxies: Matcher) -> Self {
        Self {
            trusted,
            proxies: Arc::new(proxies),
            silence: SILENCE,
        }
    }

    /// Lets servers say nothing for so long.
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// How long a server may say nothing.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// As the host's other programs do it, whose root is `root`: with its store of
    /// authorities, and the proxies in the environment, where `settings.network` is.
    pub fn of_host(root: &Path) -> Self {
        Self::new(Trusted::of_host(root), Matcher::from_env())
    }

    /// A connection to a server, over which HTTP is spoken.
    pub async fn connect(&self, origin: &Origin) -> Result<Connection, ConnectError> {
        let proxy = origin.uri().and_then(|uri| self.proxies.intercept(&uri));
        let stream = match proxy {
            None => self.connect_tcp(origin).await?,
            Some(proxy) => self.connect_through(&proxy, origin).await?,
        };
        match origin.is_tls {
            false => Ok(stream),
            true => self.encrypt(stream, origin).await,
        }
    }

    async fn connect_tcp(&self, origin: &Origin) -> Result<Connection, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable {
            host: origin.host_and_port(),
            source,
        };
        let connect = TcpStream::connect((origin.name(), origin.port));
        let stream = self.in_time(connect).await.map_err(unreachable)?;
        Ok(Box::new(stream))
    }

    /// Asks a proxy for a connection to a server.
    async fn connect_through(
        &self,
        proxy: &Intercept,
        origin: &Origin,
    ) -> Result<Connection, ConnectError> {
        let host = origin.host_and_port();
        let unreachable = |source| ConnectError::Unreachable {
            host: proxy.uri().to_string(),
            source,
        };
        let at = Url::parse(&proxy.uri().to_string()).ok();
        let at = at.and_then(|url| Origin::of(&url));
        let at = at.ok_or_else(|| unreachable(io::ErrorKind::InvalidInput.into()))?;
        let mut stream = self.connect_tcp(&at).await?;
        if at.is_tls {
            stream = self.encrypt(stream, &at).await?;
        }

        let failed = |source| ConnectError::Proxy {
            proxy: at.host_and_port(),
            host: host.clone(),
            source,
        };
        let mut request = Request::connect(&host).header(HOST, &host);
        if let Some(password) = proxy.basic_auth() {
            request = request.header(PROXY_AUTHORIZATION, password);
        }
        let request = (request.body(Empty::<Bytes>::new()))
            .map_err(|_| unreachable(io::ErrorKind::InvalidInput.into()))?;
        let asked = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            if !status.is_success() {
                return Ok(Err(status));
            }
            Ok(Ok(hyper::upgrade::on(answer).await?))
        };
        match timeout(self.silence, asked).await {
            Err(_) => Err(unreachable(io::ErrorKind::TimedOut.into())),
            Ok(Err(error)) => Err(failed(error)),
            Ok(Ok(Err(status))) => Err(ConnectError::Refused {
                proxy: at.host_and_port(),
                host,
                status,
            }),
            Ok(Ok(Ok(upgraded))) => Ok(Box::new(TokioIo::new(upgraded))),
        }
    }

    async fn encrypt(
        &self,
        stream: Connection,
        origin: &Origin,
    ) -> Result<Connection, ConnectError> {
        let host = || origin.host_and_port();
        let trust = |source| ConnectError::Trust {
            host: host(),
            source,
        };
        let config = match &self.trusted {
            Trusted::File(path) => tls_client::config(path).map_err(trust)?,
            Trusted::These(config) => Arc::clone(config),
        };
        let name = tls_client::server_name(&origin.name()).map_err(trust)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        match self.in_time(handshake).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(ConnectError::Tls {
                host: host(),
                source,
            }),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match timeout(self.silence, work).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_addresses() {
        for (url, authority, name) in [
            ("http://a.example/x", Some("a.example"), "a.example"),
            ("http://a.example:443/x", Some("a.example:443"), "a.example"),
            ("https://a.example:443/x", Some("a.example"), "a.example"),
            ("https://[::1]:8443/x", Some("[::1]:8443"), "::1"),
            ("file:///x", None, ""),
            ("ftp://a.example/x", None, ""),
        ] {
            let origin = Origin::of(&url.parse().unwrap());
            let found = origin.as_ref().map(Origin::authority);
            assert_eq!(found.as_deref(), authority, "{url}");
            assert_eq!(origin.map(|o| o.name()).unwrap_or_default(), name, "{url}");
        }
    }

    #[test]
    fn what_goes_through_the_proxy() {
        let proxies = Matcher::builder()
            .https("http://user:secret@proxy.example:3128")
            .no("localhost,127.0.0.1,.internal,10.0.0.0/8,mirror.example")
            .build();
        let connector = Connector::new(Trusted::File("/none".into()), proxies);
        for (url, expected) in [
            ("https://a.example/x", true),
            ("https://a.example:8443/x", true),
            ("https://[2001:db8::1]/x", true),
            ("http://a.example/x", false),
            ("https://mirror.example/x", false),
            ("https://a.internal/x", false),
            ("https://10.1.2.3/x", false),
            ("https://127.0.0.1:8443/x", false),
        ] {
            let origin = Origin::of(&url.parse().unwrap()).unwrap();
            let uri = origin.uri().unwrap();
            let proxy = connector.proxies.intercept(&uri);
            assert_eq!(proxy.is_some(), expected, "{url}");
        }
        assert!(!format!("{connector:?}").contains("secret"));
    }
}
