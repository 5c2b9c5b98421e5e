use super::{head, mistakes, parse};
use crate::configuration::{Selection, ServiceKind};

#[test]
fn a_broker_api_names_its_brokers_its_identity_and_the_state_of_the_standard() {
    let broker = |more: &str| {
        format!("  - {{ type: spiffe-broker-api, name: b, selector: {{ name: w }}, {more} }}\n")
    };
    let whole = "specification: spiffe/spiffe@665a28f, listen: \"unix:///b.sock\", identity: { name: a }, brokers: [spiffe://td/x]";
    let service = broker(&format!("{whole}, profiles: [x509]"));
    let read = parse(&format!("{}services:\n{service}", head())).unwrap();
    let ServiceKind::BrokerApi(api) = &read.services[0].kind else {
        panic!("{read:?}");
    };
    assert_eq!(api.identity, Selection::Name("a".to_owned()));
    assert_eq!(api.socket_mode, 0o660);
    assert!(api.options.x509 && !api.options.jwt);
    let limits = |more: &str| {
        let service = broker(&format!("{whole}, limits: {{ {more} }}"));
        let read = parse(&format!("{}services:\n{service}", head())).unwrap();
        let ServiceKind::BrokerApi(api) = &read.services[0].kind else {
            panic!("{read:?}");
        };
        let options = &api.options;
        (
            options.max_connections,
            options.max_connections_per_user,
            options.max_streams,
        )
    };
    assert_eq!(limits("max_streams_per_connection: 5"), (256, 192, 32_768));
    assert_eq!(limits("max_connections: 100"), (100, 75, 32_768));
    assert_eq!(limits("max_streams: 9"), (256, 192, 9));
    assert_eq!(limits("max_connections_per_user: 10"), (256, 10, 32_768));
    for (from, to, expected) in [
        (
            "specification: spiffe/spiffe@665a28f, ",
            "",
            "missing key `specification`",
        ),
        (
            "@665a28f",
            "@main",
            "`specification`: `spiffe/spiffe@main`: the Broker API is served as it is at spiffe/spiffe@665a28f, and may change: write that",
        ),
        (
            "unix:///b.sock",
            "10.0.0.1:9",
            "`listen`: 10.0.0.1:9 is not loopback: brokers name processes and pods of this node, and are on it; use unix:///path",
        ),
        (", identity: { name: a }", "", "missing key `identity`"),
        (
            "identity: { name: a }",
            "identity: { labels: { a: [b] } }",
            "`identity`: a server shows one identity: select it by `name`",
        ),
        (
            ", brokers: [spiffe://td/x]",
            "",
            "missing key `brokers`: the SPIFFE IDs of who may ask, as [spiffe://…]; nobody is trusted by default",
        ),
        (
            "[spiffe://td/x]",
            "[]",
            "`brokers`: it names nobody: who may ask?",
        ),
    ] {
        let told = mistakes(&broker(&whole.replace(from, to)));
        assert!(
            matches!(told.as_slice(), [one] if one.ends_with(expected)),
            "{told:?}"
        );
    }
}
