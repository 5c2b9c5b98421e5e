//! What whoever runs the agent may do with it while it runs: its log, its time, its memory.

#![allow(clippy::unwrap_used)]

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use e2e::{Agent, Issuer, binary, eventually, x509_output};

/// `tbot-proxy debug` for this agent.
fn debug(agent: &Agent, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("tbot-proxy"));
    command.arg("debug").args(arguments).env_clear();
    command.arg("-c").arg(agent.path("agent.yaml"));
    command.current_dir(agent.home());
    command.output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn complaint(output: Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn start(home: &Path, variables: &[(&str, &str)]) -> (Issuer, Agent) {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let services = [x509_output("app", &home.join("out"))];
    let agent = Agent::start_with_environment(&issuer, &token, &services, variables);
    (issuer, agent)
}

#[test]
fn the_level_of_the_log_changes_while_the_agent_runs() {
    let home = tempfile::tempdir().unwrap();
    let (_issuer, agent) = start(home.path(), &[]);
    let level = |arguments: &[&str]| debug(&agent, &[&["log-level"], arguments].concat());
    let is_verbose = || agent.log().contains("DEBUG");
    assert_eq!(text(level(&[])), "info\n");
    assert!(!is_verbose());

    let told = text(level(&["debug"]));
    assert_eq!(told, "debug until the agent is restarted, then info\n");
    agent.renew();
    eventually("more is logged", is_verbose);

    let told = text(level(&["info,h2=trace", "--for", "1s"]));
    assert_eq!(told, "info,h2=trace for a while, then info\n");
    eventually("the level is as it was", || text(level(&[])) == "info\n");
    let now: serde_json::Value = serde_json::from_str(&text(level(&["-o", "json"]))).unwrap();
    assert_eq!(now["level"], "info");
    assert_eq!(
        (&now["configured"], &now["temporary"]),
        (&"info".into(), &false.into())
    );

    let refused = complaint(level(&["loud=much"]));
    assert!(
        refused.contains("write error, warn, info, debug or trace"),
        "{refused}"
    );
    assert_eq!(text(level(&[])), "info\n");
}

#[test]
fn nobody_else_debugs_it() {
    let home = tempfile::tempdir().unwrap();
    let (_issuer, agent) = start(home.path(), &[]);
    let socket = agent.path("storage/debug.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // And not over the port that everybody reaches.
    assert_eq!(agent.get("/log-level").unwrap().0, 404);
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: it needs root to act as another user");
        return;
    }
    let public = tempfile::tempdir().unwrap();
    let program = public.path().join("tbot-proxy");
    std::fs::copy(binary("tbot-proxy"), &program).unwrap();
    std::fs::set_permissions(public.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command
        .args(["debug", "log-level", "trace", "--socket"])
        .arg(&socket);
    let refused = complaint(command.uid(4_003).output().unwrap());
    assert!(refused.contains("Permission denied"), "{refused}");
    assert!(!agent.log().contains("the level of the log was changed"));
}

#[test]
fn an_agent_that_is_not_there_is_told() {
    let mut command = Command::new(binary("tbot-proxy"));
    command.args(["debug", "log-level", "--socket", "/nowhere/debug.sock"]);
    let refused = complaint(command.output().unwrap());
    assert!(refused.contains("/nowhere/debug.sock"), "{refused}");
}

#[cfg(not(feature = "profiling"))]
#[test]
fn a_build_without_profiles_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (_issuer, agent) = start(home.path(), &[]);
    for kind in ["cpu", "heap"] {
        let refused = complaint(debug(&agent, &["profile", kind]));
        assert!(refused.contains("--features profiling"), "{refused}");
    }
}

#[cfg(feature = "profiling")]
#[test]
fn profiles_tell_where_time_and_memory_go() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let home = tempfile::tempdir().unwrap();
    // Often, so that an agent that does little has samples.
    let sampled = "prof:true,prof_active:true,lg_prof_sample:14";
    let (_issuer, agent) = start(home.path(), &[("_RJEM_MALLOC_CONF", sampled)]);
    let done = AtomicBool::new(false);
    let profile = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                agent.get("/metrics");
            }
        });
        let made = debug(
            &agent,
            &["profile", "cpu", "--seconds", "3", "--file", "cpu.folded"],
        );
        done.store(true, Ordering::Relaxed);
        text(made);
        std::fs::read_to_string(agent.path("cpu.folded")).unwrap()
    });
    assert!(!profile.is_empty());
    for line in profile.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        assert!(
            stack.contains(';') && count.parse::<u64>().unwrap() > 0,
            "{line}"
        );
    }
    assert!(
        profile.contains("tbot_proxy::") || profile.contains("metrics_exporter"),
        "{profile}"
    );

    text(debug(&agent, &["profile", "heap", "--file", "heap.pb.gz"]));
    // A gzip file; the mappings in it name the program.
    let script = "import gzip; assert b'/tbot-proxy' in gzip.open('heap.pb.gz').read()";
    let mut python = Command::new("python3");
    let read = python
        .args(["-c", script])
        .current_dir(agent.home())
        .output();
    text(read.unwrap());

    let (_issuer, agent) = start(&home.path().join("other"), &[]);
    let refused = complaint(debug(&agent, &["profile", "heap"]));
    assert!(refused.contains("_RJEM_MALLOC_CONF=prof:true"), "{refused}");
}
