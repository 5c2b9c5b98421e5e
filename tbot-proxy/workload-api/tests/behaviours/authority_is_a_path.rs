//! DESIGN D11: clients whose `:authority` is a path, on the wire and as they are.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::{World, python, soon};

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

fn literal(name: &str, value: &str, is_indexed: bool) -> Vec<u8> {
    let kind = if is_indexed { 0x40 } else { 0 };
    let mut field = vec![kind, u8::try_from(name.len()).unwrap()];
    field.extend_from_slice(name.as_bytes());
    field.push(u8::try_from(value.len()).unwrap());
    field.extend_from_slice(value.as_bytes());
    field
}

/// FetchX509SVID as C core sends it: names spelt out, with indexing.
fn call(stream: u8, authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x86, 0x83];
    block.extend_from_slice(authority);
    block.extend(literal(":path", "/SpiffeWorkloadAPI/FetchX509SVID", false));
    block.extend(literal("content-type", "application/grpc", false));
    block.extend(literal("te", "trailers", false));
    block.extend(literal("workload.spiffe.io", "true", false));
    let headers = frame(1, 4, stream, &block);
    [headers, frame(0, 1, stream, &[0; 5])].concat()
}

/// The kinds of frames that come for a stream until data or its end.
async fn outcome(socket: &mut UnixStream, stream: u8) -> u8 {
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await.unwrap();
        let (kind, of) = (header[3], header[8]);
        // DATA, RST_STREAM, GOAWAY.
        if (of == stream && matches!(kind, 0 | 3)) || kind == 7 {
            return kind;
        }
    }
}

/// WE-02, WE-06: gRPC over HTTP/2 with prior knowledge, without TLS.
#[tokio::test]
async fn we_06_an_authority_that_is_a_path_is_served_in_plain_http_2_also_when_it_comes_from_the_table()
 {
    let world = World::start();
    let mut socket = UnixStream::connect(world.socket()).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = frame(4, 0, 0, &[]);
    let first = call(1, &literal(":authority", "tmp%2Fdir%2Fwl.sock", true));
    // Entry 62: what was just put into the dynamic table.
    let second = call(3, &[0x80 | 62]);
    // A literal whose name is entry 1 of the static table, as it is.
    let third = call(5, b"\x41\x0c/tmp/wl.sock");
    for (stream, bytes) in [(1, first), (3, second), (5, third)] {
        if stream == 1 {
            socket.write_all(preface).await.unwrap();
            socket.write_all(&settings).await.unwrap();
        }
        // In small pieces.
        for piece in bytes.chunks(7) {
            socket.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(
            soon(outcome(&mut socket, stream)).await,
            0,
            "stream {stream}"
        );
    }
}

/// The mending is what serves them: `h2` still refuses what is no authority.
#[tokio::test]
async fn an_authority_that_cannot_be_mended_is_refused_and_others_are_not() {
    let world = World::start();
    let mut socket = UnixStream::connect(world.socket()).await.unwrap();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    // Empty.
    socket.write_all(&call(1, b"\x41\x00")).await.unwrap();
    assert_eq!(soon(outcome(&mut socket, 1)).await, 3);
    socket.write_all(&call(3, b"\x41\x01a")).await.unwrap();
    assert_eq!(soon(outcome(&mut socket, 3)).await, 0);
}

/// gRPC C core through Python: `grpcio` and its reflection client.
#[tokio::test(flavor = "multi_thread")]
async fn pythons_grpc_is_served_over_a_unix_socket() {
    let world = World::start();
    let Some(mut python) = python("reflection.py") else {
        return;
    };
    python.arg(world.socket());
    let output = tokio::task::spawn_blocking(move || python.output().unwrap());
    let output = soon(output).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("SpiffeWorkloadAPI"), "{told}");
    assert!(told.contains("FetchX509SVID"), "{told}");
}
