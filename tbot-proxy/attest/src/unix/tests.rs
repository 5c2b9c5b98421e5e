use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Child, Command},
    time::Duration,
};

use e2e::FuseFile;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

struct Copied {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    child: Child,
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of ours that sleeps.
fn copied() -> Copied {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sleeper");
    fs::copy("/bin/sleep", &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let child = loop {
        // Another thread may hold the copy open for writing, across its fork.
        match Command::new(&path).arg("1000").spawn() {
            Err(error) if error.raw_os_error() == Some(26) => std::thread::yield_now(),
            child => break child.unwrap(),
        }
    };
    let exe = format!("/proc/{}/exe", child.id());
    while fs::read_link(&exe).ok().as_ref() != Some(&path) {
        std::thread::yield_now();
    }
    Copied {
        _folder: folder,
        path,
        child,
    }
}

async fn attest(unix: &Unix, pid: u32) -> (Value, Vec<String>) {
    let process = Process::of_pid(pid).unwrap();
    let found = unix.attest(&process, Instant::now() + LIMIT).await;
    (found.attributes.unwrap_or_default(), found.failures)
}

fn sha256_of(path: impl AsRef<Path>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fs::read(path).unwrap());
    hex::encode(digest)
}

#[tokio::test]
async fn what_a_process_of_some_user_serves_is_not_hashed() {
    let Some(file) = FuseFile::mount(fs::read("/bin/sleep").unwrap()) else {
        return;
    };
    let mut child = Command::new(file.path()).arg("1000").spawn().unwrap();
    let exe = format!("/proc/{}/exe", child.id());
    while fs::read_link(&exe).ok() != Some(file.path()) {
        std::thread::yield_now();
    }
    let unix = Unix::new(UnixConfig::default());
    let (found, failures) = attest(&unix, child.id()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.get("uid").is_some(), "{found}");
    assert_eq!(found.get("binary_hash"), None, "{found}");
    assert!(
        failures.iter().any(|why| why.contains("FUSE")),
        "{failures:?}"
    );
    assert_eq!(unix.hashes.kept(), 0);
}

#[tokio::test]
async fn user_groups_path_and_hash_are_those_of_the_process() {
    let copied = copied();
    let unix = Unix::new(UnixConfig::default());
    let (found, failures) = attest(&unix, copied.child.id()).await;
    assert_eq!(failures, Vec::<String>::new());
    let groups: Vec<String> = rustix::process::getgroups()
        .unwrap()
        .iter()
        .map(|group| group.as_raw().to_string())
        .collect();
    assert_eq!(
        found,
        json!({
            "attested": true,
            "pid": copied.child.id(),
            "uid": rustix::process::geteuid().as_raw(),
            "gid": rustix::process::getegid().as_raw(),
            "supplementary_groups": groups,
            "binary_path": copied.path,
            "binary_hash": sha256_of("/bin/sleep"),
        })
    );
}

#[tokio::test]
async fn a_replaced_path_does_not_lie_about_what_runs() {
    let copied = copied();
    let unix = Unix::new(UnixConfig::default());
    let other = copied.path.with_extension("new");
    fs::copy("/bin/true", &other).unwrap();
    fs::rename(&other, &copied.path).unwrap();
    let (found, failures) = attest(&unix, copied.child.id()).await;
    assert_eq!(found["binary_hash"], json!(sha256_of("/bin/sleep")));
    assert_eq!(found.get("binary_path"), None);
    assert!(failures[0].starts_with("binary_path: "), "{failures:?}");
    // Named as the kernel names a deleted file, with another file in that place.
    fs::copy("/bin/true", format!("{} (deleted)", copied.path.display())).unwrap();
    for foreign_paths in [false, true] {
        let unix = Unix::new(UnixConfig {
            foreign_paths,
            ..UnixConfig::default()
        });
        let (found, _) = attest(&unix, copied.child.id()).await;
        assert_eq!(found.get("binary_path"), None);
    }
}

#[tokio::test]
async fn too_large_an_executable_has_a_reason_and_no_hash() {
    let copied = copied();
    let size = fs::metadata(&copied.path).unwrap().len();
    let unix = |max_hashed| {
        Unix::new(UnixConfig {
            max_hashed,
            ..UnixConfig::default()
        })
    };
    let (found, failures) = attest(&unix(size), copied.child.id()).await;
    assert!(found.get("binary_hash").is_some(), "{failures:?}");
    let (found, failures) = attest(&unix(size - 1), copied.child.id()).await;
    assert_eq!(found.get("binary_hash"), None);
    assert!(failures[0].contains(&size.to_string()), "{failures:?}");
    assert_eq!(found["binary_path"], json!(copied.path));
}

#[tokio::test]
async fn hashing_can_be_turned_off() {
    let unix = Unix::new(UnixConfig {
        hash: false,
        ..UnixConfig::default()
    });
    let (found, failures) = attest(&unix, std::process::id()).await;
    assert_eq!(found.get("binary_hash"), None);
    assert!(failures.is_empty() && found["attested"] == json!(true));
}

#[tokio::test]
async fn a_hash_is_kept_only_of_a_file_that_has_settled() {
    let copied = copied();
    let unix = Unix::new(UnixConfig::default());
    attest(&unix, copied.child.id()).await;
    assert_eq!(unix.hashes.kept(), 0, "the file was written just now");
    // `sleep` itself is older.
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    while fs::read_link(format!("/proc/{}/exe", child.id()))
        .ok()
        .as_deref()
        != Some(&fs::canonicalize("/bin/sleep").unwrap())
    {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        let (found, _) = attest(&unix, child.id()).await;
        assert_eq!(found["binary_hash"], json!(sha256_of("/bin/sleep")));
        assert_eq!(unix.hashes.kept(), 1);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_hash_is_that_of_a_file_on_one_mount() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: it needs root to make a mount namespace");
        return;
    }
    // The same file, with the same device and number, on two mounts.
    let unix = Unix::new(UnixConfig::default());
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    for (kept, program) in [(1, &["sleep"][..]), (2, &["unshare", "--mount", "sleep"])] {
        let mut command = Command::new(program[0]);
        let mut child = command.args(&program[1..]).arg("1000").spawn().unwrap();
        let exe = format!("/proc/{}/exe", child.id());
        while fs::read_link(&exe).ok().as_ref() != Some(&sleep) {
            std::thread::yield_now();
        }
        let (found, _) = attest(&unix, child.id()).await;
        assert_eq!(found["binary_hash"], json!(sha256_of(&sleep)));
        assert_eq!(unix.hashes.kept(), kept);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn executables_that_hang_cost_only_themselves() {
    let unix = Unix::new(UnixConfig::default());
    let uid = rustix::process::geteuid().as_raw();
    let soon = |millis| Instant::now() + Duration::from_millis(millis);
    let process = Process::of_pid(std::process::id()).unwrap();
    let fill = async |places: &Places, per_user| {
        let mut held = Vec::new();
        for _ in 0..per_user {
            held.push(places.take(uid).await.unwrap());
        }
        held
    };
    let all = fill(&unix.looks, LOOKS.1).await;
    let found = unix.attest(&process, soon(50)).await;
    let attributes = found.attributes.unwrap();
    assert_eq!(attributes["uid"], json!(uid));
    assert_eq!(attributes.get("binary_hash"), None);
    assert!(
        found.failures[0].contains("no answer"),
        "{:?}",
        found.failures
    );
    drop(all);
    // Large ones that are hashed do not cost the path.
    let all = fill(&unix.hashed, HASHED.1).await;
    let found = unix.attest(&process, soon(2000)).await;
    let attributes = found.attributes.unwrap();
    assert!(attributes.get("binary_path").is_some(), "{attributes}");
    assert_eq!(attributes.get("binary_hash"), None);
    let reason = &found.failures[0];
    assert!(reason.starts_with("binary_hash: no answer"), "{reason}");
    drop(all);
    let (found, failures) = attest(&unix, std::process::id()).await;
    assert!(found.get("binary_hash").is_some(), "{failures:?}");
}

#[tokio::test]
async fn a_user_who_waits_does_not_keep_others_waiting() {
    let places = Arc::new(Places::new(3, 2));
    let held = [places.take(1).await.unwrap(), places.take(1).await.unwrap()];
    let mut waiting = tokio::spawn({
        let places = Arc::clone(&places);
        async move { places.take(1).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let other = tokio::time::timeout(LIMIT, places.take(2)).await.unwrap();
    assert!(!waiting.is_finished());
    drop(held);
    tokio::time::timeout(LIMIT, &mut waiting)
        .await
        .unwrap()
        .unwrap();
    drop(other);
}
