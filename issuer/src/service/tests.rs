use std::time::{Duration, SystemTime};

use identity::TrustDomain;

use super::{Foundation, Issuer, OpenError};
use crate::{
    audit::lines::Recorded,
    authority::{KeyState, KeyUse},
    store::{
        DataDirectory, Database, StoreError,
        audit::{search, search::Filter},
    },
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

async fn events(issuer: &Issuer) -> Vec<Recorded> {
    let mut connection = issuer.store.read().await.unwrap();
    let all = Filter::default();
    let read = search::read(&mut connection, &all, 1, 100);
    read.await.unwrap()
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

async fn events_named(issuer: &Issuer, name: &str) -> Vec<Recorded> {
    let mut events = events(issuer).await;
    events.retain(|event| event.event == name);
    events
}

/// X.509 times have whole seconds.
fn late_end(now: SystemTime, ttl: Duration) -> SystemTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()) + ttl
}

/// The state of each key of a use, the oldest first.
fn states(issuer: &Issuer, key_use: KeyUse) -> Vec<KeyState> {
    let keyring = issuer.keyring();
    let keys = keyring.keys().iter().filter(|key| key.key_use == key_use);
    keys.map(|key| key.state).collect()
}

#[tokio::test]
async fn fe_01_fe_02_a_running_issuer_rotates_its_keys_in_time() {
    use KeyState::{Active, Prepared, Retired};
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let issuer = open(&home, start).await.unwrap();
    let mut keyrings = issuer.keyrings();
    let mut sequence = issuer.keyring().bundle().sequence();
    for (day, x509, jwt, audit, published) in [
        (59, &[Active][..], &[Active][..], &[Active][..], false),
        (
            60,
            &[Active, Prepared],
            &[Active, Prepared],
            &[Active, Prepared],
            true,
        ),
        (
            61,
            &[Retired, Active],
            &[Retired, Active],
            &[Retired, Active],
            false,
        ),
        // Tokens live for a day at most, certificates for 14.
        (63, &[Retired, Active], &[Active], &[Retired, Active], true),
        (76, &[Active], &[Active], &[Retired, Active], true),
    ] {
        // A minute later, for the slack of whole seconds.
        let now = start + day * DAY + Duration::from_secs(60);
        let next = issuer.advance_keys(now).await.unwrap();
        assert!(next > now);
        assert_eq!(states(&issuer, KeyUse::X509), x509, "day {day}");
        assert_eq!(states(&issuer, KeyUse::JwtEs256), jwt, "day {day}");
        assert_eq!(states(&issuer, KeyUse::JwtRs256), jwt, "day {day}");
        assert_eq!(states(&issuer, KeyUse::Audit), audit, "day {day}");
        assert_eq!(keyrings.has_changed().unwrap(), day != 59, "day {day}");
        keyrings.mark_unchanged();
        let told = issuer.keyring().bundle().sequence();
        assert_eq!(told > sequence, published, "day {day}");
        sequence = told;
        let validity = issuer.keyring().validity(now, 14 * DAY).unwrap();
        assert_eq!(validity.not_after, late_end(now, 14 * DAY), "day {day}");
    }
    let named = async |name: &str| events_named(&issuer, name).await.len();
    assert_eq!(named("authority.create").await, 8);
    assert_eq!(named("authority.activate").await, 4);
    assert_eq!(named("authority.retire").await, 4);
    // Of the audit key its private part alone.
    assert_eq!(named("authority.remove").await, 4);
}

#[tokio::test]
async fn what_an_operator_orders_is_done_once_and_recorded_under_his_name() {
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let issuer = open(&home, start).await.unwrap();
    let order = async |at_once, after| {
        let uses = vec![KeyUse::X509];
        let done = issuer.rotate_keys(uses, at_once, "uid:7".to_owned(), start + after);
        done.await.unwrap().len()
    };
    assert_eq!(order(false, DAY).await, 1);
    assert_eq!(order(false, DAY).await, 0);
    assert_eq!(order(true, DAY).await, 2);
    let made = events_named(&issuer, "authority.activate").await;
    assert_eq!(made.len(), 1);
    assert!(made[0].fields.contains("uid:7"), "{}", made[0].fields);
}

#[tokio::test]
async fn a_store_of_before_keys_had_uses_gets_the_missing_ones() {
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let issuer = open(&home, start).await.unwrap();
    let first = pin(&issuer);
    for sql in [
        "DELETE FROM authorities WHERE key_use <> 'x509'",
        "UPDATE authorities SET not_after = NULL",
    ] {
        execute(&issuer, sql).await;
    }
    issuer.store.close().await;
    let again = open(&home, start + DAY).await.unwrap();
    assert_eq!(pin(&again), first);
    assert_eq!(again.keyring().bundle().jwt_authorities().len(), 2);
    let ca = again.keyring().keys()[0].clone();
    assert_eq!(
        late_end(ca.not_after, Duration::ZERO),
        again.keyring().x509().not_after()
    );
}

/// Two issuers at work on one PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_issuers_one_rotates_and_the_other_follows() {
    let postgres = e2e::Postgres::start_with(&["-c", "fsync=off"]);
    postgres.create_database("issuer");
    let database = Database::postgres(&postgres.socket_url("issuer")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let mut issuers = Vec::new();
    for name in ["one", "two"] {
        let directory = DataDirectory::open(&home.path().join(name)).unwrap();
        let foundation = Foundation {
            key_file: Some(home.path().join("kek")),
            ..foundation()
        };
        let issuer = Issuer::open_on(&database, &directory, &foundation, start).await;
        issuers.push(std::sync::Arc::new(issuer.unwrap()));
    }
    let [one, two] = [&issuers[0], &issuers[1]];
    assert_eq!(pin(one), pin(two));
    assert_eq!(one.keyring().bundle(), two.keyring().bundle());

    // Both at once: each step is done once.
    let day_60 = start + 60 * DAY + Duration::from_secs(60);
    let both = tokio::join!(one.advance_keys(day_60), two.advance_keys(day_60));
    both.0.unwrap();
    both.1.unwrap();
    let made = events_named(one, "authority.create").await;
    assert_eq!(made.len(), 8, "{made:?}");

    // One alone: the other follows without asking.
    let (stop, draining) = tokio::sync::watch::channel(false);
    let following = tokio::spawn(two.clone().keep_keys(draining));
    let mut keyrings = two.keyrings();
    one.advance_keys(start + 62 * DAY).await.unwrap();
    let followed = async {
        while pin(two) != pin(one) {
            keyrings.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), followed)
        .await
        .unwrap();
    assert_eq!(two.keyring().keys(), one.keyring().keys());
    assert_eq!(two.keyring().bundle(), one.keyring().bundle());
    stop.send_replace(true);
    following.await.unwrap();
}
