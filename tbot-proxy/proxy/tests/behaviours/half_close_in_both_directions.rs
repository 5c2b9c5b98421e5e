//! Each direction ends by itself, through both proxies: one side's end does not take the other's word away.

use identity::testing::TestCa;
use proxy::CloseReason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{CLIENT, Proxy, plain, within};

/// More than every buffer on the way holds.
const MUCH: usize = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_ends_first_and_is_answered_still() {
    let ca = TestCa::new("example.org");
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inbound = Proxy::inbound(&ca, &app.local_addr().unwrap().into(), &[CLIENT]);
    let outbound = Proxy::outbound(&ca, &inbound.addr());

    let application = tokio::spawn(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        let mut question = Vec::new();
        stream.read_to_end(&mut question).await.unwrap();
        stream.write_all(&question).await.unwrap();
        question.len()
    });
    let question: Vec<u8> = (0..MUCH).map(|at| ((at * 31) >> 8) as u8).collect();
    let mut client = plain(&outbound.addr()).await;
    client.write_all(&question).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within(client.read_to_end(&mut answer)).await.unwrap();
    assert!(answer == question, "the answer differs");
    assert_eq!(application.await.unwrap(), MUCH);
    complete(&inbound, &outbound, MUCH, MUCH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_ends_first_and_hears_still() {
    let ca = TestCa::new("example.org");
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inbound = Proxy::inbound(&ca, &app.local_addr().unwrap().into(), &[CLIENT]);
    let outbound = Proxy::outbound(&ca, &inbound.addr());

    let application = tokio::spawn(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        stream.write_all(b"220 ready").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.len()
    });
    let mut client = plain(&outbound.addr()).await;
    let mut greeting = Vec::new();
    within(client.read_to_end(&mut greeting)).await.unwrap();
    assert_eq!(greeting, b"220 ready");
    client.write_all(&vec![7; MUCH]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(within(application).await.unwrap(), MUCH);
    complete(&inbound, &outbound, MUCH, greeting.len()).await;
}

async fn complete(inbound: &Proxy, outbound: &Proxy, there: usize, back: usize) {
    for proxy in [inbound, outbound] {
        let record = proxy.records.next().await;
        assert_eq!(record.reason, CloseReason::Complete, "{record:?}");
        let bytes = (record.bytes_in as usize, record.bytes_out as usize);
        assert_eq!(bytes, (there, back));
    }
}
