use std::{
    collections::HashSet,
    io::Read,
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::*;

/// A process that lives until it is told otherwise.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn end(mut child: Child) -> u32 {
    child.kill().unwrap();
    child.wait().unwrap();
    child.id()
}

/// Waits for an event; the time is only a bound for a test that fails.
async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), event).await.unwrap()
}

/// A Python program that connects to a socket, once per argument.
fn connector(path: &std::path::Path, program: &str) -> Child {
    Command::new("python3")
        .arg("-c")
        .arg(format!(
            "import os, socket, sys\ndef connect():\n  s = socket.socket(socket.AF_UNIX)\n  \
             s.connect(sys.argv[1])\n  return s\n{program}"
        ))
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_peer_is_the_process_that_connected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let child = connector(&path, "s = connect(); sys.stdin.read()");
    let (socket, _) = listener.accept().unwrap();
    for process in [
        Process::of_peer(&socket).unwrap(),
        Process::of_peer_by_pid(&socket).unwrap(),
    ] {
        assert_eq!(process.pid(), child.id());
        assert!(process.is_alive());
        assert!(process.key().start_time > 0);
        let ids = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        assert_eq!(process.key().connected_as, Some(ids));
        let status = process.status().unwrap();
        assert_eq!((status.uid, status.gid), ids);
        let by_pid = Process::of_pid(child.id()).unwrap();
        assert_eq!(by_pid.key().start_time, process.key().start_time);
        assert_eq!(by_pid.key().connected_as, None);
    }
    end(child);
}

/// Forced: what kernels before 6.5 do.
#[test]
fn without_a_pidfd_of_the_peer_a_process_with_other_ids_is_refused() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let process = Process::of_peer_by_pid(&ours).unwrap();
    assert_eq!(process.pid(), std::process::id());

    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED in part: changing the user needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = connector(
        &path,
        "s = connect(); os.setresuid(1234, 1234, 1234); print('changed', flush=True); \
         sys.stdin.read()",
    );
    let (socket, _) = listener.accept().unwrap();
    let mut told = [0; 7];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut told)
        .unwrap();
    let error = Process::of_peer_by_pid(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::ChangedIds { .. }), "{error}");
    // The pidfd proves who it is; what it has become since is refused all the same.
    let process = Process::of_peer(&socket).unwrap();
    let error = process.status().unwrap_err();
    assert!(error.to_string().contains("uid 1234"), "{error}");
    end(child);
}

#[test]
fn a_peer_that_has_ended_is_an_error_by_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = connector(&path, "s = connect()");
    let (socket, _) = listener.accept().unwrap();
    // Ended, not reaped: it still has its number.
    let pidfd = open_pidfd(child.id()).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    for result in [
        Process::of_peer(&socket),
        Process::of_peer_by_pid(&socket),
        Process::of_pid(child.id()),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    }
    child.wait().unwrap();
    for result in [Process::of_peer(&socket), Process::of_peer_by_pid(&socket)] {
        let error = result.unwrap_err();
        assert!(
            matches!(
                error,
                ProcessError::Ended { .. } | ProcessError::NoSuchProcess { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn numbers_that_are_no_process_are_errors() {
    for pid in [0, u32::MAX, 1 << 22 | 1, i32::MAX as u32] {
        let error = Process::of_pid(pid).unwrap_err();
        assert!(
            matches!(error, ProcessError::NoSuchProcess { .. }),
            "{pid}: {error}"
        );
    }
    // A thread has a number too.
    let (send, receive) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        send.send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        let _ = stopped.recv();
    });
    let thread_id = receive.recv().unwrap() as u32;
    let error = Process::of_pid(thread_id).unwrap_err();
    assert!(
        matches!(error, ProcessError::NoSuchProcess { .. }),
        "{error}"
    );
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn sockets_without_a_process_behind_them_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::create(folder.path().join("f")).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    assert!(Process::of_peer(&tcp).is_err());
    assert!(Process::of_peer(&file).is_err());
    // A listener's peer is whoever listens.
    assert_eq!(
        Process::of_peer(&listener).map(|p| p.pid()).ok(),
        Some(std::process::id())
    );
}

#[test]
fn what_was_read_before_the_end_is_not_read_after_it() {
    let child = sleeper();
    let process = Process::of_pid(child.id()).unwrap();
    process.status().unwrap();
    end(child);
    assert!(!process.is_alive());
    assert!(matches!(
        process.check_alive(),
        Err(ProcessError::Ended { .. })
    ));
    for file in ["status", "cgroup", "mountinfo", "stat"] {
        let error = process.read(file).unwrap_err();
        assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    }
    assert!(process.read_link("exe").is_err());
}

#[tokio::test]
async fn the_end_is_told_to_everyone_who_waits_and_to_who_asks_later() {
    let child = sleeper();
    let process = Arc::new(Process::of_pid(child.id()).unwrap());
    let waiting: Vec<_> = (0..100).map(|_| tokio::spawn(process.ended())).collect();
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|wait| !wait.is_finished()));
    end(child);
    for wait in waiting {
        within(wait).await.unwrap();
    }
    within(process.ended()).await;
}

#[test]
fn the_end_is_told_in_every_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let child = sleeper();
    let process = Arc::new(Process::of_pid(child.id()).unwrap());
    let (first, second) = (runtime(), runtime());
    let wait = first.spawn(process.ended());
    first.block_on(tokio::task::yield_now());
    let also = second.spawn(process.ended());
    end(child);
    first.block_on(within(wait)).unwrap();
    second.block_on(within(also)).unwrap();
}

#[test]
fn ten_thousand_connections_of_one_process_hold_two_files() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let processes = Processes::new();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let before = open();
    let held: Vec<_> = (0..10_000)
        .map(|_| processes.of_peer(&ours).unwrap())
        .collect();
    // Other tests of this program open files meanwhile, not thousands of them.
    assert!(open() < before + 1000, "{} files", open() - before);
    let addresses: HashSet<_> = held.iter().map(Arc::as_ptr).collect();
    assert_eq!((addresses.len(), processes.len()), (1, 1));
    drop(held);
    assert!(processes.is_empty());
}

#[test]
fn processes_that_nobody_holds_leave_the_table() {
    let processes = Processes::new();
    let children: Vec<_> = (0..3).map(|_| sleeper()).collect();
    let held: Vec<_> = children
        .iter()
        .map(|child| processes.of_pid(child.id()).unwrap())
        .collect();
    assert_eq!(processes.len(), 3);
    let keys: HashSet<_> = held.iter().map(|process| process.key()).collect();
    assert_eq!(keys.len(), 3);
    drop(held);
    for child in children {
        end(child);
    }
    for _ in 0..200 {
        let child = sleeper();
        drop(processes.of_pid(child.id()).unwrap());
        end(child);
    }
    let entries = processes.table.lock().unwrap().by_key.len();
    assert!(entries <= 65, "{entries} entries");
}

#[test]
fn a_dead_process_in_the_table_is_not_given_out_for_a_live_one() {
    let processes = Processes::new();
    let child = sleeper();
    let held = processes.of_pid(child.id()).unwrap();
    let key = held.key();
    end(child);
    // The number again, within the same tick of the clock: another handle, same key.
    let other = sleeper();
    let mut again = Process::of_pid(other.id()).unwrap();
    again.key = key;
    let given = processes.shared(again);
    assert!(given.is_alive() && !Arc::ptr_eq(&given, &held));
    end(other);
}

/// Forced, in a PID namespace where nobody else starts a process: the peer ends, its
/// number goes to a process of another user, and the socket lives on.
#[test]
fn without_a_pidfd_of_the_peer_a_recycled_pid_of_another_user_is_refused() {
    const INSIDE: &str = "ATTEST_TEST_INSIDE";
    const NAME: &str = "process::tests::\
        without_a_pidfd_of_the_peer_a_recycled_pid_of_another_user_is_refused";
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = connector(
        &path,
        "s = connect()\nif os.fork() == 0:\n  os.close(1)\n  s.recv(1)\nos._exit(0)",
    );
    let (socket, _) = listener.accept().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let error = Process::of_peer_by_pid(&socket).unwrap_err();
    assert!(
        matches!(error, ProcessError::NoSuchProcess { .. }),
        "{error}"
    );

    let taken = loop {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=1234",
            "--regid=1234",
            "--clear-groups",
            "sleep",
            "1000",
        ]);
        let child = command.spawn().unwrap();
        if child.id() == pid {
            break child;
        }
        end(child);
    };
    let comm = format!("/proc/{pid}/comm");
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let error = Process::of_peer_by_pid(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::ChangedIds { .. }), "{error}");
    // By the pidfd it is known that the peer has ended, whoever has its number.
    let error = Process::of_peer(&socket).unwrap_err();
    assert!(matches!(error, ProcessError::Ended { .. }), "{error}");
    end(taken);
}

/// Each stream of the agent holds one.
#[test]
fn the_wait_for_an_end_is_small() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let process = Arc::new(Process::of_peer(&ours).unwrap());
    let size = size_of_val(&process.ended());
    assert!(size <= 256, "{size} bytes");
}

/// Connections of one process are served on several threads, and begin to watch it at one
/// moment. A descriptor is registered once: who comes second must not take that for an end.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_watched_from_several_threads_at_once_has_not_ended() {
    let child = sleeper();
    for _ in 0..200 {
        let process = Arc::new(Process::of_pid(child.id()).unwrap());
        let start = std::sync::Barrier::new(4);
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let ended = process.ended();
                    start.wait();
                    let ended = runtime.block_on(async { ended.now_or_never() });
                    assert_eq!(ended, None);
                });
            }
        });
    }
    end(child);
}
