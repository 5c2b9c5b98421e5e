//! SVIDs and authorities rotate under live connections: nothing drops, and new connections show the new SVID.

use identity::{TrustBundle, TrustBundleSet, testing::TestCa};
use proxy::{CloseReason, Direction};

use crate::support::{CLIENT, Echo, HOUR, Proxy, WEB, config, echoed, finish, plain, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_drops() {
    let old = TestCa::new("example.org");
    let new = TestCa::new("example.org");
    let app = Echo::start().await;
    let web = source(&old, "/web");
    let client = source(&old, "/client");
    let inbound = Proxy::start(config(Direction::Inbound, &app.addr, &[CLIENT]), &web);
    let outbound = Proxy::start(
        config(Direction::Outbound, &inbound.addr(), &[WEB]),
        &client,
    );

    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = plain(&outbound.addr()).await;
        echoed(&mut stream, b"before").await;
        streams.push(stream);
    }

    let first = (*web.current().svid.as_ref().unwrap().serial()).to_string();
    for round in 0..5 {
        // The same authority, then a new one beside the old, then SVIDs of the new one.
        let both = [old.certificate().clone(), new.certificate().clone()];
        let both = TrustBundle::new(old.trust_domain().clone(), both.into()).unwrap();
        let ca = match round {
            0 => &old,
            1 => {
                web.set_bundles(TrustBundleSet::new([both.clone()]));
                client.set_bundles(TrustBundleSet::new([both]));
                &old
            }
            _ => &new,
        };
        web.set_svid(ca.svid("/web", HOUR).into());
        client.set_svid(ca.svid("/client", HOUR).into());
        for stream in &mut streams {
            echoed(stream, b"during").await;
        }
        let mut stream = plain(&outbound.addr()).await;
        echoed(&mut stream, b"fresh").await;
        finish(stream).await;
        let (there, here) = (inbound.records.next().await, outbound.records.next().await);
        assert_eq!(there.reason, CloseReason::Complete, "{there:?}");
        assert_eq!(here.reason, CloseReason::Complete, "{here:?}");
        let shown = web.current().svid.as_ref().unwrap().serial().to_string();
        assert_eq!(there.local_serial.as_ref(), Some(&shown));
        assert_eq!(here.peer_serial.as_ref(), Some(&shown));
        assert_ne!(shown, first);
    }

    inbound.open(20).await;
    for stream in streams {
        finish(stream).await;
    }
    for _ in 0..20 {
        for records in [&inbound.records, &outbound.records] {
            let record = records.next().await;
            assert_eq!(record.reason, CloseReason::Complete, "{record:?}");
            assert_eq!((record.bytes_in, record.bytes_out), (36, 36));
        }
    }
}
