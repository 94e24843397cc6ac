//! A stream that is sealed where there is a key, and clear where there is none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::SealedStream;

/// One type for both kinds of streams.
#[derive(Debug)]
pub enum Wire<S> {
    /// Between processes of one host, or where there are no keys.
    Clear(S),
    /// Between hosts.
    Sealed(Box<SealedStream<S>>),
}

impl<S> From<SealedStream<S>> for Wire<S> {
    fn from(stream: SealedStream<S>) -> Self {
        Self::Sealed(Box::new(stream))
    }
}

/// Hands a poll on to whichever stream is inside.
macro_rules! on_inner {
    ($self:ident, $method:ident($($arg:expr),*)) => {
        match $self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).$method($($arg),*),
            Wire::Sealed(stream) => Pin::new(&mut **stream).$method($($arg),*),
        }
    };
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_inner!(self, poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_inner!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_inner!(self, poll_shutdown(cx))
    }
}
