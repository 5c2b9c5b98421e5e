//! `grpc.health.v1.Health`: for the server as a whole (the empty name) and for each
//! service that this listener serves. Not serving while `/readyz` says not ready.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};

use super::drained;
use crate::readiness::Readiness;

/// How often a watched state is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The health of what one listener serves.
#[derive(Debug, Clone)]
pub struct HealthApi {
    /// What is looked at.
    pub readiness: Arc<Readiness>,
    /// Full names of the services of this listener.
    pub services: &'static [&'static str],
    /// Turns true when the issuer drains.
    pub draining: watch::Receiver<bool>,
}

impl HealthApi {
    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !self.services.contains(&service) {
            return ServingStatus::ServiceUnknown;
        }
        match self.readiness.is_ready(SystemTime::now()) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthApi {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "no service of this name is served here: known are {}",
                self.services.join(", ")
            ))),
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    /// The state at once, then each change. Ends with `UNAVAILABLE` when the issuer
    /// drains.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let (send, receive) = mpsc::channel(2);
        let mut health = self.clone();
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let status = health.status(&service);
                if told != Some(status) && send.send(Ok(answer(status))).await.is_err() {
                    return;
                }
                told = Some(status);
                if *health.draining.borrow() {
                    let end = Status::unavailable("the issuer is stopping: connect again");
                    // The watcher may be gone.
                    let _ = send.send(Err(end)).await;
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_INTERVAL) => {}
                    () = drained(&mut health.draining) => {}
                    () = send.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}
