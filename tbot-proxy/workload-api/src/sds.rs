//! Envoy's secret discovery service, v3: SVIDs and trust bundles under names.
//!
//! A caller's names are: each of its SPIFFE IDs (`TlsCertificate`), the name of the
//! default SVID, each trust domain as `spiffe://name` (`CertificateValidationContext`),
//! the name of the own bundle, and the name of all bundles. One name is one secret.
//!
//! An Envoy gets exactly what it names: a name that is not there gets no answer until it
//! is, and is nobody else's trouble (other servers end the stream, and with it every
//! other secret). Names are never an error, not even too many.

mod delta;
mod names;
mod resources;
mod updates;
mod world;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost_types::{Struct, value::Kind};
use proto::envoy::{config::core::v3::Node, service::discovery::v3 as pb};
use tonic::Status;

use self::{
    delta::Delta,
    resources::Secrets,
    updates::{Protocol as _, Updates},
    world::World,
};
use crate::{
    backend::{Backend, X509Context},
    grpc::{self, Answer, MAX_REQUEST, Request, message, messages},
    meters::Call,
    service::Session,
    shared::{Shared, status},
};

/// Full name of the service.
pub const SERVICE: &str = "envoy.service.secret.v3.SecretDiscoveryService";
/// Type of its resources.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Metadata of an Envoy that wants plain CA certificates; SPIRE has it too.
const NO_VALIDATOR: &str = "disable_spiffe_cert_validation";

/// What an operator may choose of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name of the default SVID (WA-31).
    pub default_svid: String,
    /// Name of the own trust bundle.
    pub default_bundle: String,
    /// Name of all trust bundles.
    pub all_bundles: String,
    /// Trust bundles come with Envoy's SPIFFE validator, which picks the bundle by the
    /// peer's trust domain. It always wants a client certificate. Without: plain CA
    /// certificates, whatever SPIFFE ID they sign, and no [`all_bundles`](Self::all_bundles),
    /// since domains are not to be mixed (FE-07). An Envoy asks for that itself with
    /// `disable_spiffe_cert_validation: true` in its node's metadata.
    pub spiffe_validator: bool,
}

impl Default for Options {
    /// `default`, `ROOTCA` and `ALL`, with the validator.
    fn default() -> Self {
        Self {
            default_svid: "default".to_owned(),
            default_bundle: "ROOTCA".to_owned(),
            all_bundles: "ALL".to_owned(),
            spiffe_validator: true,
        }
    }
}

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Service {
    spiffe_validator: bool,
    with_validator: Secret,
    plain: Secret,
}

/// The secrets of contexts, made once a context.
type Secret = Arc<Shared<X509Context, Secrets>>;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Stream,
    Delta,
    Fetch,
}

impl Method {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "StreamSecrets" => Some(Self::Stream),
            "DeltaSecrets" => Some(Self::Delta),
            "FetchSecrets" => Some(Self::Fetch),
            _ => None,
        }
    }
}

impl Service {
    pub(crate) fn new(options: Options) -> Self {
        let secrets = |validator| {
            let options = options.clone();
            Shared::new(move |context: &X509Context| Ok(Secrets::of(context, &options, validator)))
        };
        Self {
            spiffe_validator: options.spiffe_validator,
            with_validator: secrets(true),
            plain: secrets(false),
        }
    }

    pub(crate) async fn answer<B: Backend>(
        &self,
        method: Method,
        request: Request,
        session: &Session<B>,
    ) -> Answer {
        let states = session.service.backend.x509(&session.caller);
        let body = request.into_body();
        match method {
            Method::Stream => {
                let call = Call::new("StreamSecrets", true);
                let requests = messages(body, MAX_REQUEST);
                let updates = Updates::new(requests, states, self.chooser(), World::default());
                grpc::stream(updates, &session.drain, call)
            }
            Method::Delta => {
                let call = Call::new("DeltaSecrets", true);
                let requests = messages(body, MAX_REQUEST);
                let updates = Updates::new(requests, states, self.chooser(), Delta::default());
                grpc::stream(updates, &session.drain, call)
            }
            Method::Fetch => {
                let call = Call::new("FetchSecrets", false);
                let fetched = self.fetch(message(body), states);
                let fetched = tokio::select! {
                    fetched = fetched => fetched,
                    () = session.drain.cancelled() => Err(grpc::stopping()),
                };
                grpc::answer(fetched, call)
            }
        }
    }

    fn chooser(&self) -> Chooser {
        Chooser {
            with_validator: self.with_validator.clone(),
            plain: self.plain.clone(),
            is_plain: !self.spiffe_validator,
        }
    }

    async fn fetch(
        &self,
        request: impl Future<Output = Result<pb::DiscoveryRequest, Status>>,
        mut states: futures_util::stream::BoxStream<
            'static,
            Result<Arc<X509Context>, crate::Denied>,
        >,
    ) -> Result<Bytes, Status> {
        let mut chooser = self.chooser();
        let mut world = World::default();
        let request = request.await?;
        check_type(&request.type_url)?;
        chooser.meet(request.node.as_ref());
        let context = match states.next().await {
            Some(context) => context.map_err(status)?,
            None => return Err(Status::unavailable("nothing is known yet: try again")),
        };
        let secrets = chooser.secrets(&context)?;
        world.request(request, &secrets)?;
        let pieces = world.all(&secrets);
        Ok(Bytes::from_owner(zeroize::Zeroizing::new(pieces.concat())))
    }
}

/// Which flavour of secrets a stream gets.
struct Chooser {
    with_validator: Secret,
    plain: Secret,
    is_plain: bool,
}

impl Chooser {
    /// Takes note of the Envoy, which tells who it is in its first request only.
    fn meet(&mut self, node: Option<&Node>) {
        let asked = node.and_then(|node| node.metadata.as_ref());
        self.is_plain |= asked.is_some_and(wants_plain);
    }

    fn secrets(&self, context: &Arc<X509Context>) -> Result<Arc<Secrets>, Status> {
        match self.is_plain {
            true => self.plain.of(context),
            false => self.with_validator.of(context),
        }
    }
}

fn wants_plain(metadata: &Struct) -> bool {
    let value = metadata.fields.get(NO_VALIDATOR);
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::BoolValue(value)) => *value,
        Some(Kind::StringValue(text)) => text == "true",
        _ => false,
    }
}

/// What is asked for is secrets.
fn check_type(type_url: &str) -> Result<(), Status> {
    match type_url {
        "" | SECRET => Ok(()),
        other => {
            let other: String = other.chars().take(200).collect();
            Err(Status::invalid_argument(format!(
                "resources of type {other:?} are not served here: ask for {SECRET}"
            )))
        }
    }
}

/// Reads requests as a stream does, and answers; for the fuzzer.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub fn try_requests(context: &X509Context, requests: &[&[u8]], is_delta: bool) {
    use prost::Message as _;
    let secrets = Secrets::of(context, &Options::default(), true);
    let (mut world, mut delta) = (World::default(), Delta::default());
    for request in requests {
        if is_delta {
            if let Ok(request) = pb::DeltaDiscoveryRequest::decode(*request) {
                let _ = delta.request(request, &secrets);
                drop(delta.answer(&secrets));
                assert!(delta.answer(&secrets).is_none(), "answered twice");
            }
        } else if let Ok(request) = pb::DiscoveryRequest::decode(*request) {
            let _ = world.request(request, &secrets);
            drop(world.answer(&secrets));
            assert!(world.answer(&secrets).is_none(), "answered twice");
        }
    }
}
