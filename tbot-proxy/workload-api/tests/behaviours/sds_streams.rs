//! Envoy's secret discovery, on the wire.

use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use proto::envoy::{
    config::core::v3::{Node, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        Secret, SpiffeCertValidatorConfig, TlsCertificate, secret::Type,
    },
    service::{
        discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse},
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};
use workload_api::{Denied, Options, sds};

use crate::support::{World, soon};

fn asks(names: &[&str], node: Option<Node>) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: sds::SECRET.to_owned(),
        node,
        ..Default::default()
    }
}

type Requests = mpsc::UnboundedSender<DiscoveryRequest>;

async fn open(world: &World) -> (Requests, Streaming<DiscoveryResponse>) {
    let (send, mut receive) = mpsc::unbounded_channel();
    let requests = stream::poll_fn(move |context| receive.poll_recv(context));
    let mut client = SecretDiscoveryServiceClient::new(world.channel().await);
    let answers = soon(client.stream_secrets(requests))
        .await
        .unwrap()
        .into_inner();
    (send, answers)
}

async fn next(answers: &mut Streaming<DiscoveryResponse>) -> DiscoveryResponse {
    soon(answers.message())
        .await
        .unwrap()
        .expect("an answer, not the end")
}

fn secrets(answer: &DiscoveryResponse) -> Vec<Secret> {
    let secret = |any: &prost_types::Any| Secret::decode(any.value.as_slice()).unwrap();
    answer.resources.iter().map(secret).collect()
}

fn certificate(secret: &Secret) -> &TlsCertificate {
    match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => certificate,
        other => panic!("{other:?}"),
    }
}

fn text(source: Option<&proto::envoy::config::core::v3::DataSource>) -> String {
    match source.unwrap().specifier.as_ref().unwrap() {
        Specifier::InlineBytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        _ => panic!("not in place"),
    }
}

/// Trust domains of a SPIFFE validator's configuration.
fn domains(secret: &Secret) -> Vec<String> {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("{secret:?}");
    };
    assert!(context.trusted_ca.is_none());
    let validator = context.custom_validator_config.as_ref().unwrap();
    assert_eq!(validator.name, "envoy.tls.cert_validator.spiffe");
    let config = validator.typed_config.as_ref().unwrap();
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    config
        .trust_domains
        .into_iter()
        .map(|domain| domain.name)
        .collect()
}

#[tokio::test]
async fn each_name_is_one_secret_and_a_rotation_is_pushed() {
    let world = World::start();
    world
        .backend
        .federate(vec![identity::testing::TestCa::new("two.example").bundle()]);
    let cases = [
        ("default", None),
        ("spiffe://one.example/app", None),
        ("spiffe://one.example/other", None),
        ("ROOTCA", Some(vec!["one.example"])),
        ("spiffe://one.example", Some(vec!["one.example"])),
        ("spiffe://two.example", Some(vec!["two.example"])),
        ("ALL", Some(vec!["one.example", "two.example"])),
    ];
    for (name, expected) in cases {
        let (requests, mut answers) = open(&world).await;
        requests.send(asks(&[name], None)).unwrap();
        let answer = next(&mut answers).await;
        assert_eq!(answer.type_url, sds::SECRET);
        let [secret] = secrets(&answer).try_into().unwrap();
        assert_eq!(secret.name, name);
        match expected {
            Some(expected) => assert_eq!(domains(&secret), expected),
            None => {
                let chain = text(certificate(&secret).certificate_chain.as_ref());
                let key = text(certificate(&secret).private_key.as_ref());
                identity::X509Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
                world.backend.rotate();
                let [after] = secrets(&next(&mut answers).await).try_into().unwrap();
                assert_ne!(certificate(&after), certificate(&secret));
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_name_harms_nobody_else_on_the_stream() {
    let world = World::start();
    let (requests, mut answers) = open(&world).await;
    requests
        .send(asks(
            &["nonsense", "spiffe://one.example/later", "default"],
            None,
        ))
        .unwrap();
    let first = next(&mut answers).await;
    assert_eq!(secrets(&first).len(), 1);
    world
        .backend
        .set_identities(&[("/app", ""), ("/later", "")]);
    let second = next(&mut answers).await;
    let names: Vec<_> = secrets(&second)
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert_eq!(names, ["default", "spiffe://one.example/later"]);
}

#[tokio::test]
async fn plain_ca_certificates_come_by_option_and_by_the_envoys_metadata() {
    let yes = |kind| Struct {
        fields: [(
            "disable_spiffe_cert_validation".to_owned(),
            Value { kind: Some(kind) },
        )]
        .into(),
    };
    let node = |kind| Node {
        metadata: Some(yes(kind)),
        ..Default::default()
    };
    let plain = sds::Options {
        spiffe_validator: false,
        ..sds::Options::default()
    };
    let by_option = Options {
        sds: Some(plain),
        ..Options::default()
    };
    let cases = [
        (Options::default(), Some(node(Kind::BoolValue(true)))),
        (
            Options::default(),
            Some(node(Kind::StringValue("true".to_owned()))),
        ),
        (by_option, None),
    ];
    for (options, node) in cases {
        let world = World::with(options);
        let (requests, mut answers) = open(&world).await;
        requests.send(asks(&["ROOTCA", "ALL"], node)).unwrap();
        let [secret] = secrets(&next(&mut answers).await).try_into().unwrap();
        let Some(Type::ValidationContext(context)) = &secret.r#type else {
            panic!("{secret:?}");
        };
        assert_eq!(
            text(context.trusted_ca.as_ref()),
            world.backend.ca().bundle().to_pem()
        );
        assert!(context.custom_validator_config.is_none());
        // The node is named once: later requests are of the same Envoy.
        let mut later = asks(&["ROOTCA", "spiffe://one.example"], None);
        later.response_nonce = String::new();
        requests.send(later).unwrap();
        for secret in secrets(&next(&mut answers).await) {
            assert!(matches!(
                secret.r#type,
                Some(Type::ValidationContext(context)) if context.trusted_ca.is_some()
            ));
        }
    }
}

#[tokio::test]
async fn the_three_names_can_be_chosen() {
    let world = World::with(Options {
        sds: Some(sds::Options {
            default_svid: "mine".to_owned(),
            default_bundle: "ours".to_owned(),
            all_bundles: "theirs".to_owned(),
            spiffe_validator: true,
        }),
        ..Options::default()
    });
    let (requests, mut answers) = open(&world).await;
    let names = ["mine", "ours", "theirs", "default", "ROOTCA", "ALL"];
    requests.send(asks(&names, None)).unwrap();
    let told: Vec<_> = secrets(&next(&mut answers).await)
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert_eq!(told, ["mine", "ours", "theirs"]);
}

#[tokio::test]
async fn fetch_answers_once_and_delta_has_a_version_a_resource() {
    let world = World::start();
    let mut client = SecretDiscoveryServiceClient::new(world.channel().await);
    let asked = asks(&["default", "nonsense"], None);
    let answer = soon(client.fetch_secrets(asked))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(secrets(&answer).len(), 1);

    let asked = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["default".to_owned(), "ALL".to_owned()],
        ..Default::default()
    };
    let requests = stream::iter([asked]).chain(stream::pending());
    let mut answers = soon(client.delta_secrets(requests))
        .await
        .unwrap()
        .into_inner();
    let first = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(first.resources.len(), 2);
    world.backend.rotate();
    let second = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(second.resources.len(), 1);
    assert_eq!(second.resources[0].name, "default");
    assert_ne!(second.resources[0].version, first.resources[1].version);
    world.backend.set_identities(&[]);
    let third = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(third.removed_resources, ["default"]);
}

#[tokio::test]
async fn a_caller_without_identity_and_a_drain_end_the_stream() {
    let mut world = World::start();
    let (requests, mut answers) = open(&world).await;
    requests.send(asks(&["default"], None)).unwrap();
    next(&mut answers).await;
    let (others, mut more) = open(&world).await;
    others.send(asks(&["default"], None)).unwrap();
    next(&mut more).await;
    world.backend.deny(&Denied::NoIdentity("gone".to_owned()));
    let status = soon(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    drop((requests, more));
    world.backend.rotate();
    let (_requests, mut answers) = open(&world).await;
    world.stop();
    let status = soon(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn without_the_option_it_is_not_served() {
    let world = World::with(Options {
        sds: None,
        ..Options::default()
    });
    let mut client = SecretDiscoveryServiceClient::new(world.channel().await);
    let status = soon(client.fetch_secrets(asks(&["default"], None)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_client_that_has_said_all_goes_on_listening() {
    let world = World::start();
    let mut client = SecretDiscoveryServiceClient::new(world.channel().await);
    let requests = stream::iter([asks(&["default"], None)]);
    let mut answers = soon(client.stream_secrets(requests))
        .await
        .unwrap()
        .into_inner();
    let first = next(&mut answers).await;
    world.backend.rotate();
    assert_ne!(next(&mut answers).await.resources, first.resources);
}
