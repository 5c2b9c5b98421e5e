//! The data path: TLS by rustls' unbuffered API over TCP or Unix sockets, and a
//! bidirectional relay between a TLS side and a plain side that holds no buffer while idle.
//!
//! What it promises:
//! - **Buffers belong to the worker thread** and are borrowed within one poll, never across an
//!   await. A connection owns only what a socket did not take or a record that is not whole yet,
//!   at most a quarter of a MiB, and gives that memory back as soon as it is drained.
//! - **Backpressure**: a side is not read while bytes for the other side wait.
//! - **Ends keep their meaning.** close_notify becomes shutdown(Write) and the reverse, each
//!   direction by itself; whatever ends otherwise (a reset, truncation, a deadline, the future
//!   dropped) is a TCP reset to the plain side and no close_notify to the TLS side, so that neither can
//!   take it for completion. (A Unix socket cannot be reset: its peer sees the end of the stream.)
//! - **No work for what is not configured**: no timer without a deadline, one timer otherwise, never
//!   re-armed by traffic.
//!
//! Socket options (`TCP_NODELAY`, keepalive) are the caller's.
mod buffers;
mod byte_stream;
mod deadline;
mod engine;
mod handshake;
mod refusal;
mod relay;
mod socket;
mod stream;

pub use deadline::Deadlines;
pub use handshake::{HandshakeError, accept, connect};
pub use relay::{Counters, End, Relay, relay};
pub use socket::Socket;
pub use stream::TlsStream;

#[cfg(test)]
#[path = "../tests/support/support.rs"]
mod support;
