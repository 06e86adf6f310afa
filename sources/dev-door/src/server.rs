//! Takes connections and gives each a thread, up to a limit; further ones wait
//! in the kernel's queue until one has ended.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// How long to leave a socket alone that gives no connection, for instance
/// because the process has too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves connections of `listener` for ever, at most `limit` at once. An error
/// of `handle` ends its connection and is logged.
pub fn serve<F>(listener: &TcpListener, name: &str, limit: usize, handle: F)
where
    F: Fn(TcpStream) -> Result<()> + Clone + Send + 'static,
{
    let slots = Slots::new(limit);
    loop {
        let slot = slots.wait();
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!("cannot take a connection to the {name}: {error}");
                thread::sleep(PAUSE);
                continue;
            }
        };
        let handle = handle.clone();
        let started = thread::Builder::new().spawn(move || {
            // Before the API is up, whoever waits for it connects in vain often.
            if let Err(error) = handle(client) {
                tracing::debug!("a connection has ended: {error:#}");
            }
            drop(slot);
        });
        if let Err(error) = started {
            tracing::warn!("cannot start a thread for a connection to the {name}: {error}");
            thread::sleep(PAUSE);
        }
    }
}

/// How many connections may still be taken.
#[derive(Clone)]
struct Slots(Arc<(Mutex<usize>, Condvar)>);

impl Slots {
    fn new(free: usize) -> Self {
        Self(Arc::new((Mutex::new(free), Condvar::new())))
    }

    /// Waits for a free slot, which is taken until the result is dropped.
    fn wait(&self) -> Slot {
        let (free, freed) = &*self.0;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = freed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self.clone())
    }
}

struct Slot(Slots);

impl Drop for Slot {
    fn drop(&mut self) {
        let (free, freed) = &*self.0.0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn connections_beyond_the_limit_wait_for_their_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("socket");
        let address = listener.local_addr().expect("address");
        thread::spawn(move || {
            serve(&listener, "test", 2, |mut client| {
                client.write_all(b"x")?;
                // An error, too, gives the slot back.
                client.read_exact(&mut [0])?;
                Ok(())
            })
        });
        let greeted = |stream: &mut TcpStream, patience| {
            stream
                .set_read_timeout(Some(Duration::from_millis(patience)))
                .expect("timeout");
            stream.read_exact(&mut [0]).is_ok()
        };
        let connect = || TcpStream::connect(address).expect("connection");
        let (mut first, mut second, mut third) = (connect(), connect(), connect());
        assert!(greeted(&mut first, 10_000) && greeted(&mut second, 10_000));
        assert!(!greeted(&mut third, 100));
        drop(first);
        assert!(greeted(&mut third, 10_000));
    }
}
