use std::time::{Duration, SystemTime};

use e2e::Postgres;

use super::{Changes, Database, Store, StoreError, Tx, audit, feed::Publisher, head, settings};
use crate::{
    access::changes,
    audit::{Event, EventName},
    resources::{Kind, Metadata, Resource, ResourceName, RoleSpec, Spec},
};

/// A database of each engine, empty, and what it lives on.
pub(in crate::store) struct Home {
    pub(in crate::store) database: Database,
    postgres: Option<Postgres>,
    _directory: tempfile::TempDir,
}

impl Home {
    pub(in crate::store) fn each() -> [Self; 2] {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Self {
            database: Database::sqlite(directory.path().join("a %20name?.db")),
            postgres: None,
            _directory: directory,
        };
        [sqlite, Self::postgres(&["-c", "fsync=off"])]
    }

    pub(in crate::store) fn postgres(settings: &[&'static str]) -> Self {
        let postgres = Postgres::start_with(settings);
        postgres.create_database("issuer");
        let url = postgres.socket_url("issuer");
        Self {
            database: Database::postgres(&url).unwrap(),
            postgres: Some(postgres),
            _directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(in crate::store) async fn open(&self) -> Store {
        Store::open(&self.database).await.unwrap()
    }
}

async fn record(store: &Store, fail: bool) -> Result<u64, StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                let event = Event::success(EventName::BotJoin).with("bot_name", "b");
                let sequence = audit::append(tx, &event, SystemTime::now()).await?;
                settings::write(tx, settings::RENEW_EPOCH, &sequence.to_string()).await?;
                match fail {
                    true => Err(StoreError::Damaged("on purpose".to_owned())),
                    false => Ok(sequence),
                }
            })
        })
        .await
}

#[tokio::test]
async fn work_that_fails_is_undone_alone_and_leaves_no_gap() {
    for home in Home::each() {
        let store = home.open().await;
        let work = (0..100).map(|number| record(&store, number % 3 == 0));
        let results = futures_util::future::join_all(work).await;
        let mut sequences: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (1..=66).collect::<Vec<_>>());
        let mut connection = store.read().await.unwrap();
        assert_eq!(audit::last_sequence(&mut connection).await.unwrap(), 66);
        assert_eq!(store.changes().borrow().audit_sequence, 66);
    }
}

#[tokio::test]
async fn work_that_panics_is_undone_and_the_writer_goes_on() {
    for home in Home::each() {
        let store = home.open().await;
        let panicked: Result<(), StoreError> = store
            .write(|tx| {
                Box::pin(async move {
                    let event = Event::success(EventName::BotJoin);
                    audit::append(tx, &event, SystemTime::now()).await?;
                    panic!("on purpose");
                })
            })
            .await;
        assert!(matches!(panicked, Err(StoreError::Unavailable(_))));
        assert_eq!(record(&store, false).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_waits_together_shares_a_commit() {
    for home in Home::each() {
        let store = home.open().await;
        let mut changes = store.changes();
        let work = (0..64).map(|_| record(&store, false));
        let counting = async {
            let mut commits = 0;
            while changes.borrow().audit_sequence < 64 {
                changes.changed().await.unwrap();
                commits += 1;
            }
            commits
        };
        let (_, commits) = tokio::join!(futures_util::future::join_all(work), counting);
        assert!(commits < 32, "{commits} commits for 64 writes");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen_and_later_writes_count_on() {
    for home in Home::each() {
        let store = home.open().await;
        record(&store, false).await.unwrap();
        store.close().await;
        assert!(record(&store, false).await.is_err());
        let store = home.open().await;
        assert_eq!(record(&store, false).await.unwrap(), 2);
        let mut connection = store.read().await.unwrap();
        let epoch = settings::read_number(&mut connection, settings::RENEW_EPOCH)
            .await
            .unwrap();
        assert_eq!(epoch, 2);
    }
}

#[tokio::test]
async fn a_store_of_a_newer_issuer_is_refused() {
    for home in Home::each() {
        let store = home.open().await;
        let newer: Result<(), StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999, 'the future', TRUE, $1, 0)",
                )
                .bind([0u8; 4].as_slice())
                .execute(tx.connection().await?)
                .await?;
                Ok(())
            })
        })
        .await;
        newer.unwrap();
        store.close().await;
        let refused = Store::open(&home.database).await;
        assert!(
            matches!(refused, Err(StoreError::Schema { .. })),
            "{refused:?}"
        );
    }
}

/// A store on a server, and another issuer's on the same database.
async fn two(home: &Home) -> (Store, Store) {
    // At once, on an empty database: both find it made.
    let (one, other) = tokio::join!(home.open(), home.open());
    (one, other)
}

async fn order_renewal(store: &Store) -> u64 {
    let ordered: Result<u64, StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                let within = Duration::from_secs(7);
                changes::order_renewal(tx, within, "test", SystemTime::now()).await
            })
        })
        .await;
    ordered.unwrap()
}

#[tokio::test]
async fn two_issuers_on_one_database_count_together_and_see_each_other() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let (one, other) = two(&home).await;
    let mut changes = other.changes();
    assert_eq!(order_renewal(&one).await, 1);
    let seen = tokio::time::timeout(
        Duration::from_secs(30),
        changes.wait_for(|changes| changes.renew.is_some_and(|(epoch, _)| epoch == 1)),
    );
    let seen = *seen.await.expect("seen without being asked").unwrap();
    assert_eq!(seen.audit_sequence, 1);
    assert_eq!(other.catalog().revision(), one.catalog().revision());

    // Each writes what it reads, at the same time as the other.
    let both = (0..40).map(|number| order_renewal(if number % 2 == 0 { &one } else { &other }));
    let mut epochs = futures_util::future::join_all(both).await;
    epochs.sort_unstable();
    assert_eq!(epochs, (2..=41).collect::<Vec<_>>());
    verify(&one).await;
}

/// Follows the whole chain.
pub(in crate::store) async fn verify(store: &Store) -> u64 {
    let mut connection = store.read().await.unwrap();
    let head = head::read(&mut connection).await.unwrap();
    let all = audit::search::Filter::default();
    let events = audit::search::read(&mut connection, &all, 1, 100_000);
    let events = events.await.unwrap();
    assert_eq!(events.len() as u64, head.sequence);
    let mut hash = crate::audit::chain::START;
    for event in &events {
        hash = event.record().hash(&hash);
    }
    assert_eq!(hash, head.hash);
    head.sequence
}

#[tokio::test]
async fn what_the_database_refuses_for_order_is_run_again() {
    let settings = [
        "-c",
        "fsync=off",
        "-c",
        "default_transaction_isolation=serializable",
    ];
    let home = Home::postgres(&settings);
    let (one, other) = two(&home).await;
    let both = (0..60).map(|number| order_renewal(if number % 2 == 0 { &one } else { &other }));
    let mut epochs = futures_util::future::join_all(both).await;
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=60).collect::<Vec<_>>());
    assert_eq!(verify(&one).await, 60);
}

#[tokio::test]
async fn a_commit_waits_for_the_servers_disk_and_nobody_for_an_issuer_that_stopped() {
    let home = Home::postgres(&["-c", "fsync=off", "-c", "synchronous_commit=off"]);
    let store = home.open().await;
    let shown: Result<[String; 2], StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                let mut shown = [String::new(), String::new()];
                let settings = ["synchronous_commit", "idle_in_transaction_session_timeout"];
                for (shown, setting) in shown.iter_mut().zip(settings) {
                    let (value,): (String,) = sqlx::query_as("SELECT current_setting($1)")
                        .bind(setting)
                        .fetch_one(tx.connection().await?)
                        .await?;
                    *shown = value;
                }
                Ok(shown)
            })
        })
        .await;
    assert_eq!(shown.unwrap(), ["on", "5s"]);
}

#[tokio::test]
async fn a_server_that_is_frozen_is_not_waited_for_and_work_goes_on_when_it_thaws() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let store = home.open().await;
    record(&store, false).await.unwrap();
    let postgres = home.postgres.as_ref().unwrap();
    postgres.freeze();
    // They learn it together: one after another they would wait for hours.
    let waiting = futures_util::future::join_all((0..500).map(|_| record(&store, false)));
    let refused = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    for refused in refused.expect("all are answered") {
        assert!(
            matches!(
                refused,
                Err(StoreError::Unavailable(_) | StoreError::Open { .. })
            ),
            "{refused:?}"
        );
    }
    postgres.thaw();
    without_trouble(&store).await;
    record(&store, false).await.unwrap();
    verify(&store).await;
}

/// Waits until the store says that it works, without writing.
async fn without_trouble(store: &Store) {
    let works = async {
        while store.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let works = tokio::time::timeout(Duration::from_secs(60), works).await;
    works.unwrap_or_else(|_| panic!("still {:?}", store.trouble()));
}

#[tokio::test]
async fn a_look_that_was_cut_off_leaves_no_transaction_behind() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let (one, other) = two(&home).await;
    let postgres = home.postgres.as_ref().unwrap();
    let port = postgres.port();
    // What a look reads in its transaction waits for longer than it does.
    let mut lock = e2e::psql(
        port,
        &[
            "-c",
            "\\connect issuer",
            "-c",
            "BEGIN; LOCK TABLE resources; SELECT pg_sleep(12); COMMIT",
        ],
    );
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
    let mut lock = lock.spawn().unwrap();
    while postgres.query("issuer", locked) == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    order_renewal(&one).await;
    let is_over = tokio::task::spawn_blocking(move || lock.wait().unwrap());
    assert!(is_over.await.unwrap().success());
    let mut changes = other.changes();
    let seen = changes.wait_for(|changes| changes.renew.is_some());
    seen.await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(postgres.query("issuer", open), "0");
}

#[tokio::test]
async fn a_server_that_only_reads_is_left_for_the_one_that_writes() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let store = home.open().await;
    // As a connection to a server that has become a replica.
    let only_reads: Result<(), StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
                    .execute(tx.connection().await?)
                    .await?;
                Ok(())
            })
        })
        .await;
    only_reads.unwrap();
    assert_eq!(record(&store, false).await.unwrap(), 1);
    verify(&store).await;
}

/// A signer that does not come back.
struct Panics;

impl audit::signing::HeadSigner for Panics {
    fn key_id(&self) -> String {
        String::new()
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_signer_that_panics_fails_the_commit_and_the_writer_goes_on() {
    let trust_domain = identity::TrustDomain::parse("test.example").unwrap();
    for home in Home::each() {
        let store = home.open().await;
        record(&store, false).await.unwrap();
        store.sign_heads(trust_domain.clone(), std::sync::Arc::new(Panics));
        let refused = record(&store, false).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        assert!(store.trouble().is_some());
        *store.signing.lock().unwrap() = None;
        assert_eq!(record(&store, false).await.unwrap(), 2);
        assert_eq!(store.trouble(), None);
        verify(&store).await;
    }
}

#[tokio::test]
async fn while_the_server_is_away_writes_are_refused_and_then_they_go_on() {
    let mut home = Home::postgres(&["-c", "fsync=off"]);
    let store = home.open().await;
    record(&store, false).await.unwrap();
    let postgres = home.postgres.as_mut().unwrap();
    postgres.crash();
    let refused = record(&store, false).await;
    assert!(
        matches!(
            refused,
            Err(StoreError::Open { .. } | StoreError::Unavailable(_))
        ),
        "{refused:?}"
    );
    assert!(store.trouble().is_some());
    postgres.restart();
    // Nobody need write for it to be seen, neither this
    without_trouble(&store).await;
    assert_eq!(record(&store, false).await.unwrap(), 2);
    // nor that the server is away.
    let postgres = home.postgres.as_mut().unwrap();
    postgres.crash();
    while store.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let postgres = home.postgres.as_mut().unwrap();
    postgres.restart();
    without_trouble(&store).await;
    // A crash between two writes costs the second one nothing.
    let postgres = home.postgres.as_mut().unwrap();
    postgres.crash();
    postgres.restart();
    assert_eq!(record(&store, false).await.unwrap(), 3);
    assert_eq!(verify(&store).await, 3);
}

#[tokio::test]
async fn what_one_issuer_deletes_is_gone_for_the_other() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let (one, other) = two(&home).await;
    let role = || Resource {
        metadata: Metadata::named(ResourceName::parse("web").unwrap()),
        spec: Spec::Role(RoleSpec::default()),
    };
    let seen = async |there: bool| {
        let mut changes = other.changes();
        loop {
            if other.catalog().role("web").unwrap().is_some() == there {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    // Twice: what is made anew after it was deleted is there.
    for _ in 0..2 {
        let made: Result<_, changes::ChangeError> = one
            .write(move |tx| Box::pin(changes::apply(tx, vec![role()], "test", SystemTime::now())))
            .await;
        made.unwrap();
        assert!(one.catalog().role("web").unwrap().is_some());
        seen(true).await;
        let deleted: Result<(), changes::ChangeError> = one
            .write(|tx| {
                let now = SystemTime::now();
                Box::pin(changes::delete(tx, Kind::Role, "web", 0, "test", now))
            })
            .await;
        deleted.unwrap();
        seen(false).await;
    }
    assert_eq!(other.catalog().revision(), one.catalog().revision());
}

#[tokio::test]
async fn a_transaction_sees_its_own_changes_and_others_only_what_is_committed() {
    for home in Home::each() {
        let store = home.open().await;
        let before = store.catalog();
        let looking = store.clone();
        let undone: Result<(), StoreError> = store
            .write(move |tx| {
                let looking = looking.clone();
                Box::pin(async move {
                    let revision = tx.revision();
                    changes::order_renewal(tx, Duration::ZERO, "test", SystemTime::now()).await?;
                    assert_eq!(tx.revision(), revision + 1);
                    let own = tx.catalog().await?;
                    assert_eq!(own.number(settings::RENEW_EPOCH), 1);
                    assert_eq!(own.revision(), revision + 1);
                    assert_eq!(looking.catalog().number(settings::RENEW_EPOCH), 0);
                    Err(StoreError::Damaged("on purpose".to_owned()))
                })
            })
            .await;
        undone.unwrap_err();
        assert_eq!(store.catalog().revision(), before.revision());
        assert_eq!(order_renewal(&store).await, 1);
        assert_eq!(store.catalog().revision(), before.revision() + 1);
        assert_eq!(store.catalog().number(settings::RENEW_EPOCH), 1);
    }
}

#[tokio::test]
async fn a_database_that_lost_its_newest_commits_is_believed() {
    let home = Home::postgres(&["-c", "fsync=off"]);
    let store = home.open().await;
    for epoch in 1..=3 {
        assert_eq!(order_renewal(&store).await, epoch);
    }
    let known = store.catalog().revision();
    // As a replica is that had got less.
    let postgres = home.postgres.as_ref().unwrap();
    postgres.query(
        "issuer",
        "UPDATE head SET revision = revision - 2; UPDATE settings SET value = '1' WHERE key = 'renew_epoch'",
    );
    let mut changes = store.changes();
    let believed = changes.wait_for(|changes| changes.renew.is_some_and(|(epoch, _)| epoch == 1));
    let believed = tokio::time::timeout(Duration::from_secs(10), believed).await;
    believed.unwrap().unwrap();
    assert_eq!(order_renewal(&store).await, 2);
    // Past all that was decided on.
    assert!(store.catalog().revision() > known);
    // Also where they were events alone, that no decision reads.
    postgres.query(
        "issuer",
        "DELETE FROM audit_events WHERE sequence > 2; UPDATE head SET sequence = 2, \
         hash = (SELECT hash FROM audit_events WHERE sequence = 2)",
    );
    let believed = changes.wait_for(|changes| changes.audit_sequence == 2);
    let believed = tokio::time::timeout(Duration::from_secs(10), believed).await;
    believed.unwrap().unwrap();
    assert_eq!(record(&store, false).await.unwrap(), 3);
    verify(&store).await;
}

/// What a replica has in place of the newest commit, with the same numbers: the other
/// issuer was faster there.
const OTHER_PAST: &str = "UPDATE settings SET value = '77' WHERE key = 'renew_epoch'; \
    UPDATE audit_events SET hash = decode(repeat('5a', 32), 'hex') WHERE sequence = 2; \
    UPDATE head SET hash = decode(repeat('5a', 32), 'hex')";

#[tokio::test]
async fn numbers_that_came_again_with_other_content_are_noticed() {
    let mut home = Home::postgres(&["-c", "fsync=off"]);
    let store = home.open().await;
    for epoch in 1..=2 {
        assert_eq!(order_renewal(&store).await, epoch);
    }
    let (before, key) = (store.catalog().revision(), settings::BUNDLE_SEQUENCE);
    let is = |wanted: u64| {
        move |changes: &Changes| changes.renew.is_some_and(|(epoch, _)| epoch == wanted)
    };
    let postgres = home.postgres.as_ref().unwrap();
    postgres.query("issuer", OTHER_PAST);
    let mut changes = store.changes();
    let believed = tokio::time::timeout(Duration::from_secs(10), changes.wait_for(is(77)));
    believed.await.unwrap().unwrap();
    // Counted past by itself, though nobody writes: what was decided is older, and a trust
    // bundle of before is.
    let bundle = store.catalog().number(key);
    let outlived = changes.wait_for(|changes| changes.revision > before);
    let outlived = tokio::time::timeout(Duration::from_secs(30), outlived).await;
    outlived.unwrap().unwrap();
    assert!(store.catalog().number(key) >= bundle.max(1));
    assert_eq!(store.catalog().number(settings::RENEW_EPOCH), 77);
    let before = store.catalog().revision();
    let bundle = store.catalog().number(key);

    // By the writer itself, whose new connection may be sooner than any look: what was
    // decided on the lost state is older than what its transaction sees.
    let database = home.database.clone();
    let mut connection = database.connect().await.unwrap();
    let lost = Publisher::new(store.catalog(), &head::read(&mut connection).await.unwrap());
    let postgres = home.postgres.as_mut().unwrap();
    postgres.query(
        "issuer",
        &OTHER_PAST.replace("77", "78").replace("5a", "6b"),
    );
    let begun = Tx::begin(connection, database.engine(), lost.catalog()).await;
    let mut tx = begun.map_err(|(_, error)| error).unwrap();
    tx.check_past(&lost.known()).await.unwrap();
    assert!(tx.revision() > before);
    let catalog = tx.catalog().await.unwrap();
    assert_eq!(catalog.number(settings::RENEW_EPOCH), 78);
    assert!(catalog.number(key) > bundle);
    let committed = tx.commit(None, SystemTime::now()).await;
    assert!(committed.map_err(|failed| failed.error).unwrap().changed);
}
