//! Issuance of an X509-SVID: one function, in the order in which it decides.
//!
//! `locks → resource → role → path → key → bounds → sign → record`, all inside
//! one transaction of the one writer: nothing that a later step relies on can
//! change under it, and the record is durable before the answer leaves. A
//! certificate whose record could not be written is dropped unseen.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::SpiffeId;

use crate::{
    access::{self, Caller, Denial, Refusal},
    audit::{Event, EventName},
    authority::{Authority, CsrError, Leaf, LeafTemplate, SubjectKey},
    catalog::Catalog,
    resources::{
        DnsName, Resource, ResourceName, Spec, SpiffePath, SvidKind, TtlBounds, X509_TTL_CAP, wire,
    },
    service::Issuer,
    store::{StoreError, Tx, audit, instances::BotInstance},
};

/// What an agent asks for.
#[derive(Debug, Clone)]
pub struct X509SvidRequest {
    /// Who asks.
    pub caller: Caller,
    /// Name of the workload identity, as asked.
    pub workload_identity: String,
    /// The key to certify, taken from the request.
    pub key: Result<SubjectKey, CsrError>,
    /// Wanted life.
    pub ttl: Option<prost_types::Duration>,
}

impl X509SvidRequest {
    /// Takes a request as it came over the wire; the CSR is checked here, before
    /// the writer is occupied.
    pub fn new(
        caller: Caller,
        workload_identity: String,
        csr_der: &[u8],
        ttl: Option<prost_types::Duration>,
    ) -> Self {
        Self {
            caller,
            workload_identity,
            key: SubjectKey::from_csr(csr_der),
            ttl,
        }
    }
}

/// What an agent gets.
#[derive(Debug, Clone)]
pub struct X509SvidGrant {
    /// The SVID.
    pub leaf: Leaf,
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Life from now, in whole seconds.
    pub ttl: Duration,
    /// When to renew.
    pub renew_at: SystemTime,
    /// Hint of the resource.
    pub hint: String,
    /// Revision of the resource.
    pub revision: u64,
    role: ResourceName,
    instance: BotInstance,
    dns_sans: Vec<String>,
}

/// Issues an X509-SVID, or refuses it; either is recorded when this returns.
pub async fn issue_x509_svid(
    issuer: &Issuer,
    request: X509SvidRequest,
    now: SystemTime,
) -> Result<X509SvidGrant, Refusal> {
    let begun = Instant::now();
    let (authority, request) = (issuer.keyring().x509().clone(), Arc::new(request));
    let decision = issuer
        .store
        .write::<_, StoreError, _>(move |tx| {
            let (authority, request) = (authority.clone(), request.clone());
            Box::pin(async move {
                let decision = decide(tx, &authority, &request, now).await;
                record(tx, &request, decision, now).await
            })
        })
        .await;
    let decision = decision.unwrap_or_else(|error| Err(Refusal::Store(error)));
    measure(&decision, begun);
    decision
}

async fn decide(
    tx: &mut Tx,
    authority: &Arc<Authority>,
    request: &X509SvidRequest,
    now: SystemTime,
) -> Result<X509SvidGrant, Refusal> {
    let caller = &request.caller;
    let instance = access::admit(tx, caller, now).await?;
    access::refuse_superseded(caller, &instance)?;
    let catalog = tx.catalog().await?;
    let resource = workload_identity(&catalog, &request.workload_identity)?;
    let Spec::WorkloadIdentity(spec) = &resource.spec else {
        let detail = "of another kind";
        return Err(Refusal::denied(Denial::UnknownWorkloadIdentity, detail));
    };
    let labels = &resource.metadata.labels;
    let role = access::role_that_allows(&catalog, &caller.bot_name, labels)?;
    let id = SpiffePath::parse(spec.path.source())
        .and_then(|path| path.id(authority.trust_domain()))
        .map_err(|error| Refusal::denied(Denial::InvalidId, error.to_string()))?;
    let key = request
        .key
        .as_ref()
        .map_err(|error| Refusal::denied(Denial::InvalidCsr, error.to_string()))?;
    let dns_sans = spec
        .dns_sans
        .iter()
        .map(|name| DnsName::parse(name.source()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Refusal::denied(Denial::InvalidId, error.to_string()))?;
    let ttl = bounded_ttl(request.ttl.as_ref(), spec.ttl_bounds(SvidKind::X509))?;
    let validity = authority.validity(now, ttl)?;
    let leaf = authority.sign_leaf(&LeafTemplate {
        dns_sans: &dns_sans,
        ..LeafTemplate::new(&id, key, validity)
    })?;
    let ttl = remaining(validity.not_after, now);
    Ok(X509SvidGrant {
        leaf,
        id,
        ttl,
        renew_at: now + ttl / 2,
        dns_sans: dns_sans
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect(),
        hint: spec
            .hint
            .as_ref()
            .map_or(String::new(), |hint| hint.source().to_owned()),
        revision: resource.metadata.revision,
        role,
        instance,
    })
}

fn workload_identity(catalog: &Catalog, name: &str) -> Result<Arc<Resource>, Refusal> {
    let unknown = |why: String| Refusal::denied(Denial::UnknownWorkloadIdentity, why);
    // What is no name is not looked up; it is recorded in its shortened form.
    let name = ResourceName::parse(name).map_err(|error| unknown(error.to_string()))?;
    catalog
        .workload_identity(name.as_str())?
        .ok_or_else(|| unknown(format!("there is no workload_identity {name}")))
}

/// The wanted life, or the default, cut at the resource's bound.
fn bounded_ttl(
    wanted: Option<&prost_types::Duration>,
    bounds: TtlBounds,
) -> Result<Duration, Refusal> {
    let wanted = match wanted {
        None => bounds.default,
        // Whatever is longer than any bound is cut all the same.
        Some(ttl) if ttl.nanos == 0 && ttl.seconds > 0 => {
            wire::whole_seconds(ttl, X509_TTL_CAP).unwrap_or(X509_TTL_CAP)
        }
        Some(ttl) => {
            let (seconds, nanos) = (ttl.seconds, ttl.nanos);
            let detail = format!(
                "a life of {seconds} s {nanos} ns was asked for: whole seconds, at least 1 s"
            );
            return Err(Refusal::denied(Denial::InvalidTtl, detail));
        }
    };
    Ok(wanted.min(bounds.maximum))
}

/// Whole seconds left until `end`.
pub(crate) fn remaining(end: SystemTime, now: SystemTime) -> Duration {
    let left = end.duration_since(now).unwrap_or_default();
    // The end has whole seconds and `now` has not: round up to what was granted.
    Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

async fn record(
    tx: &mut Tx,
    request: &X509SvidRequest,
    decision: Result<X509SvidGrant, Refusal>,
    now: SystemTime,
) -> Result<Result<X509SvidGrant, Refusal>, StoreError> {
    let event = match &decision {
        Ok(grant) => {
            let validity = grant.leaf.validity;
            Event::success(EventName::SvidIssued)
                .with("spiffe_id", grant.id.as_str())
                .with("svid_type", "x509")
                .with("serial_number", grant.leaf.serial.to_string())
                .with_time("not_before", validity.not_before)
                .with_time("not_after", validity.not_after)
                .with("ttl_seconds", grant.ttl.as_secs())
                .with("dns_sans", grant.dns_sans.clone())
                .with("hint", grant.hint.as_str())
                .with("workload_identity_revision", grant.revision)
                .with("role", grant.role.as_str())
                .with("join_method", grant.instance.join_method.as_str())
                .with("join_token_name", grant.instance.join_token_name.as_str())
        }
        Err(Refusal::Denied { denial, detail }) => {
            Event::denial(EventName::SvidIssued, denial.as_str()).with("error", detail.as_str())
        }
        Err(Refusal::Store(error)) => return Err(error.clone()),
    };
    let mut name = request.workload_identity.clone();
    name.truncate(name.floor_char_boundary(128));
    let mut event = request
        .caller
        .told_in(event)
        .with("workload_identity", name);
    if let Ok(key) = &request.key {
        event = event.with("public_key_sha256", hex::encode(key.sha256()));
    }
    audit::append(tx, &event, now).await?;
    access::lock_if_copied(tx, &request.caller, &decision, now).await?;
    Ok(decision)
}

fn measure(decision: &Result<X509SvidGrant, Refusal>, begun: Instant) {
    let result = match decision {
        Ok(_) => "granted",
        Err(Refusal::Denied { denial, .. }) => denial.as_str(),
        Err(Refusal::Store(_)) => "store_unavailable",
    };
    metrics::counter!("issuer_issuances_total", "type" => "x509", "result" => result).increment(1);
    metrics::histogram!("issuer_issue_duration_seconds").record(begun.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests;
