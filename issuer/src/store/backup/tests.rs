use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;

use super::{LEFT_OUT, TABLES};
use crate::{
    access::{self, changes},
    audit::{Event, EventName},
    authority::{KeyState, KeyUse, StoredAuthority},
    resources::{
        Kind, LockTarget, Metadata, Resource, ResourceName, TokenSecret, WorkloadIdentitySpec,
    },
    store::{
        Database, Store, StoreError, audit, authorities, backup, instances,
        instances::BotInstance,
        restore::{self, RestoreError},
        settings,
        tests::{Home, verify},
        tokens,
    },
};

const TTL: Duration = Duration::from_secs(3600);
const INSTANCE: &str = "e213e81c-2689-4088-b6a0-397ccc90b9a6";

fn name(name: &str) -> ResourceName {
    ResourceName::parse(name).unwrap()
}

/// Something in every table; the secrets of a used and of an unused token.
async fn fill(store: &Store, now: SystemTime) -> [TokenSecret; 2] {
    let secrets = [(); 2].map(|()| TokenSecret::generate().unwrap());
    let made = secrets.clone();
    let filled: Result<(), changes::ChangeError> = store
        .write(move |tx| {
            let made = made.clone();
            async move {
                settings::insert(tx, settings::TRUST_DOMAIN, "test.example").await?;
                settings::insert(tx, settings::BUNDLE_SEQUENCE, "17").await?;
                let key = StoredAuthority {
                    key_id: "00ff".to_owned(),
                    key_use: KeyUse::Audit,
                    state: KeyState::Active,
                    certificate: vec![0, 1, 255],
                    sealed_key: vec![2; 40],
                    created: now,
                    activated: Some(now),
                    retired: None,
                    not_after: now + TTL,
                };
                authorities::add(tx, &key).await?;
                let identity = Resource {
                    metadata: Metadata::named(name("web")),
                    spec: WorkloadIdentitySpec::at("/web").unwrap().into(),
                };
                changes::apply(tx, vec![identity], "test", now).await?;
                for secret in made.clone() {
                    changes::add_bot(tx, name("web"), vec![], secret, TTL, "test", now).await?;
                }
                let instance = BotInstance {
                    instance_id: INSTANCE.to_owned(),
                    bot_name: "web".to_owned(),
                    generation: 7,
                    key_sha256: vec![9; 32],
                    joined: now,
                    renewed: now,
                    not_after: now + TTL,
                    hostname: "höst \"quoted\"\\".to_owned(),
                    agent_version: String::new(),
                    join_method: "token".to_owned(),
                    join_token_name: String::new(),
                    newest_seen: None,
                };
                instances::add(tx, &instance).await?;
                access::lock_instance(tx, "web", INSTANCE, "on purpose", now).await?;
                let connection = tx.connection().await?;
                tokens::consume(connection, &made[0].sha256(), INSTANCE, now).await?;
                for number in 0..300 {
                    let event = Event::success(EventName::SvidIssued)
                        .with("serial_number", format!("{number:032x}"));
                    audit::append(tx, &event, now).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await;
    filled.unwrap();
    secrets
}

async fn back_up(database: &Database, directory: &Path) -> PathBuf {
    let path = directory.join("backup");
    let mut file = std::fs::File::create(&path).unwrap();
    let header = backup::write(database, true, &mut file, SystemTime::now()).await;
    assert_eq!(header.unwrap().trust_domain, "test.example");
    file.flush().unwrap();
    path
}

#[tokio::test]
async fn a_backup_of_either_engine_is_restored_into_either() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    for home in Home::each() {
        let store = home.open().await;
        let [used, unused] = fill(&store, now).await;
        // While the issuer serves.
        let file = back_up(&home.database, directory.path()).await;
        let events = verify(&store).await;
        store.close().await;
        for into in Home::each() {
            let store = into.open().await;
            let restored = restore::restore(&store, &file, "test", now).await.unwrap();
            assert_eq!(restored.header.audit_sequence, events);

            assert_eq!(verify(&store).await, events + 1, "the chain goes on");
            let catalog = store.catalog();
            let instance = catalog.instance(INSTANCE).unwrap();
            assert_eq!(instance.generation, 7);
            assert_eq!(instance.hostname, "höst \"quoted\"\\");
            let target = LockTarget::BotInstance(INSTANCE.to_owned());
            assert_eq!(catalog.locks_of(&target).len(), 1);
            assert_eq!(catalog.count(Kind::Bot), 1);
            assert!(catalog.workload_identity("web").unwrap().is_some());
            assert_eq!(
                catalog.authorities().next().unwrap().certificate,
                [0, 1, 255]
            );
            // TB-03: past whatever was reached after the backup.
            let seconds = now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            assert_eq!(restored.bundle_sequence, seconds + 1);
            assert_eq!(catalog.number(settings::BUNDLE_SEQUENCE), seconds + 1);

            let mut connection = store.read().await.unwrap();
            let token = tokens::read(&mut connection, &used.sha256()).await.unwrap();
            assert!(token.unwrap().used_at.is_some(), "it is not usable again");
            let token = tokens::read(&mut connection, &unused.sha256())
                .await
                .unwrap();
            assert!(token.is_none(), "it may have been used since");
            let all = audit::search::Filter::default();
            let last = audit::search::read(&mut connection, &all, events + 1, 1).await;
            assert_eq!(last.unwrap()[0].event, "store.restore");
            drop(connection);

            let again = restore::restore(&store, &file, "test", now).await;
            assert!(
                matches!(again, Err(RestoreError::NotEmpty { .. })),
                "{again:?}"
            );
            assert_eq!(verify(&store).await, events + 1);
            // What is written after a restore is followed as ever.
            let renewed: Result<u64, StoreError> = store
                .write(move |tx| changes::order_renewal(tx, TTL, "test", now).boxed())
                .await;
            assert_eq!(renewed.unwrap(), 1);
            assert_eq!(store.changes().borrow().renew, Some((1, TTL)));
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_backup_that_is_not_whole_restores_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::sqlite(directory.path().join("one.db"));
    let store = Store::open(&database).await.unwrap();
    fill(&store, SystemTime::now()).await;
    let good = std::fs::read(back_up(&database, directory.path()).await).unwrap();
    let empty = Database::sqlite(directory.path().join("other.db"));
    let other = Store::open(&empty).await.unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let (line, _) = text.trim_end().rsplit_once('\n').unwrap();
    let changed = text.replacen("on purpose", "on porpoise", 1);
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    for (damaged, part) in [
        (String::new(), "begin as a backup"),
        ("{}\n".to_owned(), "begin as a backup"),
        (line.to_owned(), "end is missing"),
        (text[..text.len() / 2].to_owned(), "end is missing"),
        (changed, "SHA-256"),
        (format!("{text}[]\n"), "follows its end"),
        (newer, "version 2"),
    ] {
        let file = directory.path().join("damaged");
        std::fs::write(&file, damaged).unwrap();
        let refused = restore::restore(&other, &file, "test", SystemTime::now()).await;
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(other.changes().borrow().audit_sequence, 0);
    }
    let file = directory.path().join("good");
    std::fs::write(&file, good).unwrap();
    let restored = restore::restore(&other, &file, "test", SystemTime::now()).await;
    restored.unwrap();
}

#[tokio::test]
async fn no_table_and_no_column_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::sqlite(directory.path().join("one.db"));
    let store = Store::open(&database).await.unwrap();
    let mut connection = store.read().await.unwrap();
    let tables: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM sqlite_schema WHERE type = 'table'")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    for (table,) in tables {
        if LEFT_OUT.iter().any(|(name, _)| *name == table) {
            continue;
        }
        let known = TABLES.iter().find(|known| known.name == table);
        let known = known.unwrap_or_else(|| panic!("{table} is in no backup"));
        let columns: Vec<(String,)> = sqlx::query_as("SELECT name FROM pragma_table_info($1)")
            .bind(table.as_str())
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let columns: BTreeSet<String> = columns.into_iter().map(|(name,)| name).collect();
        let mut own: BTreeSet<String> = known
            .columns
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        if known.followed {
            own.insert("changed".to_owned());
        }
        assert_eq!(columns, own, "{table}");
    }
}

#[tokio::test]
async fn an_empty_store_has_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::sqlite(directory.path().join("one.db"));
    let _store = Store::open(&database).await.unwrap();
    let refused = backup::write(&database, true, &mut Vec::new(), SystemTime::now()).await;
    assert!(
        matches!(refused, Err(backup::BackupError::Empty)),
        "{refused:?}"
    );
}
