//! Envoy's secret discovery service, v3.

use std::sync::Arc;

use crate::{
    backend::Backend,
    grpc::{Answer, Request, refuse},
    meters::Call,
    service::Session,
};

/// Full name of the service.
pub const SERVICE: &str = "envoy.service.secret.v3.SecretDiscoveryService";

/// What an operator may choose of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {}

pub(crate) enum Method {}
pub(crate) struct Service {}
impl Method {
    pub(crate) fn of(_: &str) -> Option<Self> {
        None
    }
}
impl Service {
    pub(crate) fn new(_: Options) -> Self {
        Self {}
    }
    pub(crate) async fn answer<B: Backend>(
        &self,
        method: Method,
        _: Request,
        _: &Arc<Session<B>>,
    ) -> Answer {
        let _ = (refuse, Call::new);
        match method {}
    }
}
