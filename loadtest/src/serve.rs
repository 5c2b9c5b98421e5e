//! Backends to put behind a proxy under test, so that a comparison needs nothing else.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, UnixListener},
    signal::unix::{SignalKind, signal},
};

use crate::{address::Address, stream::Socket};

/// What the backend does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Sends back what it reads, until the client's end.
    Echo,
    /// Reads and drops, until the client's end.
    Sink,
    /// Sends zeros until the client is gone.
    Source,
}

/// Connections that the kernel queues for us.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept (most often: no file descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until `lifetime` has passed or a signal asks to end. The address is printed once it is
/// listened on.
pub fn run(mode: Mode, listen: &Address, threads: usize, lifetime: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let listener =
            Listener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        println!("listening on {}", listener.address()?);
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tokio::select! {
            () = accept_all(&listener, mode) => {}
            () = tokio::time::sleep(lifetime) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

async fn accept_all(listener: &Listener, mode: Mode) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                tokio::spawn(serve(socket, mode));
            }
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection; how it ends is the client's business.
async fn serve(mut socket: Socket, mode: Mode) {
    let _ = match mode {
        Mode::Echo => echo(&mut socket).await,
        Mode::Sink => sink(&mut socket).await,
        Mode::Source => source(&mut socket).await,
    };
}

async fn echo(socket: &mut Socket) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return socket.shutdown().await,
            n => socket.write_all(&buffer[..n]).await?,
        }
    }
}

async fn sink(socket: &mut Socket) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    while socket.read(&mut buffer).await? > 0 {}
    socket.shutdown().await
}

async fn source(socket: &mut Socket) -> io::Result<()> {
    let buffer = vec![0; 256 * 1024];
    loop {
        socket.write_all(&buffer).await?;
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, UnlinkOnDrop),
}

impl Listener {
    fn bind(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(addr) => Ok(Self::Tcp(bind_tcp(*addr)?)),
            Address::Unix(path) => {
                if path.exists() {
                    bail!(
                        "{} exists already: remove it if nobody uses it",
                        path.display()
                    );
                }
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, UnlinkOnDrop(path.clone())))
            }
        }
    }

    fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, path) => Ok(Address::Unix(path.0.clone())),
        }
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                Ok(Socket::Tcp(tcp))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(unix, _)| Socket::Unix(unix)),
        }
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Removes our socket file, whichever way we end.
#[derive(Debug)]
struct UnlinkOnDrop(PathBuf);

impl Drop for UnlinkOnDrop {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        let _ = std::fs::remove_file(path);
    }
}
