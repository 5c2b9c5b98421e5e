//! Table tests of policy: who asks for what with which attributes, and what must come
//! out of it.
//!
//! ```yaml
//! trust_domain: example.org          # of the files; a running issuer has its own
//! resources: [policy/]               # files and directories; absent: a running issuer
//! tests:
//!   - name: the release workflow deploys
//!     bot: ci
//!     identity: deploy
//!     attributes: {join: {github: {repository: acme/app, ref: refs/heads/main}}}
//!     expect: {id: spiffe://example.org/ci/acme/app}
//!   - name: a fork does not
//!     bot: ci
//!     identity: deploy
//!     attributes: {join: {github: {repository: evil/app}}}
//!     expect: {refused: no_rule}
//! ```

use std::{sync::Arc, time::Duration};

use ::config::{Document, Fields, format_duration};
use identity::TrustDomain;
use policy::Attributes;
use serde_json::{Map, Value, json};

use super::Question;
use crate::resources::{SvidKind, yaml};

/// Longest life that may be written: above every bound, so that cutting can be tested.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A file of tests.
#[derive(Debug)]
pub struct Suite {
    /// Trust domain of an issuer that is made of files.
    pub trust_domain: Option<TrustDomain>,
    /// Files and directories of resources, relative to this file. Empty: the tests are
    /// for a running issuer.
    pub resources: Vec<String>,
    /// The tests, in order.
    pub cases: Vec<Case>,
}

/// One test.
#[derive(Debug)]
pub struct Case {
    /// For people.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// What must come out, by field.
    expected: Vec<(&'static str, Value)>,
}

/// A field that is not as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Which one.
    pub field: &'static str,
    /// As the test has it.
    pub expected: Value,
    /// As it came out.
    pub actual: Value,
}

impl Suite {
    /// Reads a file of tests. The error lists every mistake, each with
    /// `file:line:column`.
    pub fn read(file: &str, text: &str) -> Result<Self, String> {
        let documents = Document::parse_all(file, text).map_err(|error| error.to_string())?;
        let [document] = documents.as_slice() else {
            let count = documents.len();
            return Err(format!(
                "{file}: a file of tests is one document, here are {count}"
            ));
        };
        document
            .resolve(read_suite)
            .map_err(|error| error.to_string())
    }
}

fn read_suite(fields: &mut Fields<'_>) -> Option<Suite> {
    let trust_domain = fields.optional("trust_domain", |text| {
        TrustDomain::parse(text).map_err(|error| error.to_string())
    });
    let resources = fields.texts("resources");
    let wanted = fields.count("tests");
    let cases = fields.mappings("tests", read_case);
    if wanted == 0 {
        fields.mistake(
            "tests",
            "there is no test: write at least one below `tests`",
        );
    }
    Some(Suite {
        trust_domain,
        resources,
        cases,
    })
}

fn read_case(fields: &mut Fields<'_>) -> Option<Case> {
    let name = fields.required("name", as_written);
    let bot = fields.required("bot", as_written);
    let identity = fields.required("identity", as_written);
    let kind = fields.optional("type", |text| {
        text.parse::<SvidKind>().map_err(|error| error.to_string())
    });
    let audiences = fields.texts("audiences");
    let ttl = fields.duration("ttl", Duration::from_secs(1)..=TTL_MAX);
    let attributes = fields.free("attributes").map(yaml::free_to_json);
    let attributes = match attributes {
        None => Some(Attributes::new()),
        Some(tree) => match Attributes::from_json(&tree) {
            Ok(attributes) => Some(attributes),
            Err(errors) => {
                fields.mistake("attributes", errors);
                None
            }
        },
    };
    let expected = fields.required_mapping("expect", read_expected);
    Some(Case {
        name: name?,
        question: Question {
            bot: bot?,
            workload_identity: identity?,
            attributes: attributes?,
            signatures: Arc::default(),
            kind: kind.unwrap_or(SvidKind::X509),
            audiences,
            ttl: ttl.map(|ttl| prost_types::Duration {
                seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
        },
        expected: expected?,
    })
}

fn read_expected(fields: &mut Fields<'_>) -> Option<Vec<(&'static str, Value)>> {
    let mut expected = Vec::new();
    for key in ["refused", "id", "hint", "subject", "role", "rule"] {
        if let Some(text) = fields.optional(key, as_written) {
            expected.push((key, Value::String(text)));
        }
    }
    for key in ["dns_sans", "ip_sans", "audiences", "federates_with"] {
        if fields.has(key) {
            expected.push((key, json!(fields.texts(key))));
        }
    }
    if let Some(ttl) = fields.duration("ttl", Duration::from_secs(1)..=TTL_MAX) {
        expected.push(("ttl", Value::String(format_duration(ttl))));
    }
    if let Some(claims) = fields.free("claims") {
        expected.push(("claims", yaml::free_to_json(claims)));
    }
    let says = |key: &str| expected.iter().any(|(field, _)| *field == key);
    match (says("refused"), says("id")) {
        (false, false) => {
            fields.mistake(
                "",
                "say what must come out: `id: spiffe://…`, or `refused: REASON`",
            );
            return None;
        }
        (true, true) => {
            fields.mistake(
                "id",
                "what is refused has no id: leave out one of `refused` and `id`",
            );
            return None;
        }
        _ => {}
    }
    Some(expected)
}

fn as_written(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

impl Case {
    /// How an explanation (its JSON form) differs from what must come out.
    pub fn differences(&self, explanation: &Value) -> Vec<Difference> {
        let mut expected = self.expected.clone();
        if !expected.iter().any(|(field, _)| *field == "refused") {
            expected.insert(0, ("refused", Value::Null));
        }
        expected
            .into_iter()
            .map(|(field, expected)| Difference {
                field,
                actual: actual(field, explanation),
                expected,
            })
            .filter(|difference| difference.actual != difference.expected)
            .collect()
    }
}

fn actual(field: &str, explanation: &Value) -> Value {
    let svid = &explanation["svid"];
    match field {
        "refused" => explanation["reason"].clone(),
        "role" => explanation["role"].clone(),
        // Without its description.
        "rule" => match explanation["rule"].as_str() {
            Some(rule) => json!(rule.split(' ').next().unwrap_or_default()),
            None => Value::Null,
        },
        "id" => svid["spiffe_id"].clone(),
        "ttl" => match svid["ttl_seconds"].as_u64() {
            Some(seconds) => json!(format_duration(Duration::from_secs(seconds))),
            None => Value::Null,
        },
        "claims" => match &svid["extra_claims"] {
            Value::Null => Value::Object(Map::new()),
            claims => claims.clone(),
        },
        other => svid[other].clone(),
    }
}
