//! A running Workload API.

use std::{io, net::TcpListener, sync::Arc};

use proxy::StartError;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use workload_api::{Listener, Server};

use super::WorkloadIdentities;
use crate::{
    configuration::{SharedAddress, WorkloadApi},
    state::{Health, IdentityState},
    systemd,
};

/// A Workload API that serves until it is stopped.
#[derive(Debug)]
pub(crate) struct ApiTask {
    shutdown: CancellationToken,
    task: AbortOnDropHandle<()>,
    _readiness: AbortOnDropHandle<()>,
}

impl ApiTask {
    /// Listens, at once.
    pub(crate) fn start(
        service: &str,
        api: &WorkloadApi,
        identities: WorkloadIdentities,
        bot: watch::Receiver<IdentityState>,
        health: Health,
    ) -> Result<Self, StartError> {
        let listener = bind(service, api)?;
        tracing::info!(service, listen = %api.listen, "the Workload API listens");
        let server = Server::new(Arc::new(identities), api.options.clone());
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let task = tokio::spawn(async move { server.serve(listener, stopped).await });
        let readiness = tokio::spawn(follow(service.to_owned(), bot, health));
        Ok(Self {
            shutdown,
            task: AbortOnDropHandle::new(task),
            _readiness: AbortOnDropHandle::new(readiness),
        })
    }

    /// Gives up the address, at once; every stream is told to connect again. To be waited
    /// for at the end of the process: until then connections close.
    pub(crate) fn stop(self) -> AbortOnDropHandle<()> {
        self.shutdown.cancel();
        self.task
    }
}

fn bind(service: &str, api: &WorkloadApi) -> Result<Listener, StartError> {
    match SharedAddress::of(&api.listen) {
        Some(SharedAddress::Unix(path)) => match systemd::socket(&path) {
            Some(held) => {
                let listener = held.and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    tokio::net::UnixListener::from_std(listener)
                });
                listener
                    .map(Listener::from)
                    .map_err(|source| StartError::Listen {
                        service: service.to_owned(),
                        address: api.listen.clone(),
                        source,
                    })
            }
            None => Listener::bind_unix(&path, api.socket_mode)
                .map_err(|error| StartError::of_socket(service, error)),
        },
        Some(SharedAddress::Tcp(address)) => {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            bound.map(Listener::from).map_err(|error| {
                let (service, address) = (service.to_owned(), api.listen.clone());
                match error.kind() {
                    io::ErrorKind::AddrInUse => StartError::InUse { service, address },
                    _ => StartError::Listen {
                        service,
                        address,
                        source: error,
                    },
                }
            })
        }
        None => Err(StartError::ListenName {
            service: service.to_owned(),
            host: api.listen.to_string(),
        }),
    }
}

/// It can do its work once there has been a bot identity; what is kept is served without.
async fn follow(service: String, mut bot: watch::Receiver<IdentityState>, health: Health) {
    let mut has_begun = false;
    loop {
        let IdentityState { held, reason } = bot.borrow_and_update().clone();
        has_begun |= held;
        match has_begun {
            true => health.ready(&service, reason),
            false => health.not_ready(&service, reason.unwrap_or_default()),
        }
        if bot.changed().await.is_err() {
            return;
        }
    }
}
