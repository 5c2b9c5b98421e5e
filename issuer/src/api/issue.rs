//! `tbot.issue.v1.IssueService` over the network.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use identity::SpiffeId;
use proto::{
    issue::v1::{self as pb, issue_service_server::IssueService},
    join::v1::JoinResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    caller, drained,
    join::{self as join_api, JoinApi},
    requests::Requests,
    seconds, status, timestamp, trust_bundle, trust_bundles,
};
use crate::{
    access::{self, Caller, Denial, Refusal},
    audit::{Event, EventName},
    authority::Keyring,
    catalog::Catalog,
    issue::{self, Document, Grant, ITEMS_MAX, Outcome},
    join,
    resources::{Kind, Resource},
    service::Issuer,
};

/// Issuance and its news.
#[derive(Debug)]
pub struct IssueApi {
    /// Store and authority.
    pub issuer: Arc<Issuer>,
    /// Who lets bots join.
    pub join: Arc<JoinApi>,
    /// Whose limits a batch is charged to.
    pub requests: Requests,
    /// Turns true when the issuer drains.
    pub draining: watch::Receiver<bool>,
    /// How many agents follow the news.
    pub watchers: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl IssueService for IssueApi {
    async fn issue_svids(
        &self,
        request: Request<pb::IssueSvidsRequest>,
    ) -> Result<Response<pb::IssueSvidsResponse>, Status> {
        let now = SystemTime::now();
        let caller = caller(&self.issuer, &request, EventName::SvidIssued, now).await?;
        let requests = request.into_inner().requests;
        if let Err(refusal) = check_length(requests.len(), ITEMS_MAX) {
            let refusal = recorded(&self.issuer, &caller, EventName::SvidIssued, refusal).await;
            return Err(status(refusal));
        }
        let wanted = wanted(&requests);
        self.requests.charge(&caller, wanted - 1).await?;
        let (bot, names) = (caller.id.clone(), told(&requests));
        let outcomes = issue::issue(&self.issuer, caller.clone(), requests, now).await;
        let outcomes = outcomes.map_err(status)?;
        let granted: usize = outcomes.iter().map(|outcome| outcome.grants.len()).sum();
        let granted = u32::try_from(granted).unwrap_or(u32::MAX);
        self.requests.owe(&caller, granted.saturating_sub(wanted));
        let results = results(&bot, &names, outcomes);
        Ok(Response::new(pb::IssueSvidsResponse { results }))
    }

    async fn join_and_issue(
        &self,
        request: Request<pb::JoinAndIssueRequest>,
    ) -> Result<Response<pb::JoinAndIssueResponse>, Status> {
        let now = SystemTime::now();
        let remote = join_api::remote(&request);
        let pb::JoinAndIssueRequest { join, requests } = request.into_inner();
        let Some(join) = join else {
            let why = "the request carries no evidence";
            return Err(self.join.refuse_no_join(remote, why).await);
        };
        if let Err(Refusal::Denied { detail, .. }) = check_length(requests.len(), join::ISSUED_MAX)
        {
            return Err(self.join.refuse_no_join(remote, &detail).await);
        }
        let names = told(&requests);
        let run = async |join| {
            let items = issue::take_apart(requests).await?;
            join::join_and_issue(&self.issuer, join, items, now).await
        };
        let joined = self.join.guarded(join, remote, run).await?;
        let bot = joined.bot.id.clone();
        tracing::info!(id = %bot, "a bot joined, to have SVIDs issued at once");
        let certificate = join_api::certificate(joined.bot);
        Ok(Response::new(pb::JoinAndIssueResponse {
            join: Some(JoinResponse {
                certificate: (!joined.keyless).then_some(certificate),
                trust_bundle: Some(trust_bundle(&self.issuer)),
            }),
            results: results(&bot, &names, joined.outcomes),
        }))
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
        if let Err(refusal) = admitted(&self.issuer, &caller) {
            let refusal = recorded(&self.issuer, &caller, EventName::BotWatch, refusal).await;
            return Err(status(refusal));
        }
        let (send, receive) = mpsc::channel(4);
        let watcher = Watcher {
            issuer: self.issuer.clone(),
            lifetime: caller.not_after.duration_since(now).unwrap_or_default(),
            caller,
            changes,
            keyrings,
            draining: self.draining.clone(),
            watchers: self.watchers.clone(),
            send,
        };
        tokio::spawn(watcher.run());
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

/// Refuses too many items at once.
fn check_length(length: usize, most: usize) -> Result<(), Refusal> {
    if length <= most {
        return Ok(());
    }
    let detail = format!("{length} items in one request; at most {most}: ask in several calls");
    Err(Refusal::denied(Denial::InvalidRequest, detail))
}

/// How many SVIDs are asked for, at least one.
fn wanted(requests: &[pb::SvidRequest]) -> u32 {
    let wanted = requests.iter().map(|request| match &request.document {
        Some(pb::svid_request::Document::X509(x509)) => x509.csrs_der.len().max(1),
        Some(pb::svid_request::Document::Wit(wit)) => wit.csrs_der.len().max(1),
        _ => 1,
    });
    u32::try_from(wanted.sum::<usize>())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// What each item asks for, for the log.
fn told(requests: &[pb::SvidRequest]) -> Vec<String> {
    let asked = requests.iter().map(|request| match &request.selector {
        Some(pb::svid_request::Selector::Name(name)) => {
            name[..name.floor_char_boundary(64)].to_owned()
        }
        Some(pb::svid_request::Selector::Labels(_)) => "by labels".to_owned(),
        None => "nothing".to_owned(),
    });
    asked.collect()
}

/// What became of the items, as it travels.
fn results(bot: &SpiffeId, names: &[String], outcomes: Vec<Outcome>) -> Vec<pb::SvidResult> {
    let mut results = Vec::with_capacity(outcomes.len());
    for (name, outcome) in names.iter().zip(outcomes) {
        for Grant { approved, document } in &outcome.grants {
            tracing::debug!(id = %approved.rendered.id, ?document, %bot, "an SVID was issued");
        }
        if let Some(refused) = &outcome.refused {
            let (reason, detail) = (refused.denial.as_str(), refused.detail.as_str());
            tracing::warn!(reason, detail, %bot, workload_identity = name, "an SVID was refused");
        }
        results.push(pb::SvidResult {
            svids: outcome.grants.into_iter().map(svid).collect(),
            refusal: outcome.refused.map(|refused| {
                let status = status(Refusal::from(refused));
                pb::Refusal {
                    code: i32::from(status.code()),
                    message: status.message().to_owned(),
                }
            }),
            next_after: outcome.next_after,
            remaining: outcome.remaining,
            reads: outcome.reads.map(|reads| pb::WorkloadReads {
                attributes: reads.attributes().map(str::to_owned).collect(),
                groups: reads.groups().map(str::to_owned).collect(),
            }),
        });
    }
    results
}

fn svid(grant: Grant) -> pb::Svid {
    let Grant { approved, document } = grant;
    let document = match document {
        Document::X509 { leaf, csr } => pb::svid::Document::X509(pb::X509Svid {
            chain_der: vec![leaf.certificate.to_vec()],
            serial_number: leaf.serial.to_string(),
            csr,
        }),
        Document::Jwt { token, jti, .. } => pb::svid::Document::Jwt(pb::JwtSvid { token, jti }),
        Document::Wit {
            token, jti, csr, ..
        } => pb::svid::Document::Wit(pb::WitSvid { token, jti, csr }),
    };
    pb::Svid {
        workload_identity: approved.workload_identity.to_string(),
        workload_identity_revision: approved.revision,
        spiffe_id: approved.rendered.id.to_string(),
        hint: approved.rendered.hint,
        not_before: Some(timestamp(approved.validity.not_before)),
        not_after: Some(timestamp(approved.validity.not_after)),
        renew_at: Some(timestamp(approved.renew_at)),
        ttl: Some(seconds(approved.ttl)),
        federates_with: approved
            .federates_with
            .iter()
            .map(ToString::to_string)
            .collect(),
        document: Some(document),
    }
}

/// One agent's stream of news.
struct Watcher {
    issuer: Arc<Issuer>,
    caller: Arc<Caller>,
    lifetime: Duration,
    changes: watch::Receiver<crate::store::Changes>,
    keyrings: watch::Receiver<Arc<Keyring>>,
    draining: watch::Receiver<bool>,
    watchers: Arc<AtomicUsize>,
    send: mpsc::Sender<Result<pb::WatchResponse, Status>>,
}

impl Watcher {
    async fn run(mut self) {
        metrics::gauge!("issuer_watch_streams").increment(1.0);
        self.watchers.fetch_add(1, Ordering::Relaxed);
        if let Err(status) = self.follow().await {
            // The agent may be gone.
            let _ = self.send.send(Err(status)).await;
        }
        self.watchers.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("issuer_watch_streams").decrement(1.0);
    }

    /// Returns when the agent is gone, or with the reason why the stream ends.
    async fn follow(&mut self) -> Result<(), Status> {
        let expiry = tokio::time::sleep(self.lifetime);
        tokio::pin!(expiry);
        let mut seen = *self.changes.borrow_and_update();
        let catalog = self.issuer.store.catalog();
        let mut federations_told = federations(&catalog);
        let mut policy_told = catalog.policy_revision();
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
                    let mut news = now.renew != seen.renew;
                    if now.revision != seen.revision {
                        admitted(&self.issuer, &self.caller).map_err(status)?;
                        let catalog = self.issuer.store.catalog();
                        let policy = catalog.policy_revision();
                        news |= std::mem::replace(&mut policy_told, policy) != policy;
                        let new = federations(&catalog);
                        news |= !are_the_same(&new, &federations_told);
                        federations_told = new;
                    }
                    if news && !self.tell(now.renew).await {
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
            trust_bundles: trust_bundles(&self.issuer),
            renew_epoch,
            renew_within: Some(duration(within)),
            policy_epoch: self.issuer.store.catalog().policy_revision(),
            policy_within: Some(duration(policy_within(
                self.watchers.load(Ordering::Relaxed),
            ))),
        };
        self.send.send(Ok(message)).await.is_ok()
    }
}

/// Over how long so many agents ask again when policy has changed.
fn policy_within(watchers: usize) -> Duration {
    const AGENTS_A_SECOND: u32 = 100;
    const LEAST: Duration = Duration::from_millis(500);
    let watchers = u32::try_from(watchers).unwrap_or(u32::MAX);
    LEAST + Duration::from_secs(1) * watchers / AGENTS_A_SECOND
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// The trust bundles of others.
fn federations(catalog: &Catalog) -> Vec<Arc<Resource>> {
    let federations = catalog.resources(Kind::SpiffeFederation, None);
    federations.filter_map(Result::ok).collect()
}

/// Whether nothing was written between the two. Names and revisions would not tell: one
/// that is deleted and made again begins at revision 1.
fn are_the_same(one: &[Arc<Resource>], other: &[Arc<Resource>]) -> bool {
    let same = |(one, other)| Arc::ptr_eq(one, other);
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Whether the caller's instance exists and is not locked, as committed now.
fn admitted(issuer: &Issuer, caller: &Caller) -> Result<(), Refusal> {
    let catalog = issuer.store.catalog();
    access::known(&catalog, caller, SystemTime::now())?;
    Ok(())
}

/// Records that a bot may not do what it asked for as a whole; why it may not.
async fn recorded(issuer: &Issuer, caller: &Caller, asked: EventName, refusal: Refusal) -> Refusal {
    let Refusal::Denied { denial, detail } = &refusal else {
        return refusal;
    };
    let event = Event::denial(asked, denial.as_str()).with("error", detail.as_str());
    let source = format!("{asked} {} {}", denial.as_str(), caller.id);
    match issuer.record_refusal(&source, caller.told_in(event)).await {
        Ok(()) => refusal,
        Err(error) => Refusal::Store(error),
    }
}

#[cfg(test)]
mod tests;
