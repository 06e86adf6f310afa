//! Waiting for the network without asking again and again.

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Addresses and routes of IPv4 and IPv6, as bits of rtnetlink(7).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Changes come in bursts: an address, its route, the next route.
const BURST: Duration = Duration::from_millis(50);

/// The kernel's news of addresses and routes.
pub struct AddressNews {
    socket: OwnedFd,
}

impl AddressNews {
    /// News from now on.
    pub fn subscribe() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .context("open a socket for news of addresses")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))
            .context("ask for news of addresses")?;
        Ok(Self { socket })
    }

    /// Waits until an address or route has come or gone, at most for `timeout`, and
    /// says whether one has.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let has_news = poll(&mut sockets, timeout).is_ok_and(|ready| ready > 0);
        if has_news {
            std::thread::sleep(BURST);
            let mut message = [0; 4096];
            // What the news is does not matter; losing some of it neither.
            while recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()).is_ok() {}
        }
        has_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn without_news_the_time_passes() {
        let news = AddressNews::subscribe().expect("anybody may ask for news");
        let started = Instant::now();
        let wait = Duration::from_millis(100);
        let has_news = news.wait(wait);
        assert!(has_news || started.elapsed() >= wait);
    }
}
