//! What the outside sees: gRPC for agents on the network, gRPC for operators on
//! a Unix socket, HTTP for probes and scrapers on loopback.

pub mod admin;
pub mod admin_socket;
mod audit;
mod authorities;
pub mod diagnostics;
mod explain;
pub mod health;
pub mod http;
pub mod issue;
pub mod join;
pub mod limits;
pub mod listener;
pub mod own_svid;
pub mod requests;

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use proto::join::v1 as pb;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    access::{Caller, Denial, Refusal},
    api::listener::ConnectionInfo,
    audit::{Event, EventName},
    join::limit::network_of,
    resources::{Kind, Spec},
    service::Issuer,
};

/// Largest request of an agent that is read: a certificate request of 16 KiB and
/// what is around it.
pub const REQUEST_MAX: usize = 20 * 1024;
/// Largest set of resources that is applied at once.
pub const APPLY_MAX: usize = 16 * 1024 * 1024;

/// Every trust bundle as it travels: the own one first, then those of other trust
/// domains, each by itself (FE-07).
pub(crate) fn trust_bundles(issuer: &Issuer) -> Vec<pb::TrustBundle> {
    let catalog = issuer.store.catalog();
    let others = catalog
        .resources(Kind::SpiffeFederation, None)
        .filter_map(|resource| match resource {
            Ok(resource) => Some(resource),
            Err(error) => {
                tracing::error!(%error, "a federated trust bundle is left out");
                None
            }
        })
        .filter_map(|resource| match &resource.spec {
            Spec::SpiffeFederation(spec) => Some(pb::TrustBundle {
                trust_domain: spec.bundle.trust_domain().to_string(),
                spiffe_bundle_json: spec.bundle.to_spiffe_json(),
            }),
            _ => None,
        })
        // The own trust domain is told by its own keys only.
        .filter(|bundle| bundle.trust_domain != issuer.trust_domain().as_str());
    std::iter::once(trust_bundle(issuer))
        .chain(others)
        .collect()
}

/// The trust bundle of the own trust domain as it travels.
pub(crate) fn trust_bundle(issuer: &Issuer) -> pb::TrustBundle {
    pb::TrustBundle {
        trust_domain: issuer.trust_domain().to_string(),
        spiffe_bundle_json: issuer.keyring().bundle().to_spiffe_json(),
    }
}

/// The bot that calls. Its certificate was verified when it connected; a
/// connection may outlive it, so its end is looked at again with each call, and
/// recorded as a refusal of what was asked.
pub(crate) async fn caller<T>(
    issuer: &Issuer,
    request: &tonic::Request<T>,
    asked: EventName,
    now: SystemTime,
) -> Result<Arc<Caller>, Status> {
    let info = request.extensions().get::<ConnectionInfo>();
    let Some(caller) = info.and_then(|info| info.caller.clone()) else {
        let remote = info.map(|info| info.remote);
        let why = "it showed no certificate";
        return Err(refuse_stranger(issuer, asked, remote, Denial::NotABot, why).await);
    };
    if caller.not_after > now {
        return Ok(caller);
    }
    let denial = Denial::ExpiredCertificate;
    let event = caller
        .told_in(Event::denial(asked, denial.as_str()))
        .with_time("not_after", caller.not_after);
    let recorded = issuer
        .record_refusal(&format!("expired {asked} {}", caller.id), event)
        .await;
    match recorded {
        Ok(()) => Err(status(Refusal::denied(denial, ""))),
        Err(error) => Err(status(Refusal::Store(error))),
    }
}

/// Records that a caller without a certificate was refused: once a window for where it
/// calls from. The answer to it.
pub(crate) async fn refuse_stranger(
    issuer: &Issuer,
    asked: EventName,
    remote: Option<SocketAddr>,
    denial: Denial,
    why: &str,
) -> Status {
    let event = Event::denial(asked, denial.as_str())
        .with("error", why)
        .with_remote(remote);
    let network = remote.map_or("nowhere".to_owned(), |remote| {
        network_of(remote.ip()).to_string()
    });
    let source = format!("{asked} {} {network}", denial.as_str());
    match issuer.record_refusal(&source, event).await {
        Ok(()) => status(Refusal::denied(denial, why)),
        Err(error) => status(Refusal::Store(error)),
    }
}

/// What the wire learns of a refusal: enough to act on, nothing of what the
/// caller may not know.
pub(crate) fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Store(error) => {
            tracing::error!(%error, "a request could not be recorded and is refused");
            Status::unavailable("the issuer's store is unavailable: try again")
        }
        Refusal::Denied { denial, detail } => match denial {
            Denial::UnknownToken | Denial::UsedToken | Denial::ExpiredToken => {
                Status::unauthenticated("the join token is wrong, used or expired")
            }
            Denial::UnknownBot | Denial::UnknownInstance => {
                Status::permission_denied("this bot instance is not known (any more): join again")
            }
            Denial::ExpiredCertificate => Status::unauthenticated(
                "the bot certificate of this connection has expired: connect with its successor, or join again",
            ),
            Denial::NotABot => Status::unauthenticated(
                "a bot certificate is needed as TLS client certificate: join first",
            ),
            Denial::RateLimited => {
                Status::resource_exhausted("too many failed joins from this address: wait a minute")
            }
            Denial::NotAdmitted => Status::permission_denied("this user may not administrate"),
            Denial::Locked => Status::permission_denied(
                "this bot instance is locked: an operator decides (`issuer bot instances`)",
            ),
            Denial::CopiedIdentity => Status::permission_denied(
                "this bot certificate was renewed already: its identity was copied, and the instance is now locked",
            ),
            Denial::SupersededCertificate => Status::permission_denied(
                "this bot certificate was renewed already, and its successor is in use: use that, or repeat the renewal with its key",
            ),
            Denial::UnknownGeneration => Status::permission_denied(
                "this bot certificate is newer than the issuer's records: join again",
            ),
            // A caller that may not know of a workload identity learns nothing of it.
            Denial::UnknownWorkloadIdentity
            | Denial::LockedIdentity
            | Denial::NoRole
            | Denial::RoleDenies => {
                Status::permission_denied("no role of this bot allows this workload identity")
            }
            Denial::RuleDenies | Denial::NoRule => Status::permission_denied(
                "the rules of this workload identity do not allow it (`issuer audit` tells why)",
            ),
            Denial::Template | Denial::InvalidId | Denial::UnknownFederation => {
                Status::permission_denied(
                    "this workload identity cannot be issued (`issuer audit` tells why)",
                )
            }
            Denial::InvalidCsr
            | Denial::InvalidTtl
            | Denial::InvalidRequest
            | Denial::InvalidAudience => Status::invalid_argument(detail),
            Denial::WitOff => {
                Status::unimplemented("WIT-SVIDs are switched off at this issuer (`wit: true`)")
            }
            Denial::TooMuch => Status::resource_exhausted(detail),
            Denial::Damaged => {
                tracing::error!(detail, "a stored resource cannot be read");
                Status::unavailable("the issuer cannot read what it needs now")
            }
            Denial::Authority => {
                tracing::error!(detail, "the authority cannot sign");
                Status::unavailable("the issuer's authority cannot sign now")
            }
        },
    }
}

/// A moment as it travels.
pub(crate) fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

/// A duration of whole seconds as it travels.
pub(crate) fn seconds(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

/// Returns when the issuer drains.
pub(crate) async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: the process is ending.
    let _ = draining.wait_for(|draining| *draining).await;
}
