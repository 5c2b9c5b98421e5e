//! An OpenTelemetry collector has every record, in order and at least once, over
//! outages of its own and restarts of the issuer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, SeverityNumber},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, transport::Server};

use super::{
    audit_sinks::until,
    harness::{Issuer, block_on},
};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    records: Arc<Mutex<Vec<LogRecord>>>,
    services: Arc<Mutex<Vec<String>>>,
    /// How many calls it takes in, but answers with an error.
    fails: Arc<Mutex<usize>>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for logs in request.into_inner().resource_logs {
            let resource = logs.resource.unwrap();
            self.services
                .lock()
                .unwrap()
                .push(text(&resource.attributes, "service.name"));
            for scope in logs.scope_logs {
                self.records.lock().unwrap().extend(scope.log_records);
            }
        }
        let mut fails = self.fails.lock().unwrap();
        if *fails > 0 {
            *fails -= 1;
            return Err(Status::unavailable("on purpose"));
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Collector {
    /// Serves until the sender is dropped.
    async fn serve(&self, listener: TcpListener) -> oneshot::Sender<()> {
        let (stop, stopped) = oneshot::channel::<()>();
        let service = LogsServiceServer::new(self.clone());
        let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(async move {
            let served = Server::builder().add_service(service);
            tokio::select! {
                _ = served.serve_with_incoming(connections) => {}
                _ = stopped => {}
            }
        });
        stop
    }

    fn numbers(&self) -> Vec<i64> {
        let records = self.records.lock().unwrap();
        let numbered = records
            .iter()
            .filter(|record| body(record).starts_with("{\"sequence\""));
        numbered
            .map(
                |record| match attribute(&record.attributes, "audit.sequence") {
                    Some(Any::IntValue(number)) => number,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }

    fn has_all(&self, last: usize) -> bool {
        self.numbers().iter().max() == Some(&i64::try_from(last).unwrap())
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<Any> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match attribute(attributes, key) {
        Some(Any::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

fn body(record: &LogRecord) -> String {
    match record.body.clone().unwrap().value {
        Some(Any::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Ordered, apart from what was sent again, and without a gap.
#[track_caller]
fn complete(numbers: &[i64], last: usize) {
    let mut next = 1;
    for number in numbers {
        assert!(*number <= next, "{next} is missing: {numbers:?}");
        if *number == next {
            next += 1;
        }
    }
    assert_eq!(next, i64::try_from(last).unwrap() + 1, "{numbers:?}");
}

/// An address that nobody listens on yet, and that nobody else can take.
fn reserved() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn listen(socket: socket2::Socket) -> TcpListener {
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

#[test]
fn a_collector_has_every_record_over_outages_and_restarts() {
    let (socket, address) = reserved();
    let endpoint = format!("http://{address}");
    let mut issuer = Issuer::start_with(&["--audit-otlp", &endpoint]);
    issuer.register("app");
    issuer.log.wait_for("an audit sink is behind");

    let collector = Collector::default();
    *collector.fails.lock().unwrap() = 2;
    let stop = block_on_the_side(collector.clone(), socket);
    block_on(async {
        let bot = issuer.join(&issuer.token("app")).await.unwrap();
        issuer.issue(&bot, "app").await.unwrap();
        issuer.issue(&bot, "unknown").await.unwrap_err();
    });
    let records = issuer.audit().len();
    until("the collector has everything", || {
        collector.has_all(records)
    });

    issuer.kill();
    issuer.restart();
    issuer.run(&["bot", "add", "later"]);
    let records = issuer.audit().len();
    until("it goes on after a kill", || collector.has_all(records));
    assert!(issuer.terminate().success());
    drop(stop);
    complete(&collector.numbers(), records);

    let kept = collector.records.lock().unwrap().clone();
    let refused = kept
        .iter()
        .find(|record| body(record).contains("unknown_workload_identity"))
        .unwrap();
    assert_eq!(refused.event_name, "spiffe.svid.issued");
    assert_eq!(refused.severity_number, i32::from(SeverityNumber::Warn));
    assert_eq!(text(&refused.attributes, "audit.code"), "TSPIFFE000E");
    assert_eq!(text(&refused.attributes, "audit.bot_name"), "app");
    assert_eq!(
        text(&refused.attributes, "audit.reason"),
        "unknown_workload_identity"
    );
    assert!(refused.time_unix_nano > 0);
    let services = collector.services.lock().unwrap();
    assert!(services.iter().all(|name| name == "issuer"));

    // What the collector keeps can be verified.
    let file = issuer.home.path().join("collected.jsonl");
    let lines: Vec<_> = kept.iter().map(body).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let verify = [
        "audit",
        "verify",
        "-o",
        "json",
        "--offline",
        file.to_str().unwrap(),
    ];
    let outcome: Value = serde_json::from_str(&issuer.run(&verify)).unwrap();
    assert_eq!(outcome["last"], records, "{outcome}");
}

/// A collector on a runtime of its own; it serves until what is returned is dropped.
fn block_on_the_side(collector: Collector, socket: socket2::Socket) -> std::sync::mpsc::Sender<()> {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let serving = runtime.block_on(async { collector.serve(listen(socket)).await });
        // An error is the end of the other side.
        let _ = stopped.recv();
        drop(serving);
        runtime.shutdown_timeout(Duration::from_secs(1));
    });
    stop
}

#[test]
fn records_cross_the_network_only_to_a_collector_with_the_right_certificate() {
    let home = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = home.path().join(name);
        std::fs::write(&file, ca.pem()).unwrap();
        (ca, file.to_str().unwrap().to_owned())
    };
    let (ca, right) = authority("right.pem");
    let (_, wrong) = authority("wrong.pem");
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(identity::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let collector = Collector::default();
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let service = LogsServiceServer::new(collector.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let http = Builder::new(TokioExecutor::new()).http2_only();
                    let service = TowerToHyperService::new(service);
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let start = |ca: String| {
            let endpoint = endpoint.clone();
            move || Issuer::start_with(&["--audit-otlp", &endpoint, "--audit-otlp-ca", &ca])
        };
        let issuer = tokio::task::spawn_blocking(start(wrong)).await.unwrap();
        tokio::task::spawn_blocking(move || issuer.log.wait_for("an audit sink is behind"))
            .await
            .unwrap();
        assert!(collector.numbers().is_empty());
        let issuer = tokio::task::spawn_blocking(start(right)).await.unwrap();
        let taken = collector.clone();
        tokio::task::spawn_blocking(move || {
            let records = issuer.audit().len();
            until("the collector has everything", || taken.has_all(records));
        })
        .await
        .unwrap();
    });
}
