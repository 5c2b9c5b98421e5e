//! Services, peers and backends for the tests.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use identity::{
    ClientOptions, ClientTls, IdentitySource, SpiffeId, TrustBundleSet, testing::TestCa,
};
use policy::{PeerPolicy, PeerRule};
use proxy::{
    Address, ConnectionRecord, Direction, Limits, OnExpiry, ProxyService, RecordSink, ServiceConfig,
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Mutex, mpsc},
    task::yield_now,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Longer than anything here takes on a busy machine; what exceeds it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const WEB: &str = "spiffe://example.org/web";
pub(crate) const CLIENT: &str = "spiffe://example.org/client";

/// The outcome, unless it hangs.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it hangs")
}

/// An identity source with an SVID for `/path` under `ca`, that trusts `ca`.
pub(crate) fn source(ca: &TestCa, path: &str) -> Arc<IdentitySource> {
    IdentitySource::with(ca.svid(path, HOUR), TrustBundleSet::new([ca.bundle()]))
}

pub(crate) fn allow(ids: &[&str]) -> PeerPolicy {
    let rules = ids
        .iter()
        .map(|id| PeerRule::Id(SpiffeId::parse(id).unwrap()));
    PeerPolicy::new(vec![], rules.collect())
}

pub(crate) fn config(direction: Direction, connect: &Address, peers: &[&str]) -> ServiceConfig {
    ServiceConfig {
        name: direction.as_str().to_owned(),
        direction,
        listen: "127.0.0.1:0".parse().unwrap(),
        connect: connect.clone(),
        peers: allow(peers),
        limits: Limits::default(),
        resumption: true,
        tls12: false,
        on_expiry: OnExpiry::Close,
    }
}

/// A running service and its records.
pub(crate) struct Proxy {
    pub(crate) service: ProxyService,
    pub(crate) records: Arc<Records>,
}

impl Proxy {
    pub(crate) fn start(config: ServiceConfig, source: &Arc<IdentitySource>) -> Self {
        let records = Records::new();
        let service = ProxyService::start(
            config,
            Arc::clone(source),
            Arc::clone(&records) as Arc<dyn RecordSink>,
            &Handle::current(),
        )
        .unwrap();
        Self { service, records }
    }

    /// `web`, before `backend`, for `peers`.
    pub(crate) fn inbound(ca: &TestCa, backend: &Address, peers: &[&str]) -> Self {
        Self::start(
            config(Direction::Inbound, backend, peers),
            &source(ca, "/web"),
        )
    }

    /// `client`, before the proxy of `web`.
    pub(crate) fn outbound(ca: &TestCa, server: &Address) -> Self {
        Self::start(
            config(Direction::Outbound, server, &[WEB]),
            &source(ca, "/client"),
        )
    }

    pub(crate) fn addr(&self) -> Address {
        self.service.local_addr()
    }

    /// Waits until so many connections are open: each leaves a moment after its record.
    pub(crate) async fn open(&self, count: usize) {
        within(async {
            while self.service.connections() != count {
                yield_now().await;
            }
        })
        .await;
    }

    /// Puts the configuration in force that `edit` makes of the present one.
    pub(crate) fn update(&self, edit: impl FnOnce(&mut ServiceConfig)) {
        let mut config = (*self.service.config()).clone();
        edit(&mut config);
        self.service.update(config).unwrap();
    }
}

/// Keeps records in order.
pub(crate) struct Records {
    sender: mpsc::UnboundedSender<ConnectionRecord>,
    receiver: Mutex<mpsc::UnboundedReceiver<ConnectionRecord>>,
}

impl Records {
    fn new() -> Arc<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Arc::new(Self {
            sender,
            receiver: Mutex::new(receiver),
        })
    }

    /// The next one, when it comes.
    pub(crate) async fn next(&self) -> ConnectionRecord {
        within(async { self.receiver.lock().await.recv().await.unwrap() }).await
    }

    /// Those that are there.
    pub(crate) async fn take(&self) -> Vec<ConnectionRecord> {
        let mut receiver = self.receiver.lock().await;
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }
}

impl RecordSink for Records {
    fn record(&self, record: &ConnectionRecord) {
        let _ = self.sender.send(record.clone());
    }
}

/// A SPIFFE client of its own, with rustls's buffered API, that resumes sessions. Unlike
/// our proxies it goes on showing an SVID that has expired.
pub(crate) struct Peer {
    tls: Arc<ClientTls>,
    last: std::sync::Mutex<Option<Arc<ClientConfig>>>,
}

impl Peer {
    pub(crate) fn new(ca: &TestCa, path: &str) -> Self {
        Self::of(source(ca, path))
    }

    pub(crate) fn of(source: Arc<IdentitySource>) -> Self {
        Self {
            tls: ClientTls::new(source, ClientOptions::default()),
            last: std::sync::Mutex::default(),
        }
    }

    /// Connects; under TLS 1.3 this succeeds before the server has judged our certificate.
    pub(crate) async fn connect(&self, to: &Address) -> io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(to.to_string()).await?).await
    }

    /// Makes the handshake over a connection that is there.
    pub(crate) async fn over(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config());
        within(connector.connect(ClientTls::server_name(), tcp)).await
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut last = self.last.lock().unwrap();
        match self.tls.config() {
            Ok(config) => last.insert(config).clone(),
            Err(error) => last.clone().unwrap_or_else(|| panic!("{error}")),
        }
    }

    /// Connects and has a word echoed: the server has let us in.
    pub(crate) async fn admitted(&self, to: &Address) -> TlsStream<TcpStream> {
        let mut stream = self.connect(to).await.unwrap();
        echoed(&mut stream, b"hello").await;
        stream
    }

    /// Connects and expects to be turned away; what the read says.
    pub(crate) async fn refused(&self, to: &Address) -> io::Error {
        let mut stream = match self.connect(to).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let _ = stream.write_all(b"hello").await;
        match within(stream.read(&mut [0; 16])).await {
            Ok(0) => panic!("a clean end instead of a refusal"),
            Ok(_) => panic!("it was let in"),
            Err(error) => error,
        }
    }
}

/// Sends `bytes` and reads as many, which must be the same.
pub(crate) async fn echoed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    try_echoed(stream, bytes).await.unwrap();
}

pub(crate) async fn try_echoed(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut back = vec![0; bytes.len()];
    within(stream.read_exact(&mut back)).await?;
    assert_eq!(back, bytes);
    Ok(())
}

/// Ends the stream cleanly from our side and reads to its clean end.
pub(crate) async fn finish(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

/// Waits for the cut of a connection: a reset, or for TLS an end without close_notify.
pub(crate) async fn cut(mut stream: impl AsyncRead + Unpin) {
    match within(stream.read(&mut [0; 16])).await {
        Ok(count) => panic!("{count} bytes instead of a cut"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            ),
            "{error}"
        ),
    }
}

/// An application that sends back what it gets, and counts its connections.
pub(crate) struct Echo {
    pub(crate) addr: Address,
    accepted: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let addr = listener.local_addr().unwrap().into();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.shutdown().await;
                });
            }
        });
        Self { addr, accepted }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Connects as a local application that is turned away: a reset, however early it comes, and not an end.
pub(crate) async fn reset(to: &Address) {
    let read = async {
        let mut stream = TcpStream::connect(to.to_string()).await?;
        stream.read(&mut [0]).await
    };
    let error = within(read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Connects as a local application.
pub(crate) async fn plain(to: &Address) -> TcpStream {
    TcpStream::connect(to.to_string()).await.unwrap()
}
