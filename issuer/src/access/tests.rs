//! Decisions over time, with the clock handed in.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::TrustDomain;
use proto::issue::v1 as pb;
use tempfile::TempDir;

use super::{Caller, Denial, Refusal, SUCCESSION_GRACE, changes};
use crate::{
    audit::lines::Recorded,
    authority::SubjectKey,
    issue,
    join::{self, Agent, BotGrant, INSTANCE_MEMORY, Renewal, TokenJoin},
    resources::{
        LabelSelector, LockTarget, Metadata, Resource, ResourceName, RoleSpec, Spec, TokenSecret,
        WorkloadIdentitySpec,
    },
    service::{Foundation, Issuer},
    store::{DataDirectory, audit::search},
};

const TTL: Duration = Duration::from_secs(3600);

struct World {
    _home: TempDir,
    issuer: Issuer,
    start: SystemTime,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(&home.path().join("data")).unwrap();
        let trust_domain = TrustDomain::parse("test.example").unwrap();
        let foundation = Foundation {
            trust_domain: Some(trust_domain.clone()),
            default_trust_domain: trust_domain,
            key_file: None,
            lifecycle: Default::default(),
        };
        let start = SystemTime::now();
        let issuer = Issuer::open(&directory, &foundation, start).await.unwrap();
        let labels = LabelSelector::new([("*".to_owned(), vec!["*".to_owned()])]).unwrap();
        let resources = vec![
            resource(Spec::Role(RoleSpec {
                workload_identity_labels: labels,
                ..RoleSpec::default()
            })),
            resource(WorkloadIdentitySpec::at("/web").unwrap().into()),
        ];
        issuer
            .store
            .write::<_, changes::ChangeError, _>(move |tx| {
                let resources = resources.clone();
                Box::pin(async move { changes::apply(tx, resources, "test", start).await })
            })
            .await
            .unwrap();
        Self {
            _home: home,
            issuer,
            start,
        }
    }

    async fn token(&self, now: SystemTime) -> TokenSecret {
        let secret = TokenSecret::generate().unwrap();
        let made = secret.clone();
        self.issuer
            .store
            .write::<_, changes::ChangeError, _>(move |tx| {
                let made = made.clone();
                Box::pin(async move {
                    changes::add_bot(tx, name(), vec![name()], made, TTL, "test", now).await
                })
            })
            .await
            .unwrap();
        secret
    }

    async fn join(
        &self,
        secret: &TokenSecret,
        key: &SubjectKey,
        now: SystemTime,
    ) -> Result<BotGrant, Refusal> {
        let join = TokenJoin {
            secret: secret.clone(),
            key: Ok(key.clone()),
            agent: Agent::default(),
            remote: None,
            ttl: TTL,
        };
        join::join_by_token(&self.issuer, join, now).await
    }

    async fn renew(&self, caller: &Caller, now: SystemTime) -> Result<BotGrant, Refusal> {
        self.renew_with(caller, &key(now), now).await
    }

    async fn renew_with(
        &self,
        caller: &Caller,
        key: &SubjectKey,
        now: SystemTime,
    ) -> Result<BotGrant, Refusal> {
        let renewal = Renewal {
            caller: caller.clone(),
            key: Ok(key.clone()),
            agent: Agent::default(),
            ttl: TTL,
        };
        join::renew(&self.issuer, renewal, now).await
    }

    async fn issue(&self, caller: &Caller, now: SystemTime) -> Result<(), Refusal> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key);
        let request = pb::SvidRequest {
            selector: Some(pb::svid_request::Selector::Name("web".to_owned())),
            document: Some(pb::svid_request::Document::X509(pb::X509Request {
                csrs_der: vec![csr.unwrap().der().to_vec()],
            })),
            ..Default::default()
        };
        let caller = Arc::new(caller.clone());
        let outcomes = issue::issue(&self.issuer, caller, vec![request], now).await?;
        match outcomes.into_iter().next().unwrap().refused {
            Some(refused) => Err(refused.into()),
            None => Ok(()),
        }
    }

    async fn locked_reason(&self, caller: &Caller) -> Option<String> {
        let target = LockTarget::BotInstance(caller.instance_id.clone());
        let catalog = self.issuer.store.catalog();
        assert!(catalog.instance(&caller.instance_id).is_some());
        let lock = catalog.lock_on(&[target], SystemTime::now()).unwrap()?;
        match &lock.spec {
            Spec::Lock(lock) => Some(lock.message.clone()),
            other => panic!("{other:?}"),
        }
    }

    async fn events(&self, event: &str) -> Vec<Recorded> {
        let mut connection = self.issuer.store.read().await.unwrap();
        let filter = search::Filter {
            events: vec![event.to_owned()],
            ..Default::default()
        };
        let read = search::read(&mut connection, &filter, 1, 1000);
        read.await.unwrap()
    }
}

fn name() -> ResourceName {
    ResourceName::parse("web").unwrap()
}

fn resource(spec: Spec) -> Resource {
    Resource {
        metadata: Metadata {
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ..Metadata::named(name())
        },
        spec,
    }
}

/// A key of its own for each call.
fn key(_now: SystemTime) -> SubjectKey {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    SubjectKey::from_csr(request.der()).unwrap()
}

fn caller(grant: &BotGrant, connected: SystemTime) -> Caller {
    grant.caller(None, connected)
}

fn denial<T>(result: Result<T, Refusal>) -> Option<Denial> {
    match result {
        Ok(_) => None,
        Err(Refusal::Denied { denial, .. }) => Some(denial),
        Err(Refusal::Store(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_certificate_older_than_the_newest_but_one_gets_nothing_and_locks() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first = world.join(&secret, &key(now), now).await.unwrap();
    let first = caller(&first, now);
    let second = world.renew(&first, now).await.unwrap();
    // The same agent's connection from before the renewal goes on.
    world.issue(&first, now).await.unwrap();
    world.renew(&caller(&second, now), now).await.unwrap();
    let refused = world.issue(&first, now).await;
    assert_eq!(denial(refused), Some(Denial::CopiedIdentity));
    let reason = world.locked_reason(&first).await.unwrap();
    assert!(reason.contains("generation 1 was presented"), "{reason}");
    let denied = world.events("spiffe.svid.issued").await;
    let denied = denied.last().unwrap();
    assert!(!denied.success && denied.fields.contains("copied_identity"));
    let lock = world.events("lock.create").await;
    assert_eq!(lock[0].sequence, denied.sequence + 1);
}

#[tokio::test]
async fn a_certificate_whose_successor_is_in_use_gets_nothing_on_new_connections() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first = world.join(&secret, &key(now), now).await.unwrap();
    let old = caller(&first, now);
    let second_key = key(now);
    let second = world.renew_with(&old, &second_key, now).await.unwrap();
    let late = now + 2 * SUCCESSION_GRACE;
    // The successor was never presented: the answer may have been lost.
    world.issue(&caller(&first, late), late).await.unwrap();
    world.issue(&caller(&second, late), late).await.unwrap();
    // A connection from before that, and one within the grace, are the agent's own.
    let later = late + 2 * SUCCESSION_GRACE;
    world.issue(&old, later).await.unwrap();
    let within = caller(&first, late + SUCCESSION_GRACE / 2);
    world.issue(&within, later).await.unwrap();
    let refused = world.issue(&caller(&first, later), later).await;
    assert_eq!(denial(refused), Some(Denial::SupersededCertificate));
    assert_eq!(world.locked_reason(&old).await, None);
    // An agent that lost the newest with its disk still has the key, and recovers.
    let restarted = caller(&first, later);
    let repeated = world.renew_with(&restarted, &second_key, later).await;
    let repeated = repeated.unwrap();
    assert!(repeated.repeated);
    world.issue(&caller(&repeated, later), later).await.unwrap();
    // A copy has not.
    let refused = world.renew(&caller(&first, later), later).await;
    assert_eq!(denial(refused), Some(Denial::CopiedIdentity));
    assert!(world.locked_reason(&old).await.is_some());
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_repeated_by_the_holder_of_its_key_alone() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first_key = key(now);
    let first = world.join(&secret, &first_key, now).await.unwrap();
    let later = now + Duration::from_secs(5);
    let again = world.join(&secret, &first_key, later).await.unwrap();
    assert_eq!(again.instance.instance_id, first.instance.instance_id);
    assert_eq!(again.instance.generation, 1);
    assert_ne!(again.leaf.serial, first.leaf.serial);
    let joins = world.events("bot.join").await;
    assert!(!joins[0].fields.contains("repeated"));
    assert!(joins[1].success && joins[1].fields.contains(r#""repeated":true"#));

    let refused = world.join(&secret, &key(now), later).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken));
    let refused = world.join(&secret, &first_key, now + 2 * TTL).await;
    assert_eq!(
        denial(refused),
        Some(Denial::UsedToken),
        "after the token's end"
    );
    world.renew(&caller(&again, later), later).await.unwrap();
    let refused = world.join(&secret, &first_key, later).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken), "after a renewal");
}

#[tokio::test]
async fn a_locked_instance_is_not_joined_again() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first_key = key(now);
    let first = world.join(&secret, &first_key, now).await.unwrap();
    lock(&world, &first, now).await;
    let refused = world.join(&secret, &first_key, now).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken));
}

#[tokio::test]
async fn an_ended_instance_is_forgotten_with_a_record_and_a_locked_one_is_kept() {
    let world = World::new().await;
    let now = world.start;
    let mut ended = Vec::new();
    for _ in 0..2 {
        let secret = world.token(now).await;
        ended.push(world.join(&secret, &key(now), now).await.unwrap());
    }
    lock(&world, &ended[0], now).await;
    let late = now + TTL + INSTANCE_MEMORY + Duration::from_secs(1);
    let secret = world.token(late).await;
    world.join(&secret, &key(late), late).await.unwrap();
    let removed = world.events("bot_instance.delete").await;
    assert_eq!(removed.len(), 1);
    assert!(removed[0].fields.contains(&ended[1].instance.instance_id));
    assert!(world.locked_reason(&caller(&ended[0], now)).await.is_some());
}

async fn lock(world: &World, grant: &BotGrant, now: SystemTime) {
    let id = grant.instance.instance_id.clone();
    world
        .issuer
        .store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { super::lock_instance(tx, "web", &id, "test", now).await })
        })
        .await
        .unwrap();
}
