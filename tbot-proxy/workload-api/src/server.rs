//! The server of workloads: `accept → identify the caller → serve HTTP/2 → answer`.

use std::{future::Future, sync::Arc};

use telemetry::Throttle;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    connection::{self, Limits, Peer, Places, drive},
    listener::{Listener, Stream},
    meters,
    options::Options,
    service::{Service, Session},
};

/// Serves one backend on any number of listeners.
pub struct Server<B> {
    service: Arc<Service<B>>,
    options: Options,
    places: Arc<Places>,
    streams: Arc<Places>,
}

impl<B: Backend> Server<B> {
    /// Nothing is served before [`serve`](Self::serve).
    pub fn new(backend: Arc<B>, options: Options) -> Self {
        Self {
            service: Arc::new(Service::new(backend, &options)),
            places: Places::new(options.max_connections, options.max_connections_per_user),
            streams: Places::new(options.max_streams, options.max_streams_per_user),
            options,
        }
    }

    /// Accepts until `shutdown`; returns when the connections have closed, which takes
    /// [`Options::drain`] at most. Dropped before: connections end at once.
    pub async fn serve(&self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let connection = |stream, drain: &_| self.connection(stream, drain);
        connection::accept(listener, shutdown, self.options.drain, connection).await;
    }

    /// A connection to be driven to its end; `None`: it was closed.
    fn connection(
        &self,
        stream: Stream,
        drain: &CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<B>> {
        let backend = &self.service.backend;
        // Over TCP nobody is known.
        let peer = match &stream {
            Stream::Unix(_) => Peer::of(&stream, &**backend),
            Stream::Tcp(_) => None,
        };
        let place = self.places.take(peer);
        let place = place.inspect_err(|full| meters::refused(full.reason()));
        let place = place.ok()?;
        let caller = match &stream {
            Stream::Unix(stream) => backend.accepted_unix(stream),
            Stream::Tcp(stream) => backend.accepted_tcp(stream),
        };
        let caller = match caller {
            Ok(caller) => Arc::new(caller),
            Err(error) => {
                static TOLD: Throttle = Throttle::ten_a_minute();
                meters::refused("unknown_caller");
                if let Some(held_back) = TOLD.pass() {
                    tracing::warn!(%error, held_back, "a connection was closed: its process could not be told");
                }
                return None;
            }
        };
        let ended = backend.ended(&caller);
        let session = Arc::new(Session {
            service: self.service.clone(),
            caller,
            drain: drain.clone(),
        });
        let limits = Limits {
            max_streams: self.options.max_streams_per_connection,
            streams: self.streams.clone(),
            first_request: self.options.first_request,
        };
        Some(drive(stream, session, ended, limits, place))
    }
}

impl<B> std::fmt::Debug for Server<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
