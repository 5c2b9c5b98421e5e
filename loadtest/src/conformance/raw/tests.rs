use std::future::poll_fn;

use bytes::Bytes;
use h2::{Ping, server};
use tonic::codegen::http::{HeaderMap, Response};

use super::*;

const MESSAGES: usize = 100;
const SMALL: u32 = 1000;

/// A server (h2) that sends this many messages of 495 bytes on one stream, each once there is room
/// for it, and whose pings are answered before the last one.
async fn serve(stream: tokio::io::DuplexStream) {
    let mut connection = server::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    let driven = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let message = [&[0, 0, 0, 1, 0xea][..], &[0; 490]].concat();
    for number in 0..MESSAGES {
        if number == MESSAGES - 1 {
            pings.ping(Ping::opaque()).await.unwrap();
        }
        let mut rest = Bytes::from(message.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let room = poll_fn(|context| stream.poll_capacity(context)).await;
            let piece = rest.split_to(room.unwrap().unwrap().min(rest.len()));
            stream.send_data(piece, false).unwrap();
        }
    }
    stream.send_trailers(HeaderMap::new()).unwrap();
    driven.await.unwrap();
}

#[tokio::test]
async fn a_long_watch_is_acknowledged_and_pings_are_answered() {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(serve(server));
    let watch = async {
        let mut connection = Connection::over(Box::new(client), SMALL).await.unwrap();
        let stream = connection.call("localhost", Call::X509).await.unwrap();
        for number in 0..MESSAGES {
            let came = connection.next().await.unwrap();
            assert_eq!(came, (stream, Answer::Message), "message {number}");
        }
        assert_eq!(connection.next().await.unwrap(), (stream, Answer::Status));
        assert!(!connection.received.contains_key(&stream), "nothing stays");
    };
    let longest = Duration::from_secs(30);
    timeout(longest, watch).await.expect("all of it comes");
    timeout(longest, server).await.unwrap().unwrap();
}
