//! The server: `accept → identify the caller → serve HTTP/2 → answer`.
//!
//! A connection ends when its process does, when it says nothing for too long before
//! its first request, and when the server drains: every stream is told UNAVAILABLE,
//! which clients take as "connect again", and what is not closed then is cut.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authority::Mended,
    backend::Backend,
    listener::{Listener, Stream},
    meters::{self, Connected},
    options::Options,
    service::{Service, Session},
};

/// How long to wait after an accept that failed for want of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// What a client may send before it is read. Requests are small.
const WINDOW: u32 = 65_535;
/// Longest list of headers: gRPC's own default.
const HEADERS_MAX: u32 = 16 * 1024;

/// Serves one backend on any number of listeners.
pub struct Server<B> {
    service: Arc<Service<B>>,
    options: Options,
    connections: Arc<AtomicUsize>,
}

impl<B: Backend> Server<B> {
    /// Nothing is served before [`serve`](Self::serve).
    pub fn new(backend: Arc<B>, options: Options) -> Self {
        Self {
            service: Arc::new(Service::new(backend, &options)),
            options,
            connections: Arc::default(),
        }
    }

    /// Accepts until `shutdown`; returns when the connections have closed, which takes
    /// [`Options::drain`] at most. Dropped before: connections end at once.
    pub async fn serve(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
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
                    if let Some(connection) = self.connection(stream, &drain) {
                        let cut = cut.clone();
                        connections.spawn(async move {
                            let mut cut = pin!(cut.cancelled());
                            let mut connection = pin!(connection);
                            poll_fn(|context| match cut.as_mut().poll(context).is_ready() {
                                true => Poll::Ready(()),
                                false => connection.as_mut().poll(context),
                            })
                            .await;
                        });
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
        if timeout(self.options.drain, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = connections.len(),
                "connections were still open after the drain and are cut"
            );
        }
    }

    /// A connection to be driven to its end; `None`: it was closed.
    fn connection(
        &self,
        stream: Stream,
        drain: &CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let place = Place::take(&self.connections, self.options.max_connections)?;
        let backend = &self.service.backend;
        let caller = match &stream {
            Stream::Unix(stream) => backend.accepted_unix(stream),
            Stream::Tcp(stream) => backend.accepted_tcp(stream),
        };
        let caller = match caller {
            Ok(caller) => Arc::new(caller),
            Err(error) => {
                meters::refused("unknown_caller");
                tracing::warn!(%error, "a connection was closed: its process could not be told");
                return None;
            }
        };
        let ended = backend.ended(&caller);
        let session = Arc::new(Session {
            service: self.service.clone(),
            caller,
            drain: drain.clone(),
            has_asked: AtomicBool::new(false),
        });
        Some(drive(
            stream,
            session,
            ended,
            self.options.first_request,
            self.options.max_streams,
            place,
        ))
    }
}

impl<B> std::fmt::Debug for Server<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("options", &self.options)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// Serves a connection until it closes.
async fn drive<B: Backend>(
    stream: Stream,
    session: Arc<Session<B>>,
    mut ended: BoxFuture<'static, ()>,
    first_request: Duration,
    max_streams: u32,
    _place: Place,
) {
    let _connected = Connected::new();
    let answer = {
        let session = session.clone();
        // Boxed: a stream's task has room for what it is most of its life.
        service_fn(move |request| {
            let answer = Box::pin(session.clone().answer(request));
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(max_streams)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buf_size(64 * 1024)
        .auto_date_header(false);
    let mut connection = pin!(http.serve_connection(TokioIo::new(Mended::new(stream)), answer));
    let drain = session.drain.clone();
    let mut drained = pin!(drain.cancelled());
    let mut silence = Some(Box::pin(sleep(first_request)));
    let mut is_draining = false;
    poll_fn(|context| {
        if ended.as_mut().poll(context).is_ready() {
            tracing::debug!("a connection is closed: its process has ended");
            return Poll::Ready(());
        }
        if let Some(timer) = &mut silence {
            let has_asked = session.has_asked.load(Ordering::Relaxed);
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

/// A place among the connections, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = connections.fetch_add(1, Ordering::Relaxed);
        let place = Self(connections.clone());
        if before < most {
            return Some(place);
        }
        meters::refused("too_many");
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
