use std::sync::Arc;

use identity::IdentitySource;
use policy::{PeerPolicy, PeerRule};
use relay::Socket;
use tokio::net::UnixStream;

use super::{Connection, serve};
use crate::{
    CloseReason, ConnectionRecord, Direction, Limits, OnExpiry, RecordSink, ServiceConfig,
    service::Service,
};

#[derive(Default)]
struct Kept(std::sync::Mutex<Vec<ConnectionRecord>>);

impl RecordSink for Kept {
    fn record(&self, record: &ConnectionRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

fn service(direction: Direction, sink: &Arc<Kept>) -> Arc<Service> {
    let anyone = PeerRule::TrustDomain("td".parse().unwrap());
    let config = ServiceConfig {
        name: "s".into(),
        direction,
        listen: "127.0.0.1:0".parse().unwrap(),
        connect: "127.0.0.1:1".parse().unwrap(),
        peers: PeerPolicy::new(vec![], vec![anyone]),
        limits: Limits::default(),
        resumption: true,
        tls12: false,
        on_expiry: OnExpiry::Close,
    };
    let sink = Arc::clone(sink) as Arc<dyn RecordSink>;
    Arc::new(Service::new(config, IdentitySource::new(), sink))
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
