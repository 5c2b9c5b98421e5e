//! The audit event of a decision: exactly one for each SVID that is issued or
//! refused, with everything that led to it.
//!
//! Names follow Teleport's `spiffe.svid.issued` (facts 1.8); what that lacks is here
//! too: why something was refused, audiences, life, the hash of the key, role and
//! rule, and which attributes nobody but the agent vouches for.

use serde_json::{Map, Value, json};

use policy::{Attributes, Trust};

use super::{Approved, Ask, Asker, Decision, Document, Item, Key, Selection, Wanted};
use crate::{
    access::Refused,
    audit::{Event, EventName},
    resources::{LabelSelector, SvidKind},
};

/// Longest text that a caller sent and that is recorded of what was refused.
const TOLD_MAX: usize = 128;
/// How many of those that were left out are recorded by name.
const LEFT_OUT_NAMED: usize = 32;

/// The event of an SVID that was issued.
pub(super) fn granted(
    asker: &Asker,
    ask: &Ask,
    decision: &Decision,
    approved: &Approved,
    document: &Document,
) -> Event {
    let rendered = &approved.rendered;
    let mut event = Event::success(EventName::SvidIssued)
        .with("spiffe_id", rendered.id.as_str())
        .with_time("not_before", approved.validity.not_before)
        .with_time("not_after", approved.validity.not_after)
        .with_time("renew_at", approved.renew_at)
        .with("ttl_seconds", approved.ttl.as_secs())
        .with("hint", rendered.hint.as_str());
    event = match document {
        Document::X509 { leaf, .. } => {
            let names: Vec<_> = rendered.dns_sans.iter().map(|name| name.as_str()).collect();
            let addresses: Vec<_> = rendered.ip_sans.iter().map(ToString::to_string).collect();
            let event = event
                .with("serial_number", leaf.serial.to_string())
                .with("dns_sans", names)
                .with("ip_sans", addresses);
            match rendered.subject.is_empty() {
                true => event,
                false => event.with("subject", rendered.subject.to_string()),
            }
        }
        Document::Jwt { jti, key_id, .. } => {
            let event = event
                .with("jti", jti.as_str())
                .with("audiences", approved.audiences.to_vec())
                .with("algorithm", approved.jwt_algorithm.as_str())
                .with("signing_key_id", key_id.as_str());
            match rendered.claims.is_empty() {
                true => event,
                false => event.with("extra_claims", rendered.claims.clone()),
            }
        }
        Document::Wit { jti, key_id, .. } => event
            .with("jti", jti.as_str())
            .with("signing_key_id", key_id.as_str()),
    };
    if !approved.federates_with.is_empty() {
        event = event.with("federates_with", approved.federation_names());
    }
    if let Some((_, key)) = &approved.key {
        event = event.with("public_key_sha256", hex::encode(key.sha256()));
    }
    about(told(asker, event), ask, decision)
}

/// The event of one that was refused.
pub(super) fn refused(asker: &Asker, ask: &Ask, decision: &Decision, refused: &Refused) -> Event {
    let mut event = denial(refused);
    if let Some(Key::Proved(key)) = ask.wanted.key() {
        event = event.with("public_key_sha256", hex::encode(key.sha256()));
    }
    if let Wanted::Jwt(audiences) = &ask.wanted {
        let audiences: Vec<_> = audiences.iter().take(32).map(|text| short(text)).collect();
        event = event.with("audiences", audiences);
    }
    about(told(asker, event), ask, decision)
}

/// The event of an item that was refused as a whole, before any workload identity was
/// decided on. `item`: unless it is no request.
pub(super) fn refused_item(asker: &Asker, item: Option<&Item>, refused: &Refused) -> Event {
    let mut event = told(asker, denial(refused));
    if let Some(item) = item {
        event = event.with("svid_type", item.wanted.kind().as_str());
        if let Selection::Labels { selector, .. } = &item.selection {
            event = event.with("label_selectors", selectors(selector));
        }
    }
    event
}

/// The event of a selection by labels that left something out: one for all of it, with
/// how many for which reason.
pub(super) fn left_out(
    asker: &Asker,
    selector: &LabelSelector,
    kind: SvidKind,
    left_out: &[(String, Refused)],
) -> Event {
    let mut reasons = Map::new();
    for (_, refused) in left_out {
        let count = reasons.entry(refused.denial.as_str()).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap_or(0) + 1);
    }
    let (_, first) = &left_out[0];
    let named = left_out.iter().take(LEFT_OUT_NAMED).map(|(name, refused)| {
        json!({
            "workload_identity": name,
            "reason": refused.denial.as_str(),
            "error": short(&refused.detail),
        })
    });
    let event = Event::denial(EventName::SvidIssued, first.denial.as_str())
        .with("svid_type", kind.as_str())
        .with("label_selectors", selectors(selector))
        .with("left_out", left_out.len())
        .with("reasons", reasons)
        .with("workload_identities", named.collect::<Vec<_>>());
    told(asker, event)
}

/// How many bytes an event holds of what the caller chose, about.
pub(super) fn size_of(ask: &Ask, attributes: &Attributes) -> usize {
    let audiences = match &ask.wanted {
        Wanted::Jwt(audiences) => audiences.iter().map(|text| text.len() + 3).sum(),
        Wanted::X509(_) | Wanted::Wit(_) => 0,
    };
    let selectors = ask.labels.as_deref().map(selectors).unwrap_or_default();
    attributes.to_json().to_string().len() + Value::from(selectors).to_string().len() + audiences
}

fn denial(refused: &Refused) -> Event {
    Event::denial(EventName::SvidIssued, refused.denial.as_str())
        .with("error", refused.detail.as_str())
}

fn told(asker: &Asker, event: Event) -> Event {
    match asker {
        Asker::Bot(caller) => caller.told_in(event),
        Asker::Supposed { bot_name, .. } => event.with("bot_name", bot_name.as_str()),
    }
}

/// What was asked, and what decided.
fn about(event: Event, ask: &Ask, decision: &Decision) -> Event {
    let name = short(&ask.workload_identity);
    let mut event = event
        .with("svid_type", ask.wanted.kind().as_str())
        .with("workload_identity", name.as_str());
    event = match &ask.labels {
        None => event.with("name_selector", name.as_str()),
        Some(selector) => event.with("label_selectors", selectors(selector)),
    };
    if let Some(resource) = &decision.resource {
        event = event.with("workload_identity_revision", resource.metadata.revision);
    }
    if let Some(role) = &decision.role {
        event = event.with("role", role.as_str());
    }
    if let Some(rule) = &decision.rule {
        event = event
            .with("rule", format!("{}[{}]", rule.list, rule.index))
            .with("rule_description", &*rule.description);
    }
    if let Some(instance) = &decision.instance {
        event = event
            .with("join_method", instance.join_method.as_str())
            .with("join_token_name", instance.join_token_name.as_str());
    }
    let policies: Map<_, _> = (decision.attributes.signature_policies())
        .map(|(name, verdict)| {
            let verdict = match verdict {
                Ok(()) => json!({ "satisfied": true }),
                Err(why) => json!({ "satisfied": false, "error": why }),
            };
            (name.to_owned(), verdict)
        })
        .collect();
    if !policies.is_empty() {
        event = event.with("sigstore_policies", policies);
    }
    let asserted: Vec<_> = decision
        .attributes
        .iter()
        .filter(|(attribute, _)| attribute.trust == Trust::Asserted)
        .map(|(attribute, _)| attribute.path)
        .collect();
    event
        .with("attributes", decision.attributes.to_json())
        .with("attributes_asserted", asserted)
}

/// As Teleport records it: `[{"key": …, "values": […]}]`.
fn selectors(selector: &LabelSelector) -> Vec<Value> {
    let keys = selector.iter();
    keys.map(|(key, values)| json!({ "key": key, "values": values }))
        .collect()
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(TOLD_MAX)].to_owned()
}

#[cfg(test)]
mod tests;
