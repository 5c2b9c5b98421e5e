//! Processes that want another's identity: by its number after its end, by a socket
//! that was handed on, by a program with more rights.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::Arc,
};

use attest::{Attestors, Config, Process, ProcessError, Processes, SystemdConfig};
use serde_json::json;

use super::support::{
    Cgroup, Listener, Running, hierarchy, inside, is_root, reasons, unified, within,
};

/// A process that has this number, in a PID namespace where nobody else starts any.
fn with_pid(pid: u32) -> Running {
    loop {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let child = Running::sleep();
        if child.pid() == pid {
            return child;
        }
    }
}

#[tokio::test]
async fn a_recycled_pid_is_nobody() {
    if !is_root() {
        return;
    }
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if !inside(&namespace, "attacks::a_recycled_pid_is_nobody") {
        return;
    }
    let listener = Listener::new();
    // Connects, leaves the socket to a child, and ends.
    let mut attacker = Running::python(
        &listener,
        "s = connect()\nif os.fork() == 0:\n  time.sleep(1000)\nprint('connected', flush=True)\n\
         sys.stdin.readline()",
    );
    let pid = attacker.pid();
    let socket = listener.accept();
    let before = Arc::new(Process::of_peer(&socket).unwrap());
    let processes = Processes::new();
    let held = processes.of_peer(&socket).unwrap();
    assert_eq!(attacker.line(), "connected");
    attacker.end();
    within(before.ended()).await;

    let victim = with_pid(pid);
    let new = Process::of_pid(pid).unwrap();
    assert_ne!(new.key(), before.key());
    assert!(new.is_alive() && !before.is_alive());

    // Whoever asks by the socket, now or through a handle of before, gets nothing.
    let error = Process::of_peer(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    let error = processes.of_peer(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    for file in ["status", "stat", "cgroup", "mountinfo"] {
        assert!(before.read(file).is_err(), "{file}");
    }
    let attestors = Attestors::new(Config::default());
    for process in [&*before, &*held] {
        let found = attestors.attest(process).await;
        assert_eq!(found.attributes, json!({}));
        assert!(reasons(&found, "unix").contains("ended"), "{found:?}");
    }
    let found = attestors.attest(&new).await;
    assert_eq!(found.attributes["unix"]["pid"], json!(victim.pid()));
}

#[tokio::test]
async fn a_socket_that_outlives_the_process_that_connected_is_nobody_s() {
    let listener = Listener::new();
    // Forks twice: the grandchild, adopted by init, keeps the socket; its parents end.
    let mut peer = Running::python(
        &listener,
        "s = connect()\nsys.stdin.readline()\nif os.fork() == 0:\n  if os.fork() == 0:\n    \
         s.send(b'mine')\n    s.recv(1)\n  os._exit(0)\nos.wait()",
    );
    let mut socket = listener.accept();
    let process = Arc::new(Process::of_peer(&socket).unwrap());
    let ended = tokio::spawn(process.ended());
    let attestors = Attestors::new(Config::default());
    let found = attestors.attest(&process).await;
    assert_eq!(found.attributes["unix"]["attested"], json!(true));
    assert!(!ended.is_finished());

    use std::io::{Read, Write};
    peer.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = [0; 4];
    socket.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"mine", "the socket lives");
    within(ended).await.unwrap();
    let found = attestors.attest(&process).await;
    assert_eq!(found.attributes, json!({}));
    let error = Process::of_peer(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    socket.write_all(b"x").unwrap();
}

/// A child keeps the socket while the process that connected becomes a program of
/// another user.
#[tokio::test]
async fn a_set_user_id_program_lends_its_identity_to_nobody() {
    if !is_root() {
        return;
    }
    let listener = Listener::new();
    let program = listener.folder.path().join("privileged");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = Command::new("python3");
    command.uid(1234).gid(1234).arg("-c");
    command.arg(super::support::program_with_connect(
        &listener.path,
        &format!(
            "s = connect(); s.recv(1)\nos.execv({:?}, ['sleep', '1000'])",
            program.to_str().unwrap()
        ),
    ));
    let child = Running(command.spawn().unwrap());
    let mut socket = listener.accept();
    let process = Process::of_peer(&socket).unwrap();
    let mut config = Config::default();
    config.systemd = Some(SystemdConfig::default());
    let attestors = Attestors::new(config);
    // In a unit too, which the program does not leave.
    let systemd = hierarchy(|_, options| options.contains("name=systemd"));
    let unit = systemd.or_else(unified).map(|root| {
        let name = format!("/system.slice/attest-setuid-{}.service", std::process::id());
        Cgroup::new(&root, &name)
    });
    if let Some(unit) = &unit {
        unit.hold(child.pid());
    }
    let found = attestors.attest(&process).await;
    assert_eq!(found.attributes["unix"]["uid"], json!(1234));
    assert_eq!(found.attributes.get("systemd").is_some(), unit.is_some());

    std::io::Write::write_all(&mut socket, b"x").unwrap();
    while process.read("comm").unwrap() != b"privileged\n" {
        tokio::task::yield_now().await;
    }
    let now = Process::of_pid(child.pid()).unwrap().status().unwrap();
    assert_eq!(now.uid, 0, "the program has the rights of its owner");
    let found = attestors.attest(&process).await;
    assert_eq!(found.attributes, json!({}));
    let reason = reasons(&found, "unix");
    assert!(reason.contains("connected as uid 1234"), "{reason}");
}

/// The agent in a PID namespace where the peer has no number.
#[tokio::test]
async fn a_peer_outside_of_the_agent_s_pid_namespace_is_told_so() {
    if !is_root() {
        return;
    }
    const SOCKET: &str = "ATTEST_TEST_SOCKET";
    let test = "attacks::a_peer_outside_of_the_agent_s_pid_namespace_is_told_so";
    if let Some(fd) = std::env::var_os(SOCKET) {
        // Inside: the socket of a process of the outer namespace is this one's input.
        let _ = fd;
        let error = Process::of_peer(std::io::stdin()).unwrap_err();
        assert!(matches!(error, ProcessError::OtherNamespace), "{error}");
        assert!(error.to_string().contains("hostPID"), "{error}");
        return;
    }
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SOCKET, "0")
        .stdin(std::os::fd::OwnedFd::from(ours))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// What an exec'ed program of the same user may do is stated in the guide: it is that
/// program. Facts are those of the time of reading, all of one program.
#[tokio::test]
async fn who_becomes_another_program_is_that_program() {
    let listener = Listener::new();
    let mut child = Running::python(
        &listener,
        "s = connect(); s.recv(1)\nos.execv('/bin/sleep', ['sleep', '1000'])",
    );
    let mut socket = listener.accept();
    let process = Process::of_peer(&socket).unwrap();
    let attestors = Attestors::new(Config::default());
    let before = attestors.attest(&process).await.attributes;
    std::io::Write::write_all(&mut socket, b"x").unwrap();
    while process.read("comm").unwrap() != b"sleep\n" {
        tokio::task::yield_now().await;
    }
    let after = attestors.attest(&process).await.attributes;
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    assert_eq!(after["unix"]["binary_path"], json!(sleep));
    assert_ne!(after["unix"]["binary_hash"], before["unix"]["binary_hash"]);
    assert_eq!(after["unix"]["pid"], before["unix"]["pid"]);
    child.end();
}
