use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use relay::Socket;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use super::Listener;
use crate::{Address, StartError};

fn unix(path: &Path) -> Address {
    Address::Unix(path.to_owned())
}

#[tokio::test]
async fn accepted_sockets_inherit_nodelay_and_keepalive() {
    let listener = Listener::bind("s", &"127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let _client = TcpStream::connect(addr.to_string()).await.unwrap();
    let (Socket::Tcp(accepted), Some(_)) = listener.accept().await.unwrap() else {
        panic!("not TCP");
    };
    assert!(accepted.nodelay().unwrap());
    assert!(SockRef::from(&accepted).keepalive().unwrap());
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_goes_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = Listener::bind("s", &unix(&path)).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_processes_socket_is_replaced_and_a_live_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    // std's listener leaves its file behind, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let first = Listener::bind("s", &unix(&path)).unwrap();
    let second = Listener::bind("s", &unix(&path)).unwrap_err();
    assert!(matches!(second, StartError::InUse { .. }), "{second}");

    UnixStream::connect(&path).await.unwrap();
    first.accept().await.unwrap();
}

#[tokio::test]
async fn a_successors_socket_survives_its_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let first = Listener::bind("s", &unix(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    // Holds the first one's inode number, were it free.
    fs::write(dir.path().join("other"), "").unwrap();
    let second = Listener::bind("s", &unix(&path)).unwrap();
    drop(first);
    UnixStream::connect(&path).await.unwrap();
    second.accept().await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind("s", &unix(&path)).unwrap_err();
    assert!(matches!(error, StartError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let error = Listener::bind("s", &unix(&dir.path().join("no/app.sock"))).unwrap_err();
    assert!(matches!(error, StartError::NoFolder { .. }), "{error}");

    let long = dir.path().join("x".repeat(200));
    let error = Listener::bind("s", &unix(&long)).unwrap_err().to_string();
    assert!(error.contains("107 bytes"), "{error}");
}

#[tokio::test]
async fn closing_hands_over_what_the_kernel_queued() {
    let listener = Listener::bind("s", &"127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TcpStream::connect(&addr).await.unwrap());
    }
    assert_eq!(listener.close(10).len(), 3);
    assert!(TcpStream::connect(&addr).await.is_err());
}
