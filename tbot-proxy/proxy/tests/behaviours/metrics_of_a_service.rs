//! Metrics count what the records tell, under the same names, and hold no SPIFFE ID.

use std::time::Duration;

use identity::testing::TestCa;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use proxy::CloseReason;
use tokio::time::sleep;

use crate::support::{CLIENT, Echo, Peer, Proxy, echoed, finish, within};

/// Waits until the counter of bytes out stands at `count`; it must not pass it.
async fn bytes_out(metrics: &PrometheusHandle, count: u64) {
    const NAME: &str = "tbot_connection_bytes_total{service=\"inbound\",direction=\"out\"} ";
    within(async {
        loop {
            let text = metrics.render();
            let value = text.lines().find_map(|line| line.strip_prefix(NAME));
            let value = value.map_or(0, |value| value.parse().unwrap());
            assert!(value <= count, "{value} bytes instead of {count}");
            if value == count {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

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

    // The bytes of the one that lives, too, within seconds.
    bytes_out(&metrics, 10).await;
    let text = metrics.render();
    let expected = [
        "tbot_connections_open{service=\"inbound\",direction=\"inbound\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"complete\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"peer_not_allowed\"} 1",
        "tbot_connections_total{service=\"inbound\",direction=\"inbound\",reason=\"idle_timeout\"} 0",
        "tbot_connection_bytes_total{service=\"inbound\",direction=\"in\"} 10",
        "tbot_connection_bytes_total{service=\"inbound\",direction=\"out\"} 10",
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_counted_while_connections_live_and_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy =
        metrics::with_local_recorder(&recorder, || Proxy::inbound(&ca, &app.addr, &[CLIENT]));
    let peer = Peer::new(&ca, "/client");

    let mut long = peer.admitted(&proxy.addr()).await;
    let mut other = peer.admitted(&proxy.addr()).await;
    bytes_out(&metrics, 10).await;
    echoed(&mut long, &[1; 1_000]).await;
    bytes_out(&metrics, 1_010).await;
    // The rest at the end, and only the rest.
    echoed(&mut long, &[2; 500]).await;
    echoed(&mut other, &[3; 50]).await;
    finish(long).await;
    finish(other).await;
    proxy.open(0).await;
    bytes_out(&metrics, 1_560).await;
    let records = proxy.records.take().await;
    let told: u64 = records.iter().map(|record| record.bytes_out).sum();
    assert_eq!(told, 1_560);
}
