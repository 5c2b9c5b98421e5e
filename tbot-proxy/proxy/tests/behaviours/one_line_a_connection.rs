//! A connection leaves one line in the log, with target `connection`: what its record says.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use identity::testing::TestCa;
use serde_json::Value;
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use crate::support::{CLIENT, Echo, Peer, Proxy, WEB, finish};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One thread, so that the thread's subscriber sees all.
#[tokio::test(flavor = "current_thread")]
async fn served_and_refused_ones() {
    let log = Log::default();
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let subscriber = tracing_subscriber::registry().with(lines.with_writer(log.clone()));
    let _guard = tracing::subscriber::set_default(subscriber);

    let ca = TestCa::new("example.org");
    let app = Echo::start().await;
    let proxy = Proxy::inbound(&ca, &app.addr, &[CLIENT]);
    finish(Peer::new(&ca, "/client").admitted(&proxy.addr()).await).await;
    let served = proxy.records.next().await;
    Peer::new(&ca, "/stranger").refused(&proxy.addr()).await;
    let refused = proxy.records.next().await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["target"] == "connection")
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    let [first, second] = [&lines[0], &lines[1]];
    assert_eq!(first["level"], "INFO");
    assert_eq!(first["connection_id"], served.connection_id);
    assert_eq!(first["reason"], "complete");
    assert_eq!(
        (&first["local_id"], &first["peer_id"]),
        (&WEB.into(), &CLIENT.into())
    );
    assert_eq!(
        (&first["bytes_in"], &first["bytes_out"]),
        (&5.into(), &5.into())
    );
    assert_eq!(first["rule"], format!("id={CLIENT}"));
    assert!(first["duration_ms"].is_u64() && first.get("detail").is_none());
    assert_eq!(second["level"], "WARN");
    assert_eq!(second["connection_id"], refused.connection_id);
    assert_eq!(second["reason"], "peer_not_allowed");
    assert_eq!(second["detail"], "no allow rule matches");
}
