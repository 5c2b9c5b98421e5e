//! Connections: accepted until the server drains, each driven to its end.
//!
//! One ends when `ended` says so, when it says nothing for too long before its first
//! request, and when the server drains: every stream is told UNAVAILABLE, which clients
//! take as "connect again", and what is not closed then is cut.

mod places;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::places::{Place, Places};

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

/// What a connection and the calls on it tell each other.
#[derive(Debug)]
pub(crate) struct Life {
    /// The server stops.
    pub(crate) drain: CancellationToken,
    /// There was a request.
    pub(crate) has_asked: AtomicBool,
}

impl Life {
    pub(crate) fn new(drain: &CancellationToken) -> Self {
        Self {
            drain: drain.clone(),
            has_asked: AtomicBool::new(false),
        }
    }
}

/// Answers the calls of a connection.
pub(crate) trait Session: Send + Sync + 'static {
    fn life(&self) -> &Life;

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
    let cut = CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    let connections = TaskTracker::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok(stream) => {
                if let Some(connection) = connection(stream, &drain) {
                    connections.spawn(cut.clone().run_until_cancelled_owned(connection));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Nobody connects from here on.
    drop(listener);
    drain.cancel();
    connections.close();
    if timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(
            left = connections.len(),
            "connections were still open after the drain and are cut"
        );
    }
}

/// How a connection is driven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_streams: u32,
    /// How long it may be silent.
    pub(crate) first_request: Duration,
}

/// Serves a connection until it closes, or `ended`.
pub(crate) async fn drive<S: Session>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    session: Arc<S>,
    mut ended: BoxFuture<'static, ()>,
    limits: Limits,
    _place: Place,
) {
    let _connected = Connected::new();
    let answer = {
        let session = session.clone();
        service_fn(move |request| {
            let answer = session.clone().answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buf_size(64 * 1024)
        .auto_date_header(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Mended::new(stream)), answer));
    let life = session.life();
    let mut drained = pin!(life.drain.cancelled());
    let mut silence = Some(Box::pin(sleep(limits.first_request)));
    let mut is_draining = false;
    poll_fn(|context| {
        if ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if let Some(timer) = &mut silence {
            let has_asked = life.has_asked.load(Ordering::Relaxed);
            match timer.as_mut().poll(context).is_ready() {
                true if !has_asked => {
                    meters::refused("silent");
                    return Poll::Ready(());
                }
                true => silence = None,
                false => {}
            }
        }
        if !is_draining && drained.as_mut().poll(context).is_ready() {
            is_draining = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended with an error");
                }
                Poll::Ready(())
            }
        }
    })
    .await;
}
