//! `issuer explain` and `issuer test`: the decision of the running issuer, told; and
//! that of files.

use super::harness::Issuer;

const POLICY: &str = "
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
    allow:
      - {expression: 'has(join.github.ref) && join.github.ref == \"refs/heads/main\"', description: the main branch}
  spiffe: {id: '/ci/{{ join.github.repository_owner }}'}
";

const TESTS: &str = "
tests:
  - name: main
    bot: ci
    identity: deploy
    attributes: {join: {github: {ref: refs/heads/main, repository_owner: acme}}}
    expect: {id: 'spiffe://test.example/ci/acme'}
  - name: a branch
    bot: ci
    identity: deploy
    attributes: {join: {github: {ref: refs/heads/x, repository_owner: acme}}}
    expect: {refused: no_rule}
";

#[test]
fn the_issuer_explains_and_records_nothing() {
    let issuer = Issuer::start();
    issuer.apply(POLICY);
    let attributes = issuer.home.path().join("attributes.yaml");
    std::fs::write(
        &attributes,
        "join: {github: {ref: refs/heads/x, repository_owner: acme}}\n",
    )
    .unwrap();
    let before = issuer.audit().len();
    let asked = [
        "explain",
        "--bot",
        "ci",
        "--identity",
        "deploy",
        "--attributes",
    ];
    let asked = [&asked[..], &[attributes.to_str().unwrap()]].concat();
    let text = issuer.run(&asked);
    assert!(text.starts_with("REFUSED (no_rule): bot ci"), "{text}");
    let seen = "join.github.ref == \"refs/heads/main\" = false";
    assert!(text.contains(seen), "{text}");
    std::fs::write(
        &attributes,
        "join: {github: {ref: refs/heads/main, repository_owner: acme}}\n",
    )
    .unwrap();
    let granted = issuer.json(&asked);
    assert_eq!(
        granted["svid"]["spiffe_id"],
        "spiffe://test.example/ci/acme"
    );
    assert_eq!(issuer.audit().len(), before, "nothing is recorded");

    // A lock is seen at once.
    issuer.apply(
        "kind: lock\nversion: v1\nmetadata: {name: stop}\nspec: {target: {bot: ci}, message: because}\n",
    );
    assert_eq!(issuer.json(&asked)["reason"], "locked");

    std::fs::write(&attributes, "join: {github: {rf: x}}\n").unwrap();
    let wrong = issuer.fails(&asked);
    assert!(wrong.contains("join.github.ref"), "did you mean: {wrong}");
}

#[test]
fn a_past_event_is_explained_as_it_would_be_now() {
    let issuer = Issuer::start();
    issuer.apply(POLICY);
    let token = issuer.token("ci");
    let refused = super::harness::block_on(async {
        let bot = issuer.join(&token).await.unwrap();
        issuer.issue(&bot, "deploy").await.is_err()
    });
    assert!(refused);
    let event = issuer
        .audit()
        .into_iter()
        .find(|event| event["event"] == "spiffe.svid.issued" && event["success"] == false)
        .unwrap();
    let sequence = event["sequence"].to_string();
    let explained = issuer.json(&["explain", "--event", &sequence]);
    assert_eq!(explained["then"]["reason"], "no_rule");
    assert_eq!(explained["reason"], "no_rule");
    assert_eq!(explained["then"]["resource_changed"], false);
    // The locks of whoever asked then count: those of the instance and of its token.
    let instance = event["fields"]["bot_instance_id"].as_str().unwrap();
    let token = issuer.last_event("bot.join")["fields"]["token"].clone();
    for target in [
        format!("bot_instance_id: {instance}"),
        format!("join_token: {}", token.as_str().unwrap()),
    ] {
        issuer.apply(&format!(
            "kind: lock\nversion: v1\nmetadata: {{name: stop}}\nspec: {{target: {{{target}}}}}\n"
        ));
        let explained = issuer.json(&["explain", "--event", &sequence]);
        assert_eq!(explained["reason"], "locked", "{target}");
        issuer.run(&["delete", "lock/stop"]);
    }
    issuer.apply(&POLICY.replace("refs/heads/main", "refs/heads/other"));
    let explained = issuer.json(&["explain", "--event", &sequence]);
    assert_eq!(explained["then"]["resource_changed"], true);
    let wrong = issuer.fails(&["explain", "--event", "1"]);
    assert!(
        wrong.contains("cannot be explained") || wrong.contains("can be explained"),
        "{wrong}"
    );
    let none = issuer.fails(&["explain", "--event", "999999"]);
    assert!(none.contains("999999"), "{none}");
}

#[test]
fn policy_is_tested_on_files_and_on_the_running_issuer() {
    let issuer = Issuer::start();
    issuer.apply(POLICY);
    let folder = issuer.home.path().join("policy");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
    let tests = issuer.home.path().join("policy_test.yaml");
    let offline = format!("trust_domain: test.example\nresources: [policy]\n{TESTS}");
    std::fs::write(&tests, &offline).unwrap();
    let file = tests.to_str().unwrap();
    assert!(issuer.run(&["test", file]).contains("2 passed, 0 failed"));
    assert!(
        issuer
            .run(&["test", "--live", file])
            .contains("2 passed, 0 failed")
    );

    std::fs::write(
        &tests,
        offline.replace("refused: no_rule", "id: 'spiffe://x/y'"),
    )
    .unwrap();
    let output = issuer.output(&["test", file]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAILED a branch"), "{text}");
    assert!(text.contains("- id: spiffe://x/y"), "{text}");
    assert!(text.contains("+ refused: no_rule"), "{text}");
    assert!(text.contains("no allow rule matches"), "{text}");

    std::fs::write(&tests, "tests:\n  - nam: x\n").unwrap();
    let output = issuer.output(&["test", file]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("policy_test.yaml:2:5"), "{errors}");
}
