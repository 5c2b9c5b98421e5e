//! A TLS client and server joined by memory.
#![allow(dead_code)]

use std::io::{Read, Write};

use rustls::{ClientConnection, Error, ServerConnection};

/// Which side gave up, and why.
#[derive(Debug)]
pub(crate) enum Failure {
    Client(Error),
    Server(Error),
}

/// Carries bytes to and fro until both sides have nothing more to say (tickets included).
pub(crate) fn run(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), Failure> {
    loop {
        let mut moved = false;
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        moved |= !bytes.is_empty();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Failure::Server)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        moved |= !bytes.is_empty();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Failure::Client)?;
        }
        if !moved {
            return Ok(());
        }
    }
}

/// Sends `text` each way over a live connection.
pub(crate) fn exchange(client: &mut ClientConnection, server: &mut ServerConnection, text: &[u8]) {
    client.writer().write_all(text).unwrap();
    server.writer().write_all(text).unwrap();
    run(client, server).unwrap();
    let mut got = vec![0; text.len()];
    server.reader().read_exact(&mut got).unwrap();
    assert_eq!(got, text);
    client.reader().read_exact(&mut got).unwrap();
    assert_eq!(got, text);
}
