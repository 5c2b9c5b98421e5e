//! A server on a socket of its own, and clients.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;
use workload_api::{
    Listener, Options, Server,
    client::{Client, Endpoint},
    testing::TestBackend,
};

/// How long an event is waited for.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) const TRUST_DOMAIN: &str = "one.example";

/// A server and its backend.
pub(crate) struct World {
    pub(crate) backend: Arc<TestBackend>,
    pub(crate) dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl World {
    /// Two identities: `/app` (hint `internal`) and `/other`.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let backend = TestBackend::new(TRUST_DOMAIN, &[("/app", "internal"), ("/other", "")]);
        Self::serve(backend, tempfile::tempdir().unwrap(), options)
    }

    /// Over TCP; its address, IP:port.
    pub(crate) async fn over_tcp() -> (Self, String) {
        let backend = TestBackend::new(TRUST_DOMAIN, &[("/app", "internal"), ("/other", "")]);
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap());
        let listener = listener.await.unwrap();
        let address = listener.uri().unwrap()["tcp://".len()..].to_owned();
        let dir = tempfile::tempdir().unwrap();
        (
            Self::on(listener, backend, dir, Options::default()),
            address,
        )
    }

    fn serve(backend: Arc<TestBackend>, dir: TempDir, options: Options) -> Self {
        let listener = Listener::bind_unix(&dir.path().join("wl.sock"), 0o777).unwrap();
        Self::on(listener, backend, dir, options)
    }

    fn on(listener: Listener, backend: Arc<TestBackend>, dir: TempDir, options: Options) -> Self {
        let server = Server::new(backend.clone(), options);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            server
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self {
            backend,
            dir,
            stop: Some(stop),
            server,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("wl.sock")
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) {
        soon(self.server).await.unwrap();
    }

    /// Waits until it has stopped, and starts another in its place.
    pub(crate) async fn restarted(self) -> Self {
        soon(self.server).await.unwrap();
        Self::serve(self.backend, self.dir, Options::default())
    }

    pub(crate) async fn client(&self) -> Client {
        self.endpoint().client().await.unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.endpoint().channel().await.unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket())
    }
}

/// What comes of it, within 30 seconds.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, event)
        .await
        .expect("it never came")
}

/// Python with the peers that `make peers` installs; `None`, loudly, without them.
pub(crate) fn python(script: &str) -> Option<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/peers/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no {}: `make peers` installs it", python.display());
        return None;
    }
    let mut command = Command::new(python);
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/peers")
            .join(script),
    );
    Some(command)
}
