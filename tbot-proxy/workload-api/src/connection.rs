//! Connections: accepted until the server drains, each driven to its end.
//!
//! One ends when `ended` says so, when it says nothing for too long before its first
//! request, and when the server drains: every stream is told UNAVAILABLE, which clients
//! take as "connect again", and what is not closed then is cut.

mod exchange;
mod places;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use telemetry::Throttle;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

pub(crate) use self::{
    exchange::Incoming,
    places::{Full, Peer, Place, Places},
};

use self::exchange::{exchange, refuse};

use crate::{
    authority::Mended,
    grpc::{Answer, Request},
    listener::{Listener, Stream},
    meters::{self, Connected},
};

/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// What a client may send before it is read. Requests are small.
const WINDOW: u32 = 65_535;
/// Longest list of headers: gRPC's own default.
const HEADERS_MAX: u32 = 16 * 1024;

/// Answers the calls of a connection.
pub(crate) trait Session: Send + Sync + 'static {
    /// The server stops.
    fn drain(&self) -> &CancellationToken;

    // Boxed: a stream's task has room for what it is most of its life.
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Answer>;
}

/// Accepts until `shutdown`, and returns when the connections have closed, which takes
/// `patience` at most. Dropped before: connections end at once.
pub(crate) async fn accept<F>(
    listener: Listener,
    shutdown: impl Future<Output = ()>,
    patience: Duration,
    mut connection: impl FnMut(Stream, &CancellationToken) -> Option<F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let drain = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok(stream) => {
                if let Some(connection) = connection(stream, &drain) {
                    connections.spawn(connection);
                }
            }
            Err(error) => {
                static TOLD: Throttle = Throttle::ten_a_minute();
                if let Some(held_back) = TOLD.pass() {
                    tracing::warn!(%error, held_back, "a connection could not be accepted");
                }
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Nobody connects from here on.
    drop(listener);
    drain.cancel();
    let closed = async { while connections.join_next().await.is_some() {} };
    if timeout(patience, closed).await.is_err() {
        tracing::warn!(
            left = connections.len(),
            "connections were still open after the drain and are cut"
        );
    }
}

/// How a connection is driven.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// On one connection.
    pub(crate) max_streams: u32,
    /// Those of the server, for the streams of all its connections.
    pub(crate) streams: Arc<Places>,
    /// How long it may be silent.
    pub(crate) first_request: Duration,
}

/// Serves a connection until it closes, or `ended`.
pub(crate) fn drive<T, S>(
    stream: T,
    session: Arc<S>,
    ended: BoxFuture<'static, ()>,
    limits: Limits,
    place: Place,
) -> Connection<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Session,
{
    let http = Box::new(http2(&limits).handshake(Mended::new(stream)));
    Connection {
        http: Http::Greeting(http),
        drained: Box::pin(session.drain().clone().cancelled_owned()),
        session,
        ended,
        silence: Some(Box::pin(sleep(limits.first_request))),
        streams: limits.streams,
        place,
        _connected: Connected::new(),
    }
}

/// A connection that is served while it is polled. There are thousands: what is not
/// always there is in a box.
pub(crate) struct Connection<T, S> {
    http: Http<Mended<T>>,
    session: Arc<S>,
    ended: BoxFuture<'static, ()>,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until the first request.
    silence: Option<Pin<Box<Sleep>>>,
    streams: Arc<Places>,
    place: Place,
    _connected: Connected,
}

impl<T, S> Future for Connection<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Session,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if let Some(timer) = &mut this.silence
            && timer.as_mut().poll(context).is_ready()
        {
            meters::refused("silent");
            return Poll::Ready(());
        }
        let drain = this.drained.as_mut().poll(context).is_ready();
        loop {
            match ready!(this.http.poll_accept(drain, context)) {
                Some(Ok((request, respond))) => {
                    this.silence = None;
                    match this.streams.take(this.place.peer()) {
                        Ok(place) => {
                            let session = this.session.clone();
                            tokio::spawn(exchange(session, request, respond, place));
                        }
                        Err(full) => refuse(&no_place(full), respond),
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection ended with an error");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }
}

/// What a call is told for which there is no place.
fn no_place(full: Full) -> Status {
    meters::stream_refused(full.reason());
    Status::resource_exhausted(match full {
        Full::ForAll(most) => format!(
            "all clients together have {most} streams and calls open here, and there may be no more: try again later, or raise limits.max_streams"
        ),
        Full::ForPeer(most) => format!(
            "your user has {most} streams and calls open here, and may have no more: close some, or raise limits.max_streams_per_user"
        ),
    })
}

fn http2(limits: &Limits) -> server::Builder {
    let mut http = server::Builder::new();
    http.initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buffer_size(64 * 1024);
    http
}

/// HTTP/2 on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what a connection is nearly all the time"
)]
enum Http<T> {
    Greeting(Box<server::Handshake<T>>),
    Serving {
        connection: server::Connection<T, Bytes>,
        is_draining: bool,
    },
}

type Call = (http::Request<RecvStream>, SendResponse<Bytes>);

impl<T: AsyncRead + AsyncWrite + Unpin> Http<T> {
    /// The next call; all calls go on while this is polled.
    fn poll_accept(
        &mut self,
        drain: bool,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Call, h2::Error>>> {
        loop {
            match self {
                Self::Greeting(greeting) => {
                    let connection = match ready!(Pin::new(&mut **greeting).poll(context)) {
                        Ok(connection) => connection,
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    *self = Self::Serving {
                        connection,
                        is_draining: false,
                    };
                }
                Self::Serving {
                    connection,
                    is_draining,
                } => {
                    if drain && !*is_draining {
                        *is_draining = true;
                        connection.graceful_shutdown();
                    }
                    return connection.poll_accept(context);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
