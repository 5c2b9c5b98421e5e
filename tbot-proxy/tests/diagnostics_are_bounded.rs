//! Requests that never end hold diagnostics up for seconds, not for ever.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use e2e::{Agent, Issuer, x509_output};

#[test]
fn half_sent_requests_give_way() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let agent = Agent::start(
        &issuer,
        &token,
        &[x509_output("app", &home.path().join("out"))],
    );
    let text = std::fs::read_to_string(agent.path("agent.yaml")).unwrap();
    let (_, address) = text.split_once("diagnostics: { listen: \"").unwrap();
    let (address, _) = address.split_once('"').unwrap();
    let mut half_sent: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            // Some send nothing at all.
            if number % 2 == 0 {
                stream.write_all(b"GET /livez HT").unwrap();
            }
            stream
        })
        .collect();
    // They take every place; this one waits for them in the kernel's queue.
    assert_eq!(agent.get("/livez").unwrap().0, 200);
    for stream in &mut half_sent {
        stream
            .set_read_timeout(Some(Duration::from_secs(45)))
            .unwrap();
        let mut answer = vec![];
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    // One request a connection.
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
