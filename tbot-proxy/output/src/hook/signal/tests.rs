use std::{env, process::Command, time::UNIX_EPOCH};

use super::*;

#[test]
fn a_name_may_hold_anything() {
    let fields = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
    let stat = Stat::parse(format!("12 (a) b (c) {fields}").as_bytes()).unwrap();
    assert_eq!(stat.name, b"a) b (c");
    assert_eq!(stat.parent, Some(7));
    assert_eq!(stat.start, Duration::from_millis(2_500));
    assert!(Stat::parse(b"12 (a").is_none());
    assert!(Stat::parse(b"12 (a) S 1").is_none());
    let long = Stat::parse(format!("12 (exactly-fifteen) {fields}").as_bytes()).unwrap();
    assert!(long.has_name("exactly-fifteen-and-more"));
    assert!(!long.has_name("exactly"));
}

#[test]
fn our_own_start_is_in_the_past() {
    let stat = Stat::of(rustix::process::getpid()).unwrap();
    let started = stat.started().unwrap();
    assert!(started <= SystemTime::now() + ROUNDING);
}

#[test]
fn a_start_is_counted_back_from_now() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let of = |now, since_boot, start| {
        let [since_boot, start] = [since_boot, start].map(Duration::from_secs);
        started(at(now), since_boot, start)
    };
    assert_eq!(of(1_000, 100, 40), Some(at(940)));
    assert_eq!(of(1_000, 100, 0), Some(at(900)));
    // A tick ahead of the clock: now.
    assert_eq!(of(1_000, 100, 101), Some(at(1_000)));
}

#[test]
fn a_container_that_is_shown_its_own_uptime_changes_nothing() {
    const INSIDE: &str = "TBOT_TEST_UPTIME_IS_COVERED";
    const NAME: &str =
        "hook::signal::tests::a_container_that_is_shown_its_own_uptime_changes_nothing";
    let home = tempfile::tempdir().unwrap();
    if env::var_os(INSIDE).is_none() {
        let uptime = home.path().join("uptime");
        fs::write(&uptime, "1.00 1.00\n").unwrap();
        let mut inside = Command::new("unshare");
        inside
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /proc/uptime || exit 77; exec \"$@\"")
            .arg(&uptime)
            .arg(env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(INSIDE, "1");
        let output = inside.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(77) || said.contains("unshare: ") {
            eprintln!("SKIPPED: nothing can be mounted over /proc/uptime: {said}");
            return;
        }
        assert!(output.status.success(), "{said}");
        return;
    }
    assert_eq!(fs::read_to_string("/proc/uptime").unwrap(), "1.00 1.00\n");
    let path = home.path().join("pid");
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(&path, child.id().to_string()).unwrap();
    // The clock is past what rounding forgives.
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    while SystemTime::now() < written + 2 * ROUNDING {
        std::thread::yield_now();
    }
    let sent = to_pid_of_file(&path, Signal::TERM);
    child.kill().unwrap();
    child.wait().unwrap();
    sent.unwrap();
}
