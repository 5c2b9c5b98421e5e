//! The relay: two directions, each "write what waits, then read a batch", driven by one future.
//!
//! Rules that the code below keeps:
//! - A direction reads only when nothing of it waits to be written. So memory is bounded by one batch.
//! - All whole records of a batch are decrypted at once, also when the plain side is slow: sealing in the other
//!   direction must not meet unread records, or a stalled reader on one side would stall both directions.
//! - When a write to a side fails, what that side had sent before is still carried over: an application
//!   may answer and close without reading on, a TLS peer says why it left in an alert.
use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use rustls::{Error, InvalidMessage};

use crate::{
    Deadlines, Socket, TlsStream,
    buffers::Buffers,
    deadline::{Clock, Passed},
};

/// Bytes moved in one poll before other tasks get their turn.
const TURN: usize = 1 << 20;

/// Bytes relayed; shared, so that the record of a connection has them however it ends.
#[derive(Debug, Default)]
pub struct Counters {
    /// Plaintext bytes from the TLS side that the plain side's socket took.
    pub tls_to_plain: AtomicU64,
    /// Plaintext bytes from the plain side, encrypted for the TLS side.
    pub plain_to_tls: AtomicU64,
}

/// How a relay ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End {
    /// Both directions ended cleanly.
    Complete,
    /// Nothing moved for `Deadlines::idle`.
    IdleTimeout,
    /// One direction had ended and nothing moved for `Deadlines::half_close`.
    HalfCloseTimeout,
    /// The TLS side's socket failed (reset).
    TlsSocket(io::Error),
    /// The TLS peer closed without close_notify (truncation).
    TlsTruncated,
    /// The TLS peer broke the protocol or sent a fatal alert.
    Tls(Error),
    /// The plain side's socket failed (reset).
    PlainSocket(io::Error),
}

/// Carries bytes both ways until both directions have ended, a deadline passes, or a side fails.
/// Half-close is kept: close_notify becomes shutdown(Write) and the reverse.
///
/// Dropping the future cuts both sides: a reset to each.
pub fn relay(
    tls: TlsStream,
    plain: Socket,
    deadlines: Deadlines,
    counters: Arc<Counters>,
) -> Relay {
    let to_plain = if tls.engine.peer_closed() {
        Flow::Ending
    } else {
        Flow::Open
    };
    Relay {
        tls,
        plain,
        counters,
        clock: Clock::new(deadlines),
        to_plain,
        to_tls: Flow::Open,
        fault: None,
        failed: false,
        cut: Cut::Both,
    }
}

/// A relay in progress, see [`relay`].
#[must_use = "futures do nothing unless polled"]
pub struct Relay {
    tls: TlsStream,
    plain: Socket,
    counters: Arc<Counters>,
    clock: Option<Clock>,
    to_plain: Flow,
    to_tls: Flow,
    /// Why the relay ends once what was received is delivered.
    fault: Option<Box<End>>,
    /// A side has failed; what follows is salvage.
    failed: bool,
    cut: Cut,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// The source has ended; the sink must be told once what waits is written.
    Ending,
    Ended,
}

/// Which sockets are reset when the relay goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    Plain,
    Neither,
}

/// The state of one poll.
struct Turn<'a> {
    buffers: &'a mut Buffers,
    /// Ciphertext at the front of `buffers.tls_in` that is not a whole record yet.
    carried: usize,
    /// Bytes moved.
    moved: usize,
}

impl Relay {
    fn poll_turn(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<End> {
        loop {
            let to_plain = self.poll_to_plain(cx, turn);
            if let Poll::Ready(Err(end)) = to_plain {
                return Poll::Ready(self.salvage(end, cx, turn));
            }
            let to_tls = self.poll_to_tls(cx, turn);
            if let Poll::Ready(Err(end)) = to_tls {
                return Poll::Ready(self.salvage(end, cx, turn));
            }
            if self.to_plain == Flow::Ended && self.to_tls == Flow::Ended {
                return Poll::Ready(End::Complete);
            }
            if to_plain.is_pending() && to_tls.is_pending() {
                return Poll::Pending;
            }
            if turn.moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// One step from the TLS side to the plain side. Pending when this direction can do nothing now.
    fn poll_to_plain(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut Turn<'_>,
    ) -> Poll<Result<(), End>> {
        if self.to_plain == Flow::Ended {
            return Poll::Pending;
        }
        if !self.tls.received.is_empty() {
            let written = self.plain.poll_flush(cx, &mut self.tls.received);
            self.delivered(written.map_err(End::PlainSocket)?, turn);
            if !self.tls.received.is_empty() {
                return Poll::Pending;
            }
        }
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(*fault));
        }
        if self.to_plain == Flow::Ending {
            self.to_plain = Flow::Ended;
            self.one_has_ended();
            // When both have ended, the close says the same.
            if self.to_tls != Flow::Ended {
                self.plain.shutdown_write().map_err(End::PlainSocket)?;
            }
            return Poll::Ready(Ok(()));
        }
        let waiting = turn.carried + self.tls.incoming.len();
        if waiting == turn.buffers.tls_in.len() {
            let error = Error::InvalidMessage(InvalidMessage::MessageTooLarge);
            return Poll::Ready(Err(End::Tls(error)));
        }
        let read = ready!(
            self.tls
                .socket
                .poll_read(cx, &mut turn.buffers.tls_in[waiting..])
        );
        match read {
            Ok(0) => self.fault = Some(Box::new(End::TlsTruncated)),
            Ok(count) => self.decrypt(waiting + count, cx, turn)?,
            Err(error) => return Poll::Ready(Err(End::TlsSocket(error))),
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts the first `filled` bytes of the buffer and writes their plaintext.
    fn decrypt(
        &mut self,
        filled: usize,
        cx: &mut Context<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), End> {
        let Buffers {
            tls_in, plain_out, ..
        } = &mut *turn.buffers;
        if !self.tls.incoming.is_empty() {
            self.tls.incoming.move_to(tls_in);
        }
        plain_out.clear();
        turn.carried = 0;
        match self.tls.process(&mut tls_in[..filled], plain_out) {
            Ok(_) if self.tls.engine.peer_closed() => self.to_plain = Flow::Ending,
            Ok(consumed) => {
                tls_in.copy_within(consumed..filled, 0);
                turn.carried = filled - consumed;
            }
            Err(error) => self.fault = Some(Box::new(End::Tls(error))),
        }
        let written = self
            .plain
            .poll_write(cx, plain_out)
            .map_err(End::PlainSocket)?;
        self.tls.received.append(&plain_out[written..]);
        self.delivered(written, turn);
        // A batch without plaintext is activity too.
        turn.moved += 1;
        Ok(())
    }

    /// One step from the plain side to the TLS side. Pending when this direction can do nothing now.
    fn poll_to_tls(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<Result<(), End>> {
        if self.to_tls == Flow::Ended {
            return Poll::Pending;
        }
        if !self.tls.outgoing.is_empty() {
            match self.tls.socket.poll_flush(cx, &mut self.tls.outgoing) {
                Ok(written) => turn.moved += written,
                Err(error) => self.tls_write_failed(error)?,
            }
            if !self.tls.outgoing.is_empty() {
                return Poll::Pending;
            }
        }
        if self.to_tls == Flow::Ending {
            self.to_tls = Flow::Ended;
            self.one_has_ended();
            if self.to_plain != Flow::Ended {
                self.tls.socket.shutdown_write().map_err(End::TlsSocket)?;
            }
            return Poll::Ready(Ok(()));
        }
        let read = ready!(self.plain.poll_read(cx, &mut turn.buffers.plain_in));
        let count = read.map_err(End::PlainSocket)?;
        if count == 0 && self.failed {
            // A socket that was reset says so once, and from then on that its stream has ended.
            return Poll::Pending;
        }
        let Buffers {
            tls_in,
            plain_in,
            tls_out,
            ..
        } = &mut *turn.buffers;
        let unread = match turn.carried {
            0 => self.tls.incoming.as_mut_slice(),
            carried => &mut tls_in[..carried],
        };
        let sealed = if count == 0 {
            self.to_tls = Flow::Ending;
            self.tls.engine.close_notify(unread, tls_out)
        } else {
            self.counters
                .plain_to_tls
                .fetch_add(count as u64, Ordering::Relaxed);
            turn.moved += count;
            self.tls.engine.seal(&plain_in[..count], unread, tls_out)
        };
        let sealed = sealed.map_err(End::Tls)?;
        match self.tls.socket.poll_write(cx, &tls_out[..sealed]) {
            Ok(written) => self.tls.outgoing.append(&tls_out[written..sealed]),
            Err(error) => self.tls_write_failed(error)?,
        }
        Poll::Ready(Ok(()))
    }

    /// A peer that has said all and left need not hear our close_notify.
    fn tls_write_failed(&mut self, error: io::Error) -> Result<(), End> {
        if self.to_tls == Flow::Ending && self.tls.engine.peer_closed() {
            self.tls.outgoing = Default::default();
            return Ok(());
        }
        Err(End::TlsSocket(error))
    }

    fn delivered(&self, count: usize, turn: &mut Turn<'_>) {
        if count > 0 {
            self.counters
                .tls_to_plain
                .fetch_add(count as u64, Ordering::Relaxed);
            turn.moved += count;
        }
    }

    fn one_has_ended(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.half_closed();
        }
    }

    /// Carries over what a failed side sent before it failed, as far as that goes without waiting.
    fn salvage(&mut self, end: End, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> End {
        self.failed = true;
        match end {
            End::PlainSocket(_) => while let Poll::Ready(Ok(())) = self.poll_to_tls(cx, turn) {},
            End::TlsSocket(_) => {
                while let Poll::Ready(step) = self.poll_to_plain(cx, turn) {
                    match step {
                        Ok(()) => {}
                        Err(alert @ End::Tls(_)) => return alert,
                        Err(_) => break,
                    }
                }
            }
            _ => {}
        }
        end
    }

    /// Settles how the sockets close.
    fn finish(&mut self, cx: &mut Context<'_>, end: End) -> End {
        self.cut = match end {
            End::Complete => Cut::Neither,
            End::Tls(_) => {
                // The alert that says why; a reset would overtake it.
                let _ = self.tls.socket.poll_flush(cx, &mut self.tls.outgoing);
                let _ = self.tls.socket.shutdown_write();
                Cut::Plain
            }
            _ => Cut::Both,
        };
        end
    }

    /// The deadline that has passed, if any; otherwise the task is woken for the next.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<End> {
        let Some(clock) = &mut self.clock else {
            return Poll::Pending;
        };
        if moved {
            clock.moved();
        }
        let passed = ready!(clock.poll_passed(cx));
        Poll::Ready(match (self.fault.take(), passed) {
            (Some(fault), _) => *fault,
            (None, Passed::Idle) => End::IdleTimeout,
            (None, Passed::HalfClose) => End::HalfCloseTimeout,
        })
    }
}

impl Future for Relay {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        let (polled, moved) = Buffers::with(|buffers| {
            let mut turn = Turn {
                buffers,
                carried: 0,
                moved: 0,
            };
            let polled = this.poll_turn(cx, &mut turn);
            this.tls
                .incoming
                .append(&turn.buffers.tls_in[..turn.carried]);
            (polled, turn.moved > 0)
        });
        let end = match polled {
            Poll::Ready(end) => end,
            Poll::Pending => ready!(this.poll_deadline(cx, moved)),
        };
        Poll::Ready(this.finish(cx, end))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.cut != Cut::Neither {
            self.plain.reset_on_close();
        }
        if self.cut == Cut::Both {
            self.tls.socket.reset_on_close();
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("to_plain", &self.to_plain)
            .field("to_tls", &self.to_tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
