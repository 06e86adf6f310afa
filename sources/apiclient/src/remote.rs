//! Documents behind `http://`.
//!
//! The program is static and runs where there is no resolver's configuration,
//! so it asks no name server: it knows numeric addresses and `/etc/hosts`.

use crate::{client, http};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long fetching may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until there is a connection.
    pub connect: Duration,
    /// Until everything is there.
    pub total: Duration,
}

/// Bottlerocket's.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    total: Duration::from_secs(30),
};

/// Where names are looked up.
pub const HOSTS: &str = "/etc/hosts";

/// The longest head of an answer that is taken.
const HEAD_LIMIT: usize = 64 * 1024;

/// An address of a document.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

/// Fetches what is at an address that begins with `http://`, up to a limit.
pub fn fetch(url: &str, hosts: &Path, limit: usize, patience: Patience) -> Result<Vec<u8>> {
    let url = parse(url)?;
    let end = Instant::now() + patience.total;
    let addresses = addresses(&url.host, hosts)?;
    let mut stream = Timed {
        stream: connect(&addresses, url.port, patience.connect)?,
        end,
    };
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: */*\r\n\
         User-Agent: apiclient\r\n\r\n",
        http::escape(&url.path),
        authority(&url),
    );
    let mut answer = Vec::new();
    let most = limit + HEAD_LIMIT;
    stream
        .write_all(head.as_bytes())
        .and_then(|()| client::read_answer(&mut (&mut stream).take(most as u64 + 1), &mut answer))
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                anyhow!("it took longer than {} s", patience.total.as_secs_f32())
            }
            _ => anyhow!(error),
        })?;
    let too_long = || anyhow!("it has more than {limit} bytes, which is the most that is taken");
    ensure!(answer.len() <= most, too_long());
    let answer = http::parse(&answer)?;
    match (answer.status, answer.location) {
        (200, _) => {}
        (status @ 300..=399, Some(location)) => bail!(
            "the server answers with status {status} and points to {location}; give that address"
        ),
        (status, _) => bail!("the server answers with status {status} {}", answer.reason),
    }
    ensure!(answer.body.len() <= limit, too_long());
    Ok(answer.body)
}

fn parse(url: &str) -> Result<Url> {
    let rest = url
        .split_once("://")
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let rest = rest.split('#').next().unwrap_or_default();
    let start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(start);
    ensure!(
        !authority.contains('@'),
        "a user's name in an address is not taken"
    );
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').context("] is missing")?;
            match after.strip_prefix(':') {
                None if !after.is_empty() => bail!("odd text after ]"),
                port => (host, port),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    ensure!(!host.is_empty(), "there is no host in it");
    let port = match port {
        None | Some("") => 80,
        Some(port) => port.parse().ok().context("its port is not a number")?,
    };
    let path = if path.starts_with('/') {
        path.to_string()
    } else {
        format!("/{path}")
    };
    Ok(Url {
        host: host.to_string(),
        port,
        path,
    })
}

/// Host and port as they stand in a request.
fn authority(url: &Url) -> String {
    let host = if url.host.contains(':') {
        format!("[{}]", url.host)
    } else {
        url.host.clone()
    };
    match url.port {
        80 => host,
        port => format!("{host}:{port}"),
    }
}

fn addresses(host: &str, hosts: &Path) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    // A root that has no such file knows no names.
    let table = std::fs::read_to_string(hosts).unwrap_or_default();
    let found = look_up(host, &table);
    if !found.is_empty() {
        return Ok(found);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    bail!(
        "{host} is neither an address nor a name in {}, and apiclient asks no name server; \
         give the address, or fetch the document with another program and hand it to \
         `apiclient apply -`",
        hosts.display()
    )
}

/// The addresses that a table in the format of `/etc/hosts` gives a name.
fn look_up(name: &str, table: &str) -> Vec<IpAddr> {
    let lines = table.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    });
    lines.collect()
}

fn connect(addresses: &[IpAddr], port: u16, patience: Duration) -> Result<TcpStream> {
    let mut failure = None;
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(anyhow!(error).context(format!("connect to {address}"))),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow!("there is no address")))
}

/// A connection that has to be done by some time.
struct Timed {
    stream: TcpStream,
    end: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    #[test]
    fn urls() {
        for (url, host, port, path) in [
            ("http://10.0.0.1/a?b", "10.0.0.1", 80, "/a?b"),
            ("http://10.0.0.1:81", "10.0.0.1", 81, "/"),
            ("http://[fd00::1]:8080/x#y", "fd00::1", 8080, "/x"),
            ("http://name?q", "name", 80, "/?q"),
            ("http://name:/", "name", 80, "/"),
        ] {
            let parsed = parse(url).expect(url);
            assert_eq!(
                (parsed.host.as_str(), parsed.port, parsed.path.as_str()),
                (host, port, path)
            );
        }
        for url in [
            "http://",
            "http:///x",
            "http://a:b/",
            "http://[::1/",
            "http://[::1]x/",
            "http://user@host/",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn names_come_from_the_table_of_hosts() {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = folder.path().join("hosts");
        let table = "# known\n10.0.0.1\tone One.example # not.this\n::2 two one\nodd line\n";
        std::fs::write(&hosts, table).expect("a file");
        let ask = |name: &str| {
            let found = addresses(name, &hosts).expect(name);
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ask("192.0.2.7"), ["192.0.2.7"]);
        assert_eq!(ask("fd00::1"), ["fd00::1"]);
        assert_eq!(ask("one"), ["10.0.0.1", "::2"]);
        assert_eq!(ask("ONE.EXAMPLE"), ["10.0.0.1"]);
        assert_eq!(ask("localhost"), ["127.0.0.1", "::1"]);
        for name in ["three", "not.this", "line"] {
            let error = addresses(name, &hosts).expect_err(name).to_string();
            assert!(error.contains("asks no name server"), "{error}");
        }
    }

    /// A server that takes one request and answers it.
    fn serve(answer: Vec<u8>, then: Duration) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).expect("a request");
            // A client that has enough may be gone before it has everything.
            let _ = stream.write_all(&answer);
            thread::sleep(then);
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (format!("http://{address}/a b"), server)
    }

    #[test]
    fn fetching() {
        let patience = Patience {
            connect: Duration::from_secs(5),
            total: Duration::from_millis(500),
        };
        let now = Duration::ZERO;
        let long = |length: usize| {
            let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            answer.resize(answer.len() + length, b'x');
            answer
        };
        for (answer, then, expected) in [
            (b"HTTP/1.1 200 OK\r\n\r\nbody".to_vec(), now, Ok("body")),
            // An answer that says how long it is needs no end.
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody".to_vec(),
                Duration::from_millis(700),
                Ok("body"),
            ),
            (
                b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
                now,
                Err("status 404 Not Found"),
            ),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n".to_vec(),
                now,
                Err("points to http://x/"),
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody".to_vec(),
                now,
                Err("cut off"),
            ),
            (
                b"HTTP/1.1 200 OK\r\n\r\nbody".to_vec(),
                Duration::from_millis(700),
                Err("longer than 0.5 s"),
            ),
            (long(1001), now, Err("more than 1000 bytes")),
            (long(200_000), now, Err("more than 1000 bytes")),
        ] {
            let (url, server) = serve(answer, then);
            let fetched = fetch(&url, Path::new("/nowhere"), 1000, patience);
            let request = server.join().expect("a request");
            assert!(request.starts_with("GET /a%20b HTTP/1.1\r\nHost: 127.0.0.1:"));
            match (fetched, expected) {
                (Ok(body), Ok(expected)) => assert_eq!(body, expected.as_bytes()),
                (Err(error), Err(reason)) => {
                    assert!(format!("{error:#}").contains(reason), "{error:#}");
                }
                (fetched, expected) => panic!("{fetched:?}, not {expected:?}"),
            }
        }
    }
}
