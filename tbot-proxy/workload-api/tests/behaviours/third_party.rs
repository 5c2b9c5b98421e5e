//! The code of others that this server stands on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aws_lc_rs::digest::{SHA256, digest};

#[test]
fn the_h2_here_is_that_of_crates_io_with_our_patch() {
    let third_party = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party");
    let sums = fs::read_to_string(third_party.join("h2.sha256")).unwrap();
    let (ours, original) = (third_party.join("h2"), tempfile::tempdir().unwrap());
    let listed: Vec<_> = sums
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .collect();
    for (_, name) in &listed {
        let to = original.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(ours.join(name), to).unwrap();
    }
    let git = Command::new("git")
        .args(["apply", "--reverse", "-p1"])
        .arg(fs::canonicalize(third_party.join("h2.patch")).unwrap())
        .current_dir(original.path())
        .status();
    assert!(git.unwrap().success(), "h2.patch is not what was changed");
    for (sum, name) in &listed {
        let bytes = fs::read(original.path().join(name)).unwrap();
        let found = digest(&SHA256, &bytes);
        let found: String = found.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, *sum, "{name} is not that of crates.io");
    }
    // And there is nothing else.
    assert_eq!(files(&ours).len(), listed.len());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}
