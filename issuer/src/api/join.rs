//! `tbot.join.v1.JoinService` over the network.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use proto::join::v1::{self as pb, join_request::Evidence, join_service_server::JoinService};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{caller, listener::ConnectionInfo, refuse_stranger, status, timestamp, trust_bundle};
use crate::{
    access::{Denial, Refusal},
    audit::EventName,
    authority::SubjectKey,
    config::Settings,
    join::{self, Agent, BotGrant, Renewal, TokenJoin, limit::FailedJoins},
    resources::TokenSecret,
    service::Issuer,
};

/// Joins and renewals.
#[derive(Debug)]
pub struct JoinApi {
    /// Store and authority.
    pub issuer: Arc<Issuer>,
    /// Life of bot certificates, as it is now.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Who failed lately.
    pub failed: FailedJoins,
}

#[tonic::async_trait]
impl JoinService for JoinApi {
    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::JoinResponse>, Status> {
        let remote = remote(&request);
        let join = async |join| join::join_by_token(&self.issuer, join, SystemTime::now()).await;
        let grant = self.guarded(request.into_inner(), remote, join).await?;
        tracing::info!(id = %grant.id, hostname = grant.instance.hostname, "a bot joined");
        Ok(Response::new(pb::JoinResponse {
            certificate: Some(certificate(grant)),
            trust_bundle: Some(trust_bundle(&self.issuer)),
        }))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewResponse>, Status> {
        let now = SystemTime::now();
        let caller = caller(&self.issuer, &request, EventName::BotRenew, now).await?;
        let request = request.into_inner();
        let id = caller.id.clone();
        let renewal = Renewal {
            caller,
            key: SubjectKey::from_csr(&request.csr_der),
            agent: Agent::new(request.agent),
            ttl: self.settings.borrow().bot_ttl,
        };
        let result = join::renew(&self.issuer, renewal, now).await;
        if let Err(Refusal::Denied { denial, detail }) = &result {
            tracing::warn!(reason = denial.as_str(), detail, %id, "a renewal was refused");
        }
        let grant = result.map_err(status)?;
        tracing::info!(%id, generation = grant.instance.generation, "a bot renewed");
        Ok(Response::new(pb::RenewResponse {
            certificate: Some(certificate(grant)),
            trust_bundle: Some(trust_bundle(&self.issuer)),
        }))
    }
}

impl JoinApi {
    /// Runs a join, charged to where it comes from before the store is asked; what did
    /// not fail is refunded.
    pub(super) async fn guarded<T>(
        &self,
        request: pb::JoinRequest,
        remote: Option<SocketAddr>,
        run: impl AsyncFnOnce(TokenJoin) -> Result<T, Refusal>,
    ) -> Result<T, Status> {
        let Some(Evidence::Token(evidence)) = request.evidence else {
            return Err(self
                .refuse_no_join(remote, "the request carries no evidence")
                .await);
        };
        let charge = match remote {
            None => None,
            Some(remote) => {
                let Some(charge) = self.failed.charge(remote.ip()).await else {
                    return Err(self.refuse_flood(remote).await);
                };
                Some(charge)
            }
        };
        let join = TokenJoin {
            secret: TokenSecret::presented(&evidence.token),
            key: SubjectKey::from_csr(&request.csr_der),
            agent: Agent::new(request.agent),
            remote,
            ttl: self.settings.borrow().bot_ttl,
        };
        let result = run(join).await;
        match &result {
            Err(Refusal::Denied { denial, detail }) => {
                let reason = denial.as_str();
                tracing::warn!(reason, detail, ?remote, "a join was refused");
            }
            Ok(_) | Err(Refusal::Store(_)) => {
                if let Some(charge) = charge {
                    charge.refund();
                }
            }
        }
        result.map_err(status)
    }

    /// The answer to a join from where too many failed.
    async fn refuse_flood(&self, remote: SocketAddr) -> Status {
        let why = "too many failed joins";
        self.refuse(Some(remote), Denial::RateLimited, why).await
    }

    /// The answer to what is no request to join.
    pub(super) async fn refuse_no_join(&self, remote: Option<SocketAddr>, why: &str) -> Status {
        self.refuse(remote, Denial::InvalidRequest, why).await
    }

    /// Refuses before a token is looked at: recorded once a window.
    async fn refuse(&self, remote: Option<SocketAddr>, denial: Denial, why: &str) -> Status {
        metrics::counter!("issuer_joins_total", "result" => denial.as_str()).increment(1);
        refuse_stranger(&self.issuer, EventName::BotJoin, remote, denial, why).await
    }
}

/// Where a call comes from.
pub(super) fn remote<T>(request: &Request<T>) -> Option<SocketAddr> {
    let info = request.extensions().get::<ConnectionInfo>();
    info.map(|info| info.remote)
}

/// A bot certificate as it travels.
pub(super) fn certificate(grant: BotGrant) -> pb::BotCertificate {
    pb::BotCertificate {
        chain_der: vec![grant.leaf.certificate.to_vec()],
        not_after: Some(timestamp(grant.leaf.validity.not_after)),
        renew_at: Some(timestamp(grant.renew_at)),
        bot_name: grant.instance.bot_name,
        instance_id: grant.instance.instance_id,
        generation: grant.instance.generation,
    }
}
