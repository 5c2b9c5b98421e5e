//! What `issuer bot add` prints can be pasted: the agent accepts the file.

use std::process::Command;

use e2e::{Issuer, binary, run, run_expecting_failure};

/// The file between `<<'EOF'` and `EOF`.
#[track_caller]
fn pasted(printed: &str) -> &str {
    let (_, file) = printed.split_once("<<'EOF'\n").expect("a file");
    file.split_once("\nEOF\n").expect("its end").0
}

#[test]
fn the_printed_configuration_passes_the_check_and_names_what_the_roles_select() {
    let issuer = Issuer::start();
    issuer.register("web");
    let file = issuer.home().join("tbot-web.yaml");
    let printed = issuer.run(&["bot", "add", "web", "--roles", "web"]);
    std::fs::write(&file, pasted(&printed)).expect("configuration");
    assert!(printed.contains("selector: { name: web }"), "{printed}");
    run(Command::new(binary("tbot-proxy"))
        .args(["check", "-c"])
        .arg(&file)
        .env("TBOT_TOKEN", "0123456789abcdef0123456789abcdef"));
}

#[test]
fn a_bot_that_may_have_nothing_is_told_so() {
    let issuer = Issuer::start();
    issuer.register("web");
    let printed = issuer.run(&["bot", "add", "idle"]);
    assert!(printed.contains("selects a workload_identity"), "{printed}");
    let file = issuer.home().join("tbot-idle.yaml");
    std::fs::write(&file, pasted(&printed)).expect("configuration");
    let refused = run_expecting_failure(
        Command::new(binary("tbot-proxy"))
            .args(["check", "-c"])
            .arg(&file),
    );
    assert!(refused.stderr.contains("services"), "{}", refused.stderr);
}
