use std::time::Instant;

use identity::testing::TestCa;
use sealed_store::KeySource;
use secrecy::SecretString;
use serde_json::json;

use super::*;
use crate::{
    configuration::{Selection, Selector},
    kept::{Attested, KeptDocument, KeptSvid, SetKind},
    reads::Reads,
    trust::Obtained,
};

const HOUR: Duration = Duration::from_secs(3600);

fn place(name: &str, kind: SetKind) -> Place {
    let selection = Selection::Name(name.to_owned());
    (
        Selector {
            selection,
            ttl: HOUR,
        },
        kind,
    )
}

fn config(folder: &tempfile::TempDir) -> SealedStoreConfig {
    SealedStoreConfig {
        path: folder.path().join("sealed"),
        key: KeySource::File(folder.path().join("key")),
    }
}

/// An X509-SVID and a WIT-SVID of `/app`, granted to user 7.
fn set(ttl: Duration) -> Restored {
    let svid = Arc::new(TestCa::new("one.example").svid("/app", ttl));
    let document = KeptDocument::X509(svid.clone());
    let now = SystemTime::now();
    let kept = |document| {
        Arc::new(KeptSvid {
            workload_identity: "app".to_owned(),
            id: svid.id().clone(),
            hint: "internal".to_owned(),
            federates_with: vec!["two.example".to_owned()],
            not_before: now,
            not_after: now + ttl,
            renew_at: Some(now + ttl / 3),
            document,
        })
    };
    let wit = KeptDocument::Wit {
        token: SecretString::from("a.b.c"),
        key_pkcs8: Arc::new(Zeroizing::new(vec![1, 2, 3])),
    };
    Restored {
        svids: vec![kept(document), kept(wit)],
        reads: Arc::new(Reads::Some {
            attributes: vec!["workload.unix.uid".to_owned()],
            groups: vec![],
        }),
        attested: Attested {
            workload: Some(Arc::new(json!({ "unix": { "uid": 7, "pid": 1 } }))),
            at: Instant::now(),
        },
        obtained: Obtained {
            epoch: Some(3),
            local: 5,
            policy: Some(9),
            refusals: 1,
        },
    }
}

fn open(folder: &tempfile::TempDir, bot: &str) -> Arc<Sealed> {
    let id = format!("spiffe://one.example/bot/{bot}/0000");
    let bot = BotName::of(&SpiffeId::parse(&id).unwrap());
    Arc::new(Sealed::open(&config(folder), Some(bot)).unwrap())
}

async fn closed(sealed: Arc<Sealed>) {
    sealed.finish().await;
}

/// How many sets lie in the store.
fn files(folder: &tempfile::TempDir) -> usize {
    let list = std::fs::read_dir(folder.path().join("sealed")).unwrap();
    let names = list.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("set-")).count()
}

fn name(whom: Whom, place: &Place, set: &Restored) -> Name {
    Name::new(whom, place.clone(), &set.reads, &set.attested)
}

#[tokio::test]
async fn a_set_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let place = place("app", SetKind::X509);
    let set = set(HOUR);
    let sealed = open(&folder, "app");
    sealed.put(&name(Whom::Workloads, &place, &set), Some(&set));
    closed(sealed).await;

    let sealed = open(&folder, "app");
    assert!(sealed.take(Whom::Service, &place).is_empty());
    let back = sealed.take(Whom::Workloads, &place).pop().unwrap();
    assert!(sealed.take(Whom::Workloads, &place).is_empty(), "once");
    let [x509, wit] = back.svids.as_slice() else {
        panic!("{back:?}");
    };
    let (before, after) = (set.svids[0].document.x509(), x509.document.x509());
    let (before, after) = (before.unwrap(), after.unwrap());
    assert_eq!(after.serial(), before.serial());
    assert_eq!(after.key_pkcs8_der(), before.key_pkcs8_der());
    assert_eq!(
        (x509.hint.as_str(), &x509.federates_with),
        ("internal", &wit.federates_with)
    );
    assert_eq!(
        (wit.not_after, wit.renew_at),
        (set.svids[1].not_after, set.svids[1].renew_at)
    );
    assert!(
        matches!(&wit.document, KeptDocument::Wit { key_pkcs8, .. } if ***key_pkcs8 == [1, 2, 3])
    );
    assert_eq!(
        (&back.reads, &back.attested.workload),
        (&set.reads, &set.attested.workload)
    );
    // Orders of that process are no orders to this one.
    let expected = Obtained {
        local: 0,
        refusals: 0,
        ..set.obtained
    };
    assert_eq!(back.obtained, expected);
}

#[tokio::test]
async fn what_has_expired_or_is_of_another_bot_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let short = set(Duration::from_millis(1));
    let long = set(HOUR);
    let (a, b) = (place("a", SetKind::X509), place("b", SetKind::X509));
    let sealed = open(&folder, "app");
    sealed.put(&name(Whom::Service, &a, &short), Some(&short));
    sealed.put(&name(Whom::Service, &b, &long), Some(&long));
    closed(sealed).await;
    assert_eq!(files(&folder), 2);
    let sealed = open(&folder, "app");
    assert!(sealed.take(Whom::Service, &a).is_empty());
    closed(sealed).await;
    assert_eq!(files(&folder), 1);
    let sealed = open(&folder, "another");
    assert!(sealed.take(Whom::Service, &b).is_empty());
    closed(sealed).await;
    assert_eq!(files(&folder), 0);
}

#[tokio::test]
async fn nothing_comes_back_while_it_is_not_known_which_bot_this_is() {
    let folder = tempfile::tempdir().unwrap();
    let (set, place) = (set(HOUR), place("app", SetKind::X509));
    let sealed = open(&folder, "app");
    sealed.put(&name(Whom::Service, &place, &set), Some(&set));
    closed(sealed).await;
    let sealed = Sealed::open(&config(&folder), None).unwrap();
    assert!(sealed.take(Whom::Service, &place).is_empty());
    closed(Arc::new(sealed)).await;
    assert_eq!(files(&folder), 0);
}

#[tokio::test]
async fn what_was_taken_away_or_is_configured_no_longer_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(HOUR);
    let (gone, stays) = (place("gone", SetKind::X509), place("stays", SetKind::X509));
    let sealed = open(&folder, "app");
    for place in [&gone, &stays] {
        sealed.put(&name(Whom::Service, place, &set), Some(&set));
    }
    sealed.put(&name(Whom::Service, &gone, &set), None);
    closed(sealed).await;
    assert_eq!(files(&folder), 1);
    let sealed = open(&folder, "app");
    sealed.retain(|name, _| name.whom() == Whom::Workloads);
    closed(sealed).await;
    assert_eq!(files(&folder), 0);
}

#[tokio::test]
async fn what_nobody_has_asked_for_yet_follows_policy_too() {
    let order = |policy, refusals| {
        Some(RenewOrder {
            epoch: 3,
            policy,
            refusals,
            ..RenewOrder::default()
        })
    };
    for (told, comes_back) in [
        // An order that was given here says nothing of policy.
        (order(None, 0), true),
        (order(Some(9), 0), true),
        (order(Some(10), 0), false),
        (order(Some(8), 0), false),
        (order(None, 1), false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (set, place) = (set(HOUR), place("app", SetKind::X509));
        let sealed = open(&folder, "app");
        sealed.put(&name(Whom::Workloads, &place, &set), Some(&set));
        closed(sealed).await;
        let sealed = open(&folder, "app");
        let (_tell, orders) = watch::channel(told);
        let following = tokio::spawn(sealed.clone().follow(orders));
        tokio::task::yield_now().await;
        following.abort();
        closed(sealed).await;
        assert_eq!(files(&folder) == 1, comes_back, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (set, place) = (set(HOUR), place("app", SetKind::X509));
    let sealed = open(&folder, "app");
    let name = name(Whom::Service, &place, &set);
    // Something is in the way, which no rename replaces.
    let way = folder
        .path()
        .join("sealed")
        .join(format!("{}.sealed", name.text()));
    std::fs::create_dir_all(way.join("x")).unwrap();
    sealed.put(&name, Some(&set));
    let is_queued = || {
        let queue = sealed.writer.as_ref().unwrap().queue.lock();
        queue.changes.contains_key(&name.text())
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    // Taken out by the writer, and put back.
    let mut seen_empty = false;
    while Instant::now() < deadline && !(seen_empty && is_queued()) {
        seen_empty |= !is_queued();
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_dir_all(&way).unwrap();
    while Instant::now() < deadline && !way.is_file() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(way.is_file());
    sealed.finish().await;
}
