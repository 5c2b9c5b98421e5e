//! One trace shows an agent's call and the issuer's work for it, at a collector that
//! both send to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use e2e::{Agent, Issuer, eventually_some, x509_output};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Spans as they came, with the service that sent each.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attributes.iter().find(|entry| entry.key == "service.name");
            let service = match service.and_then(|entry| entry.value.clone()?.value) {
                Some(Value::StringValue(name)) => name,
                other => panic!("no service.name: {other:?}"),
            };
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            let told = spans.map(|span| (service.clone(), span));
            self.0.lock().unwrap().extend(told);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on a free port, whose URL it returns.
    fn start(&self, runtime: &Runtime) -> String {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(TraceServiceServer::new(self.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }

    fn spans(&self) -> Vec<(String, Span)> {
        self.0.lock().unwrap().clone()
    }

    /// The agent's span of a call whose method ends so, and all spans of the issuer in
    /// its trace.
    fn trace_of(&self, method: &str) -> Option<(Span, HashMap<String, Span>)> {
        let spans = self.spans();
        let (_, call) = spans.iter().find(|(service, span)| {
            service == "tbot-proxy" && attribute(span, "method").ends_with(method)
        })?;
        let of_issuer = spans
            .iter()
            .filter(|(service, span)| service == "issuer" && span.trace_id == call.trace_id)
            .map(|(_, span)| (span.name.clone(), span.clone()))
            .collect();
        Some((call.clone(), of_issuer))
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let entry = span.attributes.iter().find(|entry| entry.key == key);
    match entry.and_then(|entry| entry.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

#[test]
fn a_trace_spans_agent_and_issuer_and_holds_no_secret() {
    let runtime = Runtime::new().unwrap();
    let collector = Collector::default();
    let url = collector.start(&runtime);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let issuer = Issuer::start_with(&["--otlp-endpoint", &url]);
    let token = issuer.register("app");
    let out = issuer.home().join("out");
    let services = [x509_output("app", &out)];
    let agent = Agent::start_with_environment(&issuer, &token, &services, &environment);

    for (method, expected) in METHODS {
        let what = format!("a trace of {method}");
        let (call, issuers) = eventually_some(&what, || {
            let (call, issuers) = collector.trace_of(method)?;
            let whole = expected.iter().all(|name| issuers.contains_key(*name));
            whole.then_some((call, issuers))
        });
        let request = &issuers["request"];
        assert_eq!(request.parent_span_id, call.span_id, "{method}");
        assert_eq!(
            attribute(request, "request_id"),
            attribute(&call, "request_id"),
            "{method}"
        );
        for name in &expected[1..] {
            let mut span = &issuers[*name];
            while span.span_id != request.span_id {
                let parent = issuers
                    .values()
                    .find(|parent| parent.span_id == span.parent_span_id);
                span = parent.unwrap_or_else(|| panic!("{method}: {name} hangs in the air"));
            }
        }
    }

    let key = std::fs::read_to_string(out.join("svid_key.pem")).unwrap();
    let key = key.lines().nth(1).unwrap();
    let all = format!("{:?}", collector.spans());
    assert!(all.contains("/Join"), "{all}");
    for secret in [token.as_str(), key] {
        assert!(!all.contains(secret), "a secret is in a span");
        assert!(!agent.log().contains(secret) && !issuer.log().contains(secret));
    }
}

/// Methods, and the spans of the issuer in a call of each.
const METHODS: [(&str, &[&str]); 2] = [
    (
        "JoinService/Join",
        &["request", "join", "store_commit", "sign"],
    ),
    (
        "/IssueSvids",
        &["request", "issue", "decide", "sign", "store_commit"],
    ),
];
