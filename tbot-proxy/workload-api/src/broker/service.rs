//! The methods of the Broker API.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};
use identity::SpiffeId;
use proto::broker as pb;
use telemetry::Throttle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, service::Routes};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service as _;

use super::{Broker, HEADER, Options, Reference, SERVICE, Unresolved};
use crate::{
    backend::{BundleContext, X509Context},
    connection,
    grpc::{self, Answer, Request, message},
    meters::Call,
    responses,
    service::{
        check_header, reflection, unknown,
        workload::{check_audiences, wanted},
    },
    shared::{Messages, Shared, status},
};

/// `ErrorInfo.domain` (BA-11).
const DOMAIN: &str = "spiffe.io";

pub(super) struct Service<B> {
    pub(super) backend: Arc<B>,
    allowed: BTreeSet<SpiffeId>,
    is_x509: bool,
    is_jwt: bool,
    x509: Arc<Shared<X509Context, Bytes>>,
    x509_bundles: Arc<Shared<BundleContext, Bytes>>,
    jwt_bundles: Arc<Shared<BundleContext, Bytes>>,
    routes: Routes,
}

impl<B: Broker> Service<B> {
    pub(super) fn new(backend: Arc<B>, options: &Options) -> Self {
        Self {
            backend,
            allowed: options.allowed.clone(),
            is_x509: options.x509,
            is_jwt: options.jwt,
            x509: Shared::new(responses::x509),
            x509_bundles: Shared::new(responses::x509_bundles),
            jwt_bundles: Shared::new(responses::jwt_bundles),
            routes: reflection(&[SERVICE]),
        }
    }
}

/// A connection of a broker.
pub(super) struct Session<B> {
    pub(super) service: Arc<Service<B>>,
    pub(super) broker: SpiffeId,
    pub(super) drain: CancellationToken,
}

impl<B: Broker> connection::Session for Session<B> {
    fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Answer> {
        Box::pin(self.route(request))
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    X509Svid,
    X509Bundles,
    JwtSvid,
    JwtBundles,
}

impl Method {
    fn of(name: &str) -> Option<(Self, &'static str)> {
        match name {
            "SubscribeToX509SVID" => Some((Self::X509Svid, "broker.SubscribeToX509SVID")),
            "SubscribeToX509Bundles" => Some((Self::X509Bundles, "broker.SubscribeToX509Bundles")),
            "FetchJWTSVID" => Some((Self::JwtSvid, "broker.FetchJWTSVID")),
            "SubscribeToJWTBundles" => Some((Self::JwtBundles, "broker.SubscribeToJWTBundles")),
            _ => None,
        }
    }
}

impl<B: Broker> Session<B> {
    async fn route(self: Arc<Self>, request: Request) -> Answer {
        if let Some(answer) = grpc::refusal(&request) {
            return answer;
        }
        if self.drain.is_cancelled() {
            return grpc::stopping().into_http();
        }
        // BE-06: before anything is told, reflection too.
        if !self.service.allowed.contains(&self.broker) {
            static TOLD: Throttle = Throttle::ten_a_minute();
            if let Some(held_back) = TOLD.pass() {
                tracing::warn!(id = %self.broker, held_back, "one that is no broker was refused");
            }
            let status = Status::permission_denied("this SPIFFE ID is not that of a broker");
            return grpc::refuse(&status, Call::new("broker", false));
        }
        let path = request.uri().path();
        let method = path.strip_prefix('/').and_then(|it| it.split_once('/'));
        match method {
            Some((SERVICE, name)) => match Method::of(name) {
                Some((method, name)) => self.call(method, name, request).await,
                None => unknown(path),
            },
            _ => {
                let mut routes = self.service.routes.clone();
                match routes.call(request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                }
            }
        }
    }

    async fn call(&self, method: Method, name: &'static str, request: Request) -> Answer {
        let is_stream = !matches!(method, Method::JwtSvid);
        let call = Call::new(name, is_stream);
        let may = check_header(request.headers(), HEADER).and_then(|()| self.offers(method));
        if let Err(status) = may {
            return grpc::refuse(&status, call);
        }
        let body = request.into_body();
        macro_rules! workload {
            ($message:ty) => {
                match message::<$message>(body).await {
                    Ok(asked) => match self.resolve(asked.reference).await {
                        Ok(caller) => caller,
                        Err(status) => return grpc::refuse(&status, call),
                    },
                    Err(status) => return grpc::refuse(&status, call),
                }
            };
        }
        let service = &self.service;
        let backend = &service.backend;
        let drain = &self.drain;
        match method {
            Method::X509Svid => {
                let caller = workload!(pb::SubscribeToX509svidRequest);
                let messages = Messages::new(backend.x509(&caller), &service.x509);
                grpc::stream(self.until_ended(messages, &caller), drain, call)
            }
            Method::X509Bundles => {
                let caller = workload!(pb::SubscribeToX509BundlesRequest);
                let messages = Messages::new(backend.bundles(&caller), &service.x509_bundles);
                grpc::stream(self.until_ended(messages, &caller), drain, call)
            }
            Method::JwtBundles => {
                let caller = workload!(pb::SubscribeToJwtBundlesRequest);
                let messages = Messages::new(backend.bundles(&caller), &service.jwt_bundles);
                grpc::stream(self.until_ended(messages, &caller), drain, call)
            }
            Method::JwtSvid => {
                let issued = match message::<pb::FetchJwtsvidRequest>(body).await {
                    Ok(asked) => self.jwt(asked).await,
                    Err(status) => Err(status),
                };
                grpc::answer(issued, call)
            }
        }
    }

    /// BA-01.
    fn offers(&self, method: Method) -> Result<(), Status> {
        let (is_on, profile) = match method {
            Method::X509Svid | Method::X509Bundles => (self.service.is_x509, "X.509"),
            Method::JwtSvid | Method::JwtBundles => (self.service.is_jwt, "JWT"),
        };
        match is_on {
            true => Ok(()),
            false => Err(Status::unimplemented(format!(
                "the {profile} profile is switched off here"
            ))),
        }
    }

    async fn resolve(
        &self,
        reference: Option<pb::WorkloadReference>,
    ) -> Result<Arc<B::Caller>, Status> {
        let resolved = async {
            let reference = Reference::read(reference)?;
            let resolved = self.service.backend.resolve(&reference).await;
            tracing::debug!(broker = %self.broker, ?reference, found = resolved.is_ok(), "resolved");
            resolved
        };
        let resolved = tokio::select! {
            resolved = resolved => resolved,
            () = self.drain.cancelled() => return Err(grpc::stopping()),
        };
        // BA-11.
        resolved.map_err(|unresolved| match unresolved {
            Unresolved::Invalid(why) => {
                told(Code::InvalidArgument, why, "WORKLOAD_REFERENCE_INVALID")
            }
            Unresolved::NotFound(why) => told(Code::NotFound, why, "WORKLOAD_NOT_FOUND"),
            Unresolved::Unavailable(why) => Status::unavailable(why),
        })
    }

    async fn jwt(&self, asked: pb::FetchJwtsvidRequest) -> Result<Bytes, Status> {
        let id = wanted(&asked.spiffe_id)?;
        check_audiences(&asked.audience)?;
        let caller = self.resolve(asked.reference).await?;
        let issued = self
            .service
            .backend
            .jwt(&caller, &asked.audience, id.as_ref());
        let mut issued = tokio::select! {
            issued = issued => issued.map_err(|denied| entitled(status(denied)))?,
            () = self.drain.cancelled() => return Err(grpc::stopping()),
        };
        issued.retain(|jwt| id.as_ref().is_none_or(|id| jwt.id == *id));
        responses::jwt(issued).map_err(entitled)
    }

    /// BA-12: nothing more is sent once the workload has ended.
    fn until_ended<C>(&self, messages: Messages<C>, caller: &Arc<B::Caller>) -> UntilEnded<C> {
        UntilEnded {
            messages,
            ended: self.service.backend.ended(caller),
        }
    }
}

struct UntilEnded<C> {
    messages: Messages<C>,
    ended: BoxFuture<'static, ()>,
}

impl<C> Stream for UntilEnded<C> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended.as_mut().poll(context).is_ready() {
            let why = "the workload has ended".to_owned();
            let ended = told(Code::NotFound, why, "WORKLOAD_NOT_FOUND");
            return Poll::Ready(Some(Err(ended)));
        }
        Pin::new(&mut self.messages)
            .poll_next(context)
            .map(|message| message.map(|message| message.map_err(entitled)))
    }
}

/// A refusal with the reason that the standard has for it (BA-11).
fn told(code: Code, why: String, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, why, details)
}

fn entitled(status: Status) -> Status {
    match status.code() {
        Code::PermissionDenied => {
            let why = status.message().to_owned();
            told(Code::PermissionDenied, why, "WORKLOAD_NOT_ENTITLED")
        }
        _ => status,
    }
}
