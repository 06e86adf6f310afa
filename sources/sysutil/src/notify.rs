//! systemd's readiness protocol: datagrams to the socket that `NOTIFY_SOCKET`
//! names, a path or an abstract name (`@…`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::{Context, Result};

/// Tells the service manager that the service has started. Without one
/// nothing happens.
pub fn ready() -> Result<()> {
    send("READY=1")
}

/// Sets the one-line status that `systemctl status` shows.
pub fn status(text: &str) -> Result<()> {
    send(&format!("STATUS={}", text.replace('\n', " ")))
}

/// Has the service manager wait longer for the service to start: until `time`
/// from now.
pub fn extend_timeout(time: Duration) -> Result<()> {
    send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()))
}

fn send(message: &str) -> Result<()> {
    match std::env::var("NOTIFY_SOCKET") {
        Ok(socket) if !socket.is_empty() => send_to(&socket, message),
        _ => Ok(()),
    }
}

fn send_to(socket: &str, message: &str) -> Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address))
        .map(drop)
        .with_context(|| format!("sending {message} to the service manager at {socket}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_sockets_of_both_kinds() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("socket");
        let name = format!("bulkhead-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("address");
        let cases = [
            (
                UnixDatagram::bind(&path).expect("bound"),
                path.to_string_lossy().into_owned(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_address).expect("bound"),
                format!("@{name}"),
            ),
        ];
        for (socket, address) in cases {
            send_to(&address, "READY=1").expect("sent");
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], b"READY=1");
        }
        let error = send_to("/does/not/exist", "READY=1").expect_err("nobody there");
        assert!(format!("{error:#}").contains("/does/not/exist"));
    }
}
