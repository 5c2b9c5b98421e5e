//! Why somebody gets an identity, or does not: the decision of [`crate::issue`], told
//! step by step with the values that it saw.
//!
//! It is the deciding function itself that is asked, not a second opinion; nothing is
//! signed and nothing is recorded. An explanation shows attributes and policy: it is
//! for operators.

mod cases;
mod past;
mod supposed;
mod text;

use std::{sync::Arc, time::SystemTime};

use policy::{Attributes, RulesTrace, TemplateTrace, Trust};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use self::{
    cases::{Case, Difference, Suite},
    past::PastDecision,
    supposed::{SupposedError, SupposedIssuer},
};

use crate::{
    access::Refused,
    authority::{Keyring, rfc3339},
    catalog::Catalog,
    issue::{Approved, Ask, Asker, Decision, Key, Step, Trace, Wanted, decide},
    resources::{Spec, SvidKind, WorkloadIdentitySpec},
    signatures::Signatures,
};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name of the bot.
    pub bot: String,
    /// Name of the `workload_identity`.
    pub workload_identity: String,
    /// `join.*` and `workload.*`. Of `user.*` only `user.bot_instance_id` counts, for locks on
    /// that instance; the rest is what the issuer knows of the bot.
    pub attributes: Attributes,
    /// What is signed for the image of the workload.
    pub signatures: Arc<Signatures>,
    /// What kind of SVID.
    pub kind: SvidKind,
    /// For a JWT-SVID: who is to accept it.
    pub audiences: Vec<String>,
    /// Wanted life.
    pub ttl: Option<prost_types::Duration>,
}

/// What was decided, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Whether the SVID is issued.
    pub allowed: bool,
    /// Why not: the `reason` of the audit event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// With which values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Name of the bot.
    pub bot: String,
    /// Name of the `workload_identity`.
    pub workload_identity: String,
    /// Its revision, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity_revision: Option<u64>,
    /// The role that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The rule that decided, as `allow[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Every step, in order.
    pub steps: Vec<StepTold>,
    /// Every rule with the value of each of its parts; absent without rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesTrace>,
    /// Every template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<FieldTrace>,
    /// What was known of who asks, by path.
    pub attributes: Vec<Known>,
    /// What would come out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svid: Option<Value>,
}

/// One step of the decision.
#[derive(Debug, Clone, Serialize)]
pub struct StepTold {
    /// Its name.
    pub step: &'static str,
    /// Whether it was passed; a step that was not reached is absent.
    pub passed: bool,
    /// In words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub told: String,
}

/// One template of the resource.
#[derive(Debug, Clone, Serialize)]
pub struct FieldTrace {
    /// Where it stands, below `spec`.
    pub field: String,
    /// What it comes to.
    #[serde(flatten)]
    pub trace: TemplateTrace,
}

/// An attribute that is set.
#[derive(Debug, Clone, Serialize)]
pub struct Known {
    /// Its path.
    pub attribute: &'static str,
    /// Its value.
    pub value: Value,
    /// Whether the issuer checked it itself.
    pub verified: bool,
}

/// Explains what the issuer would decide now.
pub fn explain(
    catalog: &Catalog,
    keyring: &Keyring,
    question: &Question,
    now: SystemTime,
) -> Explanation {
    let asker = Asker::Supposed {
        bot_name: question.bot.clone(),
        attributes: question.attributes.clone(),
    };
    let ask = Ask {
        workload_identity: question.workload_identity.clone(),
        labels: None,
        wanted: match question.kind {
            SvidKind::X509 => Wanted::X509(Key::Open),
            SvidKind::Jwt => Wanted::Jwt(question.audiences.clone().into()),
            SvidKind::Wit => Wanted::Wit(Key::Open),
        },
        ttl: question.ttl,
        workload: Arc::default(),
        signatures: question.signatures.clone(),
    };
    let mut steps = Steps::default();
    let decision = decide(catalog, keyring, &asker, &ask, now, &mut steps);
    Explanation::new(question, decision, steps)
}

#[derive(Default)]
struct Steps(Vec<StepTold>);

impl Trace for Steps {
    fn step(&mut self, step: Step, outcome: Result<impl FnOnce() -> String, &Refused>) {
        let passed = outcome.is_ok();
        let told = match outcome {
            Ok(told) => told(),
            Err(refused) => refused.detail.clone(),
        };
        let step = step.as_str();
        self.0.push(StepTold { step, passed, told });
    }
}

impl Explanation {
    fn new(question: &Question, decision: Decision, steps: Steps) -> Self {
        let spec = decision
            .resource
            .as_ref()
            .and_then(|resource| match &resource.spec {
                Spec::WorkloadIdentity(spec) => Some(spec),
                _ => None,
            });
        let attributes = &decision.attributes;
        let (error, svid) = match &decision.verdict {
            Ok(approved) => (None, Some(outcome(approved))),
            Err(refused) => (Some(refused), None),
        };
        Self {
            allowed: error.is_none(),
            reason: error.map(|refused| refused.denial.as_str()),
            error: error.map(|refused| refused.detail.clone()),
            bot: question.bot.clone(),
            workload_identity: question.workload_identity.clone(),
            workload_identity_revision: decision
                .resource
                .as_ref()
                .map(|resource| resource.metadata.revision),
            role: decision.role.as_ref().map(ToString::to_string),
            rule: decision.rule.as_ref().map(ToString::to_string),
            steps: steps.0,
            rules: spec
                .map(|spec| spec.rules.explain(attributes))
                .filter(|trace| !trace.rules.is_empty()),
            templates: spec.map_or(Vec::new(), |spec| {
                templates(spec, question.kind, attributes)
            }),
            attributes: known(attributes),
            svid,
        }
    }
}

/// The templates that a document of this kind needs.
fn templates(
    spec: &WorkloadIdentitySpec,
    kind: SvidKind,
    attributes: &Attributes,
) -> Vec<FieldTrace> {
    let mut traces = vec![FieldTrace {
        field: "spiffe.id".to_owned(),
        trace: spec.path.explain(attributes),
    }];
    let mut add = |field: String, template: &policy::Template| {
        traces.push(FieldTrace {
            field,
            trace: template.explain(attributes),
        });
    };
    if let Some(hint) = &spec.hint {
        add("spiffe.hint".to_owned(), hint);
    }
    if kind == SvidKind::X509 {
        for (index, template) in spec.dns_sans.iter().enumerate() {
            add(format!("spiffe.x509.dns_sans[{index}]"), template);
        }
        for (index, template) in spec.ip_sans.iter().enumerate() {
            add(format!("spiffe.x509.ip_sans[{index}]"), template);
        }
        let subject = [
            ("common_name", &spec.subject.common_name),
            ("organization", &spec.subject.organization),
            ("organizational_unit", &spec.subject.organizational_unit),
        ];
        for (part, template) in subject {
            if let Some(template) = template {
                add(format!("spiffe.x509.subject_template.{part}"), template);
            }
        }
    }
    if kind == SvidKind::Jwt {
        for template in spec.jwt_extra_claims.templates() {
            if !template.is_literal() {
                add("spiffe.jwt.extra_claims".to_owned(), template);
            }
        }
    }
    traces
}

fn known(attributes: &Attributes) -> Vec<Known> {
    attributes
        .iter()
        .map(|(attribute, value)| Known {
            attribute: attribute.path,
            value: value.to_json(),
            verified: attribute.trust == Trust::Verified,
        })
        .collect()
}

/// What the document would hold, without what only the signature decides (serial
/// number, `jti`).
fn outcome(approved: &Approved) -> Value {
    let rendered = &approved.rendered;
    let mut svid = Map::from_iter([
        ("type".to_owned(), json!(approved.kind.as_str())),
        ("spiffe_id".to_owned(), json!(rendered.id.as_str())),
        ("hint".to_owned(), json!(rendered.hint)),
        ("ttl_seconds".to_owned(), json!(approved.ttl.as_secs())),
        (
            "not_before".to_owned(),
            json!(rfc3339(approved.validity.not_before)),
        ),
        (
            "not_after".to_owned(),
            json!(rfc3339(approved.validity.not_after)),
        ),
        ("renew_at".to_owned(), json!(rfc3339(approved.renew_at))),
    ]);
    let mut put = |name: &str, value: Value| {
        svid.insert(name.to_owned(), value);
    };
    match approved.kind {
        SvidKind::X509 => {
            let names: Vec<_> = rendered.dns_sans.iter().map(|name| name.as_str()).collect();
            let addresses: Vec<_> = rendered.ip_sans.iter().map(ToString::to_string).collect();
            put("dns_sans", json!(names));
            put("ip_sans", json!(addresses));
            put("subject", json!(rendered.subject.to_string()));
        }
        SvidKind::Jwt => {
            put("algorithm", json!(approved.jwt_algorithm.as_str()));
            put("audiences", json!(approved.audiences.as_ref()));
            put("extra_claims", json!(rendered.claims));
        }
        SvidKind::Wit => {}
    }
    if !approved.federates_with.is_empty() {
        put("federates_with", json!(approved.federation_names()));
    }
    Value::Object(svid)
}

#[cfg(test)]
mod tests;
