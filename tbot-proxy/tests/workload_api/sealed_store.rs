//! An agent that is restarted serves what it had, on the conditions under which it had it.

use std::{net::TcpStream, path::PathBuf};

use e2e::{eventually, free_port};
use tonic::Code;

use crate::rig::{Rig, fetch, svid, workload_identity};

const ROLE_WITHOUT: &str = "kind: role\nversion: v1\nmetadata: { name: app }\nspec: {}\n";

/// An agent with a sealed store whose key is in a file.
fn start(resources: &str, selector: &str) -> Rig {
    let mut rig = Rig::start(resources, selector);
    let key = rig.agent.path("sealing.key");
    rig.agent.configure(&format!(
        "sealed_store: {{ key: {{ type: file, path: {} }} }}",
        key.display()
    ));
    rig.agent.restart();
    rig.agent.wait();
    rig
}

fn entries(rig: &Rig) -> Vec<PathBuf> {
    let list = std::fs::read_dir(rig.agent.path("storage/sealed")).unwrap();
    let paths = list.map(|file| file.unwrap().path());
    // Not the file that is about to take the place of one.
    let is_set = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("set-") && name.ends_with(".sealed")
    };
    paths.filter(is_set).collect()
}

/// Kills the agent and starts it anew, until its socket answers.
fn restart(rig: &mut Rig) {
    rig.agent.restart();
    let socket = rig.socket();
    eventually("the Workload API listens again", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_serves_what_it_had_while_the_issuer_is_away() {
    let mut rig = start(&workload_identity("app", "/app", ""), "{ name: app }");
    let before = fetch(&mut rig.client().await).await.unwrap();
    eventually("it is sealed", || entries(&rig).len() == 1);
    rig.issuer.kill();
    restart(&mut rig);
    let after = fetch(&mut rig.client().await).await.unwrap();
    assert_eq!(after, before, "the same SVID, key and bundle");
    assert!(
        rig.agent
            .metric("tbot_identity_offline_budget_seconds{identity=\"app\"}")
            .unwrap()
            > 0.0
    );
    // Nothing of it is in the clear.
    let key = svid(&before);
    let key = key.key_pkcs8_der();
    for path in entries(&rig) {
        let bytes = std::fs::read(path).unwrap();
        assert!(
            !bytes
                .windows(32)
                .any(|part| key.windows(32).any(|it| it == part))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_does_not_ask_for_what_it_has() {
    let mut rig = start(&workload_identity("app", "/app", ""), "{ name: app }");
    let before = svid(&fetch(&mut rig.client().await).await.unwrap());
    eventually("it is sealed", || entries(&rig).len() == 1);
    let issued = rig.issued("x509");
    restart(&mut rig);
    let after = svid(&fetch(&mut rig.client().await).await.unwrap());
    assert_eq!(after.serial(), before.serial());
    assert_eq!(rig.issued("x509"), issued);
    // And goes on with it.
    rig.agent.renew();
    eventually("it is renewed", || rig.issued("x509") == issued + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_denies_by_now_does_not_come_back() {
    let mut rig = start(&workload_identity("app", "/app", ""), "{ name: app }");
    fetch(&mut rig.client().await).await.unwrap();
    eventually("it is sealed", || entries(&rig).len() == 1);
    rig.agent.process().kill();
    rig.apply(ROLE_WITHOUT);
    restart(&mut rig);
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    eventually("it is not in the store either", || entries(&rig).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_locked_meanwhile_gives_nothing_back() {
    let mut rig = start(&workload_identity("app", "/app", ""), "{ name: app }");
    fetch(&mut rig.client().await).await.unwrap();
    eventually("it is sealed", || entries(&rig).len() == 1);
    rig.agent.process().kill();
    rig.apply(
        "kind: lock\nversion: v1\nmetadata: { name: stop }\n\
         spec: { target: { bot: app }, message: stolen }\n",
    );
    restart(&mut rig);
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    eventually("it is not in the store either", || entries(&rig).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_does_not_get_what_was_sealed_for_this_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: it needs root to act as other users");
        return;
    }
    let template = workload_identity("user", "/user/{{ workload.unix.uid }}", "");
    let mut rig = start(&template, "{ name: user }");
    let id = "spiffe://e2e.example/user/4003";
    assert_eq!(rig.as_user(4_003), id);
    eventually("it is sealed", || entries(&rig).len() == 1);
    rig.issuer.kill();
    restart(&mut rig);
    assert_eq!(rig.as_user(4_003), id);
    assert_eq!(rig.as_user(4_004), "Unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_carries_traffic_after_a_restart_without_the_issuer() {
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = echo.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in echo.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                std::io::copy(&mut reader, &mut stream)
            });
        }
    });
    let (inside, outside) = (free_port(), free_port());
    let both = workload_identity("app", "/app", "") + &workload_identity("far", "/far", "");
    let mut rig = tokio::task::block_in_place(|| {
        Rig::start_with_services(&both, "{ name: app }", "", |_| {
            vec![
                e2e::inbound("app", inside, &backend, &["spiffe://e2e.example/far"]),
                e2e::outbound("far", outside, inside, &["spiffe://e2e.example/app"]),
            ]
        })
    });
    let ping = || {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(("127.0.0.1", outside))?;
        stream.write_all(b"ping")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer == *b"ping")
    };
    rig.agent
        .configure("sealed_store: { key: { type: keyring } }");
    rig.agent.restart();
    if rig.agent.log().contains("keyctl(2) is often forbidden") {
        eprintln!("SKIPPED: this kernel gives no keyring");
        return;
    }
    rig.agent.wait();
    assert!(ping().unwrap());
    eventually("both are sealed", || entries(&rig).len() == 2);
    rig.issuer.kill();
    restart(&mut rig);
    rig.agent.wait();
    assert!(ping().unwrap());
}
