//! What the manual and the examples show is accepted.

use std::{fs, path::Path, process::Command};

use super::{Issuer, text, write};

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
            && (cfg!(feature = "sigstore") || !path.ends_with("signed-images.yaml"))
        {
            files += 1;
            let shown = issuer.run(&["apply", "--dry-run", "-f", path.to_str().unwrap()]);
            assert!(shown.contains("+kind: workload_identity"), "{shown}");
        }
    }
    assert!(files >= 3);
    if cfg!(feature = "sigstore") {
        issuer.run(&["apply", "-f", examples.to_str().unwrap()]);
    }
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
        let is_known = cfg!(feature = "sigstore") || !example.contains("kind: sigstore_policy");
        if !example.contains('…') && is_known {
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
