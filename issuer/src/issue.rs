//! Issuance: a batch of wanted SVIDs, each granted or refused by itself, recorded
//! before the answer leaves.
//!
//! `take apart → decide → sign → record`. Deciding ([`decide()`]) and signing happen
//! in the caller's task on a snapshot of what the store holds, so that they run side
//! by side; only the record goes through the one writer. The writer first looks
//! whether what was decided on is still what is: if anything has changed since (a
//! lock, a role, a rule), everything is decided again on what holds now,
//! inside the transaction that records it. So a grant never stands behind a lock
//! that was there when it was recorded, and a document whose record could not be
//! written is dropped unseen.

mod ask;
pub(crate) mod attributes;
mod decide;
mod plan;
mod record;
mod render;
mod sign;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::try_join_all;
use identity::TrustDomain;
use proto::issue::v1 as pb;

use self::plan::Settled;
pub use self::{
    ask::{Ask, Asker, ITEMS_MAX, Item, Key, SVIDS_MAX, Selection, Wanted},
    decide::{Decision, Step, Trace, decide},
    plan::{Grant, Outcome},
    render::Rendered,
    sign::Document,
};
pub(crate) use self::{decide::remaining, plan::Batch};
use crate::{
    access::{Caller, Refusal, Refused},
    authority::{SubjectKey, Validity},
    resources::{JwtAlgorithm, ResourceName, SvidKind},
    service::Issuer,
    store::{StoreError, Tx},
};

/// Work of up to so many pieces is done where it is; more is spread over threads that
/// may block.
const AT_ONCE: usize = 4;

/// What may be signed: everything that goes into the document but the signature and
/// what is drawn at random.
#[derive(Debug, Clone, PartialEq)]
pub struct Approved {
    /// Name of the workload identity.
    pub workload_identity: ResourceName,
    /// Its revision.
    pub revision: u64,
    /// What kind of document.
    pub kind: SvidKind,
    /// Id, names, subject, hint, claims.
    pub rendered: Rendered,
    /// Of a JWT-SVID.
    pub audiences: Arc<[String]>,
    /// The key, and its place in the request. None if one is still to be chosen.
    pub key: Option<(u32, Arc<SubjectKey>)>,
    /// How a JWT-SVID is signed.
    pub jwt_algorithm: JwtAlgorithm,
    /// Trust domains whose bundles go to the workload.
    pub federates_with: Vec<TrustDomain>,
    /// From when to when.
    pub validity: Validity,
    /// Life from now, in whole seconds.
    pub ttl: Duration,
    /// When to renew: at half of the life that is left.
    pub renew_at: SystemTime,
}

impl Approved {
    /// Names of the trust domains whose bundles go to the workload.
    pub(crate) fn federation_names(&self) -> Vec<&str> {
        let names = self.federates_with.iter().map(TrustDomain::as_str);
        names.collect()
    }
}

/// Issues what a bot asks for; every grant and every refusal is recorded when this
/// returns. One outcome for each request, in their order. Errors: the store.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn issue(
    issuer: &Issuer,
    caller: Arc<Caller>,
    requests: Vec<pb::SvidRequest>,
    now: SystemTime,
) -> Result<Vec<Outcome>, Refusal> {
    let begun = Instant::now();
    let items = take_apart(requests).await?;
    let batch = Arc::new(Batch::new(issuer, Asker::Bot(caller), items, now));
    let settled = Arc::new(settle(batch.clone(), issuer.store.catalog()).await?);
    let asked = settled.outcomes().len() as u64;
    let kept = keep(issuer, batch, settled, now).await;
    let settled = kept.inspect_err(|_| {
        let labels = [("type", "any"), ("result", "store_unavailable")];
        metrics::counter!("issuer_issuances_total", &labels).increment(asked);
    })?;
    metrics::histogram!("issuer_issue_duration_seconds").record(begun.elapsed().as_secs_f64());
    settled.measure();
    // Nobody else holds it: the writer has dropped its work.
    Ok(Arc::unwrap_or_clone(settled).into_outcomes())
}

/// Records what was settled, or what is settled anew if the world is another by now.
async fn keep(
    issuer: &Issuer,
    batch: Arc<Batch>,
    settled: Arc<Settled>,
    now: SystemTime,
) -> Result<Arc<Settled>, StoreError> {
    let decided = settled.clone();
    let again = issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let (batch, settled) = (batch.clone(), settled.clone());
            Box::pin(async move {
                if tx.revision() == settled.revision() {
                    settled.record(tx, &batch).await?;
                    return Ok(None);
                }
                let again = settle_within(tx, &batch, Some(&settled)).await?;
                Ok(Some(Arc::new(again)))
            })
        })
        .await;
    match again {
        Ok(again) => Ok(again.unwrap_or(decided)),
        Err(_) if is_given_unrecorded(issuer, &decided, now) => Ok(decided),
        Err(error) => Err(error),
    }
}

/// Whether what the store cannot record is given all the same, as the operator wants it
/// (see [`crate::audit::best_effort`]): then log and sinks are told. Not if anything has
/// changed since the decision, for nobody can decide again.
fn is_given_unrecorded(issuer: &Issuer, decided: &Settled, now: SystemTime) -> bool {
    let Some(best_effort) = &issuer.best_effort else {
        return false;
    };
    let still_holds = decided.revision() == issuer.store.catalog().revision();
    if issuer.store.trouble().is_none() || !still_holds {
        return false;
    }
    for event in decided.events() {
        best_effort.tell(event, now);
    }
    true
}

/// Decides, signs and records inside a transaction: on what it sees, with what it has
/// changed itself. `before` is what was decided before the world changed: what comes out
/// the same is not signed again.
pub(crate) async fn settle_within(
    tx: &mut Tx,
    batch: &Batch,
    before: Option<&Settled>,
) -> Result<Settled, StoreError> {
    let catalog = tx.catalog().await?;
    let mut plan = batch.plan(&catalog);
    let documents = plan
        .jobs()
        .into_iter()
        .map(
            |approved| match before.and_then(|before| before.document_of(&approved)) {
                Some(document) => Ok(document),
                None => batch.sign(&approved),
            },
        )
        .collect();
    plan.take_documents(documents);
    let settled = Settled::new(batch, plan);
    settled.record(tx, batch).await?;
    Ok(settled)
}

/// Takes requests apart, which checks their certificate requests.
pub(crate) async fn take_apart(
    requests: Vec<pb::SvidRequest>,
) -> Result<Vec<Result<Item, Refused>>, StoreError> {
    let mut items = spread(requests, Item::new).await?;
    ask::refuse_shared_keys(&mut items);
    Ok(items)
}

/// Decides and signs, outside the writer.
async fn settle(
    batch: Arc<Batch>,
    catalog: Arc<crate::catalog::Catalog>,
) -> Result<Settled, StoreError> {
    let planning = batch.clone();
    let plan = move || planning.plan(&catalog);
    let mut plan = match batch.is_small() {
        true => plan(),
        false => blocking(plan).await?,
    };
    let signing = batch.clone();
    let documents = spread(plan.jobs(), move |approved| signing.sign(&approved)).await?;
    plan.take_documents(documents);
    Ok(Settled::new(&batch, plan))
}

/// Does `work` on each of `pieces`; on several threads, off the async ones, if there are
/// many. A certificate request and a signature cost about a tenth of a millisecond each.
async fn spread<T, R>(
    pieces: Vec<T>,
    work: impl Fn(T) -> R + Clone + Send + 'static,
) -> Result<Vec<R>, StoreError>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if pieces.len() <= AT_ONCE {
        return Ok(pieces.into_iter().map(work).collect());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = pieces.len().div_ceil(threads).max(AT_ONCE);
    let mut pieces = pieces.into_iter().peekable();
    let mut shares = Vec::with_capacity(threads);
    while pieces.peek().is_some() {
        let share: Vec<_> = pieces.by_ref().take(share).collect();
        let work = work.clone();
        shares.push(blocking(move || {
            share.into_iter().map(work).collect::<Vec<_>>()
        }));
    }
    Ok(try_join_all(shares).await?.into_iter().flatten().collect())
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, StoreError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|error| StoreError::Unavailable(format!("an issuance was abandoned: {error}")))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
