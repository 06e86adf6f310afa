//! Calls of AWS' services that speak its protocol JSON 1.1.

use crate::signature::{Credentials, Request, Scope, payload};
use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use sysutil::time::Time;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Proxy, ProxyProtocol};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_LIMIT: u64 = 256 * 1024;
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A question to a service.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Where it is, with a port if that is not the usual one.
    pub host: &'a str,
    /// The name of the service in signatures and policies, such as `ecr`.
    pub service: &'a str,
    /// The region.
    pub region: &'a str,
    /// The prefix of the service's operations, with its version.
    pub interface: &'a str,
    /// The operation.
    pub operation: &'a str,
    /// What is asked.
    pub body: &'a Value,
}

/// The way to AWS.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The file of the authorities that are trusted.
    pub trusted: &'a Path,
    /// Variables that name a proxy, as programs have them in their environment.
    pub environment: &'a [String],
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way there cannot be gone.
    #[error("cannot prepare a request to {host}")]
    Way {
        /// The service.
        host: String,
        /// What is wrong.
        source: anyhow::Error,
    },
    /// The service cannot be reached, or breaks off.
    #[error("cannot reach {host}{}", .proxy.as_ref().map(|proxy| format!(" by the proxy {proxy}")).unwrap_or_default())]
    Reach {
        /// The service.
        host: String,
        /// What the connection goes through.
        proxy: Option<String>,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The service refuses.
    #[error("{host} refuses {operation} ({kind}: {message}){}", hint(.kind, .operation))]
    Refused {
        /// The service.
        host: String,
        /// What was asked, as policies name it: `ecr:GetAuthorizationToken`.
        operation: String,
        /// The name of the fault.
        kind: String,
        /// The service's words.
        message: String,
    },
    /// The answer is none of this protocol.
    #[error("{host} answers {operation} with status {status} and no document of AWS")]
    Answer {
        /// The service.
        host: String,
        /// What was asked.
        operation: String,
        /// The status.
        status: u16,
    },
}

/// What can be done about a refusal.
fn hint(kind: &str, operation: &str) -> String {
    match kind {
        "AccessDenied" | "AccessDeniedException" => {
            format!("; a policy of the role has to allow {operation}")
        }
        "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch" => "; is the clock right?".to_string(),
        "InvalidClientTokenId" | "UnrecognizedClientException" => {
            "; are the credentials of another partition of AWS?".to_string()
        }
        _ => String::new(),
    }
}

/// A refusal.
#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl Call<'_> {
    /// Asks, in the name of `credentials`, and returns the answer.
    pub fn ask(&self, credentials: &Credentials, way: Way<'_>, now: Time) -> Result<Value, Error> {
        let (agent, proxy) = agent(way, self.host).map_err(|source| Error::Way {
            host: self.host.to_string(),
            source,
        })?;
        let reach = |source| Error::Reach {
            host: self.host.to_string(),
            proxy: proxy.clone(),
            source: Box::new(source),
        };
        let body = self.body.to_string();
        let target = format!("{}.{}", self.interface, self.operation);
        let headers = [("content-type", CONTENT_TYPE), ("x-amz-target", &target)];
        let signed = Request {
            method: "POST",
            host: self.host,
            path: "/",
            query: &[],
            headers: &headers,
            payload: &payload(body.as_bytes()),
        }
        .signed_headers(
            credentials,
            Scope {
                region: self.region,
                service: self.service,
                time: now,
            },
        );
        let mut request = agent.post(format!("https://{}/", self.host));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let mut answer = request.send(&body).map_err(reach)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_LIMIT);
        let text = text.read_to_vec().map_err(reach)?;
        self.read(status, &text)
    }

    /// What an answer says.
    fn read(&self, status: u16, text: &[u8]) -> Result<Value, Error> {
        let host = self.host.to_string();
        let operation = format!("{}:{}", self.service, self.operation);
        if status == 200
            && let Ok(answer) = serde_json::from_slice(text)
        {
            return Ok(answer);
        }
        match serde_json::from_slice::<Fault>(text) {
            Ok(fault) if status != 200 => Err(Error::Refused {
                host,
                operation,
                // It may come with the name of the service's model.
                kind: fault
                    .kind
                    .rsplit('#')
                    .next()
                    .unwrap_or_default()
                    .to_string(),
                message: fault.message,
            }),
            _ => Err(Error::Answer {
                host,
                operation,
                status,
            }),
        }
    }
}

/// A client that goes that way, and the proxy that it takes to `host`.
fn agent(way: Way<'_>, host: &str) -> anyhow::Result<(Agent, Option<String>)> {
    let address: Uri = format!("https://{host}/")
        .parse()
        .context("it is no name of a host")?;
    let trusted = tls_client::certificates(way.trusted)?;
    let trusted: Vec<_> = trusted
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .build();
    let proxy = proxy(way.environment)?;
    let taken = proxy.as_ref().filter(|proxy| !proxy.is_no_proxy(&address));
    let name = taken.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
    let config = Agent::config_builder()
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .https_only(true)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .tls_config(tls)
        .proxy(proxy);
    Ok((config.build().new_agent(), name))
}

/// The proxy that variables name for HTTPS. What goes past it is understood as the other
/// programs of the host do: a name stands for the names below it, too.
fn proxy(environment: &[String]) -> anyhow::Result<Option<Proxy>> {
    // Never with its text, which may hold a password.
    const ODD: &str = "settings.network.https-proxy is no address of a proxy that speaks HTTP";
    let value = |name: &str| {
        let mut lines = environment.iter();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let Some(address) = value("HTTPS_PROXY").filter(|address| !address.is_empty()) else {
        return Ok(None);
    };
    let speaks_http =
        |proxy: &Proxy| matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    let named = Proxy::new(address).ok().filter(speaks_http).context(ODD)?;
    let mut proxy = Proxy::builder(named.protocol());
    proxy = proxy.host(named.host()).port(named.port());
    if let Some(name) = named.username() {
        proxy = proxy.username(name);
    }
    if let Some(password) = named.password() {
        proxy = proxy.password(password);
    }
    let direct = value("NO_PROXY").unwrap_or_default().split(',');
    for name in direct.map(str::trim).filter(|name| !name.is_empty()) {
        proxy = proxy.no_proxy(name);
        if !name.starts_with(['.', '*']) {
            proxy = proxy.no_proxy(&format!(".{name}"));
        }
    }
    proxy.build().ok().context(ODD).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Service};
    use serde_json::json;
    use std::fs;
    use std::net::SocketAddr;
    use tls_client::fake::Authority;

    const HOST: &str = "api.ecr.eu-south-2.amazonaws.com";

    fn credentials() -> Credentials {
        Credentials {
            access_key: "ASIA".into(),
            secret_key: "secret".into(),
            session_token: Some("a/b+c=".into()),
        }
    }

    fn service() -> Service {
        Service {
            host: HOST.to_string(),
            service: "ecr".to_string(),
            region: "eu-south-2".to_string(),
            target: "Registry.GetAuthorizationToken".to_string(),
            credentials: credentials(),
            answer: Ok(json!({ "said": "yes" })),
        }
    }

    fn call<'a>(host: &'a str, body: &'a Value) -> Call<'a> {
        Call {
            host,
            service: "ecr",
            region: "eu-south-2",
            interface: "Registry",
            operation: "GetAuthorizationToken",
            body,
        }
    }

    /// Whom the host trusts, and who that is.
    fn authority() -> (tempfile::NamedTempFile, Authority) {
        let authority = Authority::generate();
        let trusted = tempfile::NamedTempFile::new().expect("a file");
        fs::write(trusted.path(), authority.certificate()).expect("written");
        (trusted, authority)
    }

    fn by_proxy(address: SocketAddr, direct: &str) -> [String; 2] {
        [
            format!("HTTPS_PROXY=http://user:pass@{address}"),
            format!("NO_PROXY={direct}"),
        ]
    }

    /// What is said to a call that `change` has been at, of a service that `other` has.
    fn asked(
        change: impl Fn(&mut Call<'_>, &mut Credentials),
        other: impl Fn(&mut Service),
    ) -> String {
        let (trusted, authority) = authority();
        let mut service = service();
        other(&mut service);
        let fake = Fake::start(service, authority.server_config(HOST)).expect("a service");
        let environment = by_proxy(fake.address(), "localhost,amazonaws.example");
        let body = json!({});
        let (mut call, mut credentials) = (call(HOST, &body), credentials());
        change(&mut call, &mut credentials);
        let way = Way {
            trusted: trusted.path(),
            environment: &environment,
        };
        let said = match call.ask(&credentials, way, Time::now()) {
            Ok(answer) => answer.to_string(),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        assert!(
            !said.contains("secret") && !said.contains("pass@"),
            "{said}"
        );
        said
    }

    #[test]
    fn who_is_right_in_everything_is_answered() {
        let said = asked(|_, _| {}, |_| {});
        assert_eq!(said, r#"{"said":"yes"}"#);
        let keys_for_ever = |service: &mut Service| service.credentials.session_token = None;
        let said = asked(
            |_, credentials| credentials.session_token = None,
            keys_for_ever,
        );
        assert_eq!(said, r#"{"said":"yes"}"#);
    }

    #[test]
    fn refusals_say_what_can_be_done() {
        let refused = format!("{HOST} refuses ecr:GetAuthorizationToken (");
        let denied = |service: &mut Service| {
            let kind = "com.amazonaws.ecr#AccessDeniedException".to_string();
            service.answer = Err((kind, "not authorized".to_string()));
        };
        assert_eq!(
            asked(|_, _| {}, denied),
            format!(
                "{refused}AccessDeniedException: not authorized); a policy of the role has to \
                 allow ecr:GetAuthorizationToken"
            )
        );
        let ended = |service: &mut Service| {
            service.answer = Err(("ExpiredTokenException".to_string(), String::new()));
        };
        assert!(asked(|_, _| {}, ended).ends_with("is the clock right?"));
        for (change, expected) in [
            (
                (|_, credentials| credentials.secret_key.push('x'))
                    as fn(&mut Call<'_>, &mut Credentials),
                "InvalidSignatureException: the signature is another); is the clock right?",
            ),
            (
                |_, credentials| credentials.access_key.push('x'),
                "nobody has ASIAx); are the credentials of another partition of AWS?",
            ),
            (
                |_, credentials| credentials.session_token = None,
                "the session is another",
            ),
            (|call, _| call.region = "eu-south-1", "the scope is"),
            (|call, _| call.service = "eks", "the scope is"),
            (
                |call, _| call.operation = "GetNothing",
                "UnknownOperationException",
            ),
        ] {
            let said = asked(change, |_| {});
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn the_clock_has_to_be_right() {
        let (trusted, authority) = authority();
        let fake = Fake::start(service(), authority.server_config(HOST)).expect("a service");
        let environment = by_proxy(fake.address(), "");
        let (trusted, environment) = (trusted.path(), &environment[..]);
        let body = json!({});
        let error = call(HOST, &body).ask(
            &credentials(),
            Way {
                trusted,
                environment,
            },
            Time(0),
        );
        let said = error.expect_err("refused").to_string();
        assert!(said.contains("of 1970-01-01T00:00:00Z") && said.ends_with("is the clock right?"));
    }

    #[test]
    fn what_goes_past_the_proxy_does() {
        let (trusted, authority) = authority();
        let nobody = TcpAddress::closed();
        let body = json!({});
        for (direct, expected) in [
            (None, Ok("200 directly")),
            (Some("localhost"), Ok("200 directly")),
            (Some("*"), Ok("200 directly")),
            (Some("other,host"), Err("by the proxy 127.0.0.1:")),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let host = format!("localhost:{port}");
            let service = Service {
                host: host.clone(),
                ..service()
            };
            let tls = authority.server_config("localhost");
            let fake = Fake::listen(listener, service, tls).expect("a service");
            let environment = direct.map(|direct| by_proxy(nobody.0, direct));
            let way = Way {
                trusted: trusted.path(),
                environment: environment.as_ref().map_or(&[], |lines| &lines[..]),
            };
            let said = call(&host, &body).ask(&credentials(), way, Time::now());
            match expected {
                Ok(line) => {
                    assert_eq!(said.expect(line), json!({ "said": "yes" }));
                    assert_eq!(fake.log(), [line]);
                }
                Err(part) => {
                    let said = said.expect_err(part).to_string();
                    assert!(said.contains(part), "{said}");
                    assert!(fake.log().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_proxy_that_is_not_taken_is_not_blamed() {
        let (trusted, _) = authority();
        let nobody = TcpAddress::closed().0;
        let host = format!("localhost:{}", nobody.port());
        let body = json!({});
        for (direct, by_the_proxy) in [("localhost", false), ("other", true)] {
            let way = Way {
                trusted: trusted.path(),
                environment: &by_proxy(nobody, direct),
            };
            let error = call(&host, &body).ask(&credentials(), way, Time::now());
            let said = error.expect_err("nobody is there").to_string();
            assert_eq!(said.contains("by the proxy"), by_the_proxy, "{said}");
        }
    }

    /// An address at which nobody is.
    struct TcpAddress(SocketAddr);

    impl TcpAddress {
        fn closed() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            Self(listener.local_addr().expect("an address"))
        }
    }

    #[test]
    fn names_below_those_in_no_proxy_go_past_it_too() {
        let to = |direct: &str| {
            let lines = by_proxy(([127, 0, 0, 1], 3128).into(), direct);
            let proxy = proxy(&lines).expect("a proxy").expect("some");
            let uri = ureq::http::Uri::from_static("https://api.ecr.eu-south-2.amazonaws.com/");
            proxy.is_no_proxy(&uri)
        };
        for direct in [
            "amazonaws.com",
            ".amazonaws.com",
            "x, eu-south-2.amazonaws.com",
            "*",
        ] {
            assert!(to(direct), "{direct}");
        }
        for direct in ["", "amazonaws", "ws.com", "x.amazonaws.com"] {
            assert!(!to(direct), "{direct}");
        }
        assert!(proxy(&[]).expect("none").is_none());
        for scheme in ["ftp", "socks5"] {
            let odd = proxy(&[format!("HTTPS_PROXY={scheme}://user:pass@x")]);
            let odd = odd.expect_err(scheme).to_string();
            assert!(
                odd.contains("settings.network.https-proxy") && !odd.contains("pass"),
                "{odd}"
            );
        }
    }

    #[test]
    fn who_is_not_trusted_is_told_nothing() {
        let (trusted, _) = authority();
        let other = Authority::generate();
        let fake = Fake::start(service(), other.server_config(HOST)).expect("a service");
        let environment = by_proxy(fake.address(), "");
        let way = Way {
            trusted: trusted.path(),
            environment: &environment,
        };
        let body = json!({});
        let error = call(HOST, &body).ask(&credentials(), way, Time::now());
        assert!(matches!(error, Err(Error::Reach { .. })), "{error:?}");
    }

    #[test]
    fn answers_that_are_none_are_told_apart() {
        let body = json!({});
        let call = call(HOST, &body);
        for (status, text) in [
            (200, "<html>"),
            (502, "<html>"),
            (502, "{}"),
            (200, r#"{"__type": "AccessDeniedException""#),
        ] {
            let error = call.read(status, text.as_bytes()).expect_err(text);
            let expected = format!(
                "{HOST} answers ecr:GetAuthorizationToken with status {status} and no document of AWS"
            );
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
