use std::time::SystemTime;

use identity::TrustDomain;
use policy::Attributes;
use serde_json::{Value, json};

use super::{Explanation, PastDecision, Question, Suite, SupposedIssuer};
use crate::{
    audit::lines::Recorded,
    resources::{SvidKind, yaml},
};

const POLICY: &str = r#"
kind: role
version: v1
metadata: {name: ci}
spec: {allow: {workload_identity_labels: {for: [ci]}}}
---
kind: bot
version: v1
metadata: {name: ci}
spec: {roles: [ci]}
---
kind: workload_identity
version: v1
metadata: {name: deploy, labels: {for: ci}}
spec:
  rules:
    deny:
      - expression: 'has(join.github.event_name) && join.github.event_name == "pull_request"'
        description: no pull requests
    allow:
      - expression: 'has(join.github.ref) && join.github.ref == "refs/heads/main"'
        description: the main branch
  spiffe:
    id: /ci/{{ join.github.repository_owner }}/deploy
    x509:
      maximum_ttl: 15m
      dns_sans: ["{{ join.github.repository_owner }}.ci.example.org"]
    jwt:
      extra_claims: {level: 3, deep: ["{{ join.github.repository_owner }}", fixed]}
"#;

fn issuer() -> SupposedIssuer {
    let resources = yaml::read("policy.yaml", POLICY).unwrap();
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    SupposedIssuer::new(&trust_domain, resources, SystemTime::now()).unwrap()
}

fn question(github: Value) -> Question {
    Question {
        bot: "ci".to_owned(),
        workload_identity: "deploy".to_owned(),
        attributes: Attributes::from_json(&json!({ "join": { "github": github } })).unwrap(),
        signatures: std::sync::Arc::default(),
        kind: SvidKind::X509,
        audiences: Vec::new(),
        ttl: None,
    }
}

fn explain(github: Value) -> Explanation {
    issuer().explain(&question(github), SystemTime::now())
}

#[test]
fn what_is_granted_shows_the_svid_that_would_come_out() {
    let explained = explain(json!({ "ref": "refs/heads/main", "repository_owner": "acme" }));
    assert!(explained.allowed, "{explained}");
    assert_eq!(explained.role.as_deref(), Some("ci"));
    assert!(explained.rule.as_deref().unwrap().starts_with("allow[0]"));
    let svid = explained.svid.as_ref().unwrap();
    assert_eq!(svid["spiffe_id"], "spiffe://example.org/ci/acme/deploy");
    assert_eq!(svid["dns_sans"], json!(["acme.ci.example.org"]));
    assert_eq!(svid["ttl_seconds"], 900);
    let text = explained.to_string();
    assert!(
        text.starts_with("GRANTED: bot ci gets workload_identity deploy"),
        "{text}"
    );
    assert!(
        text.contains("join.github.repository_owner = \"acme\" (verified)"),
        "{text}"
    );
}

#[test]
fn what_is_refused_shows_the_part_that_decided_and_its_value() {
    let explained = explain(json!({ "ref": "refs/heads/x", "repository_owner": "acme" }));
    assert_eq!(explained.reason, Some("no_rule"));
    let last = explained.steps.last().unwrap();
    assert_eq!((last.step, last.passed), ("rules", false));
    let text = explained.to_string();
    let part = "join.github.ref == \"refs/heads/main\" = false";
    assert!(text.contains(part), "{text}");
    assert!(
        text.contains("join.github.ref = \"refs/heads/x\""),
        "{text}"
    );

    let pull = json!({ "ref": "refs/heads/main", "event_name": "pull_request" });
    let denied = explain(pull);
    assert_eq!(denied.reason, Some("rule_denies"));
    assert_eq!(denied.rule.as_deref(), Some("deny[0] (no pull requests)"));
}

#[test]
fn a_template_without_its_attribute_says_which() {
    let explained = explain(json!({ "ref": "refs/heads/main" }));
    assert_eq!(explained.reason, Some("template"));
    let error = explained.error.as_deref().unwrap();
    assert!(error.contains("join.github.repository_owner"), "{error}");
}

#[test]
fn nobody_gets_anything_without_bot_role_or_resource() {
    let mut unknown = question(json!({ "ref": "refs/heads/main" }));
    unknown.bot = "nobody".to_owned();
    let now = SystemTime::now();
    assert_eq!(issuer().explain(&unknown, now).reason, Some("unknown_bot"));
    unknown.bot = "ci".to_owned();
    unknown.workload_identity = "nothing".to_owned();
    let reason = issuer().explain(&unknown, now).reason;
    assert_eq!(reason, Some("unknown_workload_identity"));
}

#[test]
fn a_past_decision_is_asked_again() {
    let fields = json!({
        "bot_name": "ci",
        "workload_identity": "deploy",
        "workload_identity_revision": 1,
        "svid_type": "jwt",
        "audiences": ["db"],
        "reason": "no_rule",
        "attributes": { "join": { "github": { "ref": "refs/heads/x" } } },
    });
    let mut event = Recorded {
        sequence: 7,
        time_ms: 0,
        event: "spiffe.svid.issued".to_owned(),
        success: false,
        fields: fields.to_string(),
        hash: [0; 32],
    };
    let past = PastDecision::read(&event).unwrap();
    assert_eq!(past.question.kind, SvidKind::Jwt);
    assert_eq!(past.question.audiences, ["db"]);
    assert_eq!(
        (past.allowed, past.reason.as_deref()),
        (false, Some("no_rule"))
    );
    let now = issuer().explain(&past.question, SystemTime::now());
    assert_eq!(now.reason, Some("no_rule"));
    event.event = "bot.join".to_owned();
    let refused = PastDecision::read(&event).unwrap_err();
    assert!(refused.contains("event 7 is bot.join"), "{refused}");
}

#[test]
fn tests_pass_fail_with_a_difference_and_are_checked_as_they_are_read() {
    let suite = Suite::read(
        "t.yaml",
        r"
tests:
  - name: main
    bot: ci
    identity: deploy
    attributes: {join: {github: {ref: refs/heads/main, repository_owner: acme}}}
    expect: {id: spiffe://example.org/ci/acme/deploy, ttl: 15m, rule: 'allow[0]', role: ci}
  - name: a wrong expectation
    bot: ci
    identity: deploy
    attributes: {join: {github: {ref: refs/heads/main, repository_owner: acme}}}
    expect: {refused: no_rule}
",
    )
    .unwrap();
    let issuer = issuer();
    let differences: Vec<_> = suite
        .cases
        .iter()
        .map(|case| {
            let explained = issuer.explain(&case.question, SystemTime::now());
            case.differences(&serde_json::to_value(explained).unwrap())
        })
        .collect();
    assert_eq!(differences[0], []);
    assert_eq!(differences[1].len(), 1);
    assert_eq!(differences[1][0].expected, json!("no_rule"));
    assert_eq!(differences[1][0].actual, Value::Null);

    let wrong = "tests:\n  - name: a\n    bot: ci\n    identity: x\n    attributes: {join: {github: {rf: a}}}\n    expect: {hint: a}\n";
    let mistakes = Suite::read("t.yaml", wrong).unwrap_err();
    assert!(mistakes.contains("t.yaml:5:"), "{mistakes}");
    assert!(
        mistakes.contains("join.github.ref"),
        "did you mean: {mistakes}"
    );
    assert!(mistakes.contains("t.yaml:6:"), "{mistakes}");
    assert!(
        Suite::read("t.yaml", "tests: []")
            .unwrap_err()
            .contains("no test")
    );
}

#[test]
fn the_templates_of_claims_are_told_with_their_values() {
    let mut asked = question(json!({ "ref": "refs/heads/main", "repository_owner": "acme" }));
    asked.kind = SvidKind::Jwt;
    asked.audiences = vec!["db".to_owned()];
    let explained = issuer().explain(&asked, SystemTime::now());
    let of_claims: Vec<_> = explained
        .templates
        .iter()
        .filter(|told| told.field == "spiffe.jwt.extra_claims")
        .map(|told| told.trace.value.as_deref())
        .collect();
    assert_eq!(of_claims, [Some("acme")]);
}

/// What `issuer test` accepts of files, the issuer of that trust domain accepts.
#[test]
fn files_are_checked_as_the_issuer_checks_them() {
    let own = POLICY.replace("    x509:", "    federates_with: [example.org]\n    x509:");
    let resources = yaml::read("policy.yaml", &own).unwrap();
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let error = SupposedIssuer::new(&trust_domain, resources, SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("federates_with"), "{error}");
}
