use super::{read, to_json, write};

mod properties;

/// `file:line:column: message` of every mistake.
fn mistakes(text: &str) -> Vec<String> {
    let Err(mistakes) = read("f", text) else {
        panic!("no mistake in:\n{text}");
    };
    mistakes.iter().map(ToString::to_string).collect()
}

const WORKLOAD: &str = "kind: workload_identity\nversion: v1\nmetadata: {name: w}\n";

#[test]
fn every_class_of_mistake_has_its_position_and_its_remedy() {
    let workload = |spec: &str| format!("{WORKLOAD}{spec}");
    let spiffe = |fields: &str| workload(&format!("spec: {{spiffe: {{id: /a, {fields}}}}}\n"));
    let allow = |rule: &str| {
        workload(&format!(
            "spec:\n  rules:\n    allow:\n      - {rule}\n  spiffe: {{id: /a}}\n"
        ))
    };
    let cases: Vec<(String, &str, &str)> = vec![
        // the document
        ("a: [".into(), "1:4:", "not YAML"),
        ("[]".into(), "1:1:", "expected a mapping of keys"),
        ("kind: bott\nversion: v1\nmetadata: {name: b}\nspec: {}\n".into(), "1:7:", "did you mean bot?"),
        ("kind: widget\nversion: v1\nmetadata: {name: b}\n".into(), "1:7:", "one of bot, role, token, workload_identity, lock, spiffe_federation"),
        ("kind: bot\nversion: v7\nmetadata: {name: b}\nspec: {}\n".into(), "2:10:", "write v1"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\n".into(), "1:1:", "missing key `spec`"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {}\nkind: role\n".into(), "5:1:", "stands twice (first on line 1)"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {roles: !!int [a]}\n".into(), "4:21:", "tag `!!int` is not supported"),
        // metadata
        ("kind: bot\nversion: v1\nmetadata: {name: B}\nspec: {}\n".into(), "3:18:", "1 to 64 of a-z 0-9"),
        ("kind: bot\nversion: v1\nmetadata: {nmae: b}\nspec: {}\n".into(), "3:12:", "did you mean `name`?"),
        ("kind: bot\nversion: v1\nmetadata: {name: b, labels: {ä: b}}\nspec: {}\n".into(), "3:33:", "printable ASCII"),
        ("kind: bot\nversion: v1\nmetadata: {name: b, labels: [x]}\nspec: {}\n".into(), "3:29:", "expected a mapping"),
        ("kind: bot\nversion: v1\nmetadata: {name: b, revision: -1}\nspec: {}\n".into(), "3:31:", "whole number"),
        ("kind: bot\nversion: v1\nmetadata: {name: b, expires: soon}\nspec: {}\n".into(), "3:30:", "RFC 3339"),
        ("kind: bot\nversion: v1\nmetadata: {name: b, expires: 2030-01-01T00:00:00Z}\nspec: {}\n".into(), "3:30:", "only tokens and locks expire"),
        // bot, role, token
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {roles: [a, B b]}\n".into(), "4:19:", "letter or digit first"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {roles: a}\n".into(), "4:15:", "expected a sequence"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {role: [a]}\n".into(), "4:8:", "did you mean `roles`?"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {max_session_ttl: 25h}\n".into(), "4:25:", "from 1s to 1d"),
        ("kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {traits: [{name: a, values: [x]}, {name: a}]}\n".into(), "4:48:", "given twice"),
        ("kind: role\nversion: v1\nmetadata: {name: r}\nspec: {allow: {workload_identity_labels: {'*': [prod]}}}\n".into(), "4:42:", "goes with the value `*` only"),
        ("kind: role\nversion: v1\nmetadata: {name: r}\nspec: {allow: {}, denny: {}}\n".into(), "4:19:", "did you mean `deny`?"),
        ("kind: token\nversion: v1\nmetadata: {name: short}\nspec: {join_method: token, bot_name: b}\n".into(), "3:18:", "32 to 64 characters"),
        (format!("kind: token\nversion: v1\nmetadata: {{name: {}}}\nspec: {{join_method: magic, bot_name: b}}\n", "a".repeat(32)), "4:21:", "write token"),
        (format!("kind: token\nversion: v1\nmetadata: {{name: {}}}\nspec: {{join_method: token, bot_name: b, roles: [Node]}}\n", "a".repeat(32)), "4:49:", "write Bot"),
        // lock
        ("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {target: {}}\n".into(), "4:16:", "one of bot, bot_instance_id"),
        ("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {target: {bot: a, role: b}}\n".into(), "4:31:", "`role` stands beside `bot`"),
        ("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {target: {bot_instance_id: x}}\n".into(), "4:34:", "not a UUID"),
        ("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {target: {spiffe_id: /x}}\n".into(), "4:28:", ""),
        ("kind: lock\nversion: v1\nmetadata: {name: l}\nspec: {target: {bots: x}}\n".into(), "4:17:", "did you mean `bot`?"),
        // spiffe_federation
        ("kind: spiffe_federation\nversion: v1\nmetadata: {name: Other.Example}\nspec: {bundle_source: {static: {bundle: '{\"keys\":[]}'}}}\n".into(), "3:18:", ""),
        ("kind: spiffe_federation\nversion: v1\nmetadata: {name: other.example}\nspec: {bundle_source: {static: {bundle: '{'}}}\n".into(), "4:41:", ""),
        ("kind: spiffe_federation\nversion: v1\nmetadata: {name: other.example}\nspec: {bundle_source: {https_web: {bundle_endpoint_url: 'https://x'}}}\n".into(), "4:35:", "does not fetch bundles yet"),
        // workload_identity
        (workload("spec: {spiffe: {}}\n"), "4:16:", "missing key `id`"),
        (workload("spec: {spifffe: {id: /a}}\n"), "4:8:", "did you mean `spiffe`?"),
        (workload("spec: {spiffe: {id: a}}\n"), "4:21:", "begins with `/`"),
        (workload("spec: {spiffe: {id: /a/../b}}\n"), "4:26:", "segment `..`"),
        (workload("spec: {spiffe: {id: /bot/x}}\n"), "4:21:", "belong to the issuer"),
        (workload("spec: {spiffe: {id: '/issuer/{{ user.name }}'}}\n"), "4:21:", "belong to the issuer"),
        (workload("spec: {spiffe: {id: '/a/{{ user.nam }}'}}\n"), "4:28:", "did you mean `user.name`?"),
        (workload("spec:\n  spiffe:\n    id: \"/a/{{ user.name\"\n"), "6:13:", "`}}`"),
        (spiffe("hint: '{{ join.github.repositori }}'"), "4:35:", "did you mean `join.github.repository`?"),
        (spiffe("x509: {maximum_ttl: 15d}"), "4:45:", "from 1s to 14d"),
        (spiffe("x509: {maximum_ttl: 1h, default_ttl: 2h}"), "4:62:", "more than the maximum_ttl, 1h"),
        (spiffe("x509: {dns_sans: [a.b, A.b, '{{ user.name }}.x', a.b]}"), "4:48:", "lower case"),
        (spiffe("x509: {dns_sans: [a.b, a.b]}"), "4:48:", "given twice"),
        (spiffe("x509: {ip_sans: [10.0.0]}"), "4:42:", "IPv4 or IPv6"),
        (spiffe("x509: {subject_template: {common_nam: x}}"), "4:51:", "did you mean `common_name`?"),
        (spiffe("jwt: {maximum_ttl: 25h}"), "4:44:", "from 1s to 1d"),
        (spiffe("jwt: {algorithm: HS256}"), "4:42:", "write ES256 or RS256"),
        (spiffe("jwt: {extra_claims: {a: {b: ['{{ user.nme }}']}}}"), "4:58:", "did you mean `user.name`?"),
        (spiffe("jwt: {extra_claims: {sub: x}}"), "4:51:", "the issuer sets the claim sub"),
        (spiffe("jwt: {extra_claims: {a: .inf}}"), "4:49:", "no such number in JSON"),
        (spiffe("federates_with: [Other]"), "4:42:", ""),
        // rules
        (allow("{}"), "7:9:", "an expression or conditions"),
        (allow("{expression: 'true', conditions: [{attribute: user.name, eq: {value: x}}]}"), "7:9:", "not both"),
        (allow("expression: join.github.repo == 'a/b'"), "7:21:", "did you mean"),
        (allow("expression: 'join.github.repository == 7'"), "7:", "`expression`"),
        (allow("expression: |\n          user.is_bot\n            && user.nme == 'x'\n"), "9:16:", "did you mean `user.name`?"),
        (allow("expression: >\n          user.is_bot\n          && user.nme == 'x'\n"), "8:11:", "at its column 16"),
        (allow("expression: user.name"), "7:", "true or false"),
        (allow("{expression: \"workload.unix.uid == 0\", require_verified: true}"), "7:", "`expression`"),
        (allow("{require_verifed: true, expression: user.is_bot}"), "7:10:", "did you mean `require_verified`?"),
        (allow("conditions: [{attribute: join.github.repo, eq: {value: x}}]"), "7:34:", "did you mean"),
        (allow("conditions: [{attribute: user.name, eqq: {value: x}}]"), "7:45:", "did you mean `eq`?"),
        (allow("conditions: [{attribute: user.name, eq: x}]"), "7:49:", "expected a mapping"),
        (allow("conditions: [{attribute: user.name, eq: {value: x}, in: {values: [x]}}]"), "7:65:", "stands beside"),
        (allow("conditions: [{attribute: user.name, in: {values: []}}]"), "7:", "needs a value"),
        (allow("conditions: [{attribute: user.name, matches: {value: '('}}]"), "7:62:", "regular expression"),
    ];
    let mut missed = Vec::new();
    for (text, position, part) in cases {
        let found = mistakes(&text);
        let expected = format!("f:{position}");
        let fits = |mistake: &String| mistake.starts_with(&expected) && mistake.contains(part);
        if !found.iter().any(fits) {
            missed.push(format!("no `{expected} …{part}` in {found:#?} of:\n{text}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn all_mistakes_are_told_in_one_run_and_what_follows_from_one_is_not() {
    let text = "\
kind: workload_identity
version: v1
metadata: {name: W}
spec:
  rules:
    allow:
      - expression: user.nme == 'x'
      - conditions:
          - {attribute: user.nam, eq: {value: x}}
          - {attribute: join.github.repositry, eq: {value: x}}
    deny:
      - {descripton: x, expression: user.is_bot}
  spiffe:
    hint: '{{ }}'
    x509: {maximum_ttl: never, dns_sans: [{}, UPPER]}
---
kind: bot
version: v1
metadata: {name: b, name: c}
spec: {roles: [A]}
";
    let found = mistakes(text);
    let places: Vec<_> = found
        .iter()
        .map(|mistake| {
            let mut parts = mistake.splitn(4, ':').skip(1);
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap();
            (number(), number())
        })
        .collect();
    let expected = [
        (3, 18),
        (7, 21),
        (9, 25),
        (10, 25),
        (12, 10),
        (14, 5),
        (14, 14),
        (15, 25),
        (15, 43),
        (15, 47),
        (19, 21),
        (20, 16),
    ];
    assert_eq!(places, expected, "{found:#?}");
}

#[test]
fn a_name_that_stands_twice_is_told_without_a_secret() {
    let bot = "kind: bot\nversion: v1\nmetadata: {name: b}\nspec: {}\n";
    let found = mistakes(&format!("{bot}---\n{bot}"));
    assert_eq!(
        found,
        ["f:8:18: `name`: bot b stands twice (first on line 1)"]
    );
    let secret = "a".repeat(40);
    let token = format!(
        "kind: token\nversion: v1\nmetadata: {{name: {secret}}}\nspec: {{join_method: token, bot_name: b}}\n"
    );
    let found = mistakes(&format!("{token}---\n{token}"));
    assert!(found.len() == 1 && !found[0].contains(&secret), "{found:?}");
}

#[test]
fn a_workload_identity_is_written_as_people_write_it() {
    let text = "\
kind: workload_identity
version: v1
metadata:
  name: ci
  description: Releases.
  labels:
    env: prod
spec:
  rules:
    allow:
      - description: the release workflow
        expression: |
          join.github.repository == 'acme/web'
            && join.github.ref.startsWith('refs/tags/')
        require_verified: true
      - conditions:
          - attribute: join.gitlab.project_path
            in:
              values: ['acme/web', 'acme/api']
          - attribute: user.name
            not_eq:
              value: root
    deny:
      - conditions:
          - attribute: join.meta.join_method
            prefix:
              value: kube
  spiffe:
    id: '/ci/{{ user.bot_name }}'
    hint: ci
    x509:
      maximum_ttl: 2h
      default_ttl: 30m
      dns_sans: [a.example, '{{ user.bot_name }}.example']
      ip_sans: ['10.0.0.1']
      subject_template:
        common_name: '{{ user.bot_name }}'
        organization: Acme
    jwt:
      algorithm: RS256
      extra_claims:
        count: 3
        nested:
          list: [1.5, null, true, '{{ user.name }}']
    wit:
      maximum_ttl: 5m
    federates_with: [other.example]
";
    let resources = read("f", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let written = write(&resources);
    // `acme/web` needs no quotes.
    assert_eq!(
        written,
        text.replace("['acme/web', 'acme/api']", "[acme/web, acme/api]")
    );
    let json = to_json(&resources[0]);
    assert_eq!(json["spec"]["spiffe"]["jwt"]["extra_claims"]["count"], 3);
    assert_eq!(json["spec"]["rules"]["allow"][0]["require_verified"], true);
}
