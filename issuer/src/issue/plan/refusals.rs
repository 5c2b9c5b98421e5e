//! Every reason for which issuance refuses, each with exactly one event that names it.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use proto::issue::v1 as pb;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::{Batch, Room, Settled};
use crate::{
    access::{Denial, Refused},
    catalog::Catalog,
    issue::{
        Asker, Item,
        testing::{caller, catalog, instance, keyring, moment},
    },
    resources::Kind,
};

const RESOURCES: &str = "
kind: role
version: v1
metadata: { name: web }
spec:
  allow: { workload_identity_labels: { app: [web] } }
  deny: { workload_identity_labels: { secret: ['yes'] } }
---
kind: bot
version: v1
metadata: { name: web }
spec: { roles: [web] }
---
kind: workload_identity
version: v1
metadata: { name: plain, labels: { app: web } }
spec: { spiffe: { id: /plain } }
---
kind: workload_identity
version: v1
metadata: { name: other }
spec: { spiffe: { id: /other } }
---
kind: workload_identity
version: v1
metadata: { name: denied, labels: { app: web, secret: 'yes' } }
spec: { spiffe: { id: /denied } }
---
kind: workload_identity
version: v1
metadata: { name: ruled, labels: { app: web } }
spec:
  spiffe: { id: /ruled }
  rules:
    deny: [{ expression: 'has(workload.unix.uid) && workload.unix.uid == 0' }]
    allow: [{ expression: 'has(workload.unix.uid) && workload.unix.uid == 1000' }]
---
kind: workload_identity
version: v1
metadata: { name: made, labels: { app: web } }
spec: { spiffe: { id: '/{{ workload.unix.binary_path }}' } }
---
kind: workload_identity
version: v1
metadata: { name: abroad, labels: { app: web } }
spec: { spiffe: { id: /abroad, federates_with: [partner.example] } }
";

/// Bot, instance and resources, and what was asked: all is well.
struct Question {
    catalog: Catalog,
    asker: Asker,
    item: Result<Item, Refused>,
    room: Room,
    now: SystemTime,
}

impl Question {
    fn new(request: pb::SvidRequest) -> Self {
        let mut catalog = catalog(RESOURCES);
        catalog.put_instance(instance(5));
        Self {
            catalog,
            asker: Asker::Bot(Arc::new(caller(5))),
            item: Item::new(request),
            room: Room::WHOLE,
            now: moment(),
        }
    }

    fn settled(self) -> Settled {
        let batch = Batch {
            keyring: keyring(),
            jwt_issuer: None,
            asker: self.asker,
            items: vec![self.item],
            room: self.room,
            now: self.now,
        };
        let mut plan = batch.plan(&self.catalog);
        let jobs = plan.jobs();
        let documents = jobs.iter().map(|approved| batch.sign(approved)).collect();
        plan.take_documents(documents);
        Settled::new(&batch, plan)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn locked(self, target: &str) -> Self {
        let lock = format!(
            "kind: lock\nversion: v1\nmetadata: {{ name: l }}\nspec: {{ target: {{ {target} }} }}\n"
        );
        self.with(|question| {
            question.catalog = catalog(&format!("{RESOURCES}---\n{lock}"));
            question.catalog.put_instance(instance(5));
        })
    }
}

fn jwt(name: &str, workload: serde_json::Value) -> pb::SvidRequest {
    let document = pb::svid_request::Document::Jwt(pb::JwtRequest {
        audiences: vec!["db".to_owned()],
    });
    request(name, document, workload)
}

fn request(
    name: &str,
    document: pb::svid_request::Document,
    workload: serde_json::Value,
) -> pb::SvidRequest {
    let uid = workload["uid"].as_f64();
    let path = workload["binary_path"].as_str().map(str::to_owned);
    let values = uid
        .map(prost_types::value::Kind::NumberValue)
        .map(|uid| ("uid", uid))
        .into_iter()
        .chain(path.map(|path| ("binary_path", prost_types::value::Kind::StringValue(path))));
    let fields =
        values.map(|(name, kind)| (name.to_owned(), prost_types::Value { kind: Some(kind) }));
    let unix = prost_types::Struct {
        fields: fields.collect(),
    };
    let unix = prost_types::Value {
        kind: Some(prost_types::value::Kind::StructValue(unix)),
    };
    pb::SvidRequest {
        selector: Some(pb::svid_request::Selector::Name(name.to_owned())),
        document: Some(document),
        ttl: None,
        workload_attributes: Some(prost_types::Struct {
            fields: [("unix".to_owned(), unix)].into(),
        }),
        image_signatures: Vec::new(),
    }
}

fn by_labels(key: &str) -> pb::SvidRequest {
    let selector = pb::LabelSelector {
        key: key.to_owned(),
        values: vec!["web".to_owned()],
    };
    pb::SvidRequest {
        selector: Some(pb::svid_request::Selector::Labels(pb::LabelSelectors {
            selectors: vec![selector],
            after: String::new(),
        })),
        ..jwt("", json!({}))
    }
}

/// Whether issuance can end in it; the others are of joining, renewing, connecting and
/// administrating.
fn is_of_issuance(denial: Denial) -> bool {
    match denial {
        Denial::UnknownToken
        | Denial::UsedToken
        | Denial::ExpiredToken
        | Denial::ExpiredCertificate
        | Denial::NotABot
        | Denial::RateLimited
        | Denial::NotAdmitted
        | Denial::UnknownGeneration => false,
        Denial::UnknownBot
        | Denial::UnknownInstance
        | Denial::Locked
        | Denial::CopiedIdentity
        | Denial::SupersededCertificate
        | Denial::InvalidRequest
        | Denial::UnknownWorkloadIdentity
        | Denial::LockedIdentity
        | Denial::NoRole
        | Denial::RoleDenies
        | Denial::RuleDenies
        | Denial::NoRule
        | Denial::Template
        | Denial::InvalidId
        | Denial::UnknownFederation
        | Denial::InvalidAudience
        | Denial::WitOff
        | Denial::InvalidCsr
        | Denial::InvalidTtl
        | Denial::TooMuch
        | Denial::Damaged
        | Denial::Authority => true,
    }
}

fn plain() -> Question {
    Question::new(jwt("plain", json!({})))
}

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec()
}

fn cases() -> Vec<(Denial, Question)> {
    use pb::svid_request::Document;
    let named = |name, workload| Question::new(jwt(name, workload));
    let asked = |document| Question::new(request("plain", document, json!({})));
    let at = |presented: u64| {
        plain().with(|question| question.asker = Asker::Bot(Arc::new(caller(presented))))
    };
    let mut short = jwt("plain", json!({}));
    short.ttl = Some(prost_types::Duration::default());
    let mut nothing = jwt("plain", json!({}));
    nothing.document = None;
    vec![
        (
            Denial::UnknownBot,
            plain().with(|question| question.catalog.remove_resource(Kind::Bot, "web")),
        ),
        (
            Denial::UnknownInstance,
            plain().with(|question| question.catalog = catalog(RESOURCES)),
        ),
        (Denial::Locked, plain().locked("bot: web")),
        (Denial::CopiedIdentity, at(3)),
        (Denial::SupersededCertificate, at(4)),
        (Denial::InvalidRequest, Question::new(nothing)),
        (Denial::UnknownWorkloadIdentity, named("none", json!({}))),
        (
            Denial::UnknownWorkloadIdentity,
            named("no name at all", json!({})),
        ),
        (
            Denial::LockedIdentity,
            plain().locked("workload_identity: plain"),
        ),
        (Denial::LockedIdentity, plain().locked("role: web")),
        (
            Denial::LockedIdentity,
            plain().locked("spiffe_id: 'spiffe://test.example/plain'"),
        ),
        (Denial::NoRole, named("other", json!({}))),
        (Denial::RoleDenies, named("denied", json!({}))),
        (Denial::RuleDenies, named("ruled", json!({ "uid": 0 }))),
        (Denial::NoRule, named("ruled", json!({ "uid": 1 }))),
        (Denial::Template, named("made", json!({}))),
        (
            Denial::InvalidId,
            named("made", json!({ "binary_path": "bot" })),
        ),
        (Denial::UnknownFederation, named("abroad", json!({}))),
        (
            Denial::InvalidAudience,
            asked(Document::Jwt(pb::JwtRequest { audiences: vec![] })),
        ),
        (
            Denial::InvalidAudience,
            asked(Document::Jwt(pb::JwtRequest {
                audiences: (0..9).map(|n| format!("{n}{}", "a".repeat(1000))).collect(),
            })),
        ),
        (
            Denial::InvalidCsr,
            asked(Document::X509(pb::X509Request {
                csrs_der: vec![vec![0; 40]],
            })),
        ),
        (Denial::InvalidTtl, Question::new(short)),
        (
            Denial::TooMuch,
            plain().with(|question| question.room.svids = 0),
        ),
        (
            Denial::Damaged,
            plain().with(|question| {
                let kind = Kind::WorkloadIdentity;
                question.catalog.put_resource(kind, "plain", 2, &[0xff]);
            }),
        ),
        (
            Denial::Authority,
            plain().with(|question| {
                question.now = moment() + std::time::Duration::from_secs(20 * 365 * 24 * 3600);
            }),
        ),
    ]
}

#[test]
fn every_reason_to_refuse_has_one_event_that_names_it() {
    // That all is well otherwise.
    let granted = plain().settled();
    assert_eq!(granted.outcomes()[0].grants.len(), 1);
    assert_eq!(granted.events().len(), 1);

    let mut seen = BTreeSet::new();
    for (denial, question) in cases() {
        let settled = question.settled();
        let outcome = &settled.outcomes()[0];
        assert!(outcome.grants.is_empty(), "{denial:?}");
        let refused = outcome.refused.as_ref().unwrap();
        assert_eq!(refused.denial, denial, "{}", refused.detail);
        let [event] = settled.events() else {
            panic!("{denial:?}: {:?}", settled.events());
        };
        assert!(!event.is_success());
        assert_eq!(event.text_field("reason"), denial.as_str());
        assert_eq!(event.text_field("bot_name"), "web", "{denial:?}");
        assert!(!event.text_field("error").is_empty(), "{denial:?}");
        // Who was refused as a copy is locked by whoever records it.
        assert_eq!(settled.copied.is_some(), denial == Denial::CopiedIdentity);
        seen.insert(denial.as_str());
    }
    // Of a keyring without that key; behaviour::issue_by_policy::refusals has it.
    seen.insert(Denial::WitOff.as_str());
    let lacking: Vec<_> = Denial::ALL
        .into_iter()
        .filter(|denial| is_of_issuance(*denial) && !seen.contains(denial.as_str()))
        .collect();
    assert_eq!(lacking, []);
}

/// By labels a caller that may ask for nothing has one event too, and what may not be had
/// of what is selected has one together.
#[test]
fn by_labels_each_refusal_has_one_event() {
    for (denial, mut question) in cases() {
        let of_caller = matches!(
            denial,
            Denial::UnknownBot
                | Denial::UnknownInstance
                | Denial::Locked
                | Denial::CopiedIdentity
                | Denial::SupersededCertificate
        );
        if !of_caller {
            continue;
        }
        question.item = Item::new(by_labels("app"));
        let settled = question.settled();
        let [event] = settled.events() else {
            panic!("{denial:?}: {:?}", settled.events());
        };
        assert_eq!(event.text_field("reason"), denial.as_str());
    }
    let settled = Question::new(by_labels("app")).settled();
    assert_eq!(settled.outcomes()[0].grants.len(), 1);
    let refused: Vec<_> = settled
        .events()
        .iter()
        .filter(|event| !event.is_success())
        .collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].fields_json().contains("role_denies"));
    let settled = Question::new(by_labels("none")).settled();
    let [event] = settled.events() else {
        panic!("{:?}", settled.events());
    };
    assert_eq!(event.text_field("reason"), "no_role");
}

/// A key for which a WIT cannot be made is found only while signing, by labels.
#[test]
fn what_cannot_be_signed_is_refused_with_one_event_and_the_others_are_granted() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = CertificateParams::default().serialize_request(&ed25519);
    let wit = pb::svid_request::Document::Wit(pb::WitRequest {
        csrs_der: vec![ed25519.unwrap().der().to_vec(), csr()],
    });
    let mut two = catalog(&format!(
        "{RESOURCES}---\nkind: workload_identity\nversion: v1\n\
         metadata: {{ name: second, labels: {{ app: web }} }}\nspec: {{ spiffe: {{ id: /second }} }}\n"
    ));
    two.put_instance(instance(5));
    let request = pb::SvidRequest {
        document: Some(wit),
        ..by_labels("app")
    };
    let question = Question::new(request).with(|question| question.catalog = two);
    let settled = question.settled();
    let outcome = &settled.outcomes()[0];
    assert_eq!(outcome.grants.len(), 1);
    assert_eq!(outcome.refused.as_ref().unwrap().denial, Denial::InvalidCsr);
    let reasons: Vec<_> = settled
        .events()
        .iter()
        .map(|event| event.text_field("reason"))
        .collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert_eq!(
        reasons
            .iter()
            .filter(|reason| **reason == "invalid_csr")
            .count(),
        1
    );
}
