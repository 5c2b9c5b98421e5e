//! A full disk: the issuer issues nothing that it cannot put on record, an
//! output that cannot be written degrades itself alone, an agent does not renew what
//! it cannot keep, and all recover.
//!
//! A small tmpfs stands for the disk, so this needs root (CI and the build
//! machines have it); elsewhere it says loudly that it did not run.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{
    Agent, EchoServer, IssueLoad, Issuer, eventually, free_port, inbound, one_call, run,
    x509_output,
};
use rustix::process::Signal;

struct SmallDisk {
    path: PathBuf,
    _home: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting a small disk needs root");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk");
        fs::create_dir(&path).unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
            .arg(&path));
        Some(Self { path, _home: home })
    }

    fn fill(&self) {
        // Larger pieces first, then what is left byte by byte.
        for (number, size) in [1 << 20, 1 << 12, 1 << 8, 1].into_iter().enumerate() {
            let piece = vec![0; size];
            for count in 0..64 {
                if fs::write(self.filler(number, count), &piece).is_err() {
                    break;
                }
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.path).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Room as an operator makes it.
    fn grow(&self) {
        run(Command::new("mount")
            .args(["-o", "remount,size=512m"])
            .arg(&self.path));
    }

    fn filler(&self, number: usize, count: usize) -> PathBuf {
        self.path.join(format!("filler-{number}-{count}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn issued(issuer: &Issuer) -> usize {
    let audit = issuer.audit();
    let issued = audit
        .iter()
        .filter(|e| e["event"] == "spiffe.svid.issued" && e["success"] == true);
    issued.count()
}

#[test]
fn the_issuer_issues_nothing_that_it_cannot_record() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let issuer = Issuer::start_on(&disk.path.join("issuer-data"));
    let token = issuer.register("app");
    let out = issuer.home().join("out");
    let agent = Agent::start(&issuer, &token, &[x509_output("app", &out)]);
    let svid = || fs::read(out.join("svid.pem")).unwrap();
    let (before, count) = (svid(), issued(&issuer));

    disk.fill();
    agent.renew();
    eventually("the agent is told that the issuer cannot", || {
        agent.metric("tbot_identity_renewals_total{identity=\"app\",result=\"failure\"}")
            > Some(0.0)
    });
    assert_eq!(svid(), before);
    assert_eq!(issued(&issuer), count);
    assert!(agent.is_ready(), "the last good SVID is served on");

    disk.free();
    eventually("issuance recovers by itself", || svid() != before);
    assert!(issued(&issuer) > count);
}

#[test]
fn a_disk_that_the_issuer_fills_itself_under_load_is_unavailable_and_then_over() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut issuer = Issuer::start_on(&disk.path.join("issuer-data"));
    issuer.register("app");
    assert_eq!(one_call(&issuer), None);
    let load = IssueLoad::start(&issuer, 8, &[]);
    // Its own records fill it.
    eventually("the issuer says that it cannot answer", || {
        let answer = one_call(&issuer);
        if let Some((kind, why)) = &answer {
            assert_eq!(kind, "unavailable", "{why}");
        }
        answer.is_some()
    });
    let (is_ready, told) = issuer.ready();
    assert!(!is_ready && told.contains("full"), "{told}");
    // Policy cannot be changed either, and who tries is told why.
    let refused = issuer.command(&["bot", "add", "late"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("full"), "{told}");

    disk.grow();
    eventually("the issuer says that it works", || issuer.ready().0);
    assert_eq!(one_call(&issuer), None);
    load.wait_for_more(100);
    let (errors, received) = load.stop();
    println!("{} SVIDs, failures seen: {errors:?}", received.len());
    let kinds: Vec<_> = errors.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["unavailable"]);
    assert!(issuer.process().is_running());
    issuer.verify_audit();
    let recorded: HashSet<_> = issuer.issued("app").into_iter().collect();
    for serial in &received {
        assert!(
            recorded.contains(serial),
            "{serial} left and is not recorded"
        );
    }
}

#[test]
fn an_output_that_cannot_be_written_degrades_itself_alone() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let echo = EchoServer::start();
    let out = disk.path.join("out");
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            x509_output("app", &out),
            inbound(
                "app",
                free_port(),
                &echo.address(),
                &["spiffe://e2e.example/app"],
            ),
        ],
    );
    let set = |directory: &Path| {
        let file = |name| fs::read(directory.join(name)).unwrap();
        (file("svid.pem"), file("svid_key.pem"))
    };
    let before = set(&out);
    disk.fill();
    agent.renew();
    eventually("the output says why it is not ready", || {
        agent
            .get("/readyz/app-files")
            .is_some_and(|(status, body)| status == 503 && body.contains("reason"))
    });
    assert!(matches!(agent.get("/readyz/app-in"), Some((200, _))));
    assert_eq!(set(&out), before, "the old set is still whole");

    disk.free();
    eventually("the output recovers by itself", || agent.is_ready());
    assert_ne!(set(&out), before);
}

/// An agent that keeps its bot identity on the disk.
struct Keeper {
    issuer: Issuer,
    agent: Agent,
    storage: PathBuf,
}

impl Keeper {
    fn start(disk: &SmallDisk) -> Self {
        let issuer = Issuer::start();
        let token = issuer.register("app");
        let storage = disk.path.join("storage");
        fs::create_dir(&storage).unwrap();
        fs::set_permissions(&storage, fs::Permissions::from_mode(0o700)).unwrap();
        let out = issuer.home().join("out");
        let services = [x509_output("app", &out)];
        let agent = Agent::start_storing(&issuer, &token, &storage, &services);
        let keeper = Self {
            issuer,
            agent,
            storage,
        };
        assert_eq!(keeper.generation(), 1);
        keeper
    }

    fn generation(&self) -> u64 {
        let state = fs::read(self.storage.join("..data/state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        state["generation"].as_u64().unwrap()
    }

    fn attempts(&self, identity: &str, result: &str) -> f64 {
        let metric = "tbot_identity_renewals_total";
        let metric = format!("{metric}{{identity=\"{identity}\",result=\"{result}\"}}");
        self.agent.metric(&metric).unwrap_or_default()
    }

    /// The disk has room again, after a crash: nothing was lost, and nobody is suspected.
    fn assert_not_locked_after_restart(&mut self, disk: &SmallDisk) {
        self.agent.process().kill();
        disk.free();
        self.agent.restart();
        self.agent.wait();
        self.agent.renew();
        eventually("the bot identity is renewed or locked", || {
            self.generation() >= 2 || self.attempts("bot", "failure") > 0.0
        });
        let refused = self.issuer.audit();
        let refused: Vec<_> = refused.iter().filter(|e| e["success"] == false).collect();
        assert!(refused.is_empty(), "{refused:?}");
        // 2 is the renewal that was repeated; the order above may have been one more.
        assert!(self.generation() >= 2);
    }
}

#[test]
fn a_bot_identity_that_cannot_be_kept_is_not_renewed_and_not_locked() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut keeper = Keeper::start(&disk);
    disk.fill();
    keeper.agent.renew();
    eventually("the bot identity was to be renewed twice", || {
        keeper.attempts("bot", "failure") + keeper.attempts("bot", "success") >= 3.0
    });
    keeper.assert_not_locked_after_restart(&disk);
}

#[test]
fn a_disk_that_fills_while_a_renewal_is_under_way_locks_nobody() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut keeper = Keeper::start(&disk);
    keeper.issuer.process().signal(Signal::STOP);
    keeper.agent.renew();
    eventually("the key of the renewal is kept", || {
        keeper.storage.join("..data/next_key.pem").exists()
    });
    disk.fill();
    keeper.issuer.process().signal(Signal::CONT);
    // The second one connects, with what is in force.
    eventually("the bot identity was renewed or was to be", || {
        keeper.attempts("bot", "failure") + keeper.attempts("bot", "success") >= 2.0
    });
    // The first success is the join.
    let renewed = keeper.attempts("bot", "success") > 1.0;
    assert!(!renewed, "what cannot be kept is not put in force");
    let issued = keeper.attempts("app", "success");
    keeper.agent.renew();
    eventually("an SVID is issued meanwhile", || {
        keeper.attempts("app", "success") > issued
    });
    keeper.assert_not_locked_after_restart(&disk);
}
