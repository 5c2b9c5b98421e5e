//! The suite against our own server, and against servers that break norms.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use loadtest::conformance::{self, Outcome, Plan, Report, SHOWN_BY_A_HEALTHY_SERVER};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use workload_api::{Denied, Listener, Options, Server, client::Endpoint, testing::TestBackend};

struct World {
    backend: Arc<TestBackend>,
    endpoint: Endpoint,
    _dir: TempDir,
    server: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    async fn start(options: Options, tcp: bool) -> Self {
        let identities = [("/app", "internal"), ("/other", "")];
        let backend = TestBackend::new("one.example", &identities);
        let partner = identity::testing::TestCa::new("two.example").bundle();
        backend.federate(vec![partner]);
        let dir = tempfile::tempdir().unwrap();
        let listener = match tcp {
            true => Listener::bind_tcp("127.0.0.1:0".parse().unwrap())
                .await
                .unwrap(),
            false => Listener::bind_unix(&dir.path().join("wl.sock"), 0o600).unwrap(),
        };
        let endpoint = listener.uri().unwrap().parse().unwrap();
        let server = Server::new(backend.clone(), options);
        let server = tokio::spawn(async move {
            server.serve(listener, std::future::pending()).await;
        });
        Self {
            backend,
            endpoint,
            _dir: dir,
            server,
        }
    }

    /// A run, while SVIDs are rotated.
    async fn check(&self) -> Report {
        let plan = Plan {
            endpoint: self.endpoint.clone(),
            timeout: Duration::from_secs(30),
            watch: Duration::from_secs(30),
        };
        let rotate = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.backend.rotate();
            }
        };
        tokio::select! {
            report = conformance::run(&plan) => report.unwrap(),
            () = rotate => unreachable!(),
        }
    }
}

fn all() -> Options {
    Options {
        wit: true,
        ..Options::default()
    }
}

fn kept(report: &Report) -> Vec<&str> {
    let rows = report.rows.iter();
    rows.filter(|row| row.outcome == Outcome::Kept)
        .map(|row| row.norm)
        .collect()
}

/// What a server that is healthy shows to a workload with an identity.
#[tokio::test]
async fn our_server_keeps_every_norm_over_a_unix_socket_and_over_tcp() {
    for tcp in [false, true] {
        let world = World::start(all(), tcp).await;
        let report = world.check().await;
        println!("{report}");
        assert_eq!(report.broken().count(), 0, "{report}");
        let kept = kept(&report);
        for norm in SHOWN_BY_A_HEALTHY_SERVER.iter().chain(&["WA-29", "WA-32"]) {
            assert!(kept.contains(norm), "{norm}: {:?}", report.outcome(norm));
        }
    }
}

#[tokio::test]
async fn profiles_that_are_off_and_a_caller_without_identity_break_nothing() {
    let world = World::start(Options::default(), false).await;
    let report = world.check().await;
    assert_eq!(report.broken().count(), 0, "{report}");
    assert_eq!(report.outcome("WA-28"), Some(&Outcome::Kept));

    let options = Options {
        jwt: false,
        ..Options::default()
    };
    let report = World::start(options, false).await.check().await;
    assert_eq!(report.broken().count(), 0, "{report}");
    assert!(matches!(report.outcome("WA-24"), Some(Outcome::NotSeen(_))));

    world.backend.deny(&Denied::NoIdentity("none".to_owned()));
    let plan = Plan {
        endpoint: world.endpoint.clone(),
        timeout: Duration::from_secs(30),
        watch: Duration::ZERO,
    };
    let report = conformance::run(&plan).await.unwrap();
    assert_eq!(report.broken().count(), 0, "{report}");
    for norm in ["WE-14", "WA-18"] {
        assert_eq!(report.outcome(norm), Some(&Outcome::Kept), "{norm}");
    }
}

/// A server that answers, and breaks what it can: the suite must see it.
mod broken {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream::{self, BoxStream, StreamExt as _};
    use proto::workload::{
        JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
        ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
        WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid,
        X509svidRequest, X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
    };
    use tonic::{Request, Response, Status};

    /// Counts calls of FetchX509SVID.
    #[derive(Default)]
    pub(super) struct Broken(AtomicUsize);

    type Answer<T> = Result<Response<T>, Status>;
    type Stream<T> = BoxStream<'static, Result<T, Status>>;

    fn one<T: Send + 'static>(message: T) -> Answer<Stream<T>> {
        Ok(Response::new(stream::iter([Ok(message)]).boxed()))
    }

    fn svid(path: usize, hint: &str) -> X509svid {
        X509svid {
            spiffe_id: format!("spiffe://one.example/{path}"),
            x509_svid: b"-----BEGIN CERTIFICATE-----".to_vec(),
            hint: hint.to_owned(),
            ..Default::default()
        }
    }

    #[tonic::async_trait]
    impl SpiffeWorkloadApi for Broken {
        type FetchX509SVIDStream = Stream<X509svidResponse>;
        type FetchX509BundlesStream = Stream<X509BundlesResponse>;
        type FetchJWTBundlesStream = Stream<JwtBundlesResponse>;
        type FetchWITSVIDStream = Stream<WitsvidResponse>;
        type FetchWITBundlesStream = Stream<WitBundlesResponse>;

        async fn fetch_x509svid(
            &self,
            _: Request<X509svidRequest>,
        ) -> Answer<Self::FetchX509SVIDStream> {
            // Another order each time.
            let call = self.0.fetch_add(1, Ordering::Relaxed);
            let long = "x".repeat(2000);
            one(X509svidResponse {
                svids: vec![svid(call, "a"), svid(call + 1, "a"), svid(call + 2, &long)],
                ..Default::default()
            })
        }

        async fn fetch_x509_bundles(
            &self,
            _: Request<X509BundlesRequest>,
        ) -> Answer<Self::FetchX509BundlesStream> {
            one(X509BundlesResponse {
                bundles: [("two.example".to_owned(), b"no DER".to_vec())].into(),
                ..Default::default()
            })
        }

        async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Answer<JwtsvidResponse> {
            let svid = Jwtsvid {
                spiffe_id: "spiffe://one.example/app".to_owned(),
                svid: "e30.eyJhdWQiOiJ4In0.e30".to_owned(),
                hint: String::new(),
            };
            Ok(Response::new(JwtsvidResponse { svids: vec![svid] }))
        }

        async fn fetch_jwt_bundles(
            &self,
            _: Request<JwtBundlesRequest>,
        ) -> Answer<Self::FetchJWTBundlesStream> {
            let keys = br#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AA"]}]}"#;
            one(JwtBundlesResponse {
                bundles: [("spiffe://one.example".to_owned(), keys.to_vec())].into(),
            })
        }

        async fn validate_jwtsvid(
            &self,
            _: Request<ValidateJwtsvidRequest>,
        ) -> Answer<ValidateJwtsvidResponse> {
            Ok(Response::new(ValidateJwtsvidResponse::default()))
        }

        async fn fetch_witsvid(
            &self,
            _: Request<WitsvidRequest>,
        ) -> Answer<Self::FetchWITSVIDStream> {
            Err(Status::unimplemented("no"))
        }

        async fn fetch_wit_bundles(
            &self,
            _: Request<WitBundlesRequest>,
        ) -> Answer<Self::FetchWITBundlesStream> {
            one(WitBundlesResponse::default())
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_norms_is_seen_to() {
    use proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures_util::stream::unfold(listener, |listener| async {
        let (stream, _) = listener.accept().await.ok()?;
        Some((Ok::<_, std::io::Error>(stream), listener))
    });
    let server = tonic::transport::Server::builder()
        .add_service(SpiffeWorkloadApiServer::new(broken::Broken::default()))
        .serve_with_incoming(incoming);
    let server = tokio::spawn(server);
    let plan = Plan {
        endpoint: format!("tcp://{address}").parse().unwrap(),
        timeout: Duration::from_secs(10),
        watch: Duration::from_secs(10),
    };
    let report = conformance::run(&plan).await.unwrap();
    server.abort();
    for norm in [
        "AUTHORITY",
        "WE-05",
        "WE-18",
        "WA-04",
        "WA-08",
        "WA-12",
        "WA-13",
        "WA-14",
        "WA-15",
        "WA-17",
        "WA-19",
        "WA-20",
        "WA-23",
        "WA-24",
        "WA-25",
        "WA-26",
        "WA-28",
        "WA-31",
        "WA-32",
    ] {
        let outcome = report.outcome(norm);
        assert!(
            matches!(outcome, Some(Outcome::Broken(_))),
            "{norm}: {outcome:?}"
        );
    }
}
