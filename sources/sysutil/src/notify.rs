//! systemd's readiness protocol: datagrams to the socket that `NOTIFY_SOCKET`
//! names, a path or an abstract name (`@…`). Descriptors to be kept go along.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

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

/// Has the service manager keep `descriptor` under `name`, in place of what it keeps by that
/// name already, and hand it to whatever is started in our place
/// ([`listen_fds`](crate::listen::listen_fds)). The unit has to allow it
/// (`FileDescriptorStoreMax=`).
pub fn keep(name: &str, descriptor: &impl AsFd) -> Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))?;
    send_with(
        &format!("FDSTORE=1\nFDNAME={name}"),
        &[descriptor.as_fd().as_raw_fd()],
    )
}

fn send(message: &str) -> Result<()> {
    send_with(message, &[])
}

fn send_with(message: &str, descriptors: &[RawFd]) -> Result<()> {
    match std::env::var("NOTIFY_SOCKET") {
        Ok(socket) if !socket.is_empty() => send_to(&socket, message, descriptors),
        _ => Ok(()),
    }
}

fn send_to(socket: &str, message: &str, descriptors: &[RawFd]) -> Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = address.and_then(|address| {
        let sender = UnixDatagram::unbound()?;
        sender.connect_addr(&address)?;
        let along = [ControlMessage::ScmRights(descriptors)];
        let along = if descriptors.is_empty() {
            &[][..]
        } else {
            &along
        };
        let text = [IoSlice::new(message.as_bytes())];
        let flags = MsgFlags::empty();
        Ok(sendmsg::<()>(
            sender.as_raw_fd(),
            &text,
            along,
            flags,
            None,
        )?)
    });
    sent.map(drop)
        .with_context(|| format!("sending {message:?} to the service manager at {socket}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Seek, Write};
    use std::os::fd::FromRawFd;

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
            send_to(&address, "READY=1", &[]).expect("sent");
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], b"READY=1");
        }
        let error = send_to("/does/not/exist", "READY=1", &[]).expect_err("nobody there");
        assert!(format!("{error:#}").contains("/does/not/exist"));
    }

    #[test]
    fn a_descriptor_goes_along() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("socket");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(b"kept").expect("written");
        send_to(&path.to_string_lossy(), "FDSTORE=1", &[file.as_raw_fd()]).expect("sent");
        drop(file);
        let mut buffer = [0; 64];
        let mut text = [IoSliceMut::new(&mut buffer)];
        let mut room = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(manager.as_raw_fd(), &mut text, Some(&mut room), flags);
        let received = received.expect("received");
        assert_eq!(received.bytes, b"FDSTORE=1".len());
        let along: Vec<_> = received.cmsgs().expect("whole").collect();
        let [ControlMessageOwned::ScmRights(descriptors)] = along.as_slice() else {
            panic!("{along:?}");
        };
        // SAFETY: it was made for us when the message was received, and nobody else has it.
        let mut file = unsafe { File::from_raw_fd(descriptors[0]) };
        let mut content = String::new();
        file.rewind().expect("a file");
        file.read_to_string(&mut content).expect("read");
        assert_eq!((descriptors.len(), content.as_str()), (1, "kept"));
    }
}
