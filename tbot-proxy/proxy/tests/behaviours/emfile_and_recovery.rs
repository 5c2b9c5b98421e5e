//! A process that runs out of files pauses and recovers by itself; who is connected notices nothing. And peers that
//! have proven nothing cannot make it run out of them: a service takes no more connections than there are files for.
//!
//! The service runs in a child process (this test binary again) with a low limit; the clients are here, where
//! files abound.

use std::{
    io::Write,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use identity::{
    IdentitySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid, testing::TestCa,
};
use proxy::{Address, ConnectionRecord, Direction, ProxyService, RecordSink};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::Handle,
};

use crate::support::{CLIENT, Echo, HOUR, Peer, config, echoed, finish, plain, within};

const FOLDER: &str = "EMFILE_TEST_FOLDER";
const BACKEND: &str = "EMFILE_TEST_BACKEND";
const FILES: &str = "EMFILE_TEST_FILES";
const WHEN: &str = "EMFILE_TEST_WHEN";

/// The limit of files of the child.
#[derive(Clone, Copy)]
enum Limit {
    /// In force when the service starts, which so knows of it.
    BeforeStart(u64),
    /// Lowered behind its back, as others that use up its files do.
    AfterStart(u64),
}

const CANNOT_ACCEPT: &str = "cannot accept connections";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_pauses_recovers_and_counts() {
    const FILES: u64 = 64;
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut proxy = InChild::start(&ca, &app.addr, Limit::AfterStart(FILES)).await;
    let peer = Peer::new(&ca, "/client");
    let mut before = peer.admitted(&proxy.addr).await;

    let mut storm: Vec<TcpStream> = Vec::new();
    for _ in 0..2 * FILES {
        storm.push(plain(&proxy.addr).await);
    }
    // The child says so when it has met EMFILE.
    while proxy.emfile().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    echoed(&mut before, b"who is connected notices nothing").await;

    // Files come and go: attempts that succeed lie between those that fail, and the log stays short.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        storm.remove(0);
        storm.push(plain(&proxy.addr).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let told = proxy.logged(CANNOT_ACCEPT).await;
    assert!(
        (1..=seconds + 1).contains(&told),
        "{told} lines in {seconds} s"
    );

    drop(storm);
    finish(peer.admitted(&proxy.addr).await).await;
    echoed(&mut before, b"and still").await;
    finish(before).await;

    // It paused between its attempts: a hot loop makes thousands.
    let failures = proxy.emfile().await;
    assert!(failures < 200, "{failures} attempts");
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_have_proven_nothing_leave_files_to_those_who_have() {
    const FILES: u64 = 256;
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let mut proxy = InChild::start(&ca, &app.addr, Limit::BeforeStart(FILES)).await;
    let told = proxy.log().await;
    assert!(
        told.contains("max_connections=10000") && told.contains("in_force=96"),
        "{told}"
    );
    let peer = Peer::new(&ca, "/client");
    let mut before = peer.admitted(&proxy.addr).await;

    // More than there are files.
    let mut flood = Vec::new();
    for _ in 0..FILES + 20 {
        flood.push(plain(&proxy.addr).await);
    }
    // In its turn, while the flood stands; and its application can be dialled.
    let honest = peer.admitted(&proxy.addr).await;
    echoed(&mut before, b"who is connected notices nothing").await;
    finish(honest).await;
    finish(before).await;
    assert_eq!(proxy.emfile().await, 0);
    assert_eq!(proxy.logged(CANNOT_ACCEPT).await, 0);
    drop(flood);
    proxy.end().await;
}

struct InChild {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    addr: Address,
}

impl InChild {
    async fn start(ca: &TestCa, backend: &Address, limit: Limit) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let svid = ca.svid("/web", HOUR);
        std::fs::write(folder.path().join("chain"), svid.chain_pem()).unwrap();
        std::fs::write(folder.path().join("key"), svid.key_pem().as_bytes()).unwrap();
        std::fs::write(folder.path().join("bundle"), ca.bundle().to_pem()).unwrap();
        let (when, files) = match limit {
            Limit::BeforeStart(files) => ("before", files),
            Limit::AfterStart(files) => ("after", files),
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "emfile_and_recovery::child",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .env(WHEN, when)
            .env(FILES, files.to_string())
            .env(BACKEND, backend.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = answer(&mut stdout, "addr ").await.parse().unwrap();
        Self {
            child,
            stdin,
            stdout,
            addr,
        }
    }

    /// How often accept has met the limit of files.
    async fn emfile(&mut self) -> u64 {
        self.stdin.write_all(b"metrics\n").await.unwrap();
        let lines = answer(&mut self.stdout, "metrics ").await;
        let lines = lines.split('\t').filter(|line| {
            line.starts_with("tbot_accept_errors_total{") && line.contains("error=\"emfile\"")
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// What it has logged, lines separated by tabs.
    async fn log(&mut self) -> String {
        self.stdin.write_all(b"log\n").await.unwrap();
        answer(&mut self.stdout, "log ").await
    }

    /// How many lines it has logged that hold `part`.
    async fn logged(&mut self, part: &str) -> u64 {
        let log = self.log().await;
        log.split('\t').filter(|line| line.contains(part)).count() as u64
    }

    async fn end(mut self) {
        drop(self.stdin);
        assert!(within(self.child.wait()).await.unwrap().success());
    }
}

async fn answer(stdout: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    loop {
        let line = within(stdout.next_line())
            .await
            .unwrap()
            .expect("the child has ended");
        // The harness prints its own words before ours on the same line.
        if let Some((_, answer)) = line.split_once(prefix) {
            return answer.to_owned();
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Ignore;

impl RecordSink for Ignore {
    fn record(&self, _: &ConnectionRecord) {}
}

/// The child: serves until its standard input ends.
#[test]
#[ignore = "run by the tests above"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let read = |name: &str| std::fs::read(std::path::Path::new(&folder).join(name)).unwrap();
    let svid = X509Svid::from_pem(&read("chain"), &read("key")).unwrap();
    let domain = TrustDomain::parse("example.org").unwrap();
    let bundle = TrustBundle::from_pem(domain, &read("bundle")).unwrap();
    let source = IdentitySource::with(svid, TrustBundleSet::new([bundle]));
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new()
        .install_recorder()
        .unwrap();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let limit_files = || {
        let limit = Rlimit {
            current: Some(std::env::var(FILES).unwrap().parse().unwrap()),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, limit).unwrap();
    };
    let before = std::env::var(WHEN).unwrap() == "before";

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let backend = std::env::var(BACKEND).unwrap().parse().unwrap();
        let config = config(Direction::Inbound, &backend, &[CLIENT]);
        if before {
            limit_files();
        }
        let service = ProxyService::start(config, source, Arc::new(Ignore), &Handle::current());
        let service = service.unwrap();
        if !before {
            limit_files();
        }
        println!("addr {}", service.local_addr());
        // Blocking: the service has the workers, this thread has nothing else to do.
        for asked in std::io::stdin().lines() {
            match asked.unwrap().as_str() {
                "metrics" => println!("metrics {}", metrics.render().replace('\n', "\t")),
                _ => {
                    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
                    println!("log {}", log.replace('\n', "\t"));
                }
            }
        }
        assert_eq!(service.drain(crate::support::PATIENCE).await, 0);
    });
}
