//! A server on a socket of its own, and clients.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use workload_api::{Listener, Options, Server, testing::TestBackend};

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

    fn serve(backend: Arc<TestBackend>, dir: TempDir, options: Options) -> Self {
        let listener = Listener::bind_unix(&dir.path().join("wl.sock"), 0o777).unwrap();
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
        SpiffeWorkloadApiClient::with_interceptor(self.channel().await, Header)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let socket = self.socket();
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(connect).await.unwrap()
    }
}

pub(crate) type Client = SpiffeWorkloadApiClient<InterceptedService<Channel, Header>>;

/// WE-04.
#[derive(Clone)]
pub(crate) struct Header;

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert("workload.spiffe.io", value);
        Ok(request)
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
