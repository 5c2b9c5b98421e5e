//! WE-05.

use proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tonic::{Code, Request, metadata::MetadataValue};
use workload_api::Options;

use crate::support::{World, soon};

fn request<T>(message: T, values: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for value in values {
        let value: MetadataValue<_> = value.parse().unwrap();
        request.metadata_mut().append("workload.spiffe.io", value);
    }
    request
}

#[tokio::test]
async fn we_05_a_request_without_exactly_the_header_is_refused_on_every_rpc() {
    let world = World::with(Options {
        wit: true,
        ..Options::default()
    });
    let mut client = SpiffeWorkloadApiClient::new(world.channel().await);
    let wrong: [&[&str]; 8] = [
        &[],
        &["True"],
        &["TRUE"],
        &["1"],
        &[""],
        &["true", "true"],
        &["true,true"],
        &["false"],
    ];
    for values in wrong {
        macro_rules! refused {
            ($method:ident($message:expr)) => {
                let status = match soon(client.$method(request($message, values))).await {
                    Err(status) => status,
                    Ok(_) => panic!("{} answered {values:?}", stringify!($method)),
                };
                assert_eq!(
                    status.code(),
                    Code::InvalidArgument,
                    "{status:?} {values:?}"
                );
                assert!(
                    status.message().contains("workload.spiffe.io"),
                    "{status:?}"
                );
            };
        }
        refused!(fetch_x509svid(X509svidRequest {}));
        refused!(fetch_x509_bundles(X509BundlesRequest {}));
        refused!(fetch_jwtsvid(JwtsvidRequest::default()));
        refused!(fetch_jwt_bundles(JwtBundlesRequest {}));
        refused!(validate_jwtsvid(ValidateJwtsvidRequest::default()));
        refused!(fetch_witsvid(WitsvidRequest::default()));
        refused!(fetch_wit_bundles(WitBundlesRequest {}));
    }
    let good = request(X509svidRequest {}, &["true"]);
    assert!(soon(client.fetch_x509svid(good)).await.is_ok());
}
