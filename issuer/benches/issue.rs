//! How many SVIDs a second: signing alone, and through the service function with
//! its durable record, at several numbers of callers at once.
//!
//! `cargo bench -p issuer --bench issue`. The figures that matter are the ratios:
//! what the durable record costs a lone caller, and how much of that cost group
//! commit takes back when many call at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::{SpiffeId, TrustDomain};
use proto::issue::v1 as pb;

use issuer::{
    access::{Caller, changes},
    authority::{LeafTemplate, SubjectKey},
    issue,
    join::{self, Agent, TokenJoin},
    resources::{
        LabelSelector, Metadata, Resource, ResourceName, RoleSpec, Spec, TokenSecret,
        WorkloadIdentitySpec,
    },
    service::{Foundation, Issuer},
    store::DataDirectory,
};

const PERIOD: Duration = Duration::from_secs(3);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(run());
}

async fn run() {
    let home = tempfile::tempdir().expect("temporary directory");
    let directory = DataDirectory::open(&home.path().join("data")).expect("data directory");
    let trust_domain = TrustDomain::parse("bench.example").expect("trust domain");
    let foundation = Foundation {
        trust_domain: Some(trust_domain.clone()),
        default_trust_domain: trust_domain,
        key_file: None,
        lifecycle: Default::default(),
    };
    let issuer = Issuer::open(&directory, &foundation, SystemTime::now())
        .await
        .expect("issuer");
    let caller = bot(&issuer).await;
    let csr = csr();

    let verified = rate_of(|| {
        SubjectKey::from_csr(&csr).expect("request");
    });
    let signed = rate_of(signing(&issuer, &csr));
    println!("{:<44} {verified:>9.0} /s", "CSR intake alone, one thread");
    println!("{:<44} {signed:>9.0} /s", "signing alone, one thread");
    let mut alone = 0.0;
    for callers in [1_usize, 4, 16, 64, 256] {
        let rate = service(&issuer, &caller, &csr, callers).await;
        if callers == 1 {
            alone = rate;
        }
        println!(
            "{:<44} {rate:>9.0} /s   {:>5.1} x one caller   {:>5.2} of signing alone",
            format!("durable issuance, {callers} callers"),
            rate / alone,
            rate / signed
        );
    }
    issuer.store.close().await;
}

fn rate_of(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < PERIOD {
        work();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

fn signing<'a>(issuer: &'a Issuer, csr: &[u8]) -> impl FnMut() + use<'a> {
    let id = SpiffeId::new(issuer.trust_domain(), "/apps/web").expect("id");
    let key = SubjectKey::from_csr(csr).expect("request");
    move || {
        let ttl = Duration::from_secs(3600);
        let keyring = issuer.keyring();
        let validity = keyring.validity(SystemTime::now(), ttl).expect("validity");
        let template = LeafTemplate::new(&id, &key, validity);
        keyring.sign_leaf(&template).expect("leaf");
    }
}

async fn service(issuer: &Issuer, caller: &Arc<Caller>, csr: &[u8], callers: usize) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (issuer, caller, csr) = (issuer.clone(), caller.clone(), csr.to_vec());
            tokio::spawn(async move {
                let mut count = 0_u32;
                while begun.elapsed() < PERIOD {
                    let request = vec![request(&csr)];
                    let now = SystemTime::now();
                    let outcomes = issue::issue(&issuer, caller.clone(), request, now).await;
                    assert_eq!(outcomes.expect("store")[0].grants.len(), 1);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut total = 0_u32;
    for task in tasks {
        total += task.await.expect("task");
    }
    f64::from(total) / begun.elapsed().as_secs_f64()
}

fn request(csr: &[u8]) -> pb::SvidRequest {
    pb::SvidRequest {
        selector: Some(pb::svid_request::Selector::Name("web".to_owned())),
        document: Some(pb::svid_request::Document::X509(pb::X509Request {
            csrs_der: vec![csr.to_vec()],
        })),
        ..Default::default()
    }
}

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("key");
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("request");
    request.der().to_vec()
}

/// A bot that has joined and may have the workload identity `web`.
async fn bot(issuer: &Issuer) -> Arc<Caller> {
    let name = || ResourceName::parse("web").expect("name");
    let metadata = || Metadata {
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        ..Metadata::named(name())
    };
    let labels = LabelSelector::new([("app".to_owned(), vec!["web".to_owned()])]);
    let resources = vec![
        Resource {
            metadata: metadata(),
            spec: Spec::Role(RoleSpec {
                workload_identity_labels: labels.expect("selector"),
                ..RoleSpec::default()
            }),
        },
        Resource {
            metadata: metadata(),
            spec: WorkloadIdentitySpec::at("/apps/web").expect("path").into(),
        },
    ];
    let secret = TokenSecret::generate().expect("randomness");
    let (presented, ttl, now) = (secret.clone(), Duration::from_secs(600), SystemTime::now());
    let bot = name();
    let roles = vec![name()];
    issuer
        .store
        .write::<_, changes::ChangeError, _>(move |tx| {
            let (resources, roles) = (resources.clone(), roles.clone());
            let (bot, secret) = (bot.clone(), secret.clone());
            Box::pin(async move {
                changes::apply(tx, resources, "bench", now).await?;
                changes::add_bot(tx, bot, roles, secret, ttl, "bench", now).await
            })
        })
        .await
        .expect("resources");
    let join = TokenJoin {
        secret: presented,
        key: SubjectKey::from_csr(&csr()),
        agent: Agent::default(),
        remote: None,
        ttl,
    };
    let grant = join::join_by_token(issuer, join, now).await.expect("join");
    Arc::new(grant.caller(None, now))
}
