//! [`TlsStream`] as an ordinary byte stream, for what speaks a protocol of its own over it instead of relaying.
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    TlsStream,
    buffers::{Buffers, PLAIN_READ},
};

impl AsyncRead for TlsStream {
    /// The end of the stream is the peer's close_notify; an end without it is `UnexpectedEof`.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.received.is_empty() {
                let count = this.received.len().min(target.remaining());
                target.put_slice(&this.received.as_slice()[..count]);
                this.received.consume(count);
                return Poll::Ready(Ok(()));
            }
            if this.engine.peer_closed() || target.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(Buffers::with(|buffers| this.poll_receive(cx, buffers)))?;
        }
    }
}

impl TlsStream {
    /// Reads and decrypts one batch into `received`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
    ) -> Poll<io::Result<()>> {
        let Buffers {
            tls_in, plain_out, ..
        } = buffers;
        let kept = self.incoming.len();
        if kept == tls_in.len() {
            let error = Error::InvalidMessage(InvalidMessage::MessageTooLarge);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        let count = ready!(self.socket.poll_read(cx, &mut tls_in[kept..]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let filled = self.incoming.move_to(tls_in) + count;
        plain_out.clear();
        let processed = self.process(&mut tls_in[..filled], plain_out);
        self.received.append(plain_out);
        match processed {
            Ok(_) if self.engine.peer_closed() => {}
            Ok(consumed) => self.incoming.append(&tls_in[consumed..filled]),
            Err(error) => {
                let _ = self.socket.poll_flush(cx, &mut self.outgoing);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals at most one batch once all before it is written.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        plain: Option<&[u8]>,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_flush(cx, &mut self.outgoing)?;
        if !self.outgoing.is_empty() {
            return Poll::Pending;
        }
        let unread = self.incoming.as_mut_slice();
        let (taken, sealed) = match plain {
            Some(_) if self.engine.closed() => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Some(plain) => {
                let plain = &plain[..plain.len().min(PLAIN_READ)];
                (
                    plain.len(),
                    self.engine.seal(plain, unread, &mut buffers.tls_out),
                )
            }
            None => (0, self.engine.close_notify(unread, &mut buffers.tls_out)),
        };
        let sealed = &buffers.tls_out[..sealed.map_err(io::Error::other)?];
        let written = self.socket.poll_write(cx, sealed)?;
        self.outgoing.append(&sealed[written..]);
        Poll::Ready(Ok(taken))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        Buffers::with(|buffers| this.poll_send(cx, buffers, Some(plain)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.socket.poll_flush(cx, &mut this.outgoing)?;
        if this.outgoing.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// close_notify, then shutdown(Write). Reading goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.engine.closed() {
            let this = &mut *self;
            ready!(Buffers::with(|buffers| this.poll_send(cx, buffers, None)))?;
        }
        ready!(self.as_mut().poll_flush(cx))?;
        Poll::Ready(self.socket.shutdown_write())
    }
}
