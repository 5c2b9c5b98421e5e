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
                sqlx::query(sql).execute(tx.connection()).await?;
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

#[tokio::test]
async fn a_start_after_the_end_of_the_ca_makes_a_new_one_for_the_same_trust_domain() {
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let first = open(&home, start).await.unwrap();
    first.store.close().await;
    // Until its last moment it is the one.
    let last = open(&home, start + 90 * DAY - Duration::from_secs(2))
        .await
        .unwrap();
    assert_eq!(last.authority.pin(), first.authority.pin());
    last.store.close().await;

    let late = start + 91 * DAY;
    let second = open(&home, late).await.unwrap();
    assert_ne!(second.authority.pin(), first.authority.pin());
    assert_eq!(second.trust_domain(), first.trust_domain());
    assert!(second.authority.is_valid_at(late));
    let validity = second.authority.validity(late, 14 * DAY).unwrap();
    assert!(validity.not_after <= second.authority.not_after());
    let sequences = [&first, &second].map(|issuer| issuer.bundle.sequence().unwrap());
    assert!(sequences[1] > sequences[0], "{sequences:?}");
    let made: Vec<_> = events(&second).await;
    assert_eq!(made.len(), 2);
    assert!(made.iter().all(|event| event.event == "authority.create"));
    assert!(made[1].fields.contains(&second.authority.pin()));
    second.store.close().await;

    let third = open(&home, late + DAY).await.unwrap();
    assert_eq!(third.authority.pin(), second.authority.pin());
    third.store.close().await;
    // If it was the clock that was wrong, the first is still there.
    let corrected = open(&home, start + DAY).await.unwrap();
    assert_eq!(corrected.authority.pin(), first.authority.pin());
    corrected.store.close().await;
    // A clock that is behind both makes no third one.
    let behind = open(&home, start - DAY).await.unwrap();
    assert_eq!(events(&behind).await.len(), 2);
}

#[tokio::test]
async fn from_two_thirds_of_its_life_on_the_end_of_the_ca_is_told() {
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let issuer = open(&home, start).await.unwrap();
    assert_eq!(issuer.authority.end_is_near(start + 59 * DAY), None);
    let warning = issuer.authority.end_is_near(start + 61 * DAY).unwrap();
    let end = crate::authority::rfc3339(issuer.authority.not_after());
    assert!(warning.contains(&end), "{warning}");
}
