//! Metrics count what the records tell, under the same names, and hold no SPIFFE ID.

use identity::testing::TestCa;
use metrics_exporter_prometheus::PrometheusBuilder;
use proxy::CloseReason;

use crate::support::{CLIENT, Echo, Peer, Proxy, finish};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_count_what_the_records_tell() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy =
        metrics::with_local_recorder(&recorder, || Proxy::inbound(&ca, &app.addr, &[CLIENT]));
    let peer = Peer::new(&ca, "/client");

    let held = peer.admitted(&proxy.addr()).await;
    finish(peer.admitted(&proxy.addr()).await).await;
    Peer::new(&ca, "/stranger").refused(&proxy.addr()).await;
    let mut reasons = [
        proxy.records.next().await.reason,
        proxy.records.next().await.reason,
    ];
    reasons.sort_by_key(|reason| reason.as_str());
    assert_eq!(
        reasons,
        [CloseReason::Complete, CloseReason::PeerNotAllowed]
    );
    // The gauge goes down after the record is written.
    proxy.open(1).await;

    let text = metrics.render();
    let expected = [
        "tbot_connections_open{service=\"inbound\",direction=\"inbound\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"complete\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"peer_not_allowed\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"idle_timeout\"} 0",
        "tbot_connection_bytes_total{service=\"inbound\",direction=\"in\"} 5",
        "tbot_connection_bytes_total{service=\"inbound\",direction=\"out\"} 5",
        "tbot_handshake_duration_seconds_count{service=\"inbound\",direction=\"inbound\"} 3",
        "tbot_tls_resumed_total{service=\"inbound\",direction=\"inbound\"} 1",
    ];
    for line in expected {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
    assert!(!text.contains("spiffe:"), "{text}");
    drop(held);
}
