//! A server that stops.

use proto::workload::{JwtBundlesRequest, X509BundlesRequest, X509svidRequest};
use tonic::Code;

use crate::support::{World, soon};

#[tokio::test]
async fn we_13_every_stream_ends_with_unavailable_and_the_socket_goes() {
    let mut world = World::start();
    let mut client = world.client().await;
    let mut svids = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let mut bundles = soon(client.fetch_x509_bundles(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let mut jwt = soon(client.fetch_jwt_bundles(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(svids.message()).await.unwrap().unwrap();
    soon(bundles.message()).await.unwrap().unwrap();
    soon(jwt.message()).await.unwrap().unwrap();
    world.stop();
    let ends = [
        soon(svids.message()).await.err(),
        soon(bundles.message()).await.err(),
        soon(jwt.message()).await.err(),
    ];
    for end in ends {
        assert_eq!(
            end.expect("an error, not the end").code(),
            Code::Unavailable
        );
    }
    let socket = world.socket();
    // The client keeps its connection: the server does not wait for that.
    world.stopped().await;
    assert!(!socket.exists());
    let status = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
