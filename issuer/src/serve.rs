//! `issuer serve`, in the order in which it happens: bind every address, lock the
//! data directory, open store and authority, serve, drain.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{ServerOptions, ServerTls};
use proto::{
    admin::v1::admin_service_server::AdminServiceServer,
    issue::v1::issue_service_server::IssueServiceServer,
    join::v1::join_service_server::JoinServiceServer,
};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::InterceptorLayer, transport::Server};

use crate::{
    api::{
        REQUEST_MAX, admin::AdminApi, admin_socket, admin_socket::SocketFile, diagnostics, drained,
        issue::IssueApi, join::JoinApi, listener, own_svid,
    },
    config::Settings,
    service::{Foundation, Issuer, OpenError},
    store::{DataDirectory, DirectoryError},
};

/// How long a drain waits for calls under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls under way on one connection of a bot, or of an operator.
const CALLS_MAX: u32 = 256;
/// Calls under way on one connection without a certificate: it joins, once.
const STRANGERS_CALLS_MAX: u32 = 16;
/// What a peer may send ahead on one connection, and on each call of it: it bounds
/// what a connection costs in memory.
const WINDOW: u32 = 64 * 1024;

/// signal(7): a file grew past RLIMIT_FSIZE.
const SIGXFSZ: i32 = 25;

/// Runs the issuer until SIGTERM or SIGINT.
pub async fn serve(settings: Settings) -> Result<(), ServeError> {
    // Whatever is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    // A limit on file sizes is an error to answer with, not an end: once handled,
    // the signal no longer kills.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).map_err(ServeError::Signals)?;
    let files = sys::raise_file_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files stays as it is");
        rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX)
    });
    let limits = listener::Limits::for_files(files).ok_or(ServeError::Files(files))?;
    let running = Running::start(settings, limits).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    running.drain().await;
    tracing::info!("stopped");
    Ok(())
}

/// An issuer that serves.
struct Running {
    issuer: Arc<Issuer>,
    draining: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    admin_socket: SocketFile,
    _directory: DataDirectory,
}

impl Running {
    async fn start(settings: Settings, limits: listener::Limits) -> Result<Self, ServeError> {
        // Addresses first: a port in use leaves nothing behind.
        let grpc = bind("listen", settings.listen).await?;
        let probes = bind("diagnostics", settings.diagnostics).await?;
        if !settings.diagnostics.ip().is_loopback() {
            tracing::warn!(
                address = %settings.diagnostics,
                "diagnostics can be reached from other machines: they are neither encrypted nor authenticated"
            );
        }
        let directory = DataDirectory::open(&settings.data_dir)?;
        let grpc_address = local(&grpc)?;
        let diagnostics_address = local(&probes)?;
        let foundation = Foundation {
            trust_domain: settings.trust_domain.clone(),
            default_trust_domain: settings.default_trust_domain.clone(),
            key_file: settings.key_file.clone(),
            lifecycle: settings.lifecycle,
        };
        let issuer = Arc::new(Issuer::open(&directory, &foundation, SystemTime::now()).await?);
        let (admin, admin_socket) =
            admin_socket::bind(&settings.admin_socket, &settings.admin_uids)
                .await
                .map_err(|source| ServeError::Socket {
                    path: settings.admin_socket.clone(),
                    source,
                })?;
        let metrics =
            diagnostics::install_metrics().map_err(|error| ServeError::Start(error.to_string()))?;
        let (draining, drain) = watch::channel(false);
        let source = own_svid::start(issuer.clone(), drain.clone())
            .await
            .map_err(|error| ServeError::Start(error.to_string()))?;
        let options = ServerOptions {
            alpn: vec![b"h2".to_vec()],
            client_auth_optional: true,
            tls12: false,
            // The certificate of *this* connection tells the generation: a
            // resumed session would show that of an older one.
            resumption: false,
            send_authority: true,
        };
        let tls = ServerTls::new(source, options);
        let public = settings
            .public_address
            .clone()
            .unwrap_or_else(|| grpc_address.to_string());
        let admin_api = AdminApi {
            issuer: issuer.clone(),
            grpc_address: public,
            diagnostics_address,
            draining: drain.clone(),
        };
        tokio::spawn(diagnostics::keep_up(metrics.clone()));
        tokio::spawn(diagnostics::serve(
            probes,
            issuer.clone(),
            metrics,
            drain.clone(),
        ));
        let servers = vec![
            tokio::spawn(serve_agents(
                grpc,
                tls,
                limits,
                &issuer,
                settings.bot_ttl,
                drain.clone(),
            )),
            tokio::spawn(serve_operators(
                admin,
                admin_api,
                settings.admin_uids,
                drain,
            )),
        ];
        tracing::info!(
            trust_domain = %issuer.trust_domain(),
            grpc = %grpc_address,
            diagnostics = %diagnostics_address,
            admin = %settings.admin_socket.display(),
            ca_pin = issuer.keyring().pin(),
            ca_not_after = crate::authority::rfc3339(issuer.keyring().x509().not_after()),
            "the issuer serves"
        );
        Ok(Self {
            issuer,
            draining,
            servers,
            admin_socket,
            _directory: directory,
        })
    }

    async fn drain(self) {
        self.draining.send_replace(true);
        let servers = futures_util::future::join_all(self.servers);
        if tokio::time::timeout(DRAIN_TIMEOUT, servers).await.is_err() {
            tracing::warn!("calls under way did not end in time");
        }
        self.issuer.store.close().await;
        if let Err(error) = self.admin_socket.remove() {
            tracing::debug!(%error, "the admin socket could not be removed");
        }
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind {
            what,
            address,
            why: match source.kind() {
                io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
                _ => source.to_string(),
            },
        })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener
        .local_addr()
        .map_err(|error| ServeError::Start(error.to_string()))
}

fn serve_agents(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    limits: listener::Limits,
    issuer: &Arc<Issuer>,
    bot_ttl: Duration,
    draining: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let join = Arc::new(JoinApi {
        issuer: issuer.clone(),
        bot_ttl,
        failed: Default::default(),
    });
    let issue = Arc::new(IssueApi {
        issuer: issuer.clone(),
        draining: draining.clone(),
    });
    // Two servers that differ in what one connection may have under way.
    let serve = |calls_max: u32, connections: mpsc::Receiver<io::Result<listener::Connection>>| {
        let join = JoinServiceServer::from_arc(join.clone());
        let issue = IssueServiceServer::from_arc(issue.clone());
        let router = server()
            .max_concurrent_streams(calls_max)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .layer(InterceptorLayer::new(note_request))
            .add_service(join.max_decoding_message_size(REQUEST_MAX))
            .add_service(issue.max_decoding_message_size(REQUEST_MAX));
        let mut draining = draining.clone();
        async move {
            let connections = ReceiverStream::new(connections);
            let served = router.serve_with_incoming_shutdown(connections, drained(&mut draining));
            if let Err(error) = served.await {
                tracing::error!(%error, "the network server ended");
            }
        }
    };
    let (bots, of_bots) = mpsc::channel(64);
    let (strangers, of_strangers) = mpsc::channel(64);
    let both = futures_util::future::join(
        serve(CALLS_MAX, of_bots),
        serve(STRANGERS_CALLS_MAX, of_strangers),
    );
    let ready = listener::Ready { bots, strangers };
    tokio::spawn(listener::accept(
        listener,
        tls,
        issuer.clone(),
        limits,
        ready,
        draining.clone(),
    ));
    async move {
        both.await;
    }
}

/// A connection that asks for something is not silent.
#[allow(clippy::result_large_err)]
fn note_request(request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    if let Some(info) = request.extensions().get::<listener::ConnectionInfo>() {
        info.has_asked();
    }
    Ok(request)
}

fn serve_operators(
    listener: UnixListener,
    api: AdminApi,
    admitted: Vec<u32>,
    draining: watch::Receiver<bool>,
) -> impl Future<Output = ()> {
    let issuer = api.issuer.clone();
    // Whole fleets of resources may come in one file.
    const APPLY_MAX: usize = 16 * 1024 * 1024;
    let router =
        server().add_service(AdminServiceServer::new(api).max_decoding_message_size(APPLY_MAX));
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(admin_socket::accept(
        listener,
        admitted,
        issuer,
        ready,
        draining.clone(),
    ));
    async move {
        let mut draining = draining;
        let connections = ReceiverStream::new(connections);
        let served = router.serve_with_incoming_shutdown(connections, drained(&mut draining));
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin server ended");
        }
    }
}

fn server() -> Server {
    Server::builder()
        .timeout(CALL_TIMEOUT)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Why the issuer does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory is not usable.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// An address is not free.
    #[error(
        "cannot listen on {address} ({what}): {why}: stop what holds it, or choose another with --{what}"
    )]
    Bind {
        /// Which address: the flag's name.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The admin socket cannot be made.
    #[error(
        "cannot make the admin socket {path:?} ({source}): choose another place with --socket (a path of at most 107 bytes)"
    )]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Store or authority are not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Too few files may be open.
    #[error(
        "this process may open {0} files, at least {min} are needed: raise the limit (`ulimit -n`, or LimitNOFILE= of systemd)",
        min = listener::FILES_MIN
    )]
    Files(u64),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signals(io::Error),
    /// Something else.
    #[error("the issuer cannot start: {0}")]
    Start(String),
}
