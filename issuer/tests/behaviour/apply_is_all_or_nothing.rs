//! Resources: YAML in, the same YAML out; a file is applied whole or not at all.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::harness::{Issuer, one_line_failure};

const SHOP: &str = "kind: workload_identity
version: v1
metadata:
  name: shop
  labels:
    app: shop
    stage: 'on'
  revision: 1
spec:
  spiffe:
    id: /shop/web
    hint: the shop
    x509:
      maximum_ttl: 14d
      dns_sans: [shop.example.org, '*.shop.example.org']
---
kind: role
version: v1
metadata:
  name: shop
  revision: 1
spec:
  allow:
    workload_identity_labels:
      app: [shop, 'yes']
      stage: ['*']
---
kind: bot
version: v1
metadata:
  name: shop
  revision: 1
spec:
  roles: [shop]
";

fn apply(issuer: &Issuer, yaml: &str) -> std::process::Output {
    let mut command: Command = issuer.command(&["apply", "-f", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(yaml.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &std::process::Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_applied_is_what_is_got_and_can_be_applied_again() {
    let issuer = Issuer::start();
    let first = SHOP.replace("  revision: 1\n", "");
    assert_eq!(
        stdout(&apply(&issuer, &first)),
        "workload_identity/shop created\nrole/shop created\nbot/shop created\n"
    );
    let got = ["workload_identity/shop", "role/shop", "bot/shop"]
        .map(|name| issuer.run(&["get", name, "-o", "yaml"]))
        .join("---\n");
    assert_eq!(got, SHOP);
    assert_eq!(
        stdout(&apply(&issuer, &got)).matches("unchanged").count(),
        3
    );
    // Nothing changed, nothing recorded.
    let creations = issuer
        .audit()
        .iter()
        .filter(|event| event["fields"]["name"] == "shop")
        .count();
    assert_eq!(creations, 3);
    let changed = got.replace("/shop/web", "/shop/api");
    assert!(stdout(&apply(&issuer, &changed)).contains("workload_identity/shop updated"));
    assert_eq!(
        issuer.last_event("workload_identity.update")["fields"]["revision"],
        2
    );
    // The same edit of an older state is refused.
    let line = one_line_failure(&apply(&issuer, &changed.replace("/shop/api", "/shop/x")));
    assert!(line.contains("revision 2, not 1"), "{line}");
    let json = issuer.json(&["get", "workload_identity/shop"]);
    assert_eq!(json[0]["spec"]["spiffe"]["id"], "/shop/api");
}

#[test]
fn one_wrong_resource_refuses_them_all() {
    let issuer = Issuer::start();
    for (wrong, told) in [
        (
            "spec: { roles: [nobody] }",
            "role nobody, which does not exist",
        ),
        ("spec: { roles: ['No Body'] }", "\"No Body\""),
        ("spec: { rolls: [] }", "rolls"),
        ("", "spec"),
    ] {
        let yaml = format!(
            "kind: role\nversion: v1\nmetadata: {{ name: fine }}\nspec: {{ allow: {{}} }}\n---\n\
             kind: bot\nversion: v1\nmetadata: {{ name: bad }}\n{wrong}\n"
        );
        let line = one_line_failure(&apply(&issuer, &yaml));
        assert!(line.contains(told), "{line}");
        assert!(
            issuer.json(&["get", "role"]).as_array().unwrap().is_empty(),
            "{wrong}"
        );
    }
    for (path, told) in [
        ("/bot/x", "belong to the issuer"),
        ("/issuer", "belong to the issuer"),
        ("/issuer/x", "belong to the issuer"),
        ("noslash", "begins with"),
        ("/a//b", "empty segment"),
        ("/a/", "empty segment"),
        ("/a/../b", "segment `..`"),
        ("/%61", "'%' cannot be in the path"),
        ("/ü", "'ü' cannot be in the path"),
    ] {
        let yaml = format!(
            "kind: workload_identity\nversion: v1\nmetadata: {{ name: w }}\nspec: {{ spiffe: {{ id: '{path}' }} }}\n"
        );
        let line = one_line_failure(&apply(&issuer, &yaml));
        assert!(line.contains(told) && line.contains("-:"), "{path}: {line}");
    }
    // Names that only resemble the reserved ones are free.
    for path in ["/bots", "/issuer2", "/a/bot", "/Bot"] {
        let yaml = format!(
            "kind: workload_identity\nversion: v1\nmetadata: {{ name: w }}\nspec: {{ spiffe: {{ id: '{path}' }} }}\n"
        );
        stdout(&apply(&issuer, &yaml));
    }
}

#[test]
fn id_16_ids_of_2048_bytes_are_accepted_and_2049_refused() {
    let issuer = Issuer::start();
    let room = 2048 - "spiffe://test.example/".len();
    for (length, fits) in [(room, true), (room + 1, false)] {
        let yaml = format!(
            "kind: workload_identity\nversion: v1\nmetadata: {{ name: long }}\nspec: {{ spiffe: {{ id: /{} }} }}\n",
            "a".repeat(length)
        );
        let output = apply(&issuer, &yaml);
        assert_eq!(output.status.success(), fits, "{length}");
    }
}

#[test]
fn tokens_can_be_applied_and_are_never_shown_again() {
    let issuer = Issuer::start();
    issuer.register("app");
    issuer.token("app");
    let secret = "a-secret-of-my-own-choosing-0123456789";
    let soon = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let expires = soon
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let yaml = |name: &str, expires: &str| {
        format!(
            "kind: token\nversion: v1\nmetadata: {{ name: {name}, expires: '{expires}' }}\n\
             spec: {{ roles: [Bot], join_method: token, bot_name: app }}\n"
        )
    };
    let told = stdout(&apply(&issuer, &yaml(secret, &expires)));
    assert!(
        told.starts_with("token/sha256-") && !told.contains(secret),
        "{told}"
    );
    let listed = issuer.run(&["get", "token", "-o", "yaml"]);
    assert!(!listed.contains(secret), "{listed}");
    for (name, expires, why) in [
        ("short", expires.as_str(), "32 to 64"),
        ("sha256-0123456789abcdef", &expires, "not its secret"),
        (secret, "2020-01-01T00:00:00Z", "in the past"),
        (secret, "2999-01-01T00:00:00Z", "more than 24h"),
    ] {
        let line = one_line_failure(&apply(&issuer, &yaml(name, expires)));
        assert!(line.contains(why) && !line.contains(secret), "{line}");
    }
    let bot = super::harness::block_on(issuer.join(secret)).unwrap();
    assert_eq!(bot.certificate.bot_name, "app");
    let line = one_line_failure(&apply(&issuer, &yaml(secret, &expires)));
    assert!(line.contains("has been used"), "{line}");
    let name = issuer.json(&["get", "token"])[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    issuer.run(&["delete", &format!("token/{name}")]);
    assert!(
        issuer
            .json(&["get", "token"])
            .as_array()
            .unwrap()
            .is_empty()
    );
}
