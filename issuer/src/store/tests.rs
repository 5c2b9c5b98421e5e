use std::time::SystemTime;

use super::{Database, Store, StoreError, audit, settings};
use crate::audit::{Event, EventName};

async fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&Database::sqlite(home.path().join("issuer.db")))
        .await
        .unwrap();
    (home, store)
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
    let (_home, store) = store().await;
    let work = (0..100).map(|number| record(&store, number % 3 == 0));
    let results = futures_util::future::join_all(work).await;
    let mut sequences: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=66).collect::<Vec<_>>());
    let mut connection = store.read().await.unwrap();
    assert_eq!(audit::last_sequence(&mut connection).await.unwrap(), 66);
    assert_eq!(store.changes().borrow().audit_sequence, 66);
}

#[tokio::test]
async fn work_that_panics_is_undone_and_the_writer_goes_on() {
    let (_home, store) = store().await;
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

#[tokio::test]
async fn what_waits_together_shares_a_commit() {
    let (_home, store) = store().await;
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

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen_and_later_writes_count_on() {
    let (home, store) = store().await;
    record(&store, false).await.unwrap();
    store.close().await;
    assert!(record(&store, false).await.is_err());
    let store = Store::open(&Database::sqlite(home.path().join("issuer.db")))
        .await
        .unwrap();
    assert_eq!(record(&store, false).await.unwrap(), 2);
    let mut connection = store.read().await.unwrap();
    let epoch = settings::read_number(&mut connection, settings::RENEW_EPOCH)
        .await
        .unwrap();
    assert_eq!(epoch, 2);
}

#[tokio::test]
async fn a_store_of_a_newer_issuer_is_refused() {
    let (home, store) = store().await;
    let newer: Result<(), StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (999, 'the future', TRUE, x'00', 0)",
                )
                .execute(tx.connection().await?)
                .await?;
                Ok(())
            })
        })
        .await;
    newer.unwrap();
    store.close().await;
    let refused = Store::open(&Database::sqlite(home.path().join("issuer.db"))).await;
    assert!(
        matches!(refused, Err(StoreError::Schema { .. })),
        "{refused:?}"
    );
}
