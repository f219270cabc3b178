//! Clients that are slow: one that takes nothing of an answer is let go, and so is one whose body does not come.

use super::connections::Place;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a body may take whatever its size.
const BODY_GRACE: Duration = Duration::from_secs(5);

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A connection whose peer must take what is sent to it. It keeps its place as long as it is open, also as a WebSocket.
pub struct Paced {
    stream: TcpStream,
    patience: Duration,
    waits: Option<Pin<Box<Sleep>>>,
    _place: Arc<Place>,
}

impl Paced {
    /// A connection that ends when its peer takes nothing for so long.
    pub fn new(stream: TcpStream, patience: Duration, place: Arc<Place>) -> Self {
        Self {
            stream,
            patience,
            waits: None,
            _place: place,
        }
    }

    fn watch<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waits = None;
            return done;
        }
        let patience = self.patience;
        let waits = self
            .waits
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(too_slow("the client takes nothing of the answer")))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(done, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(done, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A request's body that must come at a least rate. Only time spent waiting for the client counts.
pub struct PacedBody {
    inner: Incoming,
    bytes_per_s: f64,
    received: u64,
    waited: Duration,
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl PacedBody {
    /// A body that must come with so many bytes per second after its grace.
    pub fn new(inner: Incoming, bytes_per_s: f64) -> Self {
        Self {
            inner,
            bytes_per_s,
            received: 0,
            waited: Duration::ZERO,
            waits: None,
        }
    }
}

/// How long a client that has sent so much may have let us wait.
fn allowance(received: u64, bytes_per_s: f64) -> Duration {
    BODY_GRACE.saturating_add(Duration::try_from_secs_f64(received as f64 / bytes_per_s).unwrap_or(Duration::MAX))
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut body.inner).poll_frame(context) {
            if let Some((since, _)) = body.waits.take() {
                body.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                body.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (received, waited, rate) = (body.received, body.waited, body.bytes_per_s);
        let (_, sleep) = body.waits.get_or_insert_with(|| {
            let left = allowance(received, rate).saturating_sub(waited);
            // Tokio's timers end within years.
            let end = Instant::now() + left.min(Duration::from_secs(24 * 3600));
            (Instant::now(), Box::pin(sleep_until(end)))
        });
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Some(Err(too_slow("the body comes too slowly").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_grace_and_then_its_rate() {
        assert_eq!(allowance(0, 1024.0), Duration::from_secs(5));
        assert_eq!(allowance(10 << 10, 1024.0), Duration::from_secs(15));
        assert!(allowance(u64::MAX, 1e-9) >= Duration::from_secs(1 << 40));
    }
}
