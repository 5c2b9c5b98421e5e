//! Nobody else writes where an output writes: not the storage of the bot identity,
//! however its path is spelled, not another agent, and not the output that it takes
//! over from.

#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use e2e::{Agent, Issuer, eventually, run, x509_output};
use rustix::process::Signal;
use tbot_proxy::file_set::{FileSet, Links, SetFile};

#[track_caller]
fn is_not_ready(agent: &Agent, service: &str, why: &str) {
    eventually(&format!("{service} says: {why}"), || {
        agent
            .get(&format!("/readyz/{service}"))
            .is_some_and(|(status, body)| status == 503 && body.contains(why))
    });
}

#[test]
fn the_storage_of_the_bot_identity_is_refused_however_it_is_spelled() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(
        &issuer,
        &token,
        &[x509_output("app", &home.path().join("out"))],
    );
    let storage = agent.path("storage");
    let link = home.path().join("link");
    symlink(&storage, &link).unwrap();
    fs::create_dir(agent.path("x")).unwrap();
    let output = |name: &str, path: &Path| x509_output("app", path).replace("app-files", name);
    agent.write_services(&[
        output("dots", &agent.path("x/../storage")),
        output("link", &link),
        x509_output("app", &home.path().join("out")),
    ]);
    agent.process().signal(Signal::HUP);
    for service in ["dots", "link"] {
        is_not_ready(&agent, service, "the storage of the bot identity");
    }
    assert_eq!(agent.get("/readyz/app-files").unwrap().0, 200);
    assert!(storage.join("..data/bot.pem").exists());
    agent.restart();
    eventually("the bot identity is still there", || {
        agent
            .get("/readyz/app-files")
            .is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_second_agent_on_the_same_directory_says_so_and_takes_over_when_it_is_free() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let services = [x509_output("app", &home.path().join("out"))];
    let mut first = Agent::start(&issuer, &token, &services);
    let written = fs::read(home.path().join("out/svid.pem")).unwrap();
    let second = Agent::start_without_waiting(&issuer, &issuer.token("app", &[]), &services);
    is_not_ready(&second, "app-files", "another tbot-proxy writes to it");
    assert_eq!(fs::read(home.path().join("out/svid.pem")).unwrap(), written);
    first.process().kill();
    second.wait();
    assert_ne!(fs::read(home.path().join("out/svid.pem")).unwrap(), written);
}

#[test]
fn an_output_hands_over_to_its_successor_without_a_failure() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let mut agent = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
    for round in 0..10 {
        let name = format!("round-{round}");
        agent.write_services(&[x509_output("app", &out).replace("app-files", &name)]);
        agent.renew();
        agent.process().signal(Signal::HUP);
        eventually("the successor has written", || {
            agent
                .get(&format!("/readyz/{name}"))
                .is_some_and(|(status, _)| status == 200)
        });
        assert!(out.join("svid.pem").exists());
    }
    let log = agent.log();
    assert!(!log.contains("output not written"), "{log}");
}

#[test]
fn a_disk_that_is_full_at_any_step_leaves_a_whole_set_in_force() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: mounting a small disk needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut failed, mut succeeded) = (0, 0);
    for inodes in 6..20 {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size=1m,mode=0700,nr_inodes={inodes}"))
            .arg("tmpfs")
            .arg(home.path()));
        let tried = replace_twice(home.path());
        run(Command::new("umount").arg("-l").arg(home.path()));
        match tried {
            Some(true) => succeeded += 1,
            Some(false) => failed += 1,
            None => {}
        }
    }
    assert!(failed > 1 && succeeded > 1, "{failed} {succeeded}");
}

/// Whether the second set came in force; `None` if the first did not.
fn replace_twice(directory: &Path) -> Option<bool> {
    let set = FileSet::open(directory, Links::ByName).ok()?;
    let file = |name, contents: &'static [u8]| SetFile { name, contents };
    set.replace(&[file("a", b"1")]).ok()?;
    // Two new names: the link of the first takes the inode that the old `..data` gives back.
    let second = ["a", "new", "newer"].map(|name| file(name, b"2"));
    let replaced = set.replace(&second).is_ok();
    let expected = if replaced { b"2" } else { b"1" };
    assert_eq!(set.read("a").unwrap().as_deref(), Some(&expected[..]));
    assert_eq!(fs::read(directory.join("a")).unwrap(), expected);
    assert_eq!(
        fs::symlink_metadata(directory.join("new")).is_ok(),
        replaced
    );
    Some(replaced)
}
