//! Starts the real program; speaks to it as an agent and as an operator.

mod pinned;

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioIo;
use identity::{
    ClientOptions, ClientTls, IdentitySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid,
};
use proto::{
    issue::v1::{
        IssueSvidsRequest, IssueSvidsResponse, Svid, SvidRequest, SvidResult, X509Request,
        issue_service_client::IssueServiceClient, svid::Document, svid_request::Document as Wanted,
        svid_request::Selector,
    },
    join::v1::{
        AgentInfo, BotCertificate, JoinRequest, RenewRequest, TokenEvidence, TrustBundle as Bundle,
        join_request::Evidence, join_service_client::JoinServiceClient,
    },
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use self::pinned::Pinned;

pub(crate) const TRUST_DOMAIN: &str = "test.example";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process prints, as it comes.
#[derive(Default)]
pub(crate) struct Log {
    text: Mutex<(String, bool)>,
    news: Condvar,
}

impl Log {
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut text = log.text.lock().unwrap();
                text.0.push_str(&line);
                text.0.push('\n');
                log.news.notify_all();
            }
            log.text.lock().unwrap().1 = true;
            log.news.notify_all();
        });
    }

    /// Waits until the log has `part`.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) {
        let text = self.text.lock().unwrap();
        let (text, _) = self
            .news
            .wait_timeout_while(text, PATIENCE, |(text, ended)| {
                !text.contains(part) && !*ended
            })
            .unwrap();
        assert!(text.0.contains(part), "no {part:?} in the log:\n{}", text.0);
    }

    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap().0.clone()
    }
}

/// A running issuer with a home of its own.
pub(crate) struct Issuer {
    pub(crate) home: TempDir,
    pub(crate) process: Child,
    /// Standard error.
    pub(crate) log: Arc<Log>,
    /// Standard output, if audit records go there.
    pub(crate) stdout: Arc<Log>,
    more: Vec<String>,
    /// How many files it may open, if that was said.
    files: Option<u32>,
    pub(crate) address: String,
    pub(crate) diagnostics: String,
    pub(crate) pin: String,
}

impl Issuer {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    #[track_caller]
    pub(crate) fn start_with(more: &[&str]) -> Self {
        Self::start_confined(None, more)
    }

    /// With a limit of open files.
    #[track_caller]
    pub(crate) fn start_confined(files: Option<u32>, more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let (process, log, stdout) = spawn(home.path(), &more, files);
        let mut issuer = Self {
            home,
            process,
            log,
            stdout,
            more,
            files,
            address: String::new(),
            diagnostics: String::new(),
            pin: String::new(),
        };
        issuer.wait();
        issuer
    }

    #[track_caller]
    fn wait(&mut self) {
        self.log.wait_for("the issuer serves");
        let status = self.json(&["status"]);
        self.address = status["grpc_address"].as_str().unwrap().to_owned();
        self.diagnostics = status["diagnostics_address"].as_str().unwrap().to_owned();
        self.pin = status["ca_pin"].as_str().unwrap().to_owned();
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let (process, log, stdout) = spawn(self.home.path(), &self.more, self.files);
        self.process = process;
        (self.log, self.stdout) = (log, stdout);
        self.wait();
    }

    /// SIGTERM; how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal("TERM", self.process.id());
        self.process.wait().unwrap()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_issuer"));
        command.args(arguments);
        command.arg("--data-dir").arg(self.data_dir());
        if let Some(at) = self.more.iter().position(|argument| argument == "--socket") {
            command.arg("--socket").arg(&self.more[at + 1]);
        }
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with status 1; its one line.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        one_line_failure(&self.output(arguments))
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Applies YAML.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) {
        let file = self.home.path().join("apply.yaml");
        std::fs::write(&file, yaml).unwrap();
        self.run(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// A workload identity `/name`, labelled `app: name`, and a role for it.
    #[track_caller]
    pub(crate) fn register(&self, name: &str) {
        self.apply(&format!(
            "kind: workload_identity\nversion: v1\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\n\
             spec: {{ spiffe: {{ id: /{name} }} }}\n---\n\
             kind: role\nversion: v1\nmetadata: {{ name: {name} }}\n\
             spec: {{ allow: {{ workload_identity_labels: {{ app: [{name}] }} }} }}\n"
        ));
    }

    /// A token for a bot that holds the role of the same name.
    #[track_caller]
    pub(crate) fn token(&self, bot: &str) -> String {
        let added = self.json(&["bot", "add", bot, "--roles", bot]);
        added["token"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn audit(&self) -> Vec<Value> {
        self.run(&["audit", "-o", "json"])
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The newest event of this name.
    #[track_caller]
    pub(crate) fn last_event(&self, name: &str) -> Value {
        let found = self
            .audit()
            .into_iter()
            .rfind(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no event {name}"))
    }

    /// A channel without a client certificate; the issuer is known by its pin.
    pub(crate) async fn anonymous(&self) -> Channel {
        channel(&self.address, self.anonymous_tls()).await.unwrap()
    }

    /// TLS without a client certificate.
    pub(crate) fn anonymous_tls(&self) -> Arc<rustls::ClientConfig> {
        let verifier = Arc::new(Pinned(self.pin.clone()));
        let mut config = rustls::ClientConfig::builder_with_provider(identity::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A connection after its TLS handshake, from an address of this machine.
    pub(crate) async fn tls(
        &self,
        from: [u8; 4],
        config: Arc<rustls::ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(self.address.parse().unwrap()).await?;
        let tls = TlsConnector::from(config);
        tls.connect(ClientTls::server_name(), stream).await
    }

    pub(crate) async fn join(&self, token: &str) -> Result<Bot, Status> {
        let key = KeyPair::generate().unwrap();
        let mut client = JoinServiceClient::new(self.anonymous().await);
        let request = JoinRequest {
            csr_der: csr(&key),
            evidence: Some(Evidence::Token(TokenEvidence {
                token: token.to_owned(),
            })),
            agent: Some(AgentInfo {
                hostname: "test-host".to_owned(),
                version: "1.2.3".to_owned(),
            }),
        };
        let answer = client.join(request).await?.into_inner();
        Ok(Bot {
            key,
            certificate: answer.certificate.unwrap(),
            bundle: answer.trust_bundle.unwrap(),
        })
    }

    /// Registers, makes a token, joins.
    pub(crate) async fn joined(&self, name: &str) -> Bot {
        self.register(name);
        self.join(&self.token(name)).await.unwrap()
    }

    pub(crate) async fn as_bot(&self, bot: &Bot) -> Channel {
        channel(&self.address, bot.tls()).await.unwrap()
    }

    pub(crate) async fn renew(&self, bot: &Bot, key: &KeyPair) -> Result<BotCertificate, Status> {
        let request = RenewRequest {
            csr_der: csr(key),
            agent: None,
        };
        let mut client = JoinServiceClient::new(self.as_bot(bot).await);
        let answer = client.renew(request).await?.into_inner();
        Ok(answer.certificate.unwrap())
    }

    pub(crate) async fn issue(&self, bot: &Bot, name: &str) -> Result<Svid, Status> {
        let key = KeyPair::generate().unwrap();
        let mut client = IssueServiceClient::new(self.as_bot(bot).await);
        the_svid(client.issue_svids(x509(name, &csr(&key), None)).await)
    }

    /// Asks for several things at once.
    pub(crate) async fn issue_all(
        &self,
        bot: &Bot,
        requests: Vec<SvidRequest>,
    ) -> Result<Vec<SvidResult>, Status> {
        let mut client = IssueServiceClient::new(self.as_bot(bot).await);
        let request = IssueSvidsRequest { requests };
        Ok(client.issue_svids(request).await?.into_inner().results)
    }
}

/// One X509-SVID, by name.
pub(crate) fn x509(
    name: &str,
    csr_der: &[u8],
    ttl: Option<prost_types::Duration>,
) -> IssueSvidsRequest {
    IssueSvidsRequest {
        requests: vec![SvidRequest {
            selector: Some(Selector::Name(name.to_owned())),
            document: Some(Wanted::X509(X509Request {
                csrs_der: vec![csr_der.to_vec()],
            })),
            ttl,
            workload_attributes: None,
            image_signatures: Vec::new(),
        }],
    }
}

/// The one SVID of an answer, or the refusal of the one item as if it were of the call.
pub(crate) fn the_svid(
    answer: Result<tonic::Response<IssueSvidsResponse>, Status>,
) -> Result<Svid, Status> {
    let mut results = answer?.into_inner().results;
    assert_eq!(results.len(), 1, "{results:?}");
    let mut result = results.remove(0);
    match result.refusal {
        Some(refusal) => Err(Status::new(refusal.code.into(), refusal.message)),
        None => {
            assert_eq!(result.svids.len(), 1, "{result:?}");
            Ok(result.svids.remove(0))
        }
    }
}

/// Attributes as they travel.
pub(crate) fn attributes(tree: &Value) -> prost_types::Struct {
    use prost_types::{ListValue, Value as Wire, value::Kind};
    fn wire(value: &Value) -> Wire {
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(flag) => Kind::BoolValue(*flag),
            Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(list) => Kind::ListValue(ListValue {
                values: list.iter().map(wire).collect(),
            }),
            Value::Object(_) => Kind::StructValue(attributes(value)),
        };
        Wire { kind: Some(kind) }
    }
    let members = tree.as_object().unwrap().iter();
    prost_types::Struct {
        fields: members
            .map(|(name, value)| (name.clone(), wire(value)))
            .collect(),
    }
}

/// Its certificates.
pub(crate) fn chain(svid: &Svid) -> Vec<Vec<u8>> {
    match &svid.document {
        Some(Document::X509(x509)) => x509.chain_der.clone(),
        other => panic!("not an X509-SVID: {other:?}"),
    }
}

/// Serial number of its leaf.
pub(crate) fn serial(svid: &Svid) -> String {
    match &svid.document {
        Some(Document::X509(x509)) => x509.serial_number.clone(),
        other => panic!("not an X509-SVID: {other:?}"),
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A joined bot.
pub(crate) struct Bot {
    pub(crate) key: KeyPair,
    pub(crate) certificate: BotCertificate,
    pub(crate) bundle: Bundle,
}

impl Bot {
    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        let chain = self.certificate.chain_der.iter();
        let chain = chain.map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let svid = X509Svid::new(chain, key).unwrap();
        let trust_domain = TrustDomain::parse(&self.bundle.trust_domain).unwrap();
        let json = &self.bundle.spiffe_bundle_json;
        let bundle = TrustBundle::from_spiffe_json(trust_domain, json).unwrap();
        let source = IdentitySource::with(svid, TrustBundleSet::new([bundle]));
        let options = ClientOptions {
            alpn: vec![b"h2".to_vec()],
            ..ClientOptions::default()
        };
        ClientTls::new(source, options).config().unwrap()
    }

    /// With the trust bundle of now.
    pub(crate) fn trusting(self, bundle: &Bundle) -> Self {
        Self {
            bundle: bundle.clone(),
            ..self
        }
    }

    /// With a renewed certificate and its key.
    pub(crate) fn renewed(&self, key: KeyPair, certificate: BotCertificate) -> Self {
        Self {
            key,
            certificate,
            bundle: self.bundle.clone(),
        }
    }
}

pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

async fn channel(
    address: &str,
    config: Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, config) = (target.clone(), config.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let tls = TlsConnector::from(config);
            let stream = tls.connect(ClientTls::server_name(), stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://issuer.test")
        .connect_with_connector(connector)
        .await
}

fn spawn(home: &Path, more: &[String], files: Option<u32>) -> (Child, Arc<Log>, Arc<Log>) {
    let mut command = serve_command(&home.join("data"));
    if let Some(files) = files {
        let mut confined = Command::new("prlimit");
        confined.arg(format!("--nofile={files}"));
        confined.arg(command.get_program()).args(command.get_args());
        command = confined;
    }
    if !more.iter().any(|argument| argument == "--trust-domain") {
        command.args(["--trust-domain", TRUST_DOMAIN]);
    }
    if more.iter().any(|argument| argument == "--audit-stdout") {
        command.stdout(Stdio::piped());
    }
    let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
    let (log, stdout) = (Arc::new(Log::default()), Arc::new(Log::default()));
    log.follow(child.stderr.take().unwrap());
    if let Some(stream) = child.stdout.take() {
        stdout.follow(stream);
    }
    (child, log, stdout)
}

/// `issuer serve` on free ports.
pub(crate) fn serve_command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_issuer"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--diagnostics",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(data_dir);
    command
}

/// The one line of a command that could not do what it was asked.
#[track_caller]
pub(crate) fn one_line_failure(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("issuer: "), "{text}");
    text
}

pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
    assert!(status.unwrap().success());
}

/// Runs an async test body.
pub(crate) fn block_on<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(body)
}

pub(crate) fn time(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    SystemTime::try_from(timestamp.unwrap()).unwrap()
}

/// Connects and asks for an SVID; either may fail.
pub(crate) async fn try_issue(
    address: &str,
    config: Arc<rustls::ClientConfig>,
    request: IssueSvidsRequest,
) -> Result<Svid, String> {
    let channel = channel(address, config)
        .await
        .map_err(|error| error.to_string())?;
    let mut client = IssueServiceClient::new(channel);
    the_svid(client.issue_svids(request).await).map_err(|status| status.to_string())
}
