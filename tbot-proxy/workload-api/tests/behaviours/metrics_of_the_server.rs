//! What is counted.

use metrics_exporter_prometheus::PrometheusBuilder;
use proto::workload::{JwtsvidRequest, X509svidRequest};

use crate::support::{World, soon};

// One thread: the recorder is that of the thread.
#[tokio::test]
async fn streams_connections_calls_and_bytes_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    workload_api::describe_metrics();
    let world = World::start();
    let mut client = world.client().await;
    let mut stream = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    soon(client.fetch_jwtsvid(JwtsvidRequest::default()))
        .await
        .unwrap_err();
    let text = metrics.render();
    for line in [
        "tbot_workload_api_connections 1",
        "tbot_workload_api_streams{method=\"FetchX509SVID\"} 1",
        "tbot_workload_api_requests_total{method=\"FetchJWTSVID\",code=\"INVALID_ARGUMENT\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let sent = "tbot_workload_api_sent_bytes_total{method=\"FetchX509SVID\"} ";
    let sent = text
        .lines()
        .find_map(|line| line.strip_prefix(sent))
        .unwrap();
    assert!(sent.parse::<u64>().unwrap() > 500, "{sent}");
    drop((stream, client));
    soon(async {
        while !metrics.render().contains("tbot_workload_api_connections 0") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let text = metrics.render();
    for line in [
        "tbot_workload_api_streams{method=\"FetchX509SVID\"} 0",
        "tbot_workload_api_requests_total{method=\"FetchX509SVID\",code=\"CANCELLED\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
