//! Any bytes behind the first ones of a client: settings, and the headers of a call. The
//! server goes on: a good client after it is answered.

#![no_main]

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use workload_api::{Listener, Options, Server, testing::TestBackend};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

static SERVER: LazyLock<(Runtime, PathBuf)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let socket = std::env::temp_dir().join(format!("fuzz-{}.sock", std::process::id()));
    let path = socket.clone();
    runtime.block_on(async move {
        // The server closes on a client that says nonsense, which then writes to nobody.
        // Rust ignores this signal where the main function is its own.
        signal(SignalKind::pipe()).expect("signal handler");
        let backend = TestBackend::new("one.example", &[("/a", "")]);
        let listener = Listener::bind_unix(&path, 0o600).expect("socket");
        let options = Options {
            first_request: Duration::from_millis(20),
            ..Options::default()
        };
        let server = Server::new(backend, options);
        tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    });
    (runtime, socket)
});

/// A frame with these bytes.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(126)];
    block.push(text.len() as u8);
    block.extend_from_slice(text);
}

/// A call with this path, value of the metadata and message.
fn call(path: &[u8], value: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = vec![0x86, 0x83];
    for (name, value) in [
        (&b":authority"[..], &b"a%2Fb"[..]),
        (b":path", path),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"workload.spiffe.io", value),
    ] {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    [frame(1, 4, &block), frame(0, 1, message)].concat()
}

/// What comes back until the server has nothing more to say.
async fn send(socket: &PathBuf, bytes: &[u8], wait: Duration) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket)
        .await
        .expect("the server is there");
    let mut answer = Vec::new();
    if stream.write_all(&[HELLO, bytes].concat()).await.is_ok() {
        let mut buffer = [0; 4096];
        while let Ok(Ok(count @ 1..)) = timeout(wait, stream.read(&mut buffer)).await {
            answer.extend_from_slice(&buffer[..count]);
            if answer.windows(9).any(|it| it[3] == 0 && it[8] == 1) {
                break;
            }
        }
    }
    answer
}

fuzz_target!(|input: (&[u8], &[u8], &[u8], &[u8])| {
    let (path, value, message, tail) = input;
    let (runtime, socket) = &*SERVER;
    let mut bytes = call(path, value, message);
    bytes.extend_from_slice(tail);
    runtime.block_on(async {
        send(socket, &bytes, Duration::from_millis(2)).await;
        let good = call(b"/SpiffeWorkloadAPI/FetchX509SVID", b"true", &[0; 5]);
        let answer = send(socket, &good, Duration::from_secs(5)).await;
        assert!(answer.windows(20).any(|it| it == b"spiffe://one.example"));
    });
});
