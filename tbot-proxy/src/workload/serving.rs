//! A running Workload API or Broker API.

use std::{io, net::TcpListener, sync::Arc};

use proxy::{Address, StartError};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use workload_api::{Listener, Server, broker::BrokerServer};

use super::WorkloadIdentities;
use crate::{
    configuration::{BrokerApi, SharedAddress, WorkloadApi},
    served::Served,
    state::{Health, IdentityState},
    systemd,
};

/// A Workload API or a Broker API that serves until it is stopped.
#[derive(Debug)]
pub(crate) struct ApiTask {
    shutdown: CancellationToken,
    task: AbortOnDropHandle<()>,
    _readiness: AbortOnDropHandle<()>,
}

impl ApiTask {
    /// Listens for workloads, at once.
    pub(crate) fn workload_api(
        service: &str,
        api: &WorkloadApi,
        identities: WorkloadIdentities,
        bot: watch::Receiver<IdentityState>,
        health: Health,
    ) -> Result<Self, StartError> {
        let listener = bind(service, &api.listen, api.socket_mode)?;
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

    /// Listens for brokers, at once; `own` is what they are shown.
    pub(crate) fn broker_api(
        service: &str,
        api: &BrokerApi,
        identities: WorkloadIdentities,
        own: Served,
        health: Health,
    ) -> Result<Self, StartError> {
        let listener = bind(service, &api.listen, api.socket_mode)?;
        tracing::info!(service, listen = %api.listen, "the Broker API listens");
        let source = own.source().clone();
        let server = BrokerServer::at_665a28f(Arc::new(identities), source, api.options.clone());
        let shutdown = CancellationToken::new();
        let stopped = shutdown.clone().cancelled_owned();
        let readiness = own.tell(service.to_owned(), health);
        let task = tokio::spawn(async move {
            server.serve(listener, stopped).await;
            drop(own);
        });
        Ok(Self {
            shutdown,
            task: AbortOnDropHandle::new(task),
            _readiness: readiness,
        })
    }

    /// Gives up the address, at once; every stream is told to connect again. To be waited
    /// for at the end of the process: until then connections close.
    pub(crate) fn stop(self) -> AbortOnDropHandle<()> {
        self.shutdown.cancel();
        self.task
    }
}

fn bind(service: &str, listen: &Address, mode: u32) -> Result<Listener, StartError> {
    match SharedAddress::of(listen) {
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
                        address: listen.clone(),
                        source,
                    })
            }
            None => Listener::bind_unix(&path, mode)
                .map_err(|error| StartError::of_socket(service, error)),
        },
        Some(SharedAddress::Tcp(address)) => {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            bound.map(Listener::from).map_err(|error| {
                let (service, address) = (service.to_owned(), listen.clone());
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
            host: listen.to_string(),
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
