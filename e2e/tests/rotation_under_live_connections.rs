//! SVIDs of both sides rotate, several times, under connections that are in
//! use: nothing drops, and new connections prove the new identity.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use e2e::{Agent, EchoServer, Issuer, eventually, free_port, inbound, outbound, x509_output};

const CONNECTIONS: usize = 50;
const ROTATIONS: usize = 3;

#[test]
fn rotation_drops_nothing() {
    let issuer = Issuer::start();
    let (backend_token, frontend_token) = (issuer.register("backend"), issuer.register("frontend"));
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let files = tempfile::tempdir().unwrap();
    let svid = files.path().join("svid");
    let backend = Agent::start(
        &issuer,
        &backend_token,
        &[
            inbound(
                "backend",
                mtls,
                &echo.address(),
                &["spiffe://e2e.example/frontend"],
            ),
            x509_output("backend", &svid),
        ],
    );
    let frontend = Agent::start(
        &issuer,
        &frontend_token,
        &[outbound(
            "frontend",
            plain,
            mtls,
            &["spiffe://e2e.example/backend"],
        )],
    );

    let mut live: Vec<_> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(("127.0.0.1", plain)).unwrap())
        .collect();
    for round in 0..=ROTATIONS {
        for (number, stream) in live.iter_mut().enumerate() {
            let sent = format!("round {round:03} connection {number:03}");
            stream.write_all(sent.as_bytes()).unwrap();
            let mut answer = vec![0; sent.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, sent.as_bytes());
        }
        let before = std::fs::read(svid.join("svid.pem")).unwrap();
        issuer.run(&["renew-now"]);
        eventually("the SVID in the files is a new one", || {
            std::fs::read(svid.join("svid.pem")).unwrap() != before
        });
    }
    assert!(
        backend.connections().is_empty(),
        "a connection ended under rotation: {:?}",
        backend.connections()
    );

    drop(live);
    eventually("every connection is recorded", || {
        backend.connections().len() == CONNECTIONS && frontend.connections().len() == CONNECTIONS
    });
    for record in backend.connections() {
        assert_eq!(record["reason"], "complete", "{record}");
        assert_eq!(record["peer_id"], "spiffe://e2e.example/frontend");
        assert_eq!(record["local_id"], "spiffe://e2e.example/backend");
    }
}
