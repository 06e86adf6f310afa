//! Tokio's streams and clock in the shape that hyper asks for.

use hyper::rt::{Read, ReadBufCursor, Sleep, Write};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// A connection on which a write that makes no progress for some time fails,
/// so that a client which does not read cannot keep an answer in memory.
pub struct Stream {
    stream: UnixStream,
    write_time: Duration,
    stalled: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stream {
    /// Wraps a connection.
    pub fn new(stream: UnixStream, write_time: Duration) -> Self {
        Self {
            stream,
            write_time,
            stalled: None,
        }
    }

    /// The connection itself.
    pub fn into_inner(self) -> UnixStream {
        self.stream
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(context))?;
            // Hyper's buffer may be uninitialised, so one of our own is in between.
            let mut buffer = [0u8; 8192];
            let size = buffer.len().min(cursor.remaining());
            match this.stream.try_read(&mut buffer[..size]) {
                Ok(count) => {
                    cursor.put_slice(&buffer[..count]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.stream.poll_write_ready(context)?.is_pending() {
                let write_time = this.write_time;
                let stalled = this
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(write_time)));
                ready!(stalled.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match this.stream.try_write(bytes) {
                Ok(count) => {
                    this.stalled = None;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropping the stream closes it.
        Poll::Ready(Ok(()))
    }
}

/// Tokio's clock.
pub struct Timer;

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let sleep = tokio::time::sleep_until(deadline.into());
        Box::pin(TimerSleep(Box::pin(sleep)))
    }
}

struct TimerSleep(Pin<Box<tokio::time::Sleep>>);

impl Future for TimerSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl Sleep for TimerSleep {}
