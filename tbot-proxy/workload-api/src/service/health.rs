//! `grpc.health.v1.Health`: what is served here is healthy until the server drains.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use super::Session;
use crate::{
    backend::Backend,
    grpc::{self, Answer, Request, framed, message},
    meters::Call,
};

pub(super) const SERVICE: &str = "grpc.health.v1.Health";

#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Check,
    Watch,
}

impl Method {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "Check" => Some(Self::Check),
            "Watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

impl<B: Backend> Session<B> {
    pub(super) async fn health(self: Arc<Self>, method: Method, request: Request) -> Answer {
        let call = match method {
            Method::Check => Call::new("Check", false),
            Method::Watch => Call::new("Watch", true),
        };
        let service = match message::<HealthCheckRequest>(request.into_body()).await {
            Ok(asked) => asked.service,
            Err(status) => return grpc::refuse(&status, call),
        };
        let services = &self.service.services;
        let is_known = service.is_empty() || services.contains(&service.as_str());
        match method {
            Method::Check if is_known => grpc::answer(Ok(state(ServingStatus::Serving)), call),
            Method::Check => {
                let known = services.join(", ");
                let why = format!("no service of this name is served here: known are {known}");
                grpc::refuse(&Status::not_found(why), call)
            }
            Method::Watch => {
                let now = match is_known {
                    true => ServingStatus::Serving,
                    false => ServingStatus::ServiceUnknown,
                };
                let first = stream::iter([Ok(state(now))]);
                // The drain ends it.
                let never = stream::pending();
                grpc::stream(first.chain(never), &self.drain, call)
            }
        }
    }
}

fn state(status: ServingStatus) -> Bytes {
    framed(&HealthCheckResponse {
        status: status.into(),
    })
}
