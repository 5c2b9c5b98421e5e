//! Garbage, stalled handshakes and oversized requests cost others nothing.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use proto::issue::v1::{WatchRequest, issue_service_client::IssueServiceClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use super::harness::{Issuer, block_on, x509};

/// What the probes answer, within 5 s.
fn get(issuer: &Issuer, path: &str) -> String {
    let url = format!("http://{}{path}", issuer.diagnostics);
    let output = std::process::Command::new("curl")
        .args(["-sf", "--max-time", "5", &url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{path}");
    String::from_utf8(output.stdout).unwrap()
}

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
        let request = x509("app", &vec![0; 3 * 1024 * 1024], None);
        let status = client.issue_svids(request).await.err().unwrap();
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
    let get = |path: &str| get(&issuer, path);
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
    issuer.log.wait_for("connections are refused");
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

/// Files that the issuer may open in the tests below: 192 places, 96 of them for
/// strangers, 48 of those for one source.
const FILES: u32 = 256;

#[test]
fn silent_peers_after_tls_leave_agents_operators_and_probes_served_and_are_cut() {
    let issuer = Issuer::start_confined(Some(FILES), &[]);
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let mut news = client.watch(WatchRequest {}).await.unwrap().into_inner();
        news.message().await.unwrap().unwrap();
        let config = issuer.anonymous_tls();
        let flood = (0..300_u16).map(|number| {
            let source = [127, 0, 0, 2 + (number / 60) as u8];
            issuer.tls(source, config.clone())
        });
        let begun = std::time::Instant::now();
        let flood = futures_util::future::join_all(flood).await;
        let mut held: Vec<_> = flood.into_iter().flatten().collect();
        assert!(held.len() >= 96, "{}", held.len());
        // More than all strangers' places were asked for; each of these takes one.
        assert_eq!(get(&issuer, "/livez"), "ok\n");
        issuer.run(&["status"]);
        issuer.issue(&bot, "app").await.unwrap();
        issuer.join(&issuer.token("app")).await.unwrap();
        // The last to come were left in place, and say nothing: they are cut.
        let last = held.last_mut().unwrap();
        let mut said = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(30), last.read_to_end(&mut said));
        let _ = cut.await.expect("a silent connection stays open");
        assert!(
            begun.elapsed() >= Duration::from_secs(9),
            "{:?}",
            begun.elapsed()
        );
        // A bot that waits for news is not silent.
        issuer.run(&["renew-now"]);
        assert_eq!(news.message().await.unwrap().unwrap().renew_epoch, 1);
    });
}

#[test]
fn a_fleet_behind_one_address_is_limited_by_the_total_only() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("issuer.yaml");
    // One instance stands for a fleet.
    std::fs::write(&file, "limits: { streams_per_instance: 1000 }\n").unwrap();
    let file = file.to_str().unwrap();
    let issuer = Issuer::start_confined(Some(FILES), &["--config", file]);
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut fleet = Vec::new();
        for _ in 0..150 {
            let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
            let news = client.watch(WatchRequest {}).await.unwrap().into_inner();
            fleet.push((client, news));
        }
        for (_, news) in &mut fleet {
            news.message().await.unwrap().unwrap();
        }
        assert_eq!(get(&issuer, "/livez"), "ok\n");
        // The log tells when the last place is taken.
        let mut held = Vec::new();
        for _ in 0..60 {
            let tls = issuer.tls([127, 0, 0, 1], bot.tls());
            match tokio::time::timeout(Duration::from_secs(1), tls).await {
                Ok(stream) => held.push(stream.unwrap()),
                Err(_) => break,
            }
        }
        assert!((40..45).contains(&held.len()), "{}", held.len());
        issuer.log.wait_for("every place for a connection is taken");
        issuer.run(&["status"]);
    });
}

#[test]
fn an_issuer_that_may_open_too_few_files_says_so() {
    let home = tempfile::tempdir().unwrap();
    let serve = super::harness::serve_command(home.path());
    let mut confined = std::process::Command::new("prlimit");
    confined.arg("--nofile=100").arg(serve.get_program());
    let output = confined.args(serve.get_args()).output().unwrap();
    let line = super::harness::one_line_failure(&output);
    assert!(line.contains("may open 100 files"), "{line}");
}

/// What the server's first SETTINGS frame says (RFC 9113 6.5.2), and how much the
/// window of the connection grows with it.
async fn settings(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> (std::collections::HashMap<u16, u32>, u32) {
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        // Our SETTINGS: empty.
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &PING,
    ];
    stream.write_all(&hello.concat()).await.unwrap();
    let (mut found, mut grown) = (std::collections::HashMap::new(), 0);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body).await.unwrap();
        match (head[3], head[4]) {
            (4, 0) => found.extend(body.chunks(6).map(|entry| {
                let value = u32::from_be_bytes(entry[2..].try_into().unwrap());
                (u16::from_be_bytes([entry[0], entry[1]]), value)
            })),
            (8, _) => grown += u32::from_be_bytes(body.try_into().unwrap()),
            // The answer to the ping: all that came before it has been seen.
            (6, 1) => return (found, grown),
            _ => {}
        }
    }
}

#[test]
fn what_one_connection_may_have_under_way_is_bounded() {
    const CALLS: u16 = 3;
    const WINDOW: u16 = 4;
    let issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        for (config, calls) in [(issuer.anonymous_tls(), 16), (bot.tls(), 256)] {
            let stream = issuer.tls([127, 0, 0, 1], config).await.unwrap();
            let (said, grown) = settings(stream).await;
            assert_eq!(said[&CALLS], calls);
            assert!(said[&WINDOW] <= 64 * 1024, "{said:?}");
            assert!(grown <= 1, "{grown}");
        }
    });
}

#[test]
fn stalled_clients_of_diagnostics_let_the_next_probe_through() {
    let issuer = Issuer::start();
    let mut stalled: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&issuer.diagnostics).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    for stream in &mut stalled {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // Cut, with or without a word.
        let mut told = Vec::new();
        if let Err(error) = stream.read_to_end(&mut told) {
            let kind = error.kind();
            assert_ne!(kind, std::io::ErrorKind::WouldBlock, "a stalled head stays");
        }
    }
    assert_eq!(get(&issuer, "/livez"), "ok\n");
}

#[test]
fn metrics_are_folded_though_nobody_scrapes() {
    let issuer = Issuer::start_with(&["--log-level", "issuer=trace"]);
    issuer.log.wait_for("metrics were folded");
}
