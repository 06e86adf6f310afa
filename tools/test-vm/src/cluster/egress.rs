//! The way from the API server to the nodes.
//!
//! Nodes live behind the emulator's user network, which nobody outside can call. The
//! API server asks a proxy on a Unix socket (its egress selector, HTTP `CONNECT`), and
//! the proxy knows by which port of loopback the emulator forwards to which node.
//! Nothing of it needs a right on the workstation.

use anyhow::{Context, Result, bail};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::net::{UnixListener, UnixStream};
use std::str::FromStr;
use std::thread;

/// A forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// What the API server asks for.
    pub(crate) node: SocketAddrV4,
    /// The port of loopback that leads there.
    pub(crate) port: u16,
}

impl Forward {
    /// As an argument of the helper's command line.
    pub(crate) fn to_argument(self) -> String {
        format!("{}={}", self.node, self.port)
    }
}

impl FromStr for Forward {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (node, port) = text.split_once('=')?;
            Some(Self {
                node: node.parse().ok()?,
                port: port.parse().ok()?,
            })
        };
        parse().with_context(|| format!("{text} is no node's address and port"))
    }
}

/// Longest head of a request in bytes.
const HEAD_LIMIT: usize = 4096;

/// Serves clients until the process ends.
pub(crate) fn serve(listener: UnixListener, forwards: Vec<Forward>) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let forwards = forwards.clone();
            thread::spawn(move || {
                // The API server reports what it could not reach.
                let _ = serve_client(client, &forwards);
            });
        }
    });
}

fn serve_client(mut client: UnixStream, forwards: &[Forward]) -> Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let wanted = read_request(&mut reader)?;
    let Some(forward) = forwards.iter().find(|forward| forward.node == wanted) else {
        client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")?;
        bail!("{wanted} is no port of a node that is forwarded");
    };
    // The client sends nothing before it has the answer, so the reader is empty.
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, forward.port));
    crate::services::join_streams(client, target).context("the connection broke")
}

/// Reads the head of a `CONNECT` and returns where it wants to go.
fn read_request(reader: &mut impl BufRead) -> Result<SocketAddrV4> {
    let mut wanted = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        length +=
            io::Read::take(&mut *reader, (HEAD_LIMIT - length) as u64).read_line(&mut line)?;
        let line = match line.strip_suffix('\n') {
            Some(line) => line.trim_end_matches('\r'),
            None => bail!("the request ends within its head, or that is too long"),
        };
        match wanted {
            None => {
                let target = line
                    .strip_prefix("CONNECT ")
                    .and_then(|rest| rest.split(' ').next());
                let target = target.with_context(|| format!("{line:?} is no CONNECT"))?;
                let target = target.parse();
                wanted = Some(target.with_context(|| format!("{line:?} names no IPv4 port"))?);
            }
            Some(wanted) if line.is_empty() => return Ok(wanted),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn reads_connect_requests_only() {
        let read = |text: &str| read_request(&mut text.as_bytes());
        let asked = "CONNECT 10.0.2.15:10250 HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(read(asked).unwrap(), "10.0.2.15:10250".parse().unwrap());
        for bad in [
            "",
            "CONNECT 10.0.2.15:10250 HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "CONNECT node:1 HTTP/1.1\r\n\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let long = format!(
            "CONNECT 10.0.2.15:1 HTTP/1.1\r\nA: {}\r\n\r\n",
            "x".repeat(5000)
        );
        assert!(read(&long).is_err());
    }

    #[test]
    fn arguments_come_back() {
        let forward: Forward = "10.0.2.15:10250=4000".parse().unwrap();
        assert_eq!(forward.to_argument().parse::<Forward>().unwrap(), forward);
        assert!("10.0.2.15=1".parse::<Forward>().is_err());
    }

    #[test]
    fn connects_to_forwarded_nodes_only() {
        let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let forward = Forward {
            node: "10.0.2.15:10250".parse().unwrap(),
            port: node.local_addr().unwrap().port(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.sock");
        serve(crate::socket::listen(&path).unwrap(), vec![forward]);

        let mut client = crate::socket::connect(&path).unwrap();
        client
            .write_all(b"CONNECT 10.0.2.15:10250 HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut answer = [0; 39];
        client.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
        let (mut kubelet, _) = node.accept().unwrap();
        client.write_all(b"ping").unwrap();
        let mut ping = [0; 4];
        kubelet.read_exact(&mut ping).unwrap();
        assert_eq!(&ping, b"ping");

        let mut other = crate::socket::connect(&path).unwrap();
        other
            .write_all(b"CONNECT 10.0.2.16:10250 HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer:?}");
    }
}
