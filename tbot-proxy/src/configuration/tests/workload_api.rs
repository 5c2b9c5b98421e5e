//! `workload-identity-api`.

use workload_api::sds;

use super::{head, mistakes, parse};
use crate::configuration::{ServiceKind, WorkloadApi};

fn api(more: &str) -> WorkloadApi {
    let service = "{ type: workload-identity-api, name: api, selector: { name: a }, listen: unix:///run/a.sock";
    let text = format!("{}services:\n  - {service}{more} }}\n", head());
    let configuration = parse(&text).unwrap();
    match configuration.services.into_iter().next().unwrap().kind {
        ServiceKind::WorkloadApi(api) => *api,
        other => panic!("{other:?}"),
    }
}

#[test]
fn secret_discovery_is_on_and_speaks_spires_words() {
    assert_eq!(api("").options.sds, Some(sds::Options::default()));
    assert_eq!(api(", sds: { enabled: false }").options.sds, None);
    let sds = api(
        ", sds: { default_svid_name: mine, default_bundle_name: ours, default_all_bundles_name: all, disable_spiffe_cert_validation: true }",
    );
    let expected = sds::Options {
        default_svid: "mine".to_owned(),
        default_bundle: "ours".to_owned(),
        all_bundles: "all".to_owned(),
        spiffe_validator: false,
    };
    assert_eq!(sds.options.sds, Some(expected));
}

#[test]
fn two_secrets_do_not_share_a_name() {
    let services = "  - { type: workload-identity-api, name: api, selector: { name: a }, listen: unix:///run/a.sock, sds: { default_svid_name: ALL } }\n";
    let mistakes = mistakes(services);
    assert!(
        mistakes
            .iter()
            .any(|it| it.contains("one name cannot be two secrets")),
        "{mistakes:?}"
    );
}

#[test]
fn one_user_leaves_connections_to_others() {
    let of = |limits: &str| {
        let options = api(&format!(", limits: {{ {limits} }}")).options;
        (options.max_connections, options.max_connections_per_user)
    };
    assert_eq!(of("max_streams_per_connection: 5"), (16_384, 12_288));
    assert_eq!(of("max_connections: 100"), (100, 75));
    assert_eq!(of("max_connections: 1"), (1, 1));
    assert_eq!(of("max_connections: 100000"), (100_000, 12_288));
    assert_eq!(
        of("max_connections: 100, max_connections_per_user: 90"),
        (100, 90)
    );
}

#[test]
fn one_user_leaves_streams_to_others() {
    let of = |limits: &str| {
        let options = api(&format!(", limits: {{ {limits} }}")).options;
        let of_connection = options.max_streams_per_connection;
        let (all, of_user) = (options.max_streams, options.max_streams_per_user);
        (all, of_user, of_connection)
    };
    assert_eq!(of(""), (32_768, 24_576, 100));
    assert_eq!(of("max_streams_per_connection: 5"), (32_768, 24_576, 5));
    assert_eq!(of("max_streams: 1000"), (1000, 750, 100));
    assert_eq!(of("max_streams: 1"), (1, 1, 100));
    assert_eq!(
        of("max_streams: 1000, max_streams_per_user: 900"),
        (1000, 900, 100)
    );
    // Room for connections is room for what they are there for.
    assert_eq!(of("max_connections: 100"), (32_768, 24_576, 100));
    assert_eq!(
        of("max_connections: 100000, max_connections_per_user: 90000"),
        (200_000, 180_000, 100)
    );
}
