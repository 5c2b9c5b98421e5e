//! A service that cannot start says why in one line, with the value and the remedy, and leaves nothing behind.

use std::sync::Arc;

use identity::testing::TestCa;
use policy::PeerPolicy;
use proxy::{
    Address, ConnectionRecord, Direction, ProxyService, RecordSink, ServiceConfig, StartError,
};
use tokio::{net::TcpListener, runtime::Handle};

use crate::support::{CLIENT, Echo, Peer, Proxy, config, source};

struct Ignore;

impl RecordSink for Ignore {
    fn record(&self, _: &ConnectionRecord) {}
}

fn start(config: ServiceConfig) -> StartError {
    let source = source(&TestCa::new("example.org"), "/web");
    match ProxyService::start(config, source, Arc::new(Ignore), &Handle::current()) {
        Err(error) => error,
        Ok(service) => panic!("it runs on {}", service.local_addr()),
    }
}

#[tokio::test]
async fn each_says_the_value_and_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let backend: Address = "127.0.0.1:1".parse().unwrap();
    let good = || config(Direction::Inbound, &backend, &[CLIENT]);
    let edited = |edit: &dyn Fn(&mut ServiceConfig)| {
        let mut config = good();
        edit(&mut config);
        start(config).to_string()
    };
    let cases: [(String, &[&str]); 7] = [
        (
            edited(&|config| config.listen = format!("127.0.0.1:{port}").parse().unwrap()),
            &[
                "inbound",
                "in use by another process",
                "choose another address",
            ],
        ),
        (
            edited(&|config| config.listen = "db.example:80".parse().unwrap()),
            &["db.example", "an IP address of this host"],
        ),
        (
            edited(&|config| config.listen = "192.0.2.1:80".parse().unwrap()),
            &["cannot listen on 192.0.2.1:80", "no interface"],
        ),
        (
            edited(&|config| config.listen = "unix:///no/such/folder/x.sock".parse().unwrap()),
            &["/no/such/folder/x.sock", "create /no/such/folder"],
        ),
        (
            edited(&|config| config.peers = PeerPolicy::default()),
            &["allows nobody"],
        ),
        (
            edited(&|config| config.connect = "127.0.0.1:0".parse().unwrap()),
            &["127.0.0.1:0", "port 0"],
        ),
        (
            edited(&|config| config.limits.max_connections = 0),
            &["max_connections", "zero"],
        ),
    ];
    for (message, parts) in cases {
        assert!(!message.contains('\n'), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    assert!(
        edited(&|config| config.listen = format!("127.0.0.1:{port}").parse().unwrap())
            .contains(&format!("127.0.0.1:{port}"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_cannot_be_changes_nothing() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    let before = proxy.service.config();
    let edits: [fn(&mut ServiceConfig); 5] = [
        |config| config.name = "other".into(),
        |config| config.direction = Direction::Outbound,
        |config| config.listen = "127.0.0.1:1".parse().unwrap(),
        |config| config.peers = PeerPolicy::default(),
        |config| config.limits.handshake = std::time::Duration::ZERO,
    ];
    for edit in edits {
        let mut config = (*before).clone();
        // Must not come in force either.
        config.connect = "127.0.0.1:1".parse().unwrap();
        edit(&mut config);
        proxy.service.update(config).unwrap_err();
        assert_eq!(proxy.service.config(), before);
    }
    Peer::new(&ca, "/client").admitted(&proxy.addr()).await;
}
