//! WE-18, and health.

use std::collections::BTreeSet;

use futures_util::stream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{World, soon};

#[tokio::test]
async fn we_18_reflection_names_what_is_served_in_both_versions_without_metadata() {
    let world = World::start();
    let expected = BTreeSet::from([
        "SpiffeWorkloadAPI".to_owned(),
        "envoy.service.secret.v3.SecretDiscoveryService".to_owned(),
        "grpc.health.v1.Health".to_owned(),
    ]);
    macro_rules! services {
        ($version:ident) => {{
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(world.channel().await);
            let answer = client.server_reflection_info(stream::iter([request]));
            let mut answers = soon(answer).await.unwrap().into_inner();
            let answer = soon(answers.message()).await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}");
            };
            let names = list.service.into_iter().map(|service| service.name);
            names
                .filter(|name| !name.contains("reflection"))
                .collect::<BTreeSet<_>>()
        }};
    }
    assert_eq!(services!(v1), expected);
    assert_eq!(services!(v1alpha), expected);
}

#[tokio::test]
async fn health_is_told_of_each_service_and_its_watchers_of_the_drain() {
    let mut world = World::start();
    let mut client = HealthClient::new(world.channel().await);
    let asked = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "SpiffeWorkloadAPI"] {
        let answer = soon(client.check(asked(service)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let status = soon(client.check(asked("other"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let mut watch = soon(client.watch(asked(""))).await.unwrap().into_inner();
    let state = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::Serving);
    world.stop();
    let status = soon(watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn wa_02_we_16_the_service_has_the_methods_of_the_standard_and_no_others() {
    use prost::Message as _;
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let world = World::start();
    let symbol = "SpiffeWorkloadAPI".to_owned();
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol)),
    };
    let mut client = ServerReflectionClient::new(world.channel().await);
    let answer = client.server_reflection_info(stream::iter([request]));
    let mut answers = soon(answer).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    let methods: BTreeSet<_> = file.service[0]
        .method
        .iter()
        .map(|method| method.name().to_owned())
        .collect();
    let expected = [
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "FetchJWTBundles",
        "ValidateJWTSVID",
        "FetchWITSVID",
        "FetchWITBundles",
    ];
    assert_eq!(methods, expected.map(str::to_owned).into());
}
