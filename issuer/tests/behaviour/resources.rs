//! Resources from files to the issuer and back: directories, dry runs, editors,
//! revisions, labels, pages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hyper_util::rt::TokioIo;
use prost::Message;
use proto::admin::v1::{self as pb, admin_service_client::AdminServiceClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::harness::{Issuer, block_on};

fn bot(name: &str, more: &str) -> String {
    format!("kind: bot\nversion: v1\nmetadata: {{name: {name}}}\nspec: {{{more}}}\n")
}

fn role(name: &str, labels: &str) -> String {
    format!(
        "kind: role\nversion: v1\nmetadata: {{name: {name}}}\n\
         spec: {{allow: {{workload_identity_labels: {labels}}}}}\n"
    )
}

fn identity(name: &str, path: &str) -> String {
    format!(
        "kind: workload_identity\nversion: v1\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{spiffe: {{id: {path}}}}}\n"
    )
}

fn write(issuer: &Issuer, name: &str, text: &str) -> String {
    let path = issuer.home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard error of a command that fails with status 1.
#[track_caller]
fn failure(output: &Output) -> String {
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

/// An editor that is a shell script; `$1` is the file.
fn edit(issuer: &Issuer, resource: &str, script: &str) -> Command {
    let editor = write(
        issuer,
        &format!("editor-{}.sh", resource.replace('/', "-")),
        script,
    );
    let mut command = issuer.command(&["edit", resource]);
    command
        .env("EDITOR", format!("sh {editor}"))
        .env_remove("VISUAL")
        .env("TMPDIR", drafts(issuer));
    command
}

fn drafts(issuer: &Issuer) -> PathBuf {
    let directory = issuer.home.path().join("drafts");
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn kept(issuer: &Issuer) -> Vec<PathBuf> {
    let entries = fs::read_dir(drafts(issuer)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_editor_changes_a_resource_and_leaves_no_file() {
    let issuer = Issuer::start();
    issuer.apply(&role("r", "{app: a}"));
    let output = edit(&issuer, "role/r", "true").output().unwrap();
    assert_eq!(text(&output.stdout), "role/r not changed\n");
    let output = edit(&issuer, "role/r", "sed -i 's/\\[a\\]/[b]/' \"$1\"").output();
    let output = output.unwrap();
    assert_eq!(
        text(&output.stdout),
        "role/r updated\n",
        "{}",
        text(&output.stderr)
    );
    assert!(issuer.run(&["get", "role/r"]).contains("app=b"));
    assert_eq!(kept(&issuer), Vec::<PathBuf>::new());
    // $VISUAL is asked first.
    let output = edit(&issuer, "role/r", "false")
        .env("VISUAL", "sed -i 's/\\[b\\]/[c]/'")
        .output();
    assert_eq!(text(&output.unwrap().stdout), "role/r updated\n");
    let told = issuer.fails(&["edit", "role/none"]);
    assert!(told.contains("there is no role"), "{told}");
    let told = issuer.fails(&["edit", "token/x"]);
    assert!(told.contains("cannot be edited"), "{told}");
}

#[test]
fn what_cannot_be_applied_after_an_edit_is_kept_and_its_file_is_told() {
    let issuer = Issuer::start();
    issuer.apply(&role("r", "{app: a}"));
    for (script, why) in [
        ("sed -i s/allow/alow/ \"$1\"", "did you mean `allow`?"),
        ("echo 'kind: [' >> \"$1\"", "not YAML"),
        (
            "sed -i 's/name: r/name: s/' \"$1\"",
            "it is role/s now, not role/r",
        ),
        (
            "sed -i 's/revision: 1/revision: 7/; s/\\[a\\]/[z]/' \"$1\"",
            "at revision 1, not 7",
        ),
        ("exit 3", "nothing was changed"),
    ] {
        let told = failure(&edit(&issuer, "role/r", script).output().unwrap());
        let files = kept(&issuer);
        assert_eq!(files.len(), 1, "{script}");
        let file = files[0].to_str().unwrap();
        assert!(told.contains(why) && told.contains(file), "{told}");
        fs::remove_file(file).unwrap();
    }
    assert!(issuer.run(&["get", "role/r"]).contains("app=a"));
}

#[test]
fn of_two_editors_at_once_the_later_is_told_and_keeps_its_text() {
    let issuer = Issuer::start();
    issuer.apply(&role("r", "{app: a}"));
    let [opened, go_on] = ["opened", "go-on"].map(|name| issuer.home.path().join(name));
    for fifo in [&opened, &go_on] {
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    let script = format!(
        "sed -i 's/\\[a\\]/[slow]/' \"$1\"; echo > {}; read line < {}",
        opened.display(),
        go_on.display()
    );
    let slow = edit(&issuer, "role/r", &script)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fs::read(&opened).unwrap();
    let mut fast = issuer.command(&["edit", "role/r"]);
    fast.env("VISUAL", "sed -i 's/\\[a\\]/[fast]/'");
    assert_eq!(text(&fast.output().unwrap().stdout), "role/r updated\n");
    fs::write(&go_on, "\n").unwrap();
    let told = failure(&slow.wait_with_output().unwrap());
    assert!(told.contains("at revision 2, not 1"), "{told}");
    let files = kept(&issuer);
    assert!(fs::read_to_string(&files[0]).unwrap().contains("[slow]"));
    assert!(issuer.run(&["get", "role/r"]).contains("app=fast"));
}

#[test]
fn labels_select_and_a_page_holds_what_fits_a_message() {
    let issuer = Issuer::start();
    // Some 100 KiB each.
    let values: Vec<_> = (0..40)
        .map(|n| format!("v{n}-{}", "x".repeat(60)))
        .collect();
    let keys: Vec<_> = (0..40)
        .map(|key| format!("k{key}: [{}]", values.join(", ")))
        .collect();
    let spec = format!(
        "spec: {{allow: {{workload_identity_labels: {{{}}}}}}}",
        keys.join(", ")
    );
    let many: Vec<_> = (0..60)
        .map(|n| {
            let parity = if n % 2 == 0 { "even" } else { "odd" };
            format!(
                "kind: role\nversion: v1\nmetadata: {{name: r{n:02}, labels: {{parity: {parity}, n: '{n}'}}}}\n{spec}\n"
            )
        })
        .collect();
    for part in many.chunks(20) {
        issuer.apply(&part.join("---\n"));
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let found = issuer.json(&[&["get", "role"][..], arguments].concat());
        let found = found.as_array().unwrap().iter();
        found
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all: Vec<_> = (0..60).map(|n| format!("r{n:02}")).collect();
    assert_eq!(names(&[]), all);
    assert_eq!(names(&["-l", "parity=even"]).len(), 30);
    assert_eq!(names(&["-l", "parity=even,n=4", "-l", "n=5"]), ["r04"]);
    assert_eq!(names(&["-l", "n"]).len(), 60);
    assert_eq!(names(&["-l", "none=x"]).len(), 0);
    let told = issuer.fails(&["get", "role/r00", "-l", "n=0"]);
    assert!(told.contains("without a NAME"), "{told}");
    let pages = block_on(async {
        // With the bounds that clients have by themselves: 4 MiB.
        let mut client = admin(&issuer).await;
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let request = pb::GetResourcesRequest {
                kind: "role".to_owned(),
                after: after.clone(),
                ..Default::default()
            };
            let page = client.get_resources(request).await.unwrap().into_inner();
            let last = page.resources.last().unwrap().metadata.clone().unwrap();
            after = last.name;
            let more = page.more;
            pages.push((page.resources.len(), page.encoded_len()));
            if !more {
                return pages;
            }
        }
    });
    assert!(pages.len() > 1, "{pages:?}");
    assert_eq!(pages.iter().map(|(count, _)| count).sum::<usize>(), 60);
    assert!(pages.iter().all(|(_, size)| *size < 3_200_000), "{pages:?}");
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

#[test]
fn attributes_are_listed_without_an_issuer() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_issuer"));
        let output = command.arg("attributes").args(arguments).output().unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (_, table, _) = run(&[]);
    assert_eq!(table.lines().count(), policy::attributes().len() + 1);
    let (_, json, _) = run(&["join.github", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .all(|attribute| attribute["trust"] == "verified")
    );
    let (_, yaml, _) = run(&["workload.unix.uid", "-o", "yaml"]);
    assert!(
        yaml.contains("path: workload.unix.uid") && yaml.contains("trust: asserted"),
        "{yaml}"
    );
    let (code, _, told) = run(&["join.githb"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("did you mean join.github?"), "{told}");
}

#[test]
fn every_example_of_policy_passes_a_dry_run() {
    let issuer = Issuer::start();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policy");
    let mut files = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files += 1;
            let shown = issuer.run(&["apply", "--dry-run", "-f", path.to_str().unwrap()]);
            assert!(shown.contains("+kind: workload_identity"), "{shown}");
        }
    }
    assert!(files >= 3);
    issuer.run(&["apply", "-f", examples.to_str().unwrap()]);
}

#[test]
fn every_example_of_the_reference_is_accepted() {
    let issuer = Issuer::start();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/resources.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let mut examples = String::new();
    for block in blocks {
        let example = block.split("```").next().unwrap();
        // The first only shows the frame.
        if !example.contains('…') {
            examples.push_str("---\n");
            examples.push_str(example);
        }
    }
    assert!(examples.matches("kind: ").count() >= 6);
    let soon = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let soon = soon
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let bundle = issuer.run(&["bundle", "-o", "spiffe"]);
    let examples = examples
        .replace("2026-11-21T20:00:00Z", &soon)
        .replace("{\"keys\": []}", bundle.trim());
    let file = write(&issuer, "reference.yaml", &examples);
    issuer.run(&["apply", "-f", &file]);
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

async fn admin(issuer: &Issuer) -> AdminServiceClient<Channel> {
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
