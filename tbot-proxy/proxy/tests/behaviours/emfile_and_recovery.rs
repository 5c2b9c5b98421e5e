//! A process that runs out of files pauses and recovers by itself; who is connected notices nothing.
//!
//! The service runs in a child process (this test binary again) with a low limit; the clients are here, where
//! files abound.

use std::{process::Stdio, sync::Arc};

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
const FILES: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_pauses_recovers_and_counts() {
    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let dir = tempfile::tempdir().unwrap();
    let svid = ca.svid("/web", HOUR);
    std::fs::write(dir.path().join("chain"), svid.chain_pem()).unwrap();
    std::fs::write(dir.path().join("key"), svid.key_pem().as_bytes()).unwrap();
    std::fs::write(dir.path().join("bundle"), ca.bundle().to_pem()).unwrap();

    let mut proxy = InChild::start(dir.path(), &app.addr).await;
    let peer = Peer::new(&ca, "/client");
    let mut before = peer.admitted(&proxy.addr).await;

    let mut storm: Vec<TcpStream> = Vec::new();
    for _ in 0..2 * FILES {
        storm.push(plain(&proxy.addr).await);
    }
    // The child says so when it has met EMFILE.
    while proxy
        .metric("tbot_accept_errors_total{", "error=\"emfile\"")
        .await
        == 0
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    echoed(&mut before, b"who is connected notices nothing").await;

    drop(storm);
    finish(peer.admitted(&proxy.addr).await).await;
    echoed(&mut before, b"and still").await;
    finish(before).await;

    // It paused between its attempts: a hot loop makes thousands.
    let failures = proxy.metric("tbot_accept_errors_total{", "emfile").await;
    assert!(failures < 200, "{failures} attempts");
    drop(proxy.stdin);
    assert!(within(proxy.child.wait()).await.unwrap().success());
}

struct InChild {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    addr: Address,
}

impl InChild {
    async fn start(folder: &std::path::Path, backend: &Address) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "emfile_and_recovery::child",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, folder)
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

    /// The sum of a metric's values whose line has `prefix` and `part`.
    async fn metric(&mut self, prefix: &str, part: &str) -> u64 {
        self.stdin.write_all(b"metrics\n").await.unwrap();
        let lines = answer(&mut self.stdout, "metrics ").await;
        let lines = lines
            .split('\t')
            .filter(|line| line.starts_with(prefix) && line.contains(part));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
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

struct Ignore;

impl RecordSink for Ignore {
    fn record(&self, _: &ConnectionRecord) {}
}

/// The child: serves until its standard input ends.
#[test]
#[ignore = "run by it_pauses_recovers_and_counts"]
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

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let backend = std::env::var(BACKEND).unwrap().parse().unwrap();
        let config = config(Direction::Inbound, &backend, &[CLIENT]);
        let service = ProxyService::start(config, source, Arc::new(Ignore), &Handle::current());
        let service = service.unwrap();
        let limit = Rlimit {
            current: Some(FILES),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        println!("addr {}", service.local_addr());
        // Blocking: the service has the workers, this thread has nothing else to do.
        for asked in std::io::stdin().lines() {
            asked.unwrap();
            println!("metrics {}", metrics.render().replace('\n', "\t"));
        }
        assert_eq!(service.drain(crate::support::PATIENCE).await, 0);
    });
}
