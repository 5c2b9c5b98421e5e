//! What one client may take.

use std::time::Duration;

use proto::workload::{JwtsvidRequest, X509svidRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tonic::Code;
use workload_api::Options;

use crate::support::{World, soon};

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let world = World::with(Options {
        max_connections: 1,
        ..Options::default()
    });
    let mut client = world.client().await;
    let mut stream = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let mut second = UnixStream::connect(world.socket()).await.unwrap();
    assert_eq!(soon(second.read(&mut [0; 64])).await.unwrap_or(0), 0);
    // A place that is given back is free.
    drop((client, stream));
    soon(async {
        loop {
            let mut again = UnixStream::connect(world.socket()).await.unwrap();
            let _ = again
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await;
            if again.read(&mut [0; 64]).await.unwrap_or(0) > 0 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let world = World::with(Options {
        first_request: Duration::from_millis(50),
        ..Options::default()
    });
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI"] {
        let mut silent = UnixStream::connect(world.socket()).await.unwrap();
        silent.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(silent.read_to_end(&mut rest)).await;
    }
    // One that has asked is not.
    let mut client = world.client().await;
    let mut stream = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.backend.rotate();
    soon(stream.message()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let world = World::start();
    let mut client = world.client().await;
    let long = JwtsvidRequest {
        audience: vec!["x".repeat(100 * 1024)],
        spiffe_id: String::new(),
    };
    let status = soon(client.fetch_jwtsvid(long)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn we_15_what_is_not_served_is_unimplemented() {
    let world = World::start();
    let mut grpc = tonic::client::Grpc::new(world.channel().await);
    for path in ["/SpiffeWorkloadAPI/Other", "/no.such.Service/Method"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<JwtsvidRequest, JwtsvidRequest>::default();
        let request = tonic::Request::new(JwtsvidRequest::default());
        let status = soon(grpc.unary(request, path.parse().unwrap(), codec))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
}
