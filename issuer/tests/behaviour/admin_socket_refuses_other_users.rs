//! The admin socket asks the kernel who calls.

use std::process::Command;

use super::harness::{Issuer, one_line_failure};

const NOBODY: &str = "65534";
const ADMITTED: &str = "65533";

fn as_user(issuer: &Issuer, socket: &std::path::Path, uid: &str) -> std::process::Output {
    // The program is copied: the build directory may be closed to others.
    let program = issuer.home.path().join("issuer");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_issuer"), &program).unwrap();
    }
    Command::new("setpriv")
        .args(["--reuid", uid, "--regid", uid, "--clear-groups"])
        .arg(program)
        .args(["status", "--socket"])
        .arg(socket)
        .output()
        .unwrap()
}

#[test]
fn only_admitted_users_are_answered() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        println!("needs root to become other users");
        return;
    }
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = open.path().join("admin.sock");
    let path = socket.to_str().unwrap().to_owned();
    let home = Issuer::start_with(&["--socket", &path, "--admin-uid", ADMITTED]);
    std::fs::set_permissions(home.home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();

    let output = as_user(&home, &socket, ADMITTED);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = one_line_failure(&as_user(&home, &socket, NOBODY));
    assert!(line.contains("your uid 65534 may not"), "{line}");
    home.log.wait_for("a user who may not was refused");
    assert!(home.log.text().contains("uid=65534"), "{}", home.log.text());
    as_user(&home, &socket, NOBODY);
    let mut follow = home
        .command(&[
            "audit",
            "--follow",
            "--event",
            "admin.connect",
            "--limit",
            "1",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut recorded = String::new();
    std::io::Read::read_to_string(&mut follow.stdout.take().unwrap(), &mut recorded).unwrap();
    follow.wait().unwrap();
    assert!(recorded.contains("by uid:65534"), "{recorded}");
    // Once a minute, however often.
    let events = home.audit().into_iter();
    assert_eq!(
        events
            .filter(|event| event["event"] == "admin.connect")
            .count(),
        1
    );
}

#[test]
fn a_reload_admits_a_user_and_shuts_one_out() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        println!("needs root to become other users");
        return;
    }
    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (socket, file) = (open.path().join("admin.sock"), open.path().join("i.yaml"));
    std::fs::write(&file, "log_level: info\n").unwrap();
    let paths = [&socket, &file].map(|path| path.to_str().unwrap().to_owned());
    let issuer = Issuer::start_with(&["--socket", &paths[0], "--config", &paths[1]]);
    let home = issuer.home.path();
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let is_answered = || as_user(&issuer, &socket, ADMITTED).status.success();
    assert!(!is_answered());
    for (text, wait_for, answered) in [
        (
            format!("admin_uids: [{ADMITTED}]\nlog_level: debug\n"),
            "first",
            true,
        ),
        ("log_level: info\n".to_owned(), "second", false),
    ] {
        let reloads = || issuer.log.text().matches("is reloaded").count();
        let before = reloads();
        std::fs::write(&file, text).unwrap();
        super::harness::signal("HUP", issuer.process.id());
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
        // In force a moment after it is told.
        while reloads() == before || is_answered() != answered {
            assert!(
                std::time::Instant::now() < patience,
                "the {wait_for} reload"
            );
        }
    }
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn by_default_the_socket_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let issuer = Issuer::start();
    let socket = issuer.data_dir().join("admin.sock");
    let mode = socket.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_socket_that_is_served_is_not_taken_and_anothers_is_not_removed() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("admin.sock");
    let path = socket.to_str().unwrap();
    let mut first = Issuer::start_with(&["--socket", path]);
    let second = tempfile::tempdir().unwrap();
    let output = super::harness::serve_command(&second.path().join("data"))
        .args(["--trust-domain", "other.example", "--socket", path])
        .args(["--log-level", "error"])
        .output()
        .unwrap();
    let line = one_line_failure(&output);
    assert!(line.contains("another process serves there"), "{line}");
    assert_eq!(
        first.json(&["status"])["trust_domain"],
        super::harness::TRUST_DOMAIN
    );
    // What a killed one left is taken over.
    first.kill();
    first.restart();
    // Another's socket in its place stays.
    std::fs::remove_file(&socket).unwrap();
    let _others = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(first.terminate().success());
    assert!(socket.exists());
}
