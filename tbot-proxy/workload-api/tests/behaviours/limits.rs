//! What one client may take.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt as _, thread, time::Duration};

use hyper_util::rt::TokioIo;
use proto::workload::{JwtsvidRequest, X509svidRequest, X509svidResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tonic::{Code, Status, Streaming, transport::Endpoint};
use workload_api::{
    Options,
    client::{self, Client},
};

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

/// A stream that has had its first message.
async fn stream(client: &mut Client) -> Result<Streaming<X509svidResponse>, Status> {
    let stream = soon(client.fetch_x509svid(X509svidRequest {})).await?;
    let mut stream = stream.into_inner();
    soon(stream.message()).await?.unwrap();
    Ok(stream)
}

#[tokio::test]
async fn one_user_has_so_many_streams_over_all_its_connections() {
    let world = World::with(Options {
        max_streams: 5,
        max_streams_per_user: 4,
        ..Options::default()
    });
    let mut clients = [world.client().await, world.client().await];
    let mut streams = vec![];
    for round in 0..4 {
        streams.push(stream(&mut clients[round % 2]).await.unwrap());
    }
    let mut new = world.client().await;
    for client in [&mut clients[0], &mut new] {
        let status = stream(client).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let message = status.message();
        assert!(message.contains("limits.max_streams_per_user"), "{message}");
    }
    // Calls count too.
    let token = JwtsvidRequest {
        audience: vec!["db".to_owned()],
        spiffe_id: String::new(),
    };
    let status = soon(new.fetch_jwtsvid(token.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    // Who was refused has a connection still, and what is open goes on.
    world.backend.rotate();
    soon(streams[0].message()).await.unwrap().unwrap();
    drop(streams.pop());
    soon(async { while new.fetch_jwtsvid(token.clone()).await.is_err() {} }).await;
}

/// A client of another user, `None` without the right to be one.
async fn client_of_nobody(world: &World) -> Option<Client> {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to connect as another user needs root");
        return None;
    }
    std::fs::set_permissions(world.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = world.socket();
    let connecting = thread::spawn(move || {
        // Of this thread alone, which ends.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let socket = UnixStream::from_std(connecting.join().unwrap()).unwrap();
    let mut socket = Some(TokioIo::new(socket));
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.take().ok_or(io::ErrorKind::NotConnected);
        async move { Ok::<_, io::Error>(socket?) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await.unwrap();
    Some(client::client(channel))
}

#[tokio::test]
async fn streams_of_one_user_leave_room_for_those_of_another_and_all_have_a_bound() {
    let world = World::with(Options {
        max_streams: 4,
        max_streams_per_user: 3,
        ..Options::default()
    });
    let mut client = world.client().await;
    let mut streams = vec![];
    for _ in 0..3 {
        streams.push(stream(&mut client).await.unwrap());
    }
    stream(&mut client).await.unwrap_err();
    let Some(mut other) = client_of_nobody(&world).await else {
        return;
    };
    streams.push(stream(&mut other).await.unwrap());
    let status = stream(&mut other).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let message = status.message();
    assert!(message.contains("limits.max_streams"), "{message}");
    assert!(!message.contains("max_streams_per_user"), "{message}");
}
