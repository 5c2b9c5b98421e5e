//! HTTP/2 by hand, for what a gRPC library does not send.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use workload_api::client::{Endpoint, Stream};

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
    /// Of the message that is being read: bytes to come.
    left: usize,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let mut stream = endpoint.open().await?;
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&hello).await?;
        Ok(Self { stream, left: 0 })
    }

    /// Calls FetchX509SVID; what comes first.
    pub(crate) async fn fetch_x509(&mut self, authority: &str) -> io::Result<Answer> {
        let path = "/SpiffeWorkloadAPI/FetchX509SVID";
        self.call(authority, path, &[], END_STREAM).await
    }

    /// Opens a stream of Envoy's secret discovery for a secret; what comes first.
    pub(crate) async fn stream_secrets(&mut self, name: &str) -> io::Result<Answer> {
        let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
        // `resource_names`.
        let mut request = vec![3 << 3 | 2];
        string(&mut request, name);
        self.call("localhost", path, &request, 0).await
    }

    async fn call(
        &mut self,
        authority: &str,
        path: &str,
        message: &[u8],
        end: u8,
    ) -> io::Result<Answer> {
        // `:scheme: http`, `:method: POST`; `:authority` spelt out, as gRPC C core does.
        let mut block = vec![0x86, 0x83];
        for (name, value) in [
            (":authority", authority),
            (":path", path),
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
        let length = (message.len() as u32).to_be_bytes();
        let data = [&[0], &length[..], message].concat();
        let data = frame(DATA, end, 1, &data);
        self.stream.write_all(&[headers, data].concat()).await?;
        self.next_message().await
    }

    /// What comes next on the stream, all of it: a message may be in several frames.
    pub(crate) async fn next_message(&mut self) -> io::Result<Answer> {
        loop {
            match self.next().await? {
                Answer::Message if self.left > 0 => {}
                answer => return Ok(answer),
            }
        }
    }

    /// The next frame that says something.
    async fn next(&mut self) -> io::Result<Answer> {
        loop {
            let mut header = [0; 9];
            if self.stream.read_exact(&mut header).await.is_err() {
                return Ok(Answer::Refused);
            }
            let [a, b, c, kind, flags, ..] = header;
            let mut left = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == DATA && self.left == 0 && left >= 5 {
                let mut prefix = [0; 5];
                self.stream.read_exact(&mut prefix).await?;
                let [_, length @ ..] = prefix;
                self.left = u32::from_be_bytes(length) as usize;
                left -= 5;
            }
            if kind == DATA {
                self.left = self.left.saturating_sub(left);
            }
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
