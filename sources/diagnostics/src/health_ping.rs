//! The health ping: one request that tells whoever operates many hosts that this
//! one is up, and which of its services are not. Off unless the settings name an
//! address.
//!
//! Over `https` the collector has to have a certificate of somebody whom the host
//! trusts: of the image's authorities, or of one in `settings.pki`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sysutil::os_release::OsRelease;

const SETTINGS: &str = "etc/bulkhead/metrics.toml";
/// Whom the host trusts, with `settings.pki`.
const TRUSTED: &str = "etc/ssl/certs/ca-certificates.crt";
/// How long each step of the request may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    url: String,
    #[serde(default)]
    service_checks: Vec<String>,
    region: Option<String>,
    seed: Option<u64>,
    version_lock: Option<String>,
    ignore_waves: Option<bool>,
}

/// Sends the ping for `event`, unless it is switched off. A collector that does
/// not answer is no fault of the host, so it is said and that is all.
pub fn run(event: &str) -> Result<()> {
    let root = Path::new("/");
    let sent = send(root, event, |services| {
        let mut command = Command::new("/usr/bin/systemctl");
        command.args(["show", "--property=Id,ActiveState,ExecMainStatus", "--"]);
        command.args(services);
        sysutil::process::stdout(&mut command)
    });
    if let Err(error) = sent {
        tracing::warn!("the health ping was not sent: {error:#}");
    }
    Ok(())
}

/// Sends it for the host below `root`; `show` is what systemd says of units.
fn send(root: &Path, event: &str, show: impl FnOnce(&[String]) -> Result<String>) -> Result<()> {
    let text = sysutil::fs::read_text_if_present(&root.join(SETTINGS), 64 * 1024)?;
    let text = text.unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(());
    }
    let settings: Settings =
        toml::from_str(&text).with_context(|| format!("reading /{SETTINGS}"))?;
    let os = OsRelease::read(root)?;
    let failed = match settings.service_checks.as_slice() {
        [] => Vec::new(),
        names => {
            let units: Vec<String> = names.iter().map(|name| format!("{name}.service")).collect();
            let shown = show(&units).context("asking for the state of the services")?;
            failed_services(names, &shown)
        }
    };
    let number = settings.seed.map(|seed| seed.to_string());
    let flag = settings.ignore_waves.map(|flag| flag.to_string());
    let parameters = [
        ("sender", Some("bulkhead")),
        ("event", Some(event)),
        ("version", Some(os.version_id())),
        ("variant", Some(os.variant_id())),
        ("arch", Some(std::env::consts::ARCH)),
        ("region", settings.region.as_deref()),
        ("seed", number.as_deref()),
        ("version_lock", settings.version_lock.as_deref()),
        ("ignore_waves", flag.as_deref()),
        (
            "is_healthy",
            Some(if failed.is_empty() { "true" } else { "false" }),
        ),
        ("failed_services", Some(&failed.join(","))),
    ];
    get(
        &target(&settings.url)?,
        &query(&parameters),
        &root.join(TRUSTED),
    )
}

/// Services that do not run, each with the status that its program ended with.
fn failed_services(names: &[String], shown: &str) -> Vec<String> {
    let units: Vec<&str> = shown.split("\n\n").collect();
    names
        .iter()
        .filter_map(|name| {
            let id = format!("{name}.service");
            let field = |field: &str| {
                let unit = units.iter().find(|unit| {
                    unit.lines()
                        .any(|line| line.strip_prefix("Id=") == Some(&id))
                })?;
                unit.lines()
                    .find_map(|line| line.strip_prefix(field)?.strip_prefix('='))
            };
            match field("ActiveState") {
                Some("active" | "reloading" | "activating") => None,
                _ => Some(format!(
                    "{name}:{}",
                    field("ExecMainStatus").unwrap_or("-1")
                )),
            }
        })
        .collect()
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_tls: bool,
    /// As in the address, for the `Host` header.
    authority: String,
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

fn target(url: &str) -> Result<Target> {
    let (is_tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => bail!(
            "settings.metrics.metrics-url is {url}, which is no address with https:// or http://"
        ),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    ensure!(
        !authority.contains('@'),
        "settings.metrics.metrics-url has a login, which is not sent"
    );
    // The address of IPv6 has colons of its own, in brackets.
    let port_at = authority
        .rfind(':')
        .filter(|at| authority.rfind(']').is_none_or(|bracket| bracket < *at));
    let (host, port) = match port_at {
        Some(at) => (&authority[..at], authority[at + 1..].parse().ok()),
        None => (authority, Some(if is_tls { 443 } else { 80 })),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.filter(|_| !host.is_empty());
    Ok(Target {
        is_tls,
        authority: authority.to_string(),
        host: host.to_string(),
        port: port.with_context(|| format!("{url} names no host and port"))?,
        path: match path {
            "" => "/".to_string(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_string(),
        },
    })
}

fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let pairs = parameters.iter().filter_map(|(name, value)| {
        let value = (*value)?;
        Some(format!("{name}={}", escape(value)))
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Sends a `GET` and takes any answer but a refusal.
fn get(target: &Target, query: &str, trusted: &Path) -> Result<()> {
    let Target { host, port, .. } = target;
    let connect = || -> Result<TcpStream> {
        let mut last = None;
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("it has no address"), Into::into))
    };
    let stream = connect().with_context(|| format!("connecting to {host} port {port}"))?;
    let mark = if target.path.contains('?') { '&' } else { '?' };
    let request = format!(
        "GET {}{mark}{query} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bulkhead\r\nConnection: close\r\n\r\n",
        target.path, target.authority
    );
    let answer = || -> Result<Vec<u8>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match target.is_tls {
            true => exchange(tls_client::connect(stream, host, trusted)?, &request),
            false => exchange(stream, &request),
        }
    };
    let head = answer().with_context(|| format!("talking to {host} port {port}"))?;
    let head = String::from_utf8_lossy(&head);
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    match status {
        Some(200..400) => Ok(()),
        Some(status) => bail!("{host} port {port} answered with status {status}"),
        None => bail!("{host} port {port} does not speak HTTP"),
    }
}

/// Sends a request and returns how its answer begins. The status comes first, and
/// nothing else is of interest.
fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Vec<u8>> {
    const STATUS_LINE: usize = "HTTP/1.1 200".len();
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    let mut buffer = [0; 64];
    while head.len() < STATUS_LINE {
        match stream.read(&mut buffer)? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    /// A collector that takes one request and answers it; the request's first
    /// line comes back.
    fn collector(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let port = listener.local_addr().expect("an address").port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let first = lines.next().expect("a line").expect("readable");
            let headers: Vec<String> = lines
                .map(|line| line.expect("readable"))
                .take_while(|line| !line.is_empty())
                .collect();
            assert!(
                headers.contains(&format!("Host: 127.0.0.1:{port}")),
                "{headers:?}"
            );
            stream.write_all(answer.as_bytes()).expect("answered");
            first
        });
        (port, served)
    }

    fn host(settings: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for (path, text) in [
            (SETTINGS, settings),
            (
                "usr/lib/os-release",
                "ID=bulkhead\nPRETTY_NAME=\"Bulkhead\"\nVARIANT_ID=metal-core\nVERSION_ID=1.2.0\nBUILD_ID=abcdef12\n",
            ),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        root
    }

    const SHOWN: &str = "Id=good.service\nActiveState=active\nExecMainStatus=0\n\n\
                         ExecMainStatus=3\nId=bad.service\nActiveState=failed\n";

    #[test]
    fn a_ping_arrives_with_all_it_says() {
        let (port, served) = collector("HTTP/1.1 204 No Content\r\n\r\n");
        let root = host(&format!(
            "url = \"http://127.0.0.1:{port}/ping?fleet=a\"\nservice-checks = [\"good\", \"bad\", \"gone\"]\n\
             region = \"eu central\"\nseed = 7\nversion-lock = \"latest\"\nignore-waves = false\n"
        ));
        send(root.path(), "health-ping", |units| {
            assert_eq!(units, ["good.service", "bad.service", "gone.service"]);
            Ok(SHOWN.to_string())
        })
        .expect("sent");
        assert_eq!(
            served.join().expect("served"),
            format!(
                "GET /ping?fleet=a&sender=bulkhead&event=health-ping&version=1.2.0\
                 &variant=metal-core&arch={}&region=eu%20central&seed=7&version_lock=latest\
                 &ignore_waves=false&is_healthy=false&failed_services=bad%3A3%2Cgone%3A-1 HTTP/1.1",
                std::env::consts::ARCH
            )
        );
    }

    #[test]
    fn without_services_nobody_is_asked_for_them() {
        let (port, served) = collector("HTTP/1.0 302 Found\r\n\r\n");
        let root = host(&format!("url = \"http://127.0.0.1:{port}\""));
        send(root.path(), "boot-success", |_| bail!("asked")).expect("sent");
        let line = served.join().expect("served");
        assert!(
            line.starts_with("GET /?sender=bulkhead&event=boot-success&"),
            "{line}"
        );
        assert!(
            line.ends_with("&is_healthy=true&failed_services= HTTP/1.1"),
            "{line}"
        );
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        let (port, _served) = collector("HTTP/1.1 500 No\r\n\r\n");
        let refused = format!("url = \"http://127.0.0.1:{port}/\"");
        let (port, _served) = collector("SSH-2.0-x\r\n");
        let odd = format!("url = \"http://127.0.0.1:{port}/\"");
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
            listener.local_addr().expect("an address").port()
        };
        let closed = format!("url = \"http://127.0.0.1:{closed}/\"");
        for (settings, reason) in [
            ("url = \"ftp://x/\"", "no address with https:// or http://"),
            ("url = \"http://a:b@x/\"", "login"),
            ("url = \"http://x:y/\"", "no host and port"),
            ("url = \"http:///\"", "no host and port"),
            ("urls = 1", "metrics.toml"),
            (refused.as_str(), "status 500"),
            (odd.as_str(), "does not speak HTTP"),
            (closed.as_str(), "connecting to 127.0.0.1"),
        ] {
            let root = host(settings);
            let error = send(root.path(), "health-ping", |_| bail!("asked")).expect_err(settings);
            assert!(
                format!("{error:#}").contains(reason),
                "{settings}: {error:#}"
            );
        }
        // Off.
        for settings in ["", "\n\n"] {
            send(host(settings).path(), "health-ping", |_| bail!("asked")).expect("nothing to do");
        }
    }

    #[test]
    fn over_tls_the_collector_is_one_that_the_host_trusts() {
        let ours = tls_client::fake::Authority::generate();
        let other = tls_client::fake::Authority::generate();
        for (trusted, expected) in [
            (Some(&ours), Ok(())),
            (Some(&other), Err("invalid peer certificate")),
            (None, Err("ca-certificates.crt")),
        ] {
            let (port, served) = ours.serve("127.0.0.1", b"HTTP/1.1 200 OK\r\n");
            let root = host(&format!("url = \"https://127.0.0.1:{port}/ping\""));
            if let Some(trusted) = trusted {
                let path = root.path().join(TRUSTED);
                std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
                std::fs::write(path, trusted.certificate()).expect("file");
            }
            let sent = send(root.path(), "health-ping", |_| bail!("asked"));
            match expected {
                Ok(()) => {
                    sent.expect("sent");
                    let request = served.join().expect("served");
                    assert!(
                        request.starts_with("GET /ping?sender=bulkhead&"),
                        "{request}"
                    );
                }
                Err(reason) => {
                    let error = format!("{:#}", sent.expect_err(reason));
                    assert!(error.contains(reason), "{error}");
                }
            }
        }
        // A good certificate of somebody else.
        let (port, _served) = ours.serve("other.example", b"");
        let root = host(&format!("url = \"https://127.0.0.1:{port}/ping\""));
        let path = root.path().join(TRUSTED);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, ours.certificate()).expect("file");
        let error = send(root.path(), "health-ping", |_| bail!("asked")).expect_err("not it");
        assert!(
            format!("{error:#}").contains("not valid for name"),
            "{error:#}"
        );
    }

    #[test]
    fn targets() {
        for (url, authority, host, port, path) in [
            ("http://a.example", "a.example", "a.example", 80, "/"),
            (
                "http://a.example:8080/x?y=z#f",
                "a.example:8080",
                "a.example",
                8080,
                "/x?y=z",
            ),
            ("https://a.example/x", "a.example", "a.example", 443, "/x"),
            ("http://[::1]:81", "[::1]:81", "::1", 81, "/"),
            ("http://[fe80::1]?q", "[fe80::1]", "fe80::1", 80, "/?q"),
        ] {
            let expected = Target {
                is_tls: url.starts_with("https"),
                authority: authority.into(),
                host: host.into(),
                port,
                path: path.into(),
            };
            assert_eq!(target(url).expect(url), expected);
        }
    }
}
