use std::time::SystemTime;

use identity::TrustDomain;

use super::{Foundation, Issuer, OpenError};
use crate::store::{DataDirectory, StoreError};

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
