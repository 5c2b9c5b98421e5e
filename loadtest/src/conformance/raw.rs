//! HTTP/2 by hand, for what a gRPC library does not send.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::endpoint::{Endpoint, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message.
    Message,
    /// Headers only: a gRPC status.
    Status,
    /// The stream was reset, or the connection ended.
    Refused,
}

/// Calls FetchX509SVID with this `:authority` on a connection of its own.
pub(super) async fn fetch_x509(
    endpoint: &Endpoint,
    authority: &str,
    longest: Duration,
) -> io::Result<Answer> {
    let call = async {
        let mut connection = Connection::open(endpoint).await?;
        connection.fetch_x509(authority).await
    };
    match timeout(longest, call).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection with at most one call.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let mut stream = endpoint.open().await?;
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&hello).await?;
        Ok(Self { stream })
    }

    /// Calls FetchX509SVID; what comes first.
    pub(crate) async fn fetch_x509(&mut self, authority: &str) -> io::Result<Answer> {
        // `:scheme: http`, `:method: POST`; `:authority` spelt out, as gRPC C core does.
        let mut block = vec![0x86, 0x83];
        for (name, value) in [
            (":authority", authority),
            (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("workload.spiffe.io", "true"),
        ] {
            // Without indexing.
            block.push(0);
            string(&mut block, name);
            string(&mut block, value);
        }
        let headers = frame(HEADERS, END_HEADERS, 1, &block);
        // An empty message.
        let message = frame(DATA, END_STREAM, 1, &[0; 5]);
        self.stream.write_all(&[headers, message].concat()).await?;
        self.next().await
    }

    /// What comes next on the stream.
    pub(crate) async fn next(&mut self) -> io::Result<Answer> {
        loop {
            let mut header = [0; 9];
            if self.stream.read_exact(&mut header).await.is_err() {
                return Ok(Answer::Refused);
            }
            let [a, b, c, kind, flags, ..] = header;
            let mut left = u32::from_be_bytes([0, a, b, c]) as usize;
            // Nothing is kept.
            let mut sink = [0; 2048];
            while left > 0 {
                let count = left.min(sink.len());
                self.stream.read_exact(&mut sink[..count]).await?;
                left -= count;
            }
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
                }
                DATA => return Ok(Answer::Message),
                HEADERS if flags & END_STREAM != 0 => return Ok(Answer::Status),
                RESET | GOAWAY => return Ok(Answer::Refused),
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A string literal of fewer than 127 bytes (RFC 7541 5.2), cut at that.
fn string(block: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(126)];
    block.push(bytes.len() as u8);
    block.extend_from_slice(bytes);
}
