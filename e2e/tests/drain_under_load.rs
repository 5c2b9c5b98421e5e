//! `SIGTERM` drains: what is under way ends properly, nothing new is accepted,
//! and the agent exits with status 0.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
};

use e2e::{Agent, EchoServer, Issuer, eventually, free_port, inbound, outbound};
use rustix::process::Signal;

const TRANSFERS: usize = 8;

#[test]
fn transfers_under_way_end_properly() {
    let issuer = Issuer::start();
    let (backend_token, frontend_token) = (issuer.register("backend"), issuer.register("frontend"));
    let echo = EchoServer::start();
    let (mtls, plain) = (free_port(), free_port());
    let mut backend = Agent::start(
        &issuer,
        &backend_token,
        &[inbound(
            "backend",
            mtls,
            &echo.address(),
            &["spiffe://e2e.example/frontend"],
        )],
    );
    let _frontend = Agent::start(
        &issuer,
        &frontend_token,
        &[outbound(
            "frontend",
            plain,
            mtls,
            &["spiffe://e2e.example/backend"],
        )],
    );

    let (started, all_started) = mpsc::channel();
    let transfers: Vec<_> = (0..TRANSFERS)
        .map(|_| {
            let started = started.clone();
            thread::spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", plain)).unwrap();
                let mut received = 0;
                let mut buffer = vec![0; 64 * 1024];
                let block = vec![7; 64 * 1024];
                for round in 0..200 {
                    stream.write_all(&block).unwrap();
                    stream.read_exact(&mut buffer).unwrap();
                    received += buffer.len();
                    if round == 5 {
                        started.send(()).unwrap();
                    }
                }
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut buffer).unwrap(), 0);
                received
            })
        })
        .collect();
    for _ in 0..TRANSFERS {
        all_started.recv().unwrap();
    }
    backend.process().signal(Signal::TERM);
    eventually("the listener is closed", || {
        TcpStream::connect(("127.0.0.1", mtls)).is_err()
    });
    for transfer in transfers {
        assert_eq!(transfer.join().unwrap(), 200 * 64 * 1024);
    }
    let status = backend.process().wait();
    assert!(status.success(), "{status}: {}", backend.log());
    let mut records = backend.connections();
    // Not the probes of `eventually`, which have no identity.
    records.retain(|record| !record["peer_id"].is_null());
    assert_eq!(records.len(), TRANSFERS, "{records:?}");
    for record in records {
        assert_eq!(record["reason"], "complete", "{record}");
    }
}
