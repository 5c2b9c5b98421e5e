//! The calls: which method, what it needs, what it answers.

mod health;
pub(crate) mod workload;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};
use tower::Service as _;

use crate::{
    backend::{Backend, BundleContext, WitContext, X509Context},
    connection,
    grpc::{self, Answer, Request},
    meters::Call,
    options::Options,
    responses, sds,
    shared::Shared,
};

/// Metadata that every request to the Workload API carries (WE-04).
pub const HEADER: &str = "workload.spiffe.io";
/// Full name of the Workload API (WE-02).
pub const WORKLOAD_API: &str = "SpiffeWorkloadAPI";

/// What all connections share.
pub(crate) struct Service<B> {
    pub(crate) backend: Arc<B>,
    x509: bool,
    jwt: bool,
    wit: bool,
    sds: Option<sds::Service>,
    encoders: Encoders,
    /// Reflection.
    routes: Routes,
    services: Vec<&'static str>,
}

/// What is made of states, shared by all streams.
#[derive(Debug)]
struct Encoders {
    x509: Arc<Shared<X509Context, Bytes>>,
    x509_bundles: Arc<Shared<BundleContext, Bytes>>,
    jwt_bundles: Arc<Shared<BundleContext, Bytes>>,
    wit: Arc<Shared<WitContext, Bytes>>,
    wit_bundles: Arc<Shared<BundleContext, Bytes>>,
}

impl<B: Backend> Service<B> {
    pub(crate) fn new(backend: Arc<B>, options: &Options) -> Self {
        let mut services = vec![WORKLOAD_API];
        if options.sds.is_some() {
            services.push(sds::SERVICE);
        }
        Self {
            backend,
            x509: options.x509,
            jwt: options.jwt,
            wit: options.wit,
            sds: options.sds.clone().map(sds::Service::new),
            encoders: Encoders {
                x509: Shared::new(responses::x509),
                x509_bundles: Shared::new(responses::x509_bundles),
                jwt_bundles: Shared::new(responses::jwt_bundles),
                wit: Shared::new(responses::wit),
                wit_bundles: Shared::new(responses::wit_bundles),
            },
            routes: reflection(&services),
            services,
        }
    }
}

/// gRPC server reflection of what is served (WE-18, BE-08); it asks for no metadata.
pub(crate) fn reflection(services: &[&'static str]) -> Routes {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let names = services.iter().chain([&health::SERVICE]);
        names.fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let mut routes = Routes::builder();
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            // Of an announced message, that much is kept before it is whole.
            let v1 = v1.max_decoding_message_size(crate::MAX_REQUEST);
            let v1alpha = v1alpha.max_decoding_message_size(crate::MAX_REQUEST);
            routes.add_service(v1).add_service(v1alpha);
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "gRPC reflection is not served");
        }
    }
    routes.routes().prepare()
}

/// A connection, as the calls on it see it.
pub(crate) struct Session<B: Backend> {
    pub(crate) service: Arc<Service<B>>,
    pub(crate) caller: Arc<B::Caller>,
    pub(crate) drain: CancellationToken,
}

impl<B: Backend> connection::Session for Session<B> {
    fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Answer> {
        Box::pin(self.route(request))
    }
}

impl<B: Backend> Session<B> {
    async fn route(self: Arc<Self>, request: Request) -> Answer {
        if let Some(answer) = grpc::refusal(&request) {
            return answer;
        }
        if self.drain.is_cancelled() {
            return grpc::stopping().into_http();
        }
        let path = request.uri().path();
        let Some((service, method)) = path.strip_prefix('/').and_then(|it| it.split_once('/'))
        else {
            return unknown(path);
        };
        if service == WORKLOAD_API {
            return match workload::Method::of(method) {
                Some(method) => self.workload(method, request).await,
                None => unknown(path),
            };
        }
        if service == health::SERVICE {
            return match health::Method::of(method) {
                Some(method) => self.health(method, request).await,
                None => unknown(path),
            };
        }
        if service == sds::SERVICE
            && let Some(sds) = &self.service.sds
        {
            return match sds::Method::of(method) {
                Some(method) => sds.answer(method, request, &self).await,
                None => unknown(path),
            };
        }
        let mut routes = self.service.routes.clone();
        match routes.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

pub(crate) fn unknown(path: &str) -> Answer {
    let call = Call::new("unknown", false);
    let path: String = path.chars().take(200).collect();
    let status = Status::unimplemented(format!("no such method is served here: {path}"));
    grpc::refuse(&status, call)
}

/// WE-05, BE-03: the metadata is there, once, and says exactly `true`.
pub(crate) fn check_header(headers: &HeaderMap, name: &str) -> Result<(), Status> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "security header missing from request: send the metadata {name}: true, once"
        ))),
    }
}
