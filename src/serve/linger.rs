//! The end of a connection: closed so that a client that is still sending can read the last answer. A connection that is
//! closed over unread bytes is reset, and a reset takes the answer with it. It must never hold a connection for long.
//!
//! Source: RFC 9112, section 9.6: half-close, then read until the client closes or has had its time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may go on sending what nobody wants.
const LONGEST: Duration = Duration::from_secs(10);
/// How long it may send nothing before it is taken to have gone.
const QUIET: Duration = Duration::from_secs(1);

/// A stream that is closed in stages.
pub struct Lingering<S> {
    stream: S,
    closing: Option<Closing>,
}

struct Closing {
    longest: Instant,
    quiet: Pin<Box<Sleep>>,
}

impl<S> Lingering<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, closing: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, closing } = &mut *self;
        if closing.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let closing = closing.get_or_insert_with(|| Closing {
            longest: Instant::now() + LONGEST,
            quiet: Box::pin(tokio::time::sleep(QUIET)),
        });
        closing.poll(stream, context).map(Ok)
    }
}

impl Closing {
    /// Reads and forgets until the client closes, fails or has had its time.
    fn poll(&mut self, stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<()> {
        let mut forgotten = [0; 16 * 1024];
        loop {
            if self.quiet.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut forgotten);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.quiet.as_mut().reset(self.longest.min(Instant::now() + QUIET));
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_reads_on_until_the_client_closes_and_no_longer_than_its_time() {
        // One that closes, one that rests, and one that never ends.
        let (mut client, server) = tokio::io::duplex(1024);
        let closes = tokio::spawn(async move {
            client.write_all(&vec![0; 100_000]).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap()
        });
        let mut server = Lingering::new(server);
        server.write_all(b"answer").await.unwrap();
        let begun = Instant::now();
        server.shutdown().await.unwrap();
        assert_eq!((closes.await.unwrap(), begun.elapsed()), (6, Duration::ZERO));

        let (_rests, server) = tokio::io::duplex(1024);
        let begun = Instant::now();
        Lingering::new(server).shutdown().await.unwrap();
        assert_eq!(begun.elapsed(), QUIET);

        let (mut client, server) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            while client.write_all(&[0; 10]).await.is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let begun = Instant::now();
        Lingering::new(server).shutdown().await.unwrap();
        assert!((LONGEST..LONGEST + QUIET).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
