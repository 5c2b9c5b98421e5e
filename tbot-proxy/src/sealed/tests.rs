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

fn name(whom: Whom, place: &Place, set: &Restored) -> Name {
    Name::new(whom, place.clone(), &set.reads, &set.attested)
}

#[tokio::test]
async fn a_set_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let place = place("app", SetKind::X509);
    let set = set(HOUR);
    let bundles = TrustBundleSet::new([TestCa::new("one.example").bundle()]);
    let (sealed, none) = Sealed::open(&config(&folder), None).unwrap();
    assert!(none.is_none());
    let sealed = Arc::new(sealed);
    sealed.put(&name(Whom::Workloads, &place, &set), 1, Some(&set));
    let (_told, followed) = watch::channel(Arc::new(bundles.clone()));
    let following = tokio::spawn(sealed.clone().follow(followed));
    tokio::task::yield_now().await;
    sealed.finish().await;
    following.abort();
    drop((sealed, following.await));

    let (sealed, restored) = Sealed::open(&config(&folder), Some("one.example")).unwrap();
    assert_eq!(restored.unwrap(), bundles);
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
async fn what_has_expired_or_is_of_another_trust_domain_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let files = || {
        let list = std::fs::read_dir(folder.path().join("sealed")).unwrap();
        let names = list.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("set-")).count()
    };
    let short = set(Duration::from_millis(1));
    let long = set(HOUR);
    let (a, b) = (place("a", SetKind::X509), place("b", SetKind::X509));
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    sealed.put(&name(Whom::Service, &a, &short), 1, Some(&short));
    sealed.put(&name(Whom::Service, &b, &long), 1, Some(&long));
    sealed.finish().await;
    drop(sealed);
    assert_eq!(files(), 2);
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    assert!(sealed.take(Whom::Service, &a).is_empty());
    assert_eq!(files(), 1);
    sealed.finish().await;
    drop(sealed);
    let (sealed, _) = Sealed::open(&config(&folder), Some("another.example")).unwrap();
    assert!(sealed.take(Whom::Service, &b).is_empty());
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn a_set_is_removed_by_who_put_it_there() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(HOUR);
    let (gone, stays) = (place("gone", SetKind::X509), place("stays", SetKind::X509));
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    for place in [&gone, &stays] {
        sealed.put(&name(Whom::Service, place, &set), 1, Some(&set));
    }
    sealed.put(&name(Whom::Service, &stays, &set), 2, Some(&set));
    for place in [&gone, &stays] {
        sealed.put(&name(Whom::Service, place, &set), 1, None);
    }
    sealed.finish().await;
    drop(sealed);
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    assert!(sealed.take(Whom::Service, &gone).is_empty());
    assert_eq!(sealed.take(Whom::Service, &stays).len(), 1);
}

#[tokio::test]
async fn what_is_configured_no_longer_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(HOUR);
    let place = place("app", SetKind::X509);
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    sealed.put(&name(Whom::Service, &place, &set), 1, Some(&set));
    sealed.finish().await;
    drop(sealed);
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    sealed.retain(|whom, _| whom == Whom::Workloads);
    sealed.finish().await;
    drop(sealed);
    let (sealed, _) = Sealed::open(&config(&folder), None).unwrap();
    assert!(sealed.take(Whom::Service, &place).is_empty());
}
