//! HTTP/2 by hand, for what a gRPC library does not send, and for thousands of streams
//! that cost the one who holds them next to nothing.

use std::{collections::HashMap, io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use workload_api::client::{Endpoint, Stream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: [u8; 2] = [0, 4];
/// What the server may send before it is acknowledged, which it is at half of that: a
/// window of this size costs a stream no answer, as a rule.
const WINDOW: u32 = 0x4000_0000;
/// Of a connection.
const BUFFER: usize = 2048;

/// What a call came to, or has come to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message, all of it.
    Message,
    /// A gRPC status.
    Status,
    /// The stream was reset, or the connection ended.
    Refused,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    /// FetchX509SVID.
    X509,
    /// StreamSecrets, of one secret.
    Secret(&'a str),
    /// FetchJWTSVID, for one audience.
    Jwt(&'a str),
}

/// Calls FetchX509SVID with this `:authority` on a connection of its own.
pub(super) async fn fetch_x509(
    endpoint: &Endpoint,
    authority: &str,
    longest: Duration,
) -> io::Result<Answer> {
    let call = async {
        let mut connection = Connection::open(endpoint).await?;
        connection.call(authority, Call::X509).await?;
        Ok(connection.next().await?.1)
    };
    match timeout(longest, call).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection, on which all calls are alike.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    /// Stream of the next call.
    next: u32,
    /// Of messages that have come in part: bytes to come, by stream.
    left: HashMap<u32, usize>,
    window: u32,
    /// Bytes that have come and are not acknowledged yet, by stream; of all, under 0.
    received: HashMap<u32, u32>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        Self::over(endpoint.open().await?, WINDOW).await
    }

    /// With a window of this size, of each stream and beside the usual one of all.
    async fn over(stream: Box<dyn Stream>, window: u32) -> io::Result<Self> {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let size = window.to_be_bytes();
        let settings = [&INITIAL_WINDOW[..], &size].concat();
        let hello = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &settings),
            &frame(WINDOW_UPDATE, 0, 0, &size),
        ];
        stream.write_all(&hello.concat()).await?;
        Ok(Self {
            stream,
            next: 1,
            left: HashMap::new(),
            window,
            received: HashMap::new(),
        })
    }

    /// Makes a call; its stream.
    pub(crate) async fn call(&mut self, authority: &str, call: Call<'_>) -> io::Result<u32> {
        let (path, end, mut message) = match call {
            Call::X509 => ("/SpiffeWorkloadAPI/FetchX509SVID", END_STREAM, vec![]),
            Call::Jwt(_) => ("/SpiffeWorkloadAPI/FetchJWTSVID", END_STREAM, vec![]),
            Call::Secret(_) => (
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
                0,
                vec![],
            ),
        };
        match call {
            Call::X509 => {}
            // `audience`.
            Call::Jwt(audience) => field(&mut message, 1, audience),
            // `resource_names`.
            Call::Secret(name) => field(&mut message, 3, name),
        }
        let id = self.next;
        self.next += 2;
        let headers = frame(HEADERS, END_HEADERS, id, &block(authority, path, id == 1));
        let length = (message.len() as u32).to_be_bytes();
        let data = [&[0], &length[..], &message].concat();
        let data = frame(DATA, end, id, &data);
        self.stream.write_all(&[headers, data].concat()).await?;
        Ok(id)
    }

    /// What comes next, and on which stream.
    pub(crate) async fn next(&mut self) -> io::Result<(u32, Answer)> {
        loop {
            let mut header = [0; 9];
            if self.stream.read_exact(&mut header).await.is_err() {
                return Ok((0, Answer::Refused));
            }
            let [a, b, c, kind, flags, id @ ..] = header;
            let id = u32::from_be_bytes(id);
            let whole = u32::from_be_bytes([0, a, b, c]);
            let mut length = whole as usize;
            let mut is_whole = false;
            if kind == DATA {
                let left = self.left.remove(&id).unwrap_or_default();
                let left = match left {
                    0 if length >= 5 => {
                        let mut prefix = [0; 5];
                        self.stream.read_exact(&mut prefix).await?;
                        let [_, message @ ..] = prefix;
                        length -= 5;
                        u32::from_be_bytes(message) as usize
                    }
                    left => left,
                };
                is_whole = left <= length;
                if !is_whole {
                    self.left.insert(id, left - length);
                }
            }
            let mut ping = [0; 8];
            if kind == PING && length == ping.len() {
                self.stream.read_exact(&mut ping).await?;
                length = 0;
            }
            // Nothing is kept.
            let mut sink = [0; 2048];
            while length > 0 {
                let count = length.min(sink.len());
                self.stream.read_exact(&mut sink[..count]).await?;
                length -= count;
            }
            if kind == DATA {
                self.acknowledge(0, whole).await?;
                self.acknowledge(id, whole).await?;
            }
            let is_over = kind == RESET || flags & END_STREAM != 0 && kind <= HEADERS;
            if is_over {
                self.received.remove(&id);
                self.left.remove(&id);
            }
            match kind {
                PING if flags & ACK == 0 => {
                    self.stream.write_all(&frame(PING, ACK, 0, &ping)).await?;
                }
                SETTINGS if flags & ACK == 0 => {
                    self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
                }
                DATA if is_whole => return Ok((id, Answer::Message)),
                HEADERS if flags & END_STREAM != 0 => return Ok((id, Answer::Status)),
                RESET | GOAWAY => return Ok((id, Answer::Refused)),
                _ => {}
            }
        }
    }

    /// Makes room for as much as has come, on a stream or (0) on all, once it is half of what
    /// there was (RFC 9113 6.9).
    async fn acknowledge(&mut self, id: u32, length: u32) -> io::Result<()> {
        let received = self.received.entry(id).or_default();
        *received = received.saturating_add(length);
        if *received < self.window / 2 {
            return Ok(());
        }
        let room = std::mem::take(received).to_be_bytes();
        let update = frame(WINDOW_UPDATE, 0, id, &room);
        self.stream.write_all(&update).await
    }
}

/// The headers of a request, as gRPC's libraries send them: spelt out the first time, and
/// remembered by both ends from then on (RFC 7541 6.1, 6.2.1).
fn block(authority: &str, path: &str, is_first: bool) -> Vec<u8> {
    // `:scheme: http`, `:method: POST`.
    let mut block = vec![0x86, 0x83];
    let rest = [
        (":authority", authority),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-loadtest/0.1"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("workload.spiffe.io", "true"),
    ];
    // The newest one is 62 (RFC 7541 2.3.3).
    for (index, (name, value)) in (62..69).rev().zip(rest) {
        match is_first {
            true => {
                block.push(0x40);
                string(&mut block, name);
                string(&mut block, value);
            }
            false => block.push(0x80 | index),
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field of a protobuf message.
fn field(message: &mut Vec<u8>, number: u8, text: &str) {
    message.push(number << 3 | 2);
    string(message, text);
}

/// A string of fewer than 127 bytes, cut at that: both HPACK and protobuf write it so
/// (RFC 7541 5.2).
fn string(block: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(126)];
    block.push(bytes.len() as u8);
    block.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
