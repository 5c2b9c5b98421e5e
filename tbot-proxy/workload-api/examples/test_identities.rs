//! A server of test identities, to load and to look at: `test_identities SOCKET [COUNT]`.
//!
//! Each connection is one of COUNT workloads (100) in turn. A line on standard input
//! rotates the SVIDs of all; its end stops the server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    future::poll_fn,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{future::BoxFuture, stream::BoxStream};
use identity::{SpiffeId, TrustBundleSet};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
};
use workload_api::{
    Backend, BundleContext, Denied, IssuedJwt, Listener, Options, Server, WitContext, X509Context,
    testing::TestBackend,
};

struct Many {
    workloads: Vec<Arc<TestBackend>>,
    next: AtomicUsize,
}

impl Many {
    fn caller(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.workloads.len()
    }
}

impl Backend for Many {
    type Caller = usize;

    fn accepted_unix(&self, _: &UnixStream) -> io::Result<usize> {
        Ok(self.caller())
    }

    fn accepted_tcp(&self, _: &TcpStream) -> io::Result<usize> {
        Ok(self.caller())
    }

    fn ended(&self, _: &Arc<usize>) -> BoxFuture<'static, ()> {
        Box::pin(poll_fn(|_| std::task::Poll::Pending))
    }

    fn x509(&self, caller: &Arc<usize>) -> BoxStream<'static, Result<Arc<X509Context>, Denied>> {
        self.workloads[**caller].x509(&Arc::default())
    }

    fn bundles(
        &self,
        caller: &Arc<usize>,
    ) -> BoxStream<'static, Result<Arc<BundleContext>, Denied>> {
        self.workloads[**caller].bundles(&Arc::default())
    }

    async fn jwt(
        &self,
        caller: &Arc<usize>,
        audiences: &[String],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<IssuedJwt>, Denied> {
        let workload = &self.workloads[**caller];
        workload.jwt(&Arc::default(), audiences, id).await
    }

    fn wit(
        &self,
        caller: &Arc<usize>,
        id: Option<&SpiffeId>,
    ) -> BoxStream<'static, Result<Arc<WitContext>, Denied>> {
        self.workloads[**caller].wit(&Arc::default(), id)
    }

    fn trust(&self) -> Arc<TrustBundleSet> {
        self.workloads[0].trust()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().expect("the path of a socket");
    let count: usize = arguments.next().map_or(100, |count| count.parse().unwrap());
    let workload = |index| TestBackend::new("one.example", &[(&format!("/workload/{index}"), "")]);
    let backend = Arc::new(Many {
        workloads: (0..count).map(workload).collect(),
        next: AtomicUsize::new(0),
    });
    let listener = Listener::bind_unix(Path::new(&socket), 0o600).unwrap();
    println!("{}", listener.uri().unwrap());
    let server = Server::new(backend.clone(), Options::default());
    let stop = async {
        let (send, mut lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for _ in io::stdin().lines().map_while(Result::ok) {
                let _ = send.send(());
            }
        });
        while lines.recv().await.is_some() {
            for workload in &backend.workloads {
                workload.rotate();
            }
        }
    };
    server.serve(listener, stop).await;
}
