//! A decision of the past, out of its audit event.

use std::sync::Arc;

use policy::Attributes;
use serde_json::Value;

use super::Question;
use crate::{audit::lines::Recorded, resources::SvidKind};

/// What an event of `spiffe.svid.issued` says was asked and decided.
#[derive(Debug, Clone)]
pub struct PastDecision {
    /// The same question, to be decided now.
    pub question: Question,
    /// Whether it was granted then.
    pub allowed: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The SPIFFE ID that was issued.
    pub spiffe_id: Option<String>,
    /// Revision of the resource then.
    pub revision: Option<u64>,
}

impl PastDecision {
    /// Reads an event. The error says why it cannot be explained.
    pub fn read(event: &Recorded) -> Result<Self, String> {
        let told = event.sequence;
        if event.event != "spiffe.svid.issued" {
            return Err(format!(
                "event {told} is {}: only spiffe.svid.issued can be explained",
                event.event
            ));
        }
        let fields: Value = serde_json::from_str(&event.fields)
            .map_err(|error| format!("event {told} cannot be read: {error}"))?;
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        let lacks =
            |what: &str| format!("event {told} does not say {what}: it cannot be explained");
        let attributes = match &fields["attributes"] {
            Value::Null => Attributes::new(),
            // What an older issuer recorded may have other names.
            tree => Attributes::from_json_lossy(tree).0,
        };
        let audiences = fields["audiences"].as_array();
        Ok(Self {
            question: Question {
                bot: text("bot_name").ok_or_else(|| lacks("which bot asked"))?,
                workload_identity: text("workload_identity")
                    .ok_or_else(|| lacks("which workload_identity was asked for"))?,
                attributes,
                // They are not recorded.
                signatures: Arc::default(),
                kind: text("svid_type")
                    .and_then(|kind| kind.parse().ok())
                    .unwrap_or(SvidKind::X509),
                audiences: audiences.map_or(Vec::new(), |audiences| {
                    audiences
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect()
                }),
                // What was granted then: what was wanted is not recorded.
                ttl: fields["ttl_seconds"]
                    .as_i64()
                    .map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            },
            allowed: event.success,
            reason: text("reason"),
            spiffe_id: text("spiffe_id"),
            revision: fields["workload_identity_revision"].as_u64(),
        })
    }
}
