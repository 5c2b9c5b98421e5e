//! `tbot.issue.v1.IssueService` over the network.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::issue::v1::{self as pb, issue_service_server::IssueService};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{caller, drained, seconds, status, timestamp, trust_bundle};
use crate::{
    access::{Caller, Denial, Refusal},
    audit::{Event, EventName},
    authority::Keyring,
    issue::{self, X509SvidRequest},
    service::Issuer,
    store::instances,
};

/// Issuance and its news.
#[derive(Debug)]
pub struct IssueApi {
    /// Store and authority.
    pub issuer: Arc<Issuer>,
    /// Turns true when the issuer drains.
    pub draining: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl IssueService for IssueApi {
    async fn issue_x509_svid(
        &self,
        request: Request<pb::IssueX509SvidRequest>,
    ) -> Result<Response<pb::IssueX509SvidResponse>, Status> {
        let now = SystemTime::now();
        let caller = caller(&self.issuer, &request, EventName::SvidIssued, now).await?;
        let bot = caller.id.clone();
        let request = request.into_inner();
        let request = X509SvidRequest::new(
            caller,
            request.workload_identity,
            &request.csr_der,
            request.ttl,
        );
        let wanted = request.workload_identity.clone();
        let result = issue::issue_x509_svid(&self.issuer, request, now).await;
        if let Err(Refusal::Denied { denial, detail }) = &result {
            let reason = denial.as_str();
            tracing::warn!(reason, detail, %bot, workload_identity = wanted, "an SVID was refused");
        }
        let grant = result.map_err(status)?;
        tracing::debug!(id = %grant.id, serial = %grant.leaf.serial, %bot, "an SVID was issued");
        Ok(Response::new(pb::IssueX509SvidResponse {
            chain_der: vec![grant.leaf.certificate.to_vec()],
            spiffe_id: grant.id.to_string(),
            serial_number: grant.leaf.serial.to_string(),
            not_before: Some(timestamp(grant.leaf.validity.not_before)),
            not_after: Some(timestamp(grant.leaf.validity.not_after)),
            renew_at: Some(timestamp(grant.renew_at)),
            ttl: Some(seconds(grant.ttl)),
            hint: grant.hint,
            workload_identity_revision: grant.revision,
        }))
    }

    async fn issue_svids(
        &self,
        _: Request<pb::IssueSvidsRequest>,
    ) -> Result<Response<pb::IssueSvidsResponse>, Status> {
        Err(Status::unimplemented("not served yet"))
    }

    async fn join_and_issue(
        &self,
        _: Request<pb::JoinAndIssueRequest>,
    ) -> Result<Response<pb::JoinAndIssueResponse>, Status> {
        Err(Status::unimplemented("not served yet"))
    }

    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let now = SystemTime::now();
        let caller = caller(&self.issuer, &request, EventName::BotWatch, now).await?;
        // Subscribed before the first look, so that no change falls between.
        let changes = self.issuer.store.changes();
        let keyrings = self.issuer.keyrings();
        if let Err(refusal) = admitted(&self.issuer, &caller).await {
            return Err(status(recorded(&self.issuer, &caller, refusal).await));
        }
        let (send, receive) = mpsc::channel(4);
        let watcher = Watcher {
            issuer: self.issuer.clone(),
            lifetime: caller.not_after.duration_since(now).unwrap_or_default(),
            caller,
            changes,
            keyrings,
            draining: self.draining.clone(),
            send,
        };
        tokio::spawn(watcher.run());
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

/// One agent's stream of news.
struct Watcher {
    issuer: Arc<Issuer>,
    caller: Caller,
    lifetime: Duration,
    changes: watch::Receiver<crate::store::Changes>,
    keyrings: watch::Receiver<Arc<Keyring>>,
    draining: watch::Receiver<bool>,
    send: mpsc::Sender<Result<pb::WatchResponse, Status>>,
}

impl Watcher {
    async fn run(mut self) {
        metrics::gauge!("issuer_watch_streams").increment(1.0);
        if let Err(status) = self.follow().await {
            // The agent may be gone.
            let _ = self.send.send(Err(status)).await;
        }
        metrics::gauge!("issuer_watch_streams").decrement(1.0);
    }

    /// Returns when the agent is gone, or with the reason why the stream ends.
    async fn follow(&mut self) -> Result<(), Status> {
        let expiry = tokio::time::sleep(self.lifetime);
        tokio::pin!(expiry);
        let mut seen = *self.changes.borrow_and_update();
        self.keyrings.mark_unchanged();
        if !self.tell(seen.renew).await {
            return Ok(());
        }
        loop {
            tokio::select! {
                () = self.send.closed() => return Ok(()),
                () = drained(&mut self.draining) => {
                    return Err(Status::unavailable("the issuer is stopping: connect again"));
                }
                () = &mut expiry => {
                    return Err(Status::unauthenticated(
                        "the bot certificate of this stream has expired: connect with its successor",
                    ));
                }
                changed = self.keyrings.changed() => {
                    if changed.is_err() || !self.tell(seen.renew).await {
                        return Ok(());
                    }
                }
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the issuer is stopping: connect again"));
                    }
                    let now = *self.changes.borrow_and_update();
                    if now.revision != seen.revision {
                        admitted(&self.issuer, &self.caller).await.map_err(status)?;
                    }
                    if now.renew != seen.renew && !self.tell(now.renew).await {
                        return Ok(());
                    }
                    seen = now;
                }
            }
        }
    }

    async fn tell(&self, renew: Option<(u64, Duration)>) -> bool {
        let (renew_epoch, within) =
            renew.unwrap_or((self.issuer.renew_epoch, self.issuer.renew_within));
        let message = pb::WatchResponse {
            trust_bundles: vec![trust_bundle(&self.issuer)],
            renew_epoch,
            renew_within: Some(prost_types::Duration {
                seconds: i64::try_from(within.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(within.subsec_nanos()).unwrap_or(0),
            }),
        };
        self.send.send(Ok(message)).await.is_ok()
    }
}

/// Whether the caller's instance exists and is not locked, as committed now.
async fn admitted(issuer: &Issuer, caller: &Caller) -> Result<(), Refusal> {
    let read = async {
        let mut connection = issuer.store.read().await?;
        instances::read(&mut connection, &caller.bot_name, &caller.instance_id).await
    };
    let instance = read.await.map_err(Refusal::Store)?;
    match instance.map(|instance| instance.locked_reason) {
        None => Err(Refusal::denied(Denial::UnknownInstance, "")),
        Some(Some(reason)) => Err(Refusal::denied(Denial::Locked, reason)),
        Some(None) => Ok(()),
    }
}

/// Records that a bot may not follow the news; why it may not.
async fn recorded(issuer: &Issuer, caller: &Caller, refusal: Refusal) -> Refusal {
    let Refusal::Denied { denial, detail } = &refusal else {
        return refusal;
    };
    let event = Event::denial(EventName::BotWatch, denial.as_str()).with("error", detail.as_str());
    let source = format!("watch {} {}", denial.as_str(), caller.id);
    match issuer.record_refusal(&source, caller.told_in(event)).await {
        Ok(()) => refusal,
        Err(error) => Refusal::Store(error),
    }
}
