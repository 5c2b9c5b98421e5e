//! `issuer edit`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{Issuer, failure, role, text, write};

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
