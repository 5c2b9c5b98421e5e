//! What happens between a decision and its record.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use super::*;
use crate::{
    access::{self, Denial, changes},
    join::{self, Agent, TokenJoin},
    resources::{
        LabelSelector, Metadata, Resource, ResourceName, RoleSpec, Spec, TokenSecret,
        WorkloadIdentitySpec,
    },
    service::Foundation,
    store::DataDirectory,
};

struct World {
    _home: TempDir,
    issuer: Issuer,
    caller: Arc<Caller>,
}

fn named(name: &str) -> ResourceName {
    ResourceName::parse(name).unwrap()
}

fn identity(name: &str, path: &str) -> Resource {
    Resource {
        metadata: Metadata {
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ..Metadata::named(named(name))
        },
        spec: WorkloadIdentitySpec::at(path).unwrap().into(),
    }
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
        let now = SystemTime::now();
        let issuer = Issuer::open(&directory, &foundation, now).await.unwrap();
        let all = LabelSelector::new([("*".to_owned(), vec!["*".to_owned()])]).unwrap();
        let role = Resource {
            metadata: Metadata::named(named("web")),
            spec: Spec::Role(RoleSpec {
                workload_identity_labels: all,
                ..Default::default()
            }),
        };
        apply(&issuer, vec![role, identity("web", "/web")]).await;
        let secret = TokenSecret::generate().unwrap();
        let made = secret.clone();
        let hour = Duration::from_secs(3600);
        issuer
            .store
            .write::<_, changes::ChangeError, _>(move |tx| {
                let made = made.clone();
                Box::pin(async move {
                    let roles = vec![named("web")];
                    changes::add_bot(tx, named("web"), roles, made, hour, "test", now).await
                })
            })
            .await
            .unwrap();
        let join = TokenJoin {
            secret,
            key: SubjectKey::from_csr(&csr()),
            agent: Agent::default(),
            remote: None,
            ttl: hour,
        };
        let bot = join::join_by_token(&issuer, join, now).await.unwrap();
        let caller = Arc::new(bot.caller(None, now));
        let world = Self {
            _home: home,
            issuer,
            caller,
        };
        // Its certificate is known to be in use from here on.
        world.begin().await.end(&world).await;
        world
    }

    /// Decides and signs, and does not record.
    async fn begin(&self) -> Begun {
        let items = take_apart(vec![request()]).await.unwrap();
        let asker = Asker::Bot(self.caller.clone());
        let batch = Arc::new(Batch::new(&self.issuer, asker, items, SystemTime::now()));
        let settled = settle(batch.clone(), self.issuer.store.catalog()).await;
        Begun {
            batch,
            settled: Arc::new(settled.unwrap()),
        }
    }

    /// The recorded issuances: whether granted, and the reason.
    async fn events(&self) -> Vec<(u64, bool, String)> {
        let mut connection = self.issuer.store.read().await.unwrap();
        let rows: Vec<(i64, String, i64, String)> = sqlx::query_as(
            "SELECT sequence, event, success, fields FROM audit_events ORDER BY sequence",
        )
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        rows.into_iter()
            .filter(|(_, event, ..)| event == "spiffe.svid.issued")
            .map(|(sequence, _, success, fields)| {
                let fields: serde_json::Value = serde_json::from_str(&fields).unwrap();
                let reason = fields["reason"].as_str().unwrap_or_default().to_owned();
                (sequence as u64, success != 0, reason)
            })
            .collect()
    }

    async fn lock(&self) {
        let id = self.caller.instance_id.clone();
        self.issuer
            .store
            .write::<_, StoreError, _>(move |tx| {
                let id = id.clone();
                Box::pin(async move {
                    access::lock_instance(tx, "web", &id, "test", SystemTime::now()).await
                })
            })
            .await
            .unwrap();
    }
}

struct Begun {
    batch: Arc<Batch>,
    settled: Arc<Settled>,
}

impl Begun {
    fn serial(&self) -> String {
        serial(self.settled.outcomes())
    }

    /// Records what was decided, or what is decided now.
    async fn end(self, world: &World) -> Vec<Outcome> {
        let kept = keep(&world.issuer, self.batch, self.settled).await.unwrap();
        Arc::unwrap_or_clone(kept).into_outcomes()
    }
}

fn serial(outcomes: &[Outcome]) -> String {
    match &outcomes[0].grants[0].document {
        Document::X509 { leaf, .. } => leaf.serial.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn apply(issuer: &Issuer, resources: Vec<Resource>) {
    issuer
        .store
        .write::<_, changes::ChangeError, _>(move |tx| {
            let resources = resources.clone();
            let now = SystemTime::now();
            Box::pin(async move { changes::apply(tx, resources, "test", now).await })
        })
        .await
        .unwrap();
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec()
}

fn request() -> pb::SvidRequest {
    pb::SvidRequest {
        selector: Some(pb::svid_request::Selector::Name("web".to_owned())),
        document: Some(pb::svid_request::Document::X509(pb::X509Request {
            csrs_der: vec![csr()],
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_lock_that_is_committed_between_decision_and_record_wins() {
    let world = World::new().await;
    let before = world.events().await.len();
    let begun = world.begin().await;
    assert_eq!(begun.settled.outcomes()[0].grants.len(), 1);
    world.lock().await;
    let outcomes = begun.end(&world).await;
    assert!(outcomes[0].grants.is_empty());
    let refused = outcomes[0].refused.as_ref().unwrap();
    assert_eq!(refused.denial, Denial::Locked);
    let events = world.events().await;
    assert_eq!(events.len(), before + 1, "one event, of the refusal");
    let (_, granted, reason) = events.last().unwrap();
    assert!(!granted && reason == "locked");
}

#[tokio::test]
async fn what_changes_between_decision_and_record_is_in_the_document_or_leaves_it_as_it_was() {
    let world = World::new().await;
    // Nothing that matters: not signed again.
    let begun = world.begin().await;
    let signed = begun.serial();
    apply(&world.issuer, vec![identity("other", "/other")]).await;
    let outcomes = begun.end(&world).await;
    assert_eq!(serial(&outcomes), signed);
    // The path: what leaves is what holds.
    let begun = world.begin().await;
    let signed = begun.serial();
    apply(&world.issuer, vec![identity("web", "/moved")]).await;
    let outcomes = begun.end(&world).await;
    assert_ne!(serial(&outcomes), signed);
    let id = &outcomes[0].grants[0].approved.rendered.id;
    assert_eq!(id.as_str(), "spiffe://test.example/moved");
    // Nothing at all.
    let begun = world.begin().await;
    let signed = begun.serial();
    assert_eq!(serial(&begun.end(&world).await), signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_granted_after_a_lock_however_many_ask() {
    let world = Arc::new(World::new().await);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                loop {
                    let now = SystemTime::now();
                    let asked = issue(&world.issuer, world.caller.clone(), vec![request()], now);
                    if asked.await.unwrap()[0].refused.is_some() {
                        return;
                    }
                }
            })
        })
        .collect();
    while world.events().await.len() < 20 {
        tokio::task::yield_now().await;
    }
    world.lock().await;
    for caller in callers {
        caller.await.unwrap();
    }
    let events = world.events().await;
    let first = events.iter().position(|(_, granted, _)| !granted).unwrap();
    assert!(events[first..].iter().all(|(_, granted, _)| !granted));
    assert_eq!(events.len() - first, 8, "one refusal for each who asked");
}
