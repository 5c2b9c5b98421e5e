use std::net::TcpStream;

use identity::{IdentitySource, SpiffeId, testing::TestCa};
use policy::{PeerPolicy, PeerRule};
use proxy::{ConnectionRecord, Direction};
use tokio::sync::watch;

use super::*;
use crate::{
    configuration::{HostPort, Selection},
    issuance::Issuance,
    kept::{KeptDocument, KeptSvid, Outcome, SetNow},
    link::{Addresses, IssuerLink},
    state::IdentityState,
    trust::Trust,
};

struct NoRecords;

impl RecordSink for NoRecords {
    fn record(&self, _: &ConnectionRecord) {}
}

fn services(trust: &Arc<Trust>) -> Services {
    let nowhere = HostPort::parse("127.0.0.1:1").unwrap();
    let (_, bot) = watch::channel(IdentityState::waiting("no issuer"));
    let keeping = Keeping {
        issuance: Issuance::over(IssuerLink::new(
            Addresses::new(vec![nowhere]),
            IdentitySource::new(),
        )),
        trust: trust.clone(),
        bot,
        roll: Arc::default(),
        sealed: Arc::default(),
    };
    Services {
        cache: Cache::new(keeping.clone()),
        closing: Vec::new(),
        keeping,
        health: Health::default(),
        sink: Arc::new(NoRecords),
        data: Handle::current(),
        storage: None,
        memory: MemoryOutputs::default(),
        wipe_on_exit: false,
        identities: BTreeMap::new(),
        running: BTreeMap::new(),
        draining: Draining::default(),
    }
}

fn inbound(name: &str) -> Service {
    let peer = SpiffeId::parse("spiffe://td/peer").unwrap();
    Service {
        name: name.to_owned(),
        selector: Selector {
            selection: Selection::Name("app".to_owned()),
            ttl: Duration::from_secs(60),
        },
        kind: ServiceKind::Proxy(Box::new(ServiceConfig {
            name: name.to_owned(),
            direction: Direction::Inbound,
            listen: "127.0.0.1:0".parse().unwrap(),
            connect: "127.0.0.1:1".parse().unwrap(),
            peers: PeerPolicy::new(vec![], vec![PeerRule::Id(peer)]),
            limits: proxy::Limits::default(),
            resumption: true,
            tls12: false,
            on_expiry: proxy::OnExpiry::default(),
        })),
    }
}

fn source_of(services: &Services, name: &str) -> Arc<IdentitySource> {
    match &services.running[name].work {
        Work::Proxy { served, .. } => served.source().clone(),
        Work::Output { .. } | Work::Api(_) => panic!("{name} has no identity of its own"),
    }
}

fn address_of(services: &Services, name: &str) -> String {
    match &services.running[name].work {
        Work::Proxy { proxy, .. } => proxy.local_addr().to_string(),
        _ => panic!("{name} is no proxy"),
    }
}

/// A set with this SVID.
fn held(svid: identity::X509Svid) -> SetNow {
    let kept = KeptSvid {
        workload_identity: "app".to_owned(),
        id: svid.id().clone(),
        hint: String::new(),
        federates_with: vec![],
        not_before: svid.not_before(),
        not_after: svid.not_after(),
        renew_at: None,
        document: KeptDocument::X509(Arc::new(svid)),
    };
    SetNow {
        outcome: Outcome::Held,
        svids: vec![Arc::new(kept)],
        ..SetNow::starting()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drains_follows_trust_until_it_has_ended() {
    let ca = TestCa::new("td");
    let trust = Trust::new(identity::TrustBundleSet::new([ca.bundle()]));
    let mut services = services(&trust);
    let grace = Duration::from_secs(600);
    let selector = inbound("app").selector;
    let held = held(ca.svid("/app", Duration::from_secs(3600)));
    let keeping = services.keeping.clone();
    let kept = Arc::new(KeptIdentity::start(selector.clone(), keeping, Some(&held)));
    services.identities.insert(selector, Arc::downgrade(&kept));
    services.apply(&[inbound("app")], grace).await.unwrap();
    drop(kept);
    let source = source_of(&services, "app");
    let mut changes = source.subscribe();
    changes
        .wait_for(|identity| identity.svid.is_some())
        .await
        .unwrap();
    // A connection in its handshake holds the drain up.
    let live = TcpStream::connect(address_of(&services, "app")).unwrap();
    let Work::Proxy { proxy, .. } = &services.running["app"].work else {
        panic!("it is a proxy");
    };
    while proxy.connections() == 0 {
        tokio::task::yield_now().await;
    }
    services.apply(&[], grace).await.unwrap();
    assert!(services.running.is_empty());

    let changed = identity::TrustBundleSet::new([TestCa::new("td").bundle()]);
    let mut changes = source.subscribe();
    trust.set_bundles(changed.clone());
    let told = changes.wait_for(|identity| *identity.bundles == changed);
    timeout_at(Instant::now() + Duration::from_secs(30), told)
        .await
        .expect("what drains is told")
        .unwrap();

    drop(live);
    services.draining.end(grace).await;
    // What served it was aborted, and ends when it is next polled.
    let forgotten = async {
        let kept = |services: &Services| {
            let mut identities = services.identities.values();
            identities.any(|identity| identity.strong_count() > 0)
        };
        while kept(&services) {
            tokio::task::yield_now().await;
        }
    };
    timeout_at(Instant::now() + Duration::from_secs(30), forgotten)
        .await
        .expect("no identity is renewed for what has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_made_changes_nothing_of_what_comes_before_it() {
    let trust = Trust::new(identity::TrustBundleSet::default());
    let mut services = services(&trust);
    let grace = Duration::from_secs(1);
    let wanted = [inbound("a"), inbound("b")];
    services.apply(&wanted, grace).await.unwrap();
    let mut changed = wanted.clone();
    for (number, service) in changed.iter_mut().enumerate() {
        let ServiceKind::Proxy(config) = &mut service.kind else {
            panic!("they are proxies");
        };
        config.tls12 = true;
        // The second one is wrong.
        if number == 1 {
            config.limits.max_connections = 0;
        }
    }
    services.apply(&changed, grace).await.unwrap_err();
    for service in &wanted {
        assert_eq!(services.running[&service.name].service, *service);
        let Work::Proxy { proxy, .. } = &services.running[&service.name].work else {
            panic!("they are proxies");
        };
        assert!(!proxy.config().tls12);
    }
}
