//! Garbage, stalled handshakes and oversized requests cost others nothing.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use proto::issue::v1::{IssueX509SvidRequest, issue_service_client::IssueServiceClient};
use tonic::Code;

use super::harness::{Issuer, block_on};

#[test]
fn garbage_and_stalls_leave_the_others_served() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut stalled = Vec::new();
        for number in 0..100 {
            let mut stream = TcpStream::connect(&issuer.address).unwrap();
            match number % 3 {
                0 => {}
                1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap(),
                // The beginning of a ClientHello.
                _ => stream
                    .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
                    .unwrap(),
            }
            stalled.push(stream);
        }
        issuer.issue(&bot, "app").await.unwrap();
        // Who stalls is let go of in the end.
        let mut first = stalled.swap_remove(0);
        first
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0);
    });
}

#[test]
fn a_request_larger_than_any_honest_one_is_refused() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let request = IssueX509SvidRequest {
            workload_identity: "app".to_owned(),
            csr_der: vec![0; 100_000],
            ttl: None,
        };
        let status = client.issue_x509_svid(request).await.err().unwrap();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        issuer.issue(&bot, "app").await.unwrap();
    });
}

#[test]
fn probes_and_metrics_tell_what_happened() {
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
        issuer.issue(&bot, "none").await.err().unwrap();
        issuer.join(&"0".repeat(64)).await.err().unwrap();
    });
    let get = |path: &str| {
        let url = format!("http://{}{path}", issuer.diagnostics);
        let output = std::process::Command::new("curl")
            .args(["-sf", &url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get("/livez"), "ok\n");
    assert!(get("/readyz").contains("\"ready\":true"));
    let metrics = get("/metrics");
    for line in [
        "issuer_issuances_total{type=\"x509\",result=\"granted\"} 1",
        "issuer_issuances_total{type=\"x509\",result=\"unknown_workload_identity\"} 1",
        "issuer_joins_total{result=\"granted\"} 1",
        "issuer_joins_total{result=\"unknown_token\"} 1",
        "issuer_ca_expiry_timestamp_seconds ",
        "issuer_issue_duration_seconds_count 2",
        "issuer_store_commit_duration_seconds_bucket",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
}

#[test]
fn a_source_that_floods_is_bounded_and_lets_go_of_its_places() {
    let issuer = Issuer::start();
    // The second loopback address is another source.
    let flood = |number: usize| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let source: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
        socket.bind(&source.into()).unwrap();
        let issuer: std::net::SocketAddr = issuer.address.parse().unwrap();
        socket
            .connect(&issuer.into())
            .unwrap_or_else(|error| panic!("{number}: {error}"));
        TcpStream::from(socket)
    };
    let mut held: Vec<_> = (0..600).map(flood).collect();
    // Those beyond the bound are closed at once, long before the handshake's end.
    let mut closed = 0;
    for stream in &mut held[512..] {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        closed += usize::from(matches!(stream.read(&mut [0; 1]), Ok(0)));
    }
    assert_eq!(closed, 88);
    block_on(async {
        let bot = issuer.joined("app").await;
        issuer.issue(&bot, "app").await.unwrap();
    });
    drop(held);
}
