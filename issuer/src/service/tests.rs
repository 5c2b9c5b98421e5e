use std::time::{Duration, SystemTime};

use identity::TrustDomain;

use super::{Foundation, Issuer, OpenError};
use crate::store::{
    DataDirectory, StoreError, audit,
    audit::{Filter, StoredEvent},
};

fn foundation() -> Foundation {
    let trust_domain = TrustDomain::parse("test.example").unwrap();
    Foundation {
        trust_domain: Some(trust_domain.clone()),
        default_trust_domain: trust_domain,
        key_file: None,
        lifecycle: Default::default(),
    }
}

async fn open(home: &tempfile::TempDir, now: SystemTime) -> Result<Issuer, OpenError> {
    let directory = DataDirectory::open(&home.path().join("data")).unwrap();
    Issuer::open(&directory, &foundation(), now).await
}

async fn execute(issuer: &Issuer, sql: &'static str) {
    let done: Result<(), StoreError> = issuer
        .store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(sql).execute(tx.connection().await?).await?;
                Ok(())
            })
        })
        .await;
    done.unwrap();
}

#[tokio::test]
async fn a_store_that_lost_its_trust_domain_or_its_ca_is_not_founded_anew() {
    const NO_CA: &str = "DELETE FROM authorities";
    const NO_TRUST_DOMAIN: &str = "DELETE FROM settings WHERE key = 'trust_domain'";
    for (damage, missing) in [
        (&[NO_CA][..], "lost its CA"),
        (&[NO_TRUST_DOMAIN][..], "lost its trust domain:"),
        (&[NO_CA, NO_TRUST_DOMAIN][..], "trust domain and its CA"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let issuer = open(&home, SystemTime::now()).await.unwrap();
        for sql in damage {
            execute(&issuer, sql).await;
        }
        issuer.store.close().await;
        let refused = open(&home, SystemTime::now()).await;
        let message = match refused {
            Err(OpenError::Store(error @ StoreError::Damaged(_))) => error.to_string(),
            other => panic!("{damage:?}: {other:?}"),
        };
        assert!(message.contains(missing), "{message}");
        assert!(message.contains("backup"), "{message}");
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn events(issuer: &Issuer) -> Vec<StoredEvent> {
    let mut connection = issuer.store.read().await.unwrap();
    let all = Filter::default();
    let read = audit::read(&mut connection, &all, 1, 100);
    read.await.unwrap().0
}

fn pin(issuer: &Issuer) -> String {
    issuer.keyring().pin()
}

#[tokio::test]
async fn a_start_after_the_end_of_the_ca_makes_a_new_one_for_the_same_trust_domain() {
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let first = open(&home, start).await.unwrap();
    first.store.close().await;
    let made = events_named(&first_again(&home, start).await, "authority.create").await;
    assert_eq!(made.len(), 4, "{made:?}");

    let late = start + 91 * DAY;
    let second = open(&home, late).await.unwrap();
    assert_ne!(pin(&second), pin(&first));
    assert_eq!(second.trust_domain(), first.trust_domain());
    let keyring = second.keyring();
    let validity = keyring.validity(late, 14 * DAY).unwrap();
    assert!(validity.not_before <= late && validity.not_after == late_end(late, 14 * DAY));
    let sequences = [&first, &second].map(|issuer| issuer.keyring().bundle().sequence().unwrap());
    assert!(sequences[1] > sequences[0], "{sequences:?}");
    let made = events_named(&second, "authority.create").await;
    assert_eq!(made.len(), 8);
    assert!(
        made.iter()
            .any(|event| event.fields.contains(&pin(&second)))
    );
    second.store.close().await;

    let third = open(&home, late + DAY / 2).await.unwrap();
    assert_eq!(pin(&third), pin(&second));
    third.store.close().await;
    // If it was the clock that was wrong, the first is still there.
    let corrected = open(&home, start + DAY).await.unwrap();
    assert_eq!(pin(&corrected), pin(&first));
    corrected.store.close().await;
    // A clock that is behind both makes no third one.
    let behind = open(&home, start - DAY).await.unwrap();
    assert_eq!(pin(&behind), pin(&first));
    assert_eq!(events_named(&behind, "authority.create").await.len(), 8);
}

async fn first_again(home: &tempfile::TempDir, now: SystemTime) -> Issuer {
    let issuer = open(home, now).await.unwrap();
    issuer.store.close().await;
    open(home, now).await.unwrap()
}

async fn events_named(issuer: &Issuer, name: &str) -> Vec<StoredEvent> {
    let mut events = events(issuer).await;
    events.retain(|event| event.event == name);
    events
}

/// X.509 times have whole seconds.
fn late_end(now: SystemTime, ttl: Duration) -> SystemTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()) + ttl
}
