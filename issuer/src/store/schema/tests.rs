use std::time::{Duration, SystemTime};

use sqlx::{AssertSqlSafe, Connection};

use crate::{
    audit::chain::START,
    authority::Lifecycle,
    resources::{Kind, LockTarget},
    service::{Foundation, Issuer, KEY_FILE},
    store::{DataDirectory, Database, FILE, Store, audit, authorities, head, settings, tokens},
};

/// A real store of the first release, with the key of its keys.
const FIRST_RELEASE: &str = include_str!("../fixtures/v2.sql");
const KEY: &str = "e4e1ce27f8d7bc2e92ffdc04a5c484d6b63a1df31ed8de62f3dc2d7315b3c180\n";
/// The locked one of its three instances.
const LOCKED: &str = "11eac490-616e-4d2d-a416-3dc24acb00b8";

async fn first_release(directory: &DataDirectory) -> Database {
    let database = Database::sqlite(directory.file(FILE));
    let mut connection = database.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(FIRST_RELEASE))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    database
}

#[tokio::test]
async fn a_store_of_the_first_release_keeps_all_that_it_holds_and_gets_a_chain() {
    let home = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(&home.path().join("data")).unwrap();
    let database = first_release(&directory).await;
    // Twice: the second start finds everything done.
    for _ in 0..2 {
        let store = Store::open(&database).await.unwrap();
        let catalog = store.catalog();
        for kind in [Kind::Bot, Kind::Role, Kind::WorkloadIdentity] {
            assert_eq!(catalog.count(kind), 3, "{kind}");
            for resource in catalog.resources(kind, None) {
                assert_eq!(resource.unwrap().kind(), kind);
            }
        }
        assert_eq!(catalog.instances().count(), 3);
        let locked = catalog.instance(LOCKED).unwrap();
        assert_eq!(
            (locked.bot_name.as_str(), locked.generation),
            ("intruder", 2)
        );
        let target = LockTarget::BotInstance(LOCKED.to_owned());
        let lock = catalog
            .lock_on(&[target], SystemTime::now())
            .unwrap()
            .unwrap();
        assert_eq!(lock.metadata.revision, 1);
        assert!(
            format!("{lock:?}").contains("copied identity: generation 1"),
            "{lock:?}"
        );
        assert_eq!(catalog.number(settings::RENEW_EPOCH), 1);
        assert_eq!(catalog.number(settings::BUNDLE_SEQUENCE), 1_795_302_975);
        assert_eq!(store.changes().borrow().renew, Some((1, Duration::ZERO)));

        let mut connection = store.read().await.unwrap();
        assert_eq!(authorities::list(&mut connection).await.unwrap().len(), 1);
        assert!(tokens::list(&mut connection, "").await.unwrap().is_empty());
        let all = audit::search::Filter::default();
        let events = audit::search::read(&mut connection, &all, 1, 1000);
        let events = events.await.unwrap();
        assert_eq!(events.len(), 27);
        let mut hash = START;
        for event in &events {
            hash = event.record().hash(&hash);
            assert_eq!(hash, event.hash);
        }
        let head = head::read(&mut connection).await.unwrap();
        assert_eq!((head.sequence, head.hash), (27, hash));
        let (serials,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM audit_events WHERE serial <> ''")
                .fetch_one(&mut *connection)
                .await
                .unwrap();
        assert_eq!(
            serials, 13,
            "every join, renewal and issuance is found by its serial"
        );
        drop(connection);
        store.close().await;
    }
}

#[tokio::test]
async fn an_issuer_goes_on_with_the_keys_of_the_first_release() {
    let home = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(&home.path().join("data")).unwrap();
    first_release(&directory).await;
    let key_file = directory.file(KEY_FILE);
    std::fs::write(&key_file, KEY).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key_file, private).unwrap();
    let foundation = Foundation {
        trust_domain: None,
        default_trust_domain: identity::TrustDomain::parse("example.org").unwrap(),
        key_file: None,
        lifecycle: Lifecycle::default(),
    };
    let day_after = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_302_975 + 24 * 3600);
    let issuer = Issuer::open(&directory, &foundation, day_after)
        .await
        .unwrap();
    assert_eq!(issuer.trust_domain().as_str(), "demo.example");
    let pin = "sha256:a83469a37d70e0fb60dc36eafb01422607a5ae9ed7b4ab7002817086c635bb81";
    assert_eq!(issuer.keyring().pin(), pin);
    issuer.store.close().await;
}
