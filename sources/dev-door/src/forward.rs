//! Joins a TCP connection to a Unix socket. Each direction is closed by itself,
//! so a client may end its request and go on reading the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};

/// Carries bytes between `client` and the socket at `target` until both
/// directions have ended.
pub fn forward(client: &TcpStream, target: &Path) -> Result<()> {
    let server = UnixStream::connect(target)
        .with_context(|| format!("connecting to {}", target.display()))?;
    // Answers are short and awaited.
    client
        .set_nodelay(true)
        .context("setting up the connection")?;
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, || pump(client, &server))
            .context("starting the thread of a connection")?;
        pump(&server, client);
        Ok(())
    })
}

/// Carries one direction to its end. When that is an error, one side is gone,
/// and nothing is left for the other direction to do either.
fn pump<'a, From: Stream, To: Stream>(from: &'a From, to: &'a To)
where
    &'a From: Read,
    &'a To: Write,
{
    match io::copy(&mut { from }, &mut { to }) {
        Ok(_) => to.close(Shutdown::Write),
        Err(error) => {
            tracing::debug!("a connection broke: {error}");
            from.close(Shutdown::Both);
            to.close(Shutdown::Both);
        }
    }
}

/// What closing one direction needs, of both kinds of stream.
trait Stream {
    /// Closes; the peer may have done so before.
    fn close(&self, how: Shutdown);
}

impl Stream for TcpStream {
    fn close(&self, how: Shutdown) {
        // Fails when the peer has gone, and then there is nothing to close.
        let _ = self.shutdown(how);
    }
}

impl Stream for UnixStream {
    fn close(&self, how: Shutdown) {
        // As above.
        let _ = self.shutdown(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server;
    use std::io::{BufRead, BufReader};
    use std::net::{SocketAddr, TcpListener};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::time::Duration;

    /// A door to `target`.
    fn door(target: PathBuf) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let address = listener.local_addr().expect("address");
        thread::spawn(move || {
            server::serve(&listener, "api", 8, move |client| forward(&client, &target))
        });
        address
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        stream
    }

    /// Serves each connection at `path` with `serve`, in a thread of its own.
    fn listen(path: &Path, serve: impl Fn(UnixStream) + Copy + Send + 'static) {
        let listener = UnixListener::bind(path).expect("socket");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("connection");
                thread::spawn(move || serve(stream));
            }
        });
    }

    #[test]
    fn a_client_may_end_its_request_and_read_on() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("api.sock");
        listen(&path, |mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).expect("request");
            request.reverse();
            stream.write_all(&request).expect("answer");
        });
        let address = door(path);
        // More than any socket buffers.
        let request: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut expected = request.clone();
        expected.reverse();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (request, expected) = (request.clone(), expected.clone());
                thread::spawn(move || {
                    let mut client = connect(address);
                    client.write_all(&request).expect("request");
                    client.shutdown(Shutdown::Write).expect("half closed");
                    let mut answer = Vec::new();
                    client.read_to_end(&mut answer).expect("answer");
                    assert!(answer == expected);
                })
            })
            .collect();
        for client in clients {
            client.join().expect("client");
        }
    }

    #[test]
    fn several_connections_talk_at_the_same_time() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("api.sock");
        listen(&path, |stream| {
            for line in BufReader::new(&stream).lines() {
                let answer = format!("<{}>\n", line.expect("line"));
                (&stream).write_all(answer.as_bytes()).expect("answer");
            }
        });
        let address = door(path);
        let clients: Vec<TcpStream> = (0..5).map(|_| connect(address)).collect();
        for round in 0..3 {
            for (index, mut client) in clients.iter().enumerate() {
                writeln!(client, "{index} {round}").expect("request");
            }
            for (index, client) in clients.iter().enumerate().rev() {
                let mut answer = String::new();
                BufReader::new(client)
                    .read_line(&mut answer)
                    .expect("answer");
                assert_eq!(answer, format!("<{index} {round}>\n"));
            }
        }
    }

    #[test]
    fn an_end_reaches_the_other_side() {
        let folder = tempfile::tempdir().expect("folder");
        // The server has enough and goes.
        let path = folder.path().join("leaves.sock");
        listen(&path, |mut stream| {
            stream.read_exact(&mut [0]).expect("request");
        });
        let mut client = connect(door(path));
        client.write_all(b"x").expect("request");
        assert_eq!(client.read(&mut [0]).expect("closed"), 0);
        // There is no server.
        let mut client = connect(door(folder.path().join("none.sock")));
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
}
