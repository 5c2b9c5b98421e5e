//! The endpoint: metadata, codes, transport, reflection.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use workload_api::client::Endpoint;

use super::{
    Suite, first,
    raw::{self, Answer},
};
use crate::conformance::Outcome;

const SERVICE: &str = "SpiffeWorkloadAPI";
/// WA-02.
const METHODS: [&str; 7] = [
    "FetchJWTBundles",
    "FetchJWTSVID",
    "FetchWITBundles",
    "FetchWITSVID",
    "FetchX509Bundles",
    "FetchX509SVID",
    "ValidateJWTSVID",
];
/// Values of the metadata that are not exactly `true`, once (WE-05).
const WRONG: [&[&str]; 7] = [
    &[],
    &["True"],
    &["TRUE"],
    &["1"],
    &[""],
    &["true", "true"],
    &["false"],
];

pub(super) async fn check(suite: &mut Suite) {
    served(suite).await;
    header(suite).await;
    authorities(suite).await;
    unknown_method(suite).await;
    reflection(suite).await;
}

/// WE-02, WE-03, WE-06, WE-11, WE-14, WE-17, WA-05, WA-18.
async fn served(suite: &mut Suite) {
    match &suite.plan.endpoint {
        Endpoint::Unix(_) => suite.note("WE-03", Outcome::Kept),
        Endpoint::Tcp(_) => suite.unseen(&["WE-03"], "over TCP, whoever runs the server knows why"),
    }
    let call = suite.client.clone();
    let first = {
        let mut client = call;
        first!(suite, client.fetch_x509svid(X509svidRequest {}))
    };
    let status = match first {
        Ok(_) => {
            suite.has_identity = true;
            for norm in ["WE-02", "WE-06", "WE-11", "WE-17", "WA-05"] {
                suite.note(norm, Outcome::Kept);
            }
            suite.unseen(
                &["WE-14"],
                "this process has an identity: run as one that has none",
            );
            suite.unseen(&["WA-18"], "nothing was taken away");
            suite.unseen(&["WE-13"], "the server was ready");
            return;
        }
        Err(status) => status,
    };
    let why = format!("FetchX509SVID: {:?} ({})", status.code(), status.message());
    match status.code() {
        Code::PermissionDenied => {
            for norm in ["WE-02", "WE-06", "WE-11", "WE-14", "WE-17", "WA-18"] {
                suite.note(norm, Outcome::Kept);
            }
        }
        Code::Unavailable => {
            for norm in ["WE-02", "WE-06", "WE-13", "WE-17"] {
                suite.note(norm, Outcome::Kept);
            }
        }
        Code::Unimplemented => suite.unseen(&["WE-02", "WE-17", "WA-01"], &why),
        Code::Unauthenticated => suite.note("WE-11", Outcome::Broken(why)),
        Code::DeadlineExceeded => suite.note("WA-05", Outcome::Broken(why)),
        _ => suite.note("WE-02", Outcome::Broken(why)),
    }
}

fn with_values<T>(message: T, values: &[&'static str]) -> Request<T> {
    let mut request = Request::new(message);
    for value in values {
        let value = MetadataValue::from_static(value);
        request.metadata_mut().append("workload.spiffe.io", value);
    }
    request
}

/// WE-05 on every RPC. What is not implemented may say so instead.
async fn header(suite: &mut Suite) {
    let client = SpiffeWorkloadApiClient::new(suite.channel.clone());
    for values in WRONG {
        macro_rules! refused {
            ($method:ident($message:expr)) => {{
                let mut client = client.clone();
                let request = with_values($message, values);
                let answer = first!(suite, client.$method(request)).map(|_| ());
                header_refused(suite, stringify!($method), values, answer);
            }};
        }
        macro_rules! refused_once {
            ($method:ident($message:expr)) => {{
                let mut client = client.clone();
                let request = with_values($message, values);
                let answer = suite.soon(client.$method(request)).await.map(|_| ());
                header_refused(suite, stringify!($method), values, answer);
            }};
        }
        refused!(fetch_x509svid(X509svidRequest {}));
        refused!(fetch_x509_bundles(X509BundlesRequest {}));
        refused_once!(fetch_jwtsvid(JwtsvidRequest {
            audience: vec!["conformance".to_owned()],
            ..Default::default()
        }));
        refused!(fetch_jwt_bundles(JwtBundlesRequest {}));
        refused_once!(validate_jwtsvid(ValidateJwtsvidRequest::default()));
        refused!(fetch_witsvid(WitsvidRequest::default()));
        refused!(fetch_wit_bundles(WitBundlesRequest {}));
    }
}

fn header_refused(suite: &mut Suite, method: &str, values: &[&str], answer: Result<(), Status>) {
    if matches!(&answer, Err(status) if status.code() == Code::Unimplemented) {
        return;
    }
    let what = format!("{method} with the metadata {values:?}");
    suite.refused("WE-05", &what, answer, Code::InvalidArgument);
}

/// What clients over Unix sockets say there.
async fn authorities(suite: &mut Suite) {
    let path = match &suite.plan.endpoint {
        Endpoint::Unix(path) => path.display().to_string(),
        Endpoint::Tcp(_) => "/run/workload.sock".to_owned(),
    };
    let encoded = path.trim_start_matches('/').replace('/', "%2F");
    let path: String = path.chars().take(100).collect();
    let encoded: String = encoded.chars().take(100).collect();
    for (authority, who) in [
        ("localhost", "tonic, grpc-go"),
        ("[::]:50051", "linkerd2-proxy"),
        (&encoded, "gRPC C core (Python, C++, Ruby, PHP)"),
        (&path, "older grpc-go, grpcurl, netty"),
    ] {
        let answer = raw::fetch_x509(&suite.plan.endpoint, authority, suite.plan.timeout).await;
        let is_served = matches!(answer, Ok(Answer::Message | Answer::Status));
        let why = format!("the :authority {authority:?} of {who} is refused: {answer:?}");
        suite.expect("AUTHORITY", is_served, why);
    }
}

/// WE-15.
async fn unknown_method(suite: &mut Suite) {
    let mut grpc = tonic::client::Grpc::new(suite.channel.clone());
    let codec = tonic_prost::ProstCodec::<JwtsvidRequest, JwtsvidRequest>::default();
    let mut request = Request::new(JwtsvidRequest::default());
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("workload.spiffe.io", value);
    let path =
        tonic::codegen::http::uri::PathAndQuery::from_static("/SpiffeWorkloadAPI/NoSuchMethod");
    let answer = suite
        .soon(async {
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(request, path, codec).await
        })
        .await;
    suite.refused(
        "WE-15",
        "a method that is none",
        answer,
        Code::Unimplemented,
    );
}

/// WE-18, WA-02.
async fn reflection(suite: &mut Suite) {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
    };
    let mut client = ServerReflectionClient::new(suite.channel.clone());
    let requests = futures_util::stream::iter([request]);
    let files = match first!(suite, client.server_reflection_info(requests)) {
        Ok((_, answer)) => match answer.message_response {
            Some(MessageResponse::FileDescriptorResponse(files)) => files,
            other => {
                let why = format!("reflection does not tell of {SERVICE}: {other:?}");
                suite.note("WE-18", Outcome::Broken(why));
                return;
            }
        },
        Err(status) => {
            // A SHOULD.
            let why = format!("no reflection: {:?}", status.code());
            suite.note("WE-18", Outcome::Broken(why));
            suite.unseen(&["WA-02", "WE-16"], "no reflection to tell it");
            return;
        }
    };
    suite.note("WE-18", Outcome::Kept);
    let files = files.file_descriptor_proto.iter();
    let files = files.filter_map(|file| FileDescriptorProto::decode(file.as_slice()).ok());
    let methods: Vec<String> = files
        .flat_map(|file| file.service)
        .filter(|service| service.name() == SERVICE)
        .flat_map(|service| service.method)
        .map(|method| method.name().to_owned())
        .collect();
    let more: Vec<_> = methods
        .iter()
        .filter(|it| !METHODS.contains(&it.as_str()))
        .collect();
    suite.expect(
        "WA-02",
        more.is_empty(),
        format!("further methods: {more:?}"),
    );
    suite.expect(
        "WE-16",
        more.is_empty(),
        format!("further methods: {more:?}"),
    );
}
