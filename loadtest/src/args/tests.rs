use super::*;

fn handshake(options: &[&str]) -> anyhow::Result<Resolved> {
    let fixed = ["loadtest", "handshake", "--target", "127.0.0.1:9"];
    let cli = Cli::try_parse_from(fixed.iter().chain(options))?;
    match cli.command {
        Command::Handshake(args) => args.resolve(),
        _ => unreachable!(),
    }
}

#[test]
fn durations_and_sizes_have_units() {
    let durations = [
        ("250ms", 250),
        ("10s", 10_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("3", 3_000),
    ];
    for (text, ms) in durations {
        assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
    }
    let sizes = [
        ("128", 128),
        ("64KiB", 65_536),
        ("1GiB", 1 << 30),
        ("5B", 5),
        ("0.5KiB", 512),
    ];
    for (text, bytes) in sizes {
        assert_eq!(size(text).unwrap(), bytes, "{text}");
    }
    for bad in ["", "s", "-1s", "10y", "1e400s", "infs", "NaN"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
    for bad in ["", "KiB", "-1", "1.5", "1TB", "1e30GiB"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_run_is_always_bounded_in_time() {
    assert_eq!(
        handshake(&[]).unwrap().load.bounds.duration,
        Duration::from_secs(10)
    );
    let counted = handshake(&["--count", "5"]).unwrap().load.bounds;
    assert_eq!(
        (counted.count, counted.duration),
        (Some(5), Duration::from_secs(60))
    );
    for bad in [
        "--duration=2h",
        "--duration=0",
        "--count=0",
        "--warmup=2h",
        "--timeout=0",
    ] {
        assert!(handshake(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn impossible_combinations_are_refused() {
    let cases: [&[&str]; 8] = [
        &["--tls"],
        &["--cert", "a", "--key", "b"],
        &["--connections", "0"],
        &["--threads", "0"],
        &["--rate", "0"],
        &["--rate", "NaN"],
        &["--max-error-rate", "2"],
        &["--no-probe", "--resume", "always", "--tls", "--ca", "x"],
    ];
    for options in cases {
        assert!(handshake(options).is_err(), "{options:?}");
    }
}

fn issue(options: &[&str]) -> anyhow::Result<()> {
    let fixed = ["loadtest", "issue", "--target", "127.0.0.1:9"];
    let cli = Cli::try_parse_from(fixed.iter().chain(options))?;
    match cli.command {
        Command::Issue(args) => args.resolve().map(drop),
        _ => unreachable!(),
    }
}

#[test]
fn what_is_issued_and_to_whom_must_be_said() {
    let named = "--workload-identity=app-{n}";
    let admin = "--admin-socket=/nowhere";
    let good: [&[&str]; 4] = [
        &[named, admin],
        &[named, "--identities=/nowhere"],
        &[
            "--labels=app=web,api",
            "--labels=env=*",
            "--svids-per-item=3",
            admin,
        ],
        &[
            named,
            admin,
            "--kind=jwt",
            "--audience=a",
            "--audience=b",
            "--batch=1000",
        ],
    ];
    for options in good {
        assert!(issue(options).is_ok(), "{options:?}");
    }
    let bad: [&[&str]; 9] = [
        &[admin],
        &[named],
        &[named, "--labels=app=web", admin],
        &["--labels=app", admin],
        &["--labels==web", admin],
        &[named, admin, "--batch=1001"],
        &[named, admin, "--batch=0"],
        &[named, admin, "--numbers=0"],
        &[named, admin, "--fallback=192.0.2.1:443"],
    ];
    for options in bad {
        assert!(issue(options).is_err(), "{options:?}");
    }
}
