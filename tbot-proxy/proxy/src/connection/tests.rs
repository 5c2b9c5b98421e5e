use std::{
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use identity::{IdentitySource, TrustBundleSet, testing::TestCa};
use policy::{PeerPolicy, PeerRule};
use relay::Socket;
use tokio::net::UnixStream;

use super::{Connection, serve};
use crate::{
    CloseReason, ConnectionRecord, Direction, Limits, OnExpiry, RecordSink, ServiceConfig, lease,
    service::Service,
};

/// What is to happen once, when an admission has reached a step.
#[derive(Default)]
pub(crate) struct BetweenSteps(Mutex<Option<(&'static str, Happening)>>);

type Happening = Box<dyn FnOnce() + Send>;

impl BetweenSteps {
    fn at(&self, step: &'static str, happens: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some((step, Box::new(happens)));
    }

    pub(crate) fn reached(&self, step: &str) {
        let happening = self.0.lock().unwrap().take_if(|(at, _)| *at == step);
        if let Some((_, happens)) = happening {
            happens();
        }
    }

    fn has_happened(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<ConnectionRecord>>);

impl RecordSink for Kept {
    fn record(&self, record: &ConnectionRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

fn config(direction: Direction) -> ServiceConfig {
    let anyone = PeerRule::TrustDomain("td".parse().unwrap());
    ServiceConfig {
        name: "s".into(),
        direction,
        listen: "127.0.0.1:0".parse().unwrap(),
        connect: "127.0.0.1:1".parse().unwrap(),
        peers: PeerPolicy::new(vec![], vec![anyone]),
        limits: Limits::default(),
        resumption: true,
        tls12: false,
        on_expiry: OnExpiry::Close,
    }
}

fn service(direction: Direction, sink: &Arc<Kept>) -> Arc<Service> {
    let sink = Arc::clone(sink) as Arc<dyn RecordSink>;
    let source = IdentitySource::new();
    Arc::new(Service::new(config(direction), source, sink))
}

/// Memory of an idle connection is its task's, above all: a step that is awaited unboxed would be carried for life.
#[tokio::test]
async fn a_connections_future_is_small() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        let service = service(direction, &Arc::default());
        let (socket, _other) = UnixStream::pair().unwrap();
        let connection = Connection::accepted(Arc::clone(&service), None);
        let size = size_of_val(&serve(connection, Socket::Unix(socket)));
        let guard = size_of::<Connection>();
        assert!(
            size + guard <= 1024,
            "{direction:?}: {size} bytes, and the guard's {guard}"
        );
    }
}

#[tokio::test]
async fn every_way_out_leaves_one_record_and_no_trace_in_the_registry() {
    use CloseReason::{Drained, InternalError, NoIdentity, Stopped};
    let kept: Arc<Kept> = Arc::default();
    let service = service(Direction::Inbound, &kept);
    let accepted = || Connection::accepted(Arc::clone(&service), None);

    // A task that panics.
    let connection = accepted();
    let panics = tokio::spawn(async move {
        let _connection = connection;
        panic!("a bug");
    });
    assert!(panics.await.unwrap_err().is_panic());
    // A runtime that stops, before the task was ever polled.
    drop(serve(
        accepted(),
        Socket::Unix(UnixStream::pair().unwrap().0),
    ));
    // A cut.
    let connection = accepted();
    service.registry.cut_everything(&Drained.into());
    drop(connection);
    // Its own way: there is no identity.
    serve(accepted(), Socket::Unix(UnixStream::pair().unwrap().0)).await;

    let reasons: Vec<_> = kept
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|record| record.reason)
        .collect();
    assert_eq!(reasons, [InternalError, Stopped, Drained, NoIdentity]);
    assert_eq!(service.registry.open(), 0);
    let ids: Vec<_> = kept
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|record| record.connection_id.clone())
        .collect();
    assert!(ids.is_sorted() && ids.len() == 4, "{ids:?}");
}

/// The rule of [`Connection::admit`]: whatever the moment at which a policy turns against the peer, either the connection
/// is refused or the walk over the registry cuts it. With "register" and "authorize" exchanged, some get through.
#[tokio::test]
async fn no_moment_of_a_change_lets_a_refused_peer_stay() {
    let ca = TestCa::new("td");
    let svid = ca.svid("/a", Duration::from_secs(3600));
    let service = service(Direction::Inbound, &Arc::default());
    service
        .source
        .set_bundles(TrustBundleSet::new([ca.bundle()]));
    let allowed = config(Direction::Inbound);
    let mut refused = allowed.clone();
    refused.peers = PeerPolicy::new(
        vec![],
        vec![PeerRule::TrustDomain("other".parse().unwrap())],
    );

    let (mut late, mut early) = (0, 0);
    for round in 0..10_000 {
        service.put_in_force(allowed.clone());
        let mut connection = Connection::accepted(Arc::clone(&service), None);
        let together = Barrier::new(2);
        let admitted = std::thread::scope(|scope| {
            scope.spawn(|| {
                together.wait();
                // From before the other's first step to behind its last.
                (0..round % 100).for_each(|_| std::hint::spin_loop());
                service.put_in_force(refused.clone());
            });
            together.wait();
            connection.admit(svid.chain())
        });
        if admitted.is_ok() {
            let cut = connection.live().take_cut().expect("it slipped through");
            assert_eq!(cut.reason, CloseReason::PolicyChanged);
            late += 1;
        } else {
            early += 1;
        }
    }
    assert!(late > 0 && early > 0, "{late} {early}");
}

/// The same rule, step by step and for trust too: the whole change, walk over the registry included, between any two
/// steps. Without the second look at trust, or with two steps exchanged, one of these peers stays.
#[tokio::test]
async fn a_change_between_any_two_steps_refuses_or_cuts() {
    let [ca, other] = ["td", "other"].map(TestCa::new);
    let svid = ca.svid("/a", Duration::from_secs(3600));
    let trusted = || TrustBundleSet::new([ca.bundle()]);
    for step in ["identified", "registered", "authorized"] {
        for change in [CloseReason::TrustWithdrawn, CloseReason::PolicyChanged] {
            let service = service(Direction::Inbound, &Arc::default());
            service.source.set_bundles(trusted());
            let mut connection = Connection::accepted(Arc::clone(&service), None);
            let (changed, bundle) = (Arc::clone(&service), other.bundle());
            service.between_steps.at(step, move || match change {
                CloseReason::TrustWithdrawn => {
                    changed.source.set_bundles(TrustBundleSet::new([bundle]));
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let walk = || runtime.unwrap().block_on(lease::end_untrusted(&changed));
                    // A thread of its own: no runtime blocks within another.
                    std::thread::scope(|scope| scope.spawn(walk).join().unwrap());
                }
                _ => {
                    let mut refused = config(Direction::Inbound);
                    let others = PeerRule::TrustDomain("other".parse().unwrap());
                    refused.peers = PeerPolicy::new(vec![], vec![others]);
                    changed.put_in_force(refused);
                }
            });
            let admitted = connection.admit(svid.chain());
            assert!(service.between_steps.has_happened(), "{step}");
            if admitted.is_ok() {
                let cut = connection.live().take_cut();
                let cut = cut.unwrap_or_else(|| panic!("{change} at {step} let it stay"));
                assert_eq!(cut.reason, change, "{step}");
            }
        }
    }
}
