use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command},
    time::{Instant, SystemTime},
};

use e2e::FuseFile;

use super::*;

fn sleeper(program: &Path) -> Child {
    Command::new(program).arg("600").spawn().unwrap()
}

fn signal(target: Target) -> Hook {
    Hook::Signal {
        target,
        signal: Signal::USR1,
    }
}

fn ended_by(mut child: Child) -> Option<i32> {
    child.wait().unwrap().signal()
}

#[tokio::test]
async fn the_process_of_a_pid_file_is_signalled() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("pid");
    let child = sleeper(Path::new("sleep"));
    fs::write(&path, format!("{}\n", child.id())).unwrap();
    signal(Target::PidFile(path.clone()))
        .run("x")
        .await
        .unwrap();
    assert_eq!(ended_by(child), Some(Signal::USR1.as_raw()));
    let error = signal(Target::PidFile(path)).run("x").await.unwrap_err();
    assert!(error.to_string().contains("not running"), "{error}");
}

#[tokio::test]
async fn a_number_that_was_used_again_is_not_signalled() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("pid");
    let mut child = sleeper(Path::new("sleep"));
    fs::write(&path, child.id().to_string()).unwrap();
    // The file is of a process that ended before this one was started.
    let before = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(before)
        .unwrap();
    let error = signal(Target::PidFile(path.clone()))
        .run("x")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert!(child.try_wait().unwrap().is_none(), "it was signalled");
    for bad in ["", "x", "0", "-1", "1", "99999999999999"] {
        fs::write(&path, bad).unwrap();
        let error = signal(Target::PidFile(path.clone()))
            .run("x")
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("number of a process"),
            "{bad}: {error}"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_pid_file_that_is_no_plain_file_is_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let fifo = home.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let link = home.path().join("link");
    std::os::unix::fs::symlink("/proc/self/stat", &link).unwrap();
    for (path, why) in [
        (fifo, "no plain file"),
        (Path::new("/dev/zero").to_owned(), "no plain file"),
        (home.path().to_owned(), "no plain file"),
        (link, "symbolic link"),
    ] {
        let hook = signal(Target::PidFile(path));
        let error = hook.run("x").await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    // No more of it is read than a number takes.
    let long = home.path().join("long");
    fs::write(&long, format!("{}1", " ".repeat(64))).unwrap();
    let error = signal(Target::PidFile(long)).run("x").await.unwrap_err();
    assert!(error.to_string().contains("number of a process"), "{error}");
}

#[tokio::test]
async fn a_pid_file_on_a_file_system_that_hangs_holds_nobody_up() {
    let Some(file) = FuseFile::mount(b"1".to_vec()) else {
        return;
    };
    file.hang();
    let error = signal(Target::PidFile(file.path())).run("x").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("was not found within"), "{error}");
    // What waits for the file is let go before the runtime ends.
    drop(file);
}

#[tokio::test]
async fn whoever_could_not_signal_a_process_has_it_not_signalled_by_a_pid_file() {
    const OTHER: u32 = 54_321;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a pid file of another user needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("pid");
    let mut ours = sleeper(Path::new("sleep"));
    fs::write(&path, ours.id().to_string()).unwrap();
    std::os::unix::fs::chown(&path, Some(OTHER), None).unwrap();
    let hook = signal(Target::PidFile(path.clone()));
    let error = hook.run("x").await.unwrap_err().to_string();
    assert!(error.contains("belongs to uid 54321"), "{error}");
    assert!(ours.try_wait().unwrap().is_none(), "it was signalled");
    ours.kill().unwrap();
    ours.wait().unwrap();

    let theirs = std::os::unix::process::CommandExt::uid(&mut Command::new("sleep"), OTHER)
        .arg("600")
        .spawn()
        .unwrap();
    fs::write(&path, theirs.id().to_string()).unwrap();
    hook.run("x").await.unwrap();
    assert_eq!(ended_by(theirs), Some(Signal::USR1.as_raw()));
}

#[tokio::test]
async fn processes_of_a_name_are_signalled_and_no_others() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("hook-target");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let (named, mut other) = (sleeper(&program), sleeper(Path::new("sleep")));
    signal(Target::Name("hook-target".to_owned()))
        .run("x")
        .await
        .unwrap();
    assert_eq!(ended_by(named), Some(Signal::USR1.as_raw()));
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    let error = signal(Target::Name("hook-target".to_owned()))
        .run("x")
        .await;
    assert!(error.unwrap_err().to_string().contains("none is running"));
}

fn command(arguments: &[&str], timeout: Duration) -> Hook {
    Hook::Command {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        timeout,
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_command_gets_little_and_its_failure_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("env");
    let script = "env > \"$0\"; [ \"$1\" = '$(id) ; x' ]";
    let ok = command(
        &["sh", "-c", script, &file.display().to_string(), "$(id) ; x"],
        MINUTE,
    );
    ok.run("web").await.unwrap();
    let environment = fs::read_to_string(&file).unwrap();
    let mut names: Vec<_> = environment
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    // The shell's own.
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["PATH", "TBOT_OUTPUT"]);
    assert!(environment.contains("TBOT_OUTPUT=web\n"));

    let bad = command(&["sh", "-c", "echo first; echo why >&2; exit 3"], MINUTE);
    let error = bad.run("x").await.unwrap_err();
    assert_eq!(error.to_string(), "command `sh`: exit status: 3");
    assert_eq!(error.printed(), Some("why"));
    let error = command(&["/no/such/program"], MINUTE)
        .run("x")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be started"), "{error}");
}

#[tokio::test]
async fn a_command_that_floods_is_read_to_its_end_and_told_in_part() {
    let flood = command(
        &[
            "sh",
            "-c",
            "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1",
        ],
        MINUTE,
    );
    let error = flood.run("x").await.unwrap_err();
    assert_eq!(error.printed(), Some("x".repeat(1_000).as_str()));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pid");
    let script = "sleep 600 & echo $! > \"$0\"; mv \"$0\" \"$0.done\"; wait";
    let began = Instant::now();
    let slow = command(
        &["sh", "-c", script, &file.display().to_string()],
        Duration::from_secs(2),
    );
    let error = slow.run("x").await.unwrap_err();
    assert!(error.to_string().contains("has been ended"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(300));
    let pid: i32 = fs::read_to_string(file.with_extension("done"))
        .or_else(|_| fs::read_to_string(home.path().join("pid.done")))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Dead, be it a zombie that waits for its parent's parent.
    let state = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    };
    let patience = Instant::now() + Duration::from_secs(30);
    while !matches!(state(pid), None | Some('Z' | 'X')) {
        assert!(Instant::now() < patience, "the grandchild still runs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_keeps_the_pipes_open_does_not_change_the_verdict() {
    // It leaves the process group, keeps the pipes, and ends by itself.
    let beside = "setsid sleep 30 & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done; ";
    let limit = Duration::from_secs(20);
    let ok = command(&["sh", "-c", &format!("{beside} exit 0")], limit);
    ok.run("x").await.unwrap();
    let bad = command(
        &["sh", "-c", &format!("{beside} echo why >&2; exit 3")],
        limit,
    );
    let error = bad.run("x").await.unwrap_err();
    assert_eq!(error.to_string(), "command `sh`: exit status: 3");
    assert_eq!(error.printed(), Some("why"));
}

#[test]
fn signals_by_name() {
    assert_eq!(parse_signal("SIGHUP"), Ok(Signal::HUP));
    assert_eq!(parse_signal("USR2"), Ok(Signal::USR2));
    for bad in ["KILL", "hup", "9", "", "SIGSIGHUP"] {
        assert!(parse_signal(bad).unwrap_err().contains("HUP, INT"));
    }
}
