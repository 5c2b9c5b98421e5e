//! Streams of many workloads, before an issuer that answers as each test says.

use futures_util::future::join_all;
use identity::testing::TestCa;
use proto::issue::v1::{
    Svid, SvidRequest, SvidResult, WitSvid, WorkloadReads, X509Svid, svid::Document,
    svid_request::Document as Wanted,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use super::*;
use crate::{
    cache::{Unknown, Witness},
    configuration::Selection,
    issuance::{Issuance, IssueError},
    kept::Keeping,
    state::IdentityState,
    trust::Trust,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Process(u32);

impl Witness for Process {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        let tree = json!({ "unix": { "pid": self.0, "uid": 7 } });
        Box::pin(async { Ok(Some(Arc::new(tree))) })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// The key of a request for a certificate.
struct Asked(Vec<u8>);

impl PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// One identity for everybody.
fn issue(ca: &TestCa, request: SvidRequest) -> Result<SvidResult, IssueError> {
    let document = match request.document.unwrap() {
        Wanted::X509(asked) => {
            let (_, csr) = X509CertificationRequest::from_der(&asked.csrs_der[0]).unwrap();
            let key = &csr.certification_request_info.subject_pki;
            let key = Asked(key.subject_public_key.data.to_vec());
            let chain = ca.issue_for(&key, "/app", |_| {});
            Document::X509(X509Svid {
                chain_der: chain.iter().map(|it| it.to_vec()).collect(),
                ..X509Svid::default()
            })
        }
        _ => Document::Wit(WitSvid {
            token: "token".to_owned(),
            ..WitSvid::default()
        }),
    };
    let now = std::time::SystemTime::now();
    Ok(SvidResult {
        svids: vec![Svid {
            workload_identity: "app".to_owned(),
            spiffe_id: format!("spiffe://{}/app", ca.trust_domain()),
            not_before: Some(now.into()),
            not_after: Some((now + HOUR).into()),
            document: Some(document),
            ..Svid::default()
        }],
        reads: Some(WorkloadReads::default()),
        ..SvidResult::default()
    })
}

fn identities(ca: &TestCa, trust: &Arc<Trust>) -> WorkloadIdentities {
    trust.order_now();
    let ca = ca.clone();
    let keeping = Keeping {
        issuance: Issuance::scripted(move |request| {
            let answer = issue(&ca, request);
            Box::pin(async { answer })
        }),
        trust: trust.clone(),
        bot: watch::channel(IdentityState::held()).1,
        roll: Arc::default(),
        sealed: Arc::default(),
    };
    let selector = Selector {
        selection: Selection::Name("app".to_owned()),
        ttl: HOUR,
    };
    let attestors = Arc::new(Attestors::new(attest::Config::default()));
    WorkloadIdentities::new(selector, Cache::new(keeping), attestors)
}

fn callers(count: u32) -> Vec<Arc<Caller>> {
    (0..count)
        .map(|pid| Arc::new(Caller(Workload::new(Process(pid)))))
        .collect()
}

type States<T> = BoxStream<'static, Result<Arc<T>, Denied>>;

/// The one object that all of these get next.
async fn shared<T>(streams: &mut [States<T>]) -> Arc<T> {
    let states = join_all(streams.iter_mut().map(StreamExt::next)).await;
    let states: Vec<_> = states.into_iter().map(|it| it.unwrap().unwrap()).collect();
    let apart = states.iter().filter(|it| !Arc::ptr_eq(it, &states[0]));
    assert_eq!(apart.count(), 0, "of {} streams", states.len());
    states[0].clone()
}

#[tokio::test(start_paused = true)]
async fn streams_of_trust_bundles_share_one_object_over_a_change() {
    let ca = TestCa::new("one.example");
    let trust = Trust::new(TrustBundleSet::new([ca.bundle()]));
    let identities = identities(&ca, &trust);
    let callers = callers(2000);
    let follow = |caller: &Arc<Caller>| identities.bundles(caller);
    let mut streams: Vec<_> = callers.iter().map(follow).collect();
    let first = shared(&mut streams).await;
    let new = TestCa::new("one.example");
    trust.set_bundle(new.bundle());
    let second = shared(&mut streams).await;
    assert_ne!(first, second);
    // One that comes later gets the same.
    let late = shared(&mut [identities.bundles(&callers[0])]).await;
    assert!(Arc::ptr_eq(&second, &late));
    let svids = shared(&mut [identities.x509(&callers[1])]).await;
    assert!(Arc::ptr_eq(&second, &svids.bundles));
}

#[tokio::test(start_paused = true)]
async fn streams_of_wit_svids_share_one_object() {
    let ca = TestCa::new("one.example");
    let trust = Trust::new(TrustBundleSet::new([ca.bundle()]));
    let identities = identities(&ca, &trust);
    let callers = callers(100);
    let id = SpiffeId::parse("spiffe://one.example/app").unwrap();
    let follow = |caller: &Arc<Caller>| identities.wit(caller, Some(&id));
    let mut streams: Vec<_> = callers.iter().map(follow).collect();
    streams.extend(callers.iter().map(|caller| identities.wit(caller, None)));
    shared(&mut streams).await;
}
