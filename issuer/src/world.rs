//! An issuer in a temporary directory, for unit tests that decide over time, with the
//! clock handed in.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::TrustDomain;
use proto::issue::v1 as pb;
use tempfile::TempDir;

use crate::{
    access::{Caller, Denial, Refusal, changes},
    audit::lines::Recorded,
    authority::SubjectKey,
    issue,
    join::{self, Agent, BotGrant, Renewal, TokenJoin},
    resources::{
        LabelSelector, LockTarget, Metadata, Resource, ResourceName, RoleSpec, Spec, TokenSecret,
        WorkloadIdentitySpec,
    },
    service::{Foundation, Issuer},
    store::{DataDirectory, audit::search},
};

/// Life of what is asked for.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// An issuer with the role, the bot and the workload identity `web`.
pub(crate) struct World {
    _home: TempDir,
    pub(crate) issuer: Issuer,
    pub(crate) start: SystemTime,
}

impl World {
    pub(crate) async fn new() -> Self {
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
        let world = Self {
            _home: home,
            issuer,
            start,
        };
        world.apply(resources).await;
        world
    }

    pub(crate) async fn apply(&self, resources: Vec<Resource>) {
        let start = self.start;
        let written = self
            .issuer
            .store
            .write::<_, changes::ChangeError, _>(move |tx| {
                let resources = resources.clone();
                Box::pin(async move { changes::apply(tx, resources, "test", start).await })
            });
        written.await.unwrap();
    }

    pub(crate) async fn token(&self, now: SystemTime) -> TokenSecret {
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

    pub(crate) async fn join(
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

    pub(crate) async fn renew(
        &self,
        caller: &Caller,
        now: SystemTime,
    ) -> Result<BotGrant, Refusal> {
        self.renew_with(caller, &key(now), now).await
    }

    pub(crate) async fn renew_with(
        &self,
        caller: &Caller,
        key: &SubjectKey,
        now: SystemTime,
    ) -> Result<BotGrant, Refusal> {
        let renewal = Renewal {
            caller: Arc::new(caller.clone()),
            key: Ok(key.clone()),
            agent: Agent::default(),
            ttl: TTL,
        };
        join::renew(&self.issuer, renewal, now).await
    }

    pub(crate) async fn issue(&self, caller: &Caller, now: SystemTime) -> Result<(), Refusal> {
        let caller = Arc::new(caller.clone());
        let outcomes = issue::issue(&self.issuer, caller, vec![request_for("web")], now).await?;
        match outcomes.into_iter().next().unwrap().refused {
            Some(refused) => Err(refused.into()),
            None => Ok(()),
        }
    }

    pub(crate) async fn locked_reason(&self, caller: &Caller) -> Option<String> {
        let target = LockTarget::BotInstance(caller.instance_id.clone());
        let catalog = self.issuer.store.catalog();
        assert!(catalog.instance(&caller.instance_id).is_some());
        let lock = catalog.lock_on(&[target], SystemTime::now()).unwrap()?;
        match &lock.spec {
            Spec::Lock(lock) => Some(lock.message.clone()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn events(&self, event: &str) -> Vec<Recorded> {
        let mut connection = self.issuer.store.read().await.unwrap();
        let filter = search::Filter {
            events: vec![event.to_owned()],
            ..Default::default()
        };
        let read = search::read(&mut connection, &filter, 1, 1000);
        read.await.unwrap()
    }
}

pub(crate) fn name() -> ResourceName {
    ResourceName::parse("web").unwrap()
}

/// Asks for an X509-SVID of a workload identity, for a new key.
pub(crate) fn request_for(workload_identity: &str) -> pb::SvidRequest {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key);
    pb::SvidRequest {
        selector: Some(pb::svid_request::Selector::Name(
            workload_identity.to_owned(),
        )),
        document: Some(pb::svid_request::Document::X509(pb::X509Request {
            csrs_der: vec![csr.unwrap().der().to_vec()],
        })),
        ..Default::default()
    }
}

pub(crate) fn resource(spec: Spec) -> Resource {
    Resource {
        metadata: Metadata {
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ..Metadata::named(name())
        },
        spec,
    }
}

/// A key of its own for each call.
pub(crate) fn key(_now: SystemTime) -> SubjectKey {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    SubjectKey::from_csr(request.der()).unwrap()
}

pub(crate) fn caller(grant: &BotGrant, connected: SystemTime) -> Caller {
    grant.caller(None, connected)
}

pub(crate) fn denial<T>(result: Result<T, Refusal>) -> Option<Denial> {
    match result {
        Ok(_) => None,
        Err(Refusal::Denied { denial, .. }) => Some(denial),
        Err(Refusal::Store(error)) => panic!("{error}"),
    }
}
