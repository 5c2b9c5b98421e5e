//! The methods of the Workload API.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use identity::{JwtSvid, Leeway, SpiffeId, jwt_svid};
use prost_types::{ListValue, Struct, Value, value::Kind};
use proto::workload as pb;
use tonic::Status;

use super::{HEADER, Session, check_header};
use crate::{
    backend::Backend,
    grpc::{self, Answer, Request, framed, message},
    meters::Call,
    responses,
    shared::{Messages, status},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    X509Svid,
    X509Bundles,
    JwtSvid,
    JwtBundles,
    ValidateJwt,
    WitSvid,
    WitBundles,
}

impl Method {
    pub(super) fn of(name: &str) -> Option<Self> {
        let all = [
            Self::X509Svid,
            Self::X509Bundles,
            Self::JwtSvid,
            Self::JwtBundles,
            Self::ValidateJwt,
            Self::WitSvid,
            Self::WitBundles,
        ];
        all.into_iter().find(|method| method.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::X509Svid => "FetchX509SVID",
            Self::X509Bundles => "FetchX509Bundles",
            Self::JwtSvid => "FetchJWTSVID",
            Self::JwtBundles => "FetchJWTBundles",
            Self::ValidateJwt => "ValidateJWTSVID",
            Self::WitSvid => "FetchWITSVID",
            Self::WitBundles => "FetchWITBundles",
        }
    }

    fn is_stream(self) -> bool {
        !matches!(self, Self::JwtSvid | Self::ValidateJwt)
    }
}

impl<B: Backend> Session<B> {
    pub(super) async fn workload(self: Arc<Self>, method: Method, request: Request) -> Answer {
        let call = Call::new(method.name(), method.is_stream());
        let may = check_header(request.headers(), HEADER).and_then(|()| self.offers(method));
        if let Err(status) = may {
            return grpc::refuse(&status, call);
        }
        let body = request.into_body();
        macro_rules! read {
            ($message:ty) => {
                match message::<$message>(body).await {
                    Ok(message) => message,
                    Err(status) => return grpc::refuse(&status, call),
                }
            };
        }
        let service = &self.service;
        let (backend, encoders) = (&service.backend, &service.encoders);
        let (caller, drain) = (&self.caller, &self.drain);
        match method {
            Method::X509Svid => {
                let pb::X509svidRequest {} = read!(pb::X509svidRequest);
                let states = backend.x509(caller);
                grpc::stream(Messages::new(states, &encoders.x509), drain, call)
            }
            Method::X509Bundles => {
                let pb::X509BundlesRequest {} = read!(pb::X509BundlesRequest);
                let states = backend.bundles(caller);
                grpc::stream(Messages::new(states, &encoders.x509_bundles), drain, call)
            }
            Method::JwtBundles => {
                let pb::JwtBundlesRequest {} = read!(pb::JwtBundlesRequest);
                let states = backend.bundles(caller);
                grpc::stream(Messages::new(states, &encoders.jwt_bundles), drain, call)
            }
            Method::JwtSvid => {
                let asked = read!(pb::JwtsvidRequest);
                grpc::answer(self.jwt(asked).await, call)
            }
            Method::ValidateJwt => {
                let asked = read!(pb::ValidateJwtsvidRequest);
                grpc::answer(self.validate(&asked), call)
            }
            Method::WitSvid => {
                let asked = read!(pb::WitsvidRequest);
                match wanted(&asked.spiffe_id) {
                    Err(status) => grpc::refuse(&status, call),
                    Ok(id) => {
                        let states = backend.wit(caller, id.as_ref());
                        grpc::stream(Messages::new(states, &encoders.wit), drain, call)
                    }
                }
            }
            Method::WitBundles => {
                let pb::WitBundlesRequest {} = read!(pb::WitBundlesRequest);
                let states = backend.bundles(caller);
                grpc::stream(Messages::new(states, &encoders.wit_bundles), drain, call)
            }
        }
    }

    /// WE-15, WA-01, WA-28: a profile that is off is not implemented.
    fn offers(&self, method: Method) -> Result<(), Status> {
        let service = &self.service;
        let (is_on, profile) = match method {
            Method::X509Svid | Method::X509Bundles => (service.x509, "X.509"),
            Method::JwtSvid | Method::JwtBundles | Method::ValidateJwt => (service.jwt, "JWT"),
            Method::WitSvid | Method::WitBundles => (service.wit, "WIT"),
        };
        match is_on {
            true => Ok(()),
            false => Err(Status::unimplemented(format!(
                "the {profile} profile is switched off here"
            ))),
        }
    }

    async fn jwt(&self, asked: pb::JwtsvidRequest) -> Result<Bytes, Status> {
        let id = wanted(&asked.spiffe_id)?;
        check_audiences(&asked.audience)?;
        let backend = &self.service.backend;
        let issued = backend.jwt(&self.caller, &asked.audience, id.as_ref());
        // Waiting for the issuer ends with the server.
        let mut issued = tokio::select! {
            issued = issued => issued.map_err(status)?,
            () = self.drain.cancelled() => return Err(grpc::stopping()),
        };
        // WA-21: only that.
        issued.retain(|jwt| id.as_ref().is_none_or(|id| jwt.id == *id));
        responses::jwt(issued)
    }

    /// WA-25, WA-26.
    fn validate(&self, asked: &pb::ValidateJwtsvidRequest) -> Result<Bytes, Status> {
        if asked.audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        if asked.svid.is_empty() {
            return Err(Status::invalid_argument("svid must be specified"));
        }
        let trust = self.service.backend.trust();
        let now = SystemTime::now();
        let valid = JwtSvid::validate(&asked.svid, &asked.audience, &trust, now, Leeway::default())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let claims = valid.claims().iter();
        Ok(framed(&pb::ValidateJwtsvidResponse {
            spiffe_id: valid.id().to_string(),
            claims: Some(Struct {
                fields: claims
                    .map(|(name, value)| (name.clone(), claim(value)))
                    .collect(),
            }),
        }))
    }
}

/// The identity that is asked for; none: all.
pub(crate) fn wanted(id: &str) -> Result<Option<SpiffeId>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    SpiffeId::parse(id)
        .map(Some)
        .map_err(|error| Status::invalid_argument(format!("spiffe_id: {error}")))
}

/// WA-08, and what a token may hold.
pub(crate) fn check_audiences(audiences: &[String]) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::invalid_argument(why));
    if audiences.is_empty() {
        return refuse("audience must be specified".to_owned());
    }
    if audiences.len() > jwt_svid::MAX_AUDIENCES {
        return refuse(format!(
            "{} audiences: a token has at most {}",
            audiences.len(),
            jwt_svid::MAX_AUDIENCES
        ));
    }
    for (index, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            return refuse(format!("audience {index} (from 0) is empty"));
        }
        if audience.len() > jwt_svid::MAX_AUDIENCE {
            return refuse(format!(
                "audience {index} (from 0) is longer than {} bytes",
                jwt_svid::MAX_AUDIENCE
            ));
        }
    }
    Ok(())
}

fn claim(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // All numbers of a `Struct` are these.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(claim).collect(),
        }),
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members
                .iter()
                .map(|(name, value)| (name.clone(), claim(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}
