//! `issuer serve`, in the order in which it happens: bind every address, lock the
//! data directory, open store and authority, serve (SIGHUP reloads), drain.

mod reload;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{ServerOptions, ServerTls};
use proto::{
    admin::v1::admin_service_server::{self, AdminServiceServer},
    issue::v1::issue_service_server::{self, IssueServiceServer},
    join::v1::join_service_server::{self, JoinServiceServer},
};
use telemetry::LogLevel;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::Server,
};
use tonic_health::pb::health_server::HealthServer;

use self::reload::Reload;
use crate::{
    api::{
        APPLY_MAX,
        admin::AdminApi,
        admin_socket,
        admin_socket::SocketFile,
        diagnostics, drained,
        health::HealthApi,
        http,
        http::HttpApi,
        issue::IssueApi,
        join::JoinApi,
        limits::Limits,
        listener, own_svid,
        requests::{Requests, request_max},
    },
    audit::sinks::Sinks,
    config::{Settings, Source},
    readiness::{Finding, Readiness},
    service::{Foundation, Issuer, OpenError},
    store::{DataDirectory, Database, DirectoryError, FILE},
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

/// Largest question of a prober, or of who asks for descriptions.
const QUESTION_MAX: usize = 4 * 1024;
/// What the network serves.
const NETWORK_SERVICES: &[&str] = &[
    join_service_server::SERVICE_NAME,
    issue_service_server::SERVICE_NAME,
];
/// What the admin socket serves.
const ADMIN_SERVICES: &[&str] = &[admin_service_server::SERVICE_NAME];

/// signal(7): a file grew past RLIMIT_FSIZE.
const SIGXFSZ: i32 = 25;

/// Runs the issuer until SIGTERM or SIGINT; SIGHUP reads `source` again.
pub async fn serve(
    source: Source,
    settings: Settings,
    log_level: LogLevel,
) -> Result<(), ServeError> {
    // Whatever is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
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
    let (running, mut reload) = Running::start(source, settings, log_level, limits).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(()) = hangup.recv() => reload.reload(),
        }
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
    sinks: Sinks,
    admin_socket: Arc<SocketFile>,
    _directory: DataDirectory,
}

impl Running {
    async fn start(
        source: Source,
        settings: Settings,
        log_level: LogLevel,
        places: listener::Limits,
    ) -> Result<(Self, Reload), ServeError> {
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
        let database = settings
            .database
            .clone()
            .unwrap_or_else(|| Database::sqlite(directory.file(FILE)));
        let issuer = Issuer::open_on(&database, &directory, &foundation, SystemTime::now());
        let mut issuer = issuer.await?;
        issuer.jwt_issuer = settings.jwt_issuer.clone();
        let (admin, admin_socket) =
            admin_socket::bind(&settings.admin_socket, &settings.admin_uids)
                .await
                .map_err(|source| ServeError::Socket {
                    path: settings.admin_socket.clone(),
                    source,
                })?;
        let admin_socket = Arc::new(admin_socket);
        let metrics =
            crate::metrics::install().map_err(|error| ServeError::Start(error.to_string()))?;
        let sinks = Sinks::start(&settings.audit.sinks, &issuer.store, issuer.trust_domain());
        let (draining, drain) = watch::channel(false);
        if settings.audit.best_effort {
            let best_effort = Arc::new(sinks.best_effort());
            tokio::spawn(best_effort.clone().remind(drain.clone()));
            issuer.best_effort = Some(best_effort);
        }
        let issuer = Arc::new(issuer);
        let names = own_svid::Names::of(settings.public_address.as_deref(), grpc_address.ip());
        let identity = own_svid::start(issuer.clone(), names, drain.clone())
            .await
            .map_err(|error| ServeError::Start(error.to_string()))?;
        tokio::spawn(issuer.clone().keep_keys(drain.clone()));
        let options = ServerOptions {
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            client_auth_optional: true,
            tls12: false,
            // The certificate of *this* connection tells the generation: a
            // resumed session would show that of an older one.
            resumption: false,
            send_authority: true,
        };
        let tls = ServerTls::new(identity.clone(), options);
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
        let readiness = Readiness::new(issuer.clone(), identity, drain.clone());
        let (health, best_effort) = (sinks.health(), issuer.best_effort.clone());
        readiness.register("audit", move |_| {
            let mut finding = Finding {
                warnings: health.warnings(),
                ..Finding::default()
            };
            let warning = best_effort
                .as_ref()
                .map(|best_effort| best_effort.warning());
            finding.warnings.extend(warning);
            finding
        });
        tokio::spawn(diagnostics::keep_up(metrics.clone()));
        tokio::spawn(diagnostics::serve(probes, readiness.clone(), metrics));
        let limits = Arc::new(Limits::default());
        limits.set(settings.limits);
        let requests = Requests::new(issuer.clone(), limits.clone(), drain.clone())
            .map_err(|error| ServeError::Start(error.to_string()))?;
        let data_dir = settings.data_dir.clone();
        let (reload, live) = Reload::new(source, settings, log_level, limits, admin_socket.clone());
        let common = Common {
            issuer: issuer.clone(),
            readiness,
            requests,
            settings: live,
            draining: drain,
        };
        let servers = vec![
            tokio::spawn(serve_agents(grpc, tls, places, &common)?),
            tokio::spawn(serve_operators(admin, admin_api, &common)?),
        ];
        tracing::info!(
            trust_domain = %issuer.trust_domain(),
            grpc = %grpc_address,
            diagnostics = %diagnostics_address,
            data_dir = %data_dir.display(),
            ca_pin = issuer.keyring().pin(),
            ca_not_after = crate::authority::rfc3339(issuer.keyring().x509().not_after()),
            "the issuer serves"
        );
        let running = Self {
            issuer,
            draining,
            servers,
            sinks,
            admin_socket,
            _directory: directory,
        };
        Ok((running, reload))
    }

    async fn drain(self) {
        self.draining.send_replace(true);
        let servers = futures_util::future::join_all(self.servers);
        if tokio::time::timeout(DRAIN_TIMEOUT, servers).await.is_err() {
            tracing::warn!("calls under way did not end in time");
        }
        self.sinks.finish().await;
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

/// What both servers need.
struct Common {
    issuer: Arc<Issuer>,
    readiness: Arc<Readiness>,
    requests: Requests,
    settings: watch::Receiver<Arc<Settings>>,
    draining: watch::Receiver<bool>,
}

impl Common {
    /// Health, and what services there are if that may be asked.
    fn routes(
        &self,
        services: &'static [&'static str],
        reflection: bool,
    ) -> Result<RoutesBuilder, ServeError> {
        let mut routes = RoutesBuilder::default();
        let health = HealthServer::new(HealthApi {
            readiness: self.readiness.clone(),
            services,
            draining: self.draining.clone(),
        });
        routes.add_service(health.max_decoding_message_size(QUESTION_MAX));
        if reflection {
            let describe = || {
                let describe = tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                    .with_service_name("grpc.health.v1.Health");
                services
                    .iter()
                    .fold(describe, |describe, name| describe.with_service_name(*name))
            };
            let failed = |error: tonic_reflection::server::Error| {
                ServeError::Start(format!("reflection: {error}"))
            };
            let v1 = describe().build_v1().map_err(failed)?;
            let v1alpha = describe().build_v1alpha().map_err(failed)?;
            routes.add_service(v1.max_decoding_message_size(QUESTION_MAX));
            routes.add_service(v1alpha.max_decoding_message_size(QUESTION_MAX));
        }
        Ok(routes)
    }
}

fn serve_agents(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    places: listener::Limits,
    common: &Common,
) -> Result<impl Future<Output = ()> + use<>, ServeError> {
    let issuer = &common.issuer;
    let join = Arc::new(JoinApi {
        issuer: issuer.clone(),
        settings: common.settings.clone(),
        failed: Default::default(),
    });
    let issue = Arc::new(IssueApi {
        watchers: Arc::default(),
        issuer: issuer.clone(),
        join: join.clone(),
        requests: common.requests.clone(),
        draining: common.draining.clone(),
    });
    let http_routes = http::routes(HttpApi {
        issue: issue.clone(),
    });
    // The bound of the largest method; that of each holds before (`api::requests`).
    let issue_max = request_max("tbot.issue.v1.IssueService/IssueSvids");
    let join_max = request_max("tbot.join.v1.JoinService/Join");
    let reflection = common.settings.borrow().reflection;
    let mut routes = common.routes(NETWORK_SERVICES, reflection)?;
    routes
        .add_service(JoinServiceServer::from_arc(join).max_decoding_message_size(join_max))
        .add_service(IssueServiceServer::from_arc(issue).max_decoding_message_size(issue_max));
    let routes = Routes::from(
        routes
            .routes()
            .into_axum_router()
            .merge(http_routes)
            .fallback(http::nothing),
    );
    // Two servers that differ in what one connection may have under way.
    let serve = |calls_max: u32, connections: mpsc::Receiver<io::Result<listener::Connection>>| {
        let router = server()
            .accept_http1(true)
            .max_concurrent_streams(calls_max)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .layer(common.requests.clone())
            .add_routes(routes.clone());
        let mut draining = common.draining.clone();
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
        places,
        ready,
        common.draining.clone(),
    ));
    Ok(async move {
        both.await;
    })
}

fn serve_operators(
    listener: UnixListener,
    api: AdminApi,
    common: &Common,
) -> Result<impl Future<Output = ()> + use<>, ServeError> {
    let mut routes = common.routes(ADMIN_SERVICES, true)?;
    routes.add_service(AdminServiceServer::new(api).max_decoding_message_size(APPLY_MAX));
    let router = server()
        .layer(common.requests.clone())
        .add_routes(routes.routes());
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(admin_socket::accept(
        listener,
        common.settings.clone(),
        common.issuer.clone(),
        ready,
        common.draining.clone(),
    ));
    let mut draining = common.draining.clone();
    Ok(async move {
        let connections = ReceiverStream::new(connections);
        let served = router.serve_with_incoming_shutdown(connections, drained(&mut draining));
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin server ended");
        }
    })
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
