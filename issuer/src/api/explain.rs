//! `AdminService.Explain`.

use std::{sync::Arc, time::SystemTime};

use policy::Attributes;
use proto::admin::v1 as pb;
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    explain::{PastDecision, Question, explain},
    resources::SvidKind,
    service::Issuer,
    signatures::Signatures,
    store::{StoreError, audit::search},
};

/// Answers a request to explain.
pub(super) async fn answer(
    issuer: &Issuer,
    mut request: pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    let past = match request.event {
        0 => None,
        sequence => Some(past(issuer, sequence).await?),
    };
    let signatures = Signatures::new(std::mem::take(&mut request.image_signatures))
        .map_err(Status::invalid_argument)?;
    let mut question = match &past {
        Some(past) => past.question.clone(),
        None => question(request)?,
    };
    // What an event tells of is not forgotten for not being here.
    if past.is_none() || !signatures.is_empty() {
        signatures.tell(&mut question.attributes);
    }
    question.signatures = Arc::new(signatures);
    let (catalog, keyring) = (issuer.store.catalog(), issuer.keyring());
    let explained = explain(&catalog, &keyring, &question, SystemTime::now());
    let mut text = explained.to_string();
    let mut told = serde_json::to_value(&explained)
        .map_err(|error| Status::internal(format!("the explanation cannot be written: {error}")))?;
    if let Some(past) = &past {
        let changed = past.revision != explained.workload_identity_revision;
        text.insert_str(0, &then(past, changed));
        told["then"] = json!({
            "allowed": past.allowed,
            "reason": past.reason,
            "spiffe_id": past.spiffe_id,
            "resource_changed": changed,
        });
    }
    Ok(pb::ExplainResponse {
        explanation_json: told.to_string(),
        text,
    })
}

fn then(past: &PastDecision, changed: bool) -> String {
    let outcome = match (&past.spiffe_id, &past.reason) {
        (Some(id), _) if past.allowed => format!("granted as {id}"),
        (_, reason) => format!(
            "refused ({})",
            reason.as_deref().unwrap_or("no reason told")
        ),
    };
    let since = match changed {
        true => "the workload_identity has changed since",
        false => "the workload_identity is the same",
    };
    format!("THEN: {outcome}; {since}\nNOW:\n")
}

async fn past(issuer: &Issuer, sequence: u64) -> Result<PastDecision, Status> {
    let event = async {
        let mut connection = issuer.store.read().await?;
        search::read(&mut connection, &search::Filter::default(), sequence, 1).await
    };
    let events = event
        .await
        .map_err(|error: StoreError| Status::unavailable(error.to_string()))?;
    let event = events
        .into_iter()
        .find(|event| event.sequence == sequence)
        .ok_or_else(|| Status::not_found(format!("there is no audit event {sequence}")))?;
    PastDecision::read(&event).map_err(Status::failed_precondition)
}

fn question(request: pb::ExplainRequest) -> Result<Question, Status> {
    let invalid = |why: String| Status::invalid_argument(why);
    let attributes = match request.attributes_json.as_str() {
        "" => Attributes::new(),
        text => {
            let tree: Value = serde_json::from_str(text)
                .map_err(|error| invalid(format!("the attributes are not JSON: {error}")))?;
            Attributes::from_json(&tree).map_err(|errors| invalid(errors.to_string()))?
        }
    };
    let kind = match request.svid_type.as_str() {
        "" => SvidKind::X509,
        kind => kind.parse().map_err(|error| invalid(format!("{error}")))?,
    };
    Ok(Question {
        bot: request.bot,
        workload_identity: request.workload_identity,
        attributes,
        signatures: Arc::default(),
        kind,
        audiences: request.audiences,
        ttl: request.ttl,
    })
}
