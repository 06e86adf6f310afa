//! systemd's socket activation: sockets that the service manager has opened
//! and hands over as descriptors from 3 on, described by `LISTEN_PID`,
//! `LISTEN_FDS` and `LISTEN_FDNAMES`.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;

/// The sockets handed over to this process with their names
/// (`FileDescriptorName=` of the socket unit), in order; none when no service
/// manager has started it. They are closed in child processes.
///
/// For the start of `main`, before the program opens anything itself: what the
/// environment announces is believed to be at its place. A second call is an
/// error, since each descriptor can have one owner only.
pub fn listen_fds() -> Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).ok();
    let announced = announced(
        std::process::id(),
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        variable("LISTEN_FDNAMES").as_deref(),
    )?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        bail!("the sockets of the service manager were taken before");
    }
    announced
        .into_iter()
        .map(|(descriptor, name)| {
            // SAFETY: the service manager has opened this descriptor for us and
            // tells so with our own process id; the flag above sees to it that
            // it gets no second owner.
            let socket = unsafe { take(descriptor) }
                .with_context(|| format!("taking the socket {name:?} (descriptor {descriptor})"))?;
            Ok((name, socket))
        })
        .collect()
}

/// Which descriptors the environment announces to the process `own_id`.
fn announced(
    own_id: u32,
    process: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<(RawFd, String)>> {
    let (Some(process), Some(count)) = (process, count) else {
        return Ok(Vec::new());
    };
    let process: u32 = process
        .parse()
        .with_context(|| format!("LISTEN_PID is no process id: {process:?}"))?;
    if process != own_id {
        // Meant for a parent, which has left its environment to us.
        return Ok(Vec::new());
    }
    let count: u16 = count
        .parse()
        .with_context(|| format!("LISTEN_FDS is no count: {count:?}"))?;
    let mut names = names.unwrap_or_default().split(':');
    Ok((0..RawFd::from(count))
        .map(|index| {
            let name = names.next().unwrap_or_default();
            (FIRST + index, name.to_string())
        })
        .collect())
}

/// Makes the descriptor ours, and has it closed when a child starts a program.
///
/// # Safety
/// Nothing else in this process may own the descriptor.
unsafe fn take(descriptor: RawFd) -> Result<OwnedFd> {
    // SAFETY: asks about a number; one that is not open is an error.
    let flags = Errno::result(unsafe { libc::fcntl(descriptor, libc::F_GETFD) })
        .context("the descriptor is not open")?;
    // SAFETY: changes a flag of a descriptor that the caller leaves to us.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags | libc::FD_CLOEXEC) })
        .context("setting the descriptor to be closed in children")?;
    // SAFETY: it is open, as just seen, and the caller leaves it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;

    #[test]
    fn reads_the_announcement() {
        let check = |process, count, names, expected: &[(RawFd, &str)]| {
            let found = announced(7, process, count, names).expect("valid");
            let found: Vec<(RawFd, &str)> = found
                .iter()
                .map(|(number, name)| (*number, name.as_str()))
                .collect();
            assert_eq!(found, expected, "{process:?} {count:?} {names:?}");
        };
        check(None, None, None, &[]);
        check(Some("7"), None, Some("a"), &[]);
        check(Some("8"), Some("2"), Some("a:b"), &[]);
        check(Some("7"), Some("0"), None, &[]);
        check(Some("7"), Some("2"), Some("a:b"), &[(3, "a"), (4, "b")]);
        check(Some("7"), Some("2"), Some("a"), &[(3, "a"), (4, "")]);
        check(Some("7"), Some("1"), None, &[(3, "")]);
        for (process, count, named) in [
            ("x", "1", "LISTEN_PID"),
            ("7", "-1", "LISTEN_FDS"),
            ("7", "99999", "LISTEN_FDS"),
        ] {
            let error = announced(7, Some(process), Some(count), None).expect_err("refused");
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn a_socket_is_taken_and_kept_from_children() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("socket");
        let address = socket.local_addr().expect("address");
        let number = socket.into_raw_fd();
        // SAFETY: the listener has just given the descriptor up.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        // SAFETY: as above.
        let taken = unsafe { take(number) }.expect("open");
        // SAFETY: asks about an open descriptor.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert_eq!(
            TcpListener::from(taken).local_addr().expect("address"),
            address
        );
    }

    #[test]
    fn a_closed_descriptor_is_an_error() {
        // SAFETY: nobody owns a negative descriptor.
        let error = unsafe { take(-1) }.expect_err("not open");
        assert!(format!("{error:#}").contains("not open"), "{error:#}");
    }
}
