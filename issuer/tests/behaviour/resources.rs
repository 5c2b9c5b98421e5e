//! Resources from files to the issuer and back: directories, dry runs, revisions, and
//! what is checked on the way.

mod documented;
mod editing;
mod pages;

use std::{fs, process::Output};

use hyper_util::rt::TokioIo;
use proto::admin::v1::{self as pb, admin_service_client::AdminServiceClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::harness::{Issuer, block_on};

pub(super) fn bot(name: &str, more: &str) -> String {
    format!("kind: bot\nversion: v1\nmetadata: {{name: {name}}}\nspec: {{{more}}}\n")
}

pub(super) fn role(name: &str, labels: &str) -> String {
    format!(
        "kind: role\nversion: v1\nmetadata: {{name: {name}}}\n\
         spec: {{allow: {{workload_identity_labels: {labels}}}}}\n"
    )
}

pub(super) fn identity(name: &str, path: &str) -> String {
    format!(
        "kind: workload_identity\nversion: v1\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{spiffe: {{id: {path}}}}}\n"
    )
}

pub(super) fn write(issuer: &Issuer, name: &str, text: &str) -> String {
    let path = issuer.home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard error of a command that fails with status 1.
#[track_caller]
pub(super) fn failure(output: &Output) -> String {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    errors
}

#[test]
fn a_directory_is_applied_in_one_go_and_again_changes_nothing() {
    let issuer = Issuer::start();
    write(&issuer, "d/2.yml", &bot("b", "roles: [r]"));
    write(
        &issuer,
        "d/1.yaml",
        &format!("{}---\n{}", identity("w", "/w"), identity("x", "/x")),
    );
    write(&issuer, "d/notes.txt", "not YAML: [");
    write(&issuer, "d/more/r.yaml", &role("r", "{app: w}"));
    let directory = issuer.home.path().join("d");
    let directory = directory.to_str().unwrap();
    // The role is further down.
    let refused = failure(&issuer.output(&["apply", "-f", directory]));
    assert!(
        refused.contains("role r, which does not exist"),
        "{refused}"
    );
    assert_eq!(issuer.run(&["get", "workload_identity"]).lines().count(), 1);
    let told = issuer.run(&["apply", "-R", "-f", directory]);
    assert_eq!(
        told,
        "workload_identity/w created\nworkload_identity/x created\nbot/b created\nrole/r created\n"
    );
    let events = issuer.audit().len();
    let told = issuer.run(&["apply", "-R", "-f", directory]);
    assert_eq!(told.matches("unchanged").count(), 4, "{told}");
    assert_eq!(issuer.audit().len(), events);
}

#[test]
fn the_mistakes_of_all_files_are_told_at_once_each_at_its_place() {
    let issuer = Issuer::start();
    let one = write(
        &issuer,
        "d/1.yaml",
        "kind: bott\nversion: v1\nmetadata: {name: B}\nspec: {}\n",
    );
    let wrong = "kind: workload_identity\nversion: v1\nmetadata: {name: w}\nspec:\n  rules:\n    allow:\n      - expression: join.github.repositry == 'a/b'\n  spiffe: {id: '/{{ user.nam }}', hintt: x}\n";
    let two = write(&issuer, "d/2.yaml", wrong);
    let twice = format!("{}---\n{}", bot("b", ""), bot("b", ""));
    let three = write(&issuer, "d/3.yaml", &twice);
    let directory = issuer.home.path().join("d");
    let told = failure(&issuer.output(&["apply", "-f", directory.to_str().unwrap()]));
    for expected in [
        format!("{one}:1:7: "),
        "did you mean bot?".to_owned(),
        format!("{two}:7:21: "),
        "did you mean `join.github.repository`?".to_owned(),
        format!("{two}:8:21: "),
        "did you mean `user.name`?".to_owned(),
        format!("{two}:8:35: unknown key `hintt`: did you mean `hint`?"),
        format!("{three}:8:18: "),
    ] {
        assert!(told.contains(&expected), "no {expected:?} in:\n{told}");
    }
    // The server says the same of what comes past the command line.
    let status = block_on(async {
        let spec = pb::WorkloadIdentitySpec {
            spiffe_path: "/{{ user.nam }}".to_owned(),
            ..Default::default()
        };
        let mut client = admin(&issuer).await;
        let request = pb::ApplyResourcesRequest {
            resources: vec![resource("w", pb::resource::Spec::WorkloadIdentity(spec))],
            dry_run: false,
        };
        client.apply_resources(request).await.unwrap_err()
    });
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "workload_identity/w: spec.spiffe.id: column 5: `user.nam` is not an attribute; did you mean `user.name`?"
    );
    let event = issuer.last_event("resource.apply");
    assert_eq!(event["success"], false, "{event}");
    assert!(event.to_string().contains("user.nam"), "{event}");
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let issuer = Issuer::start();
    issuer.apply(&format!(
        "{}---\n{}",
        role("r", "{app: w}"),
        bot("b", "roles: [r]")
    ));
    let events = issuer.audit().len();
    let file = write(
        &issuer,
        "new.yaml",
        &format!(
            "{}---\n{}---\n{}",
            role("r", "{app: [w, x]}"),
            bot("b", "roles: [r]"),
            identity("w", "/w")
        ),
    );
    let shown = issuer.run(&["apply", "-f", &file, "--dry-run"]);
    assert_eq!(
        shown,
        "\
--- role/r (revision 1)
+++ role/r
@@ -5,4 +5,4 @@
 spec:
   allow:
     workload_identity_labels:
-      app: [w]
+      app: [w, x]
--- /dev/null
+++ workload_identity/w
@@ -0,0 +1,9 @@
+kind: workload_identity
+version: v1
+metadata:
+  name: w
+  labels:
+    app: w
+spec:
+  spiffe:
+    id: /w
"
    );
    let code = |file: &str| {
        let output = issuer.output(&["apply", "-f", file, "--dry-run", "--exit-code"]);
        output.status.code()
    };
    assert_eq!(code(&file), Some(3));
    // What would be refused is, and nothing is recorded of either.
    let lost = write(&issuer, "lost.yaml", &bot("c", "roles: [none]"));
    let refused = failure(&issuer.output(&["apply", "-f", &lost, "--dry-run"]));
    assert!(
        refused.contains("role none, which does not exist"),
        "{refused}"
    );
    assert_eq!(issuer.audit().len(), events);
    assert_eq!(
        issuer.json(&["get", "role/r"])[0]["metadata"]["revision"],
        1
    );
    issuer.run(&["apply", "-f", &file]);
    assert_eq!(code(&file), Some(0));
}

#[test]
fn what_get_prints_is_what_apply_takes() {
    let issuer = Issuer::start();
    issuer.apply(&format!(
        "{}---\n{}---\n{}",
        role("r", "{app: w}"),
        bot("b", "roles: [r], max_session_ttl: 2h, traits: [{name: t, values: ['on', '1']}]"),
        "kind: workload_identity\nversion: v1\nmetadata: {name: w, description: \"a\\nb\"}\nspec:\n  rules:\n    deny:\n      - {expression: \"user.name == 'x'\", description: 'it''s x'}\n  spiffe:\n    id: '/w/{{ user.name }}'\n    jwt: {extra_claims: {n: [1, 2.5, null]}}\n"
    ));
    for kind in ["role", "bot", "workload_identity"] {
        let yaml = issuer.run(&["get", kind, "-o", "yaml"]);
        let file = write(&issuer, "again.yaml", &yaml);
        let told = issuer.run(&["apply", "-f", &file]);
        assert!(told.ends_with("unchanged\n"), "{told}{yaml}");
    }
    let shown = issuer.json(&["get", "workload_identity/w"]);
    let claims = &shown[0]["spec"]["spiffe"]["jwt"]["extra_claims"];
    assert_eq!(claims["n"], serde_json::json!([1, 2.5, null]));
}

#[test]
fn a_stale_revision_is_refused_on_apply_and_on_delete_and_recorded_once() {
    let issuer = Issuer::start();
    issuer.apply(&role("r", "{app: a}"));
    let stale = issuer.run(&["get", "role/r", "-o", "yaml"]);
    issuer.apply(&role("r", "{app: b}"));
    let events = issuer.audit().len();
    let file = write(&issuer, "stale.yaml", &stale.replace("[a]", "[c]"));
    for arguments in [
        &["apply", "-f", &file][..],
        &["delete", "-f", &file],
        &["delete", "role/r", "--revision", "1"],
    ] {
        let told = issuer.fails(arguments);
        assert!(told.contains("at revision 2, not 1"), "{told}");
    }
    let refused = &issuer.audit()[events..];
    let names: Vec<_> = refused.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["resource.apply", "role.delete", "role.delete"]);
    for event in refused {
        assert_eq!(event["success"], false);
        assert!(
            event.to_string().contains("at revision 2, not 1"),
            "{event}"
        );
    }
    issuer.run(&["delete", "role/r", "--revision", "2"]);
    assert_eq!(issuer.last_event("role.delete")["success"], true);
}

#[test]
fn several_are_deleted_and_what_cannot_be_stops_no_other() {
    let issuer = Issuer::start();
    let all = format!(
        "{}---\n{}---\n{}",
        role("r", "{app: w}"),
        bot("b", "roles: [r]"),
        bot("c", "")
    );
    let file = write(&issuer, "all.yaml", &all);
    issuer.run(&["apply", "-f", &file]);
    let output = issuer.output(&["delete", "role/r", "role/none", "bot/c"]);
    let told = failure(&output);
    assert_eq!(text(&output.stdout), "bot/c deleted\n");
    assert!(told.contains("role r is held by b"), "{told}");
    assert!(told.contains("there is no role \"none\""), "{told}");
    // The bot goes first, though the file has the role first.
    issuer.apply(&bot("c", ""));
    let told = issuer.run(&["delete", "-f", &file]);
    assert_eq!(told, "bot/b deleted\nbot/c deleted\nrole/r deleted\n");
}

#[test]
fn a_lock_is_a_resource_with_an_end_and_what_does_not_exist_is_a_warning() {
    let issuer = Issuer::start();
    issuer.apply(&bot("b", ""));
    let told = issuer.run(&["lock", "--bot", "b", "--message", "lost", "--ttl", "1h"]);
    let name = told.split_whitespace().next().unwrap().to_owned();
    assert!(name.starts_with("lock/lock-"), "{told}");
    let shown = issuer.json(&["get", &name]);
    assert_eq!(shown[0]["spec"]["target"]["bot"], "b");
    assert_eq!(shown[0]["spec"]["message"], "lost");
    assert!(shown[0]["metadata"]["expires"].is_string());
    let event = issuer.last_event("lock.create");
    assert_eq!(event["success"], true);
    assert!(event.to_string().contains("lost"), "{event}");
    issuer.run(&["delete", &name]);
    assert_eq!(issuer.last_event("lock.delete")["success"], true);
    let output = issuer.output(&["lock", "--role", "none", "--name", "l"]);
    assert_eq!(text(&output.stdout), "lock/l created\n");
    assert!(text(&output.stderr).contains("warning: lock l is on role none, which does not exist"));
    let usage = issuer.output(&["lock", "--bot", "b", "--role", "r"]);
    assert_eq!(usage.status.code(), Some(2));
    let past = "kind: lock\nversion: v1\nmetadata: {name: p, expires: 2020-01-01T00:00:00Z}\nspec: {target: {bot: b}}\n";
    let file = write(&issuer, "past.yaml", past);
    assert!(
        issuer
            .fails(&["apply", "-f", &file])
            .contains("in the past")
    );
}

#[test]
fn a_federation_is_checked_and_one_that_is_missing_is_a_warning() {
    let issuer = Issuer::start();
    let federation = |name: &str, bundle: &str| {
        format!(
            "kind: spiffe_federation\nversion: v1\nmetadata: {{name: {name}}}\n\
             spec: {{bundle_source: {{static: {{bundle: '{bundle}'}}}}}}\n"
        )
    };
    let identity = "kind: workload_identity\nversion: v1\nmetadata: {name: w}\nspec: {spiffe: {id: /w, federates_with: [other.example]}}\n";
    let file = write(&issuer, "w.yaml", identity);
    let output = issuer.output(&["apply", "-f", &file]);
    let warned = text(&output.stderr);
    assert!(
        output.status.success() && warned.contains("no spiffe_federation yet"),
        "{warned}"
    );
    let bundle = issuer.run(&["bundle", "-o", "spiffe"]);
    issuer.apply(&federation("other.example", bundle.trim()));
    let output = issuer.output(&["apply", "-f", &file]);
    assert_eq!(text(&output.stderr), "");
    let own = write(
        &issuer,
        "own.yaml",
        &federation("test.example", bundle.trim()),
    );
    assert!(
        issuer
            .fails(&["apply", "-f", &own])
            .contains("own trust domain")
    );
    let own = write(
        &issuer,
        "own.yaml",
        &identity.replace("other.example", "test.example"),
    );
    assert!(
        issuer
            .fails(&["apply", "-f", &own])
            .contains("is always sent")
    );
}

fn resource(name: &str, spec: pb::resource::Spec) -> pb::Resource {
    pb::Resource {
        metadata: Some(pb::Metadata {
            name: name.to_owned(),
            ..Default::default()
        }),
        spec: Some(spec),
    }
}

pub(super) async fn admin(issuer: &Issuer) -> AdminServiceClient<Channel> {
    let socket = issuer.data_dir().join("admin.sock");
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://admin.socket")
        .connect_with_connector(connector)
        .await;
    AdminServiceClient::new(channel.unwrap())
}

#[test]
fn a_bot_that_cannot_be_added_is_recorded_once() {
    let issuer = Issuer::start();
    for wrong in [
        &["bot", "add", "Not A Name"][..],
        &["bot", "add", "good", "--roles", "Not A Role"],
        &["bot", "add", "good", "--roles", "missing"],
    ] {
        let before = issuer.audit().len();
        issuer.fails(wrong);
        let told = issuer.audit().split_off(before);
        assert_eq!(told.len(), 1, "{wrong:?}: {told:?}");
        assert_eq!(told[0]["event"], "resource.apply");
        assert_eq!(told[0]["success"], false);
        let name = format!("bot/{}", wrong[2]);
        assert_eq!(told[0]["fields"]["resources"][0], name.as_str());
    }
}
