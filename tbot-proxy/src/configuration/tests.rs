mod broker;
mod outputs;
mod sealed_store;
mod workload_api;

use std::path::Path;

use policy::PeerRule;
use proxy::{Address, Direction, Limits, OnExpiry};
use secrecy::ExposeSecret;

use super::*;

const PIN: &str = "sha256:abababababababababababababababababababababababababababababababab";

/// A complete head; `services:` follows.
fn head() -> String {
    format!(
        "version: v1\n\
         issuer: {{ address: \"127.0.0.1:3025\", ca_pins: [\"{PIN}\"] }}\n\
         onboarding: {{ join_method: token }}\n\
         storage: {{ type: memory }}\n"
    )
}

fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::parse("a.yaml", text, &ResolvedOverrides::default())
        .map_err(|mistakes| mistakes.to_string())
}

/// The mistakes of a file with these services, without the part of the line that is before the column.
fn mistakes(services: &str) -> Vec<String> {
    let text = format!("{}services:\n{services}", head());
    match parse(&text) {
        Ok(configuration) => panic!("accepted: {configuration:?}"),
        Err(mistakes) => mistakes
            .lines()
            .map(|line| line.strip_prefix("a.yaml:").unwrap().to_owned())
            .collect(),
    }
}

#[test]
fn everything_is_read() {
    let text = "\
version: v1
issuer: { address: issuer.example:3025, ca_path: ca.pem }
onboarding: { join_method: token, token: /run/token }
storage: { type: directory, path: /var/lib/tbot-proxy }
diagnostics: { listen: \"127.0.0.1:3082\" }
connection_log: { path: connections.jsonl }
credential_ttl: 2h
shutdown: { grace: 5s }
services:
  - { type: workload-identity-x509, name: files, selector: { name: web }, destination: { type: directory, path: /run/web } }
  - type: proxy-inbound
    name: web-in
    selector: { name: web }
    credential_ttl: 10m
    listen: 0.0.0.0:8443
    connect: \"[::1]:8000\"
    allow:
      - id: spiffe://td/a
      - trust_domain: td2
      - path_prefix: spiffe://td/x
    deny:
      - id: spiffe://td/x/bad
    limits: { max_connections: 7, handshake: 1s, dial: 2s, idle: 3s, half_close: 0s, lease_grace: 4s }
    resumption: false
    tls12: true
    on_expiry: log
  - type: proxy-outbound
    name: db-out
    selector: { name: web }
    listen: unix:///run/db.sock
    connect: db.host:8443
    expect: [{ id: spiffe://td/db }]
";
    let configuration = parse(text).unwrap();
    assert_eq!(
        configuration.issuer.addresses[0].to_string(),
        "issuer.example:3025"
    );
    assert_eq!(
        configuration.issuer.trust,
        IssuerTrust::CaFile("ca.pem".into())
    );
    assert!(
        matches!(&configuration.onboarding.token, Some(TokenSource::File(path)) if path == Path::new("/run/token"))
    );
    assert_eq!(
        configuration.storage,
        Storage::Directory("/var/lib/tbot-proxy".into())
    );
    assert_eq!(configuration.diagnostics.unwrap().port(), 3082);
    assert_eq!(configuration.shutdown_grace, Duration::from_secs(5));
    let [files, inbound, outbound] = configuration.services.as_slice() else {
        panic!("{configuration:?}")
    };
    assert_eq!(files.selector.ttl, Duration::from_secs(7200));
    assert_eq!(files.selector, outbound.selector);
    assert_eq!(inbound.selector.ttl, Duration::from_secs(600));
    let ServiceKind::Proxy(inbound) = &inbound.kind else {
        panic!("{inbound:?}")
    };
    assert_eq!(inbound.direction, Direction::Inbound);
    assert_eq!(inbound.connect.to_string(), "[::1]:8000");
    assert_eq!(inbound.peers.allow().len(), 3);
    assert_eq!(
        inbound.peers.deny(),
        [PeerRule::Id("spiffe://td/x/bad".parse().unwrap())]
    );
    assert_eq!(
        inbound.limits,
        Limits {
            max_connections: 7,
            handshake: Duration::from_secs(1),
            dial: Duration::from_secs(2),
            idle: Some(Duration::from_secs(3)),
            half_close: None,
            lease_grace: Duration::from_secs(4),
        }
    );
    assert_eq!((inbound.resumption, inbound.tls12), (false, true));
    assert_eq!(inbound.on_expiry, OnExpiry::Log);
    let ServiceKind::Proxy(outbound) = &outbound.kind else {
        panic!("{outbound:?}")
    };
    assert_eq!(outbound.listen, Address::Unix("/run/db.sock".into()));
    assert_eq!(outbound.limits, Limits::default());
    assert!(outbound.resumption && !outbound.tls12);
}

#[test]
fn the_head_has_its_mistakes() {
    let services = "services:\n  - { type: workload-identity-x509, name: f, selector: { name: w }, destination: { type: directory, path: /o } }\n";
    let head = head();
    for (from, to, expected) in [
        ("version: v1\n", "", "1:1: missing key `version`"),
        (
            "v1",
            "v2",
            "1:10: `version`: `v2` is not known: this release reads v1",
        ),
        (
            "127.0.0.1:3025",
            "nowhere",
            "2:20: `address`: \"nowhere\" is not an address: the port is missing, as in 127.0.0.1:8080",
        ),
        (
            "127.0.0.1:3025",
            "a:0",
            "2:20: `address`: `a:0`: port 0 cannot be connected to",
        ),
        (
            "address: \"127.0.0.1:3025\"",
            "addresses: [\"a:1\", nowhere]",
            "2:30: `addresses`: \"nowhere\" is not an address: the port is missing, as in 127.0.0.1:8080",
        ),
        (
            "address: \"127.0.0.1:3025\"",
            "addresses: []",
            "2:22: `addresses`: there is none; write host:port",
        ),
        (
            "address: \"127.0.0.1:3025\"",
            "address: \"a:1\", addresses: [\"a:1\"]",
            "2:38: both `address` and `addresses`: remove one",
        ),
        (
            "address: \"127.0.0.1:3025\", ",
            "",
            "2:9: missing key `address` (or `addresses`, of issuers that share a store)",
        ),
        (
            PIN,
            "md5:12",
            "2:48: `ca_pins`: `md5:12`: the CA pin \"md5:12\" does not begin with \"sha256:\": write sha256:<64 hexadecimal digits>, as the issuer prints it",
        ),
        (
            "join_method: token",
            "join_method: tpm",
            "3:28: `join_method`: `tpm` is not known: this release joins by `token`",
        ),
        (
            "type: memory",
            "type: disk",
            "4:18: `type`: `disk` is not known: directory or memory",
        ),
        (
            "type: memory",
            "type: directory",
            "4:10: missing key `path`",
        ),
        (
            "storage",
            "storrage",
            "4:1: unknown key `storrage`: did you mean `storage`?",
        ),
    ] {
        let text = format!("{}{services}", head.replacen(from, to, 1));
        let mistakes = parse(&text).unwrap_err();
        assert!(
            mistakes
                .lines()
                .any(|line| line == format!("a.yaml:{expected}")),
            "{to}: {mistakes}"
        );
    }
    for (text, expected) in [
        (
            String::new(),
            "1:1: the file is empty: it begins with `version: v1`",
        ),
        (
            format!("{head}{services}---\n{head}"),
            "8:1: a second document: one file is one configuration",
        ),
        (
            head.clone(),
            "1:1: missing key `services`: at least one is needed",
        ),
        (
            format!("{head}services: []\n"),
            "5:11: `services`: at least one is needed",
        ),
        (
            format!("{head}diagnostics: {{ listen: \"0.0.0.0:1\" }}\n{services}"),
            "5:24: `listen`: 0.0.0.0:1 is not loopback: diagnostics answer without authentication; use 127.0.0.1:1",
        ),
        (
            format!("{head}credential_ttl: 20d\n{services}"),
            "5:17: `credential_ttl`: 20d is out of range: from 5s to 14d",
        ),
    ] {
        assert_eq!(
            parse(&text).unwrap_err(),
            format!("a.yaml:{expected}"),
            "{text}"
        );
    }
}

#[test]
fn services_have_their_mistakes() {
    let proxy = |more: &str| {
        format!(
            "  - {{ type: proxy-inbound, name: in, selector: {{ name: w }}, listen: \"127.0.0.1:0\", connect: \"127.0.0.1:1\", {more} }}\n"
        )
    };
    for (more, expected) in [
        (
            "deny: []",
            "missing key `allow`: who may connect, as allow: [{id: spiffe://…}]; nobody is trusted by default",
        ),
        ("allow: []", "`allow`: it names nobody: who may connect?"),
        (
            "allow: [{}]",
            "a rule has exactly one of `id`, `trust_domain`, `path_prefix`",
        ),
        (
            "allow: [{id: spiffe://td/a, trust_domain: td}]",
            "a rule has exactly one of `id`, `trust_domain`, `path_prefix`",
        ),
        (
            "allow: [{id: spiffe://TD/a}]",
            "`id`: \"spiffe://TD/a\" has the upper-case 'T' (0x54) in its trust domain",
        ),
        ("allow: [{path_prefix: spiffe://td/a/}]", "`path_prefix`: "),
        (
            "allow: [{ids: spiffe://td/a}]",
            "unknown key `ids`: did you mean `id`?",
        ),
        (
            "allow: [spiffe://td/a]",
            "`allow`: expected a mapping, found a single value",
        ),
        ("expect: [{id: spiffe://td/a}]", "unknown key `expect`"),
        (
            "allow: [{trust_domain: td}], limits: {idle: never}",
            "`idle`: `never` is not a duration",
        ),
        (
            "allow: [{trust_domain: td}], limits: {max_connections: 0}",
            "`max_connections`: 0 is out of range: from 1 to 10000000",
        ),
        (
            "allow: [{trust_domain: td}], on_expiry: ignore",
            "`on_expiry`: `ignore` is not known: close or log",
        ),
        (
            "allow: [{trust_domain: td}], resumption: yes",
            "`resumption`: expected true or false, found `yes`",
        ),
    ] {
        let mistakes = mistakes(&proxy(more));
        assert!(
            mistakes.iter().any(|line| line.contains(expected)),
            "{more}: {mistakes:#?}"
        );
        assert!(mistakes[0].starts_with("6:"), "{more}: {mistakes:#?}");
    }
    let files = |more: &str| format!("  - {{ type: workload-identity-x509, {more} }}\n");
    for (service, expected) in [
        (
            "  - { type: proxy, name: x, selektor: 1 }\n".to_owned(),
            "6:13: `type`: `proxy` is no type of service: workload-identity-api, spiffe-broker-api, workload-identity-x509, workload-identity-jwt, workload-identity-aws-roles-anywhere, spiffe-bundle-map, proxy-inbound, proxy-outbound",
        ),
        (
            files(
                "name: \"a b\", selector: { name: w }, destination: { type: directory, path: /o }",
            ),
            "6:43: `name`: `a b` is not a name: 1 to 64 letters, digits, `-`, `_`, `.`",
        ),
        (
            files("name: a, selector: { name: w }, destination: { type: s3, path: /o }"),
            "6:90: `type`: `s3` is not known: directory, memory, kubernetes_secret",
        ),
        (
            files("name: a, destination: { type: directory, path: /o }"),
            "6:5: missing key `selector`",
        ),
        (
            files("name: a, selector: {}, destination: { type: directory, path: /o }"),
            "6:56: missing key `name` (or `labels`)",
        ),
        (
            files(
                "name: a, selector: { name: w, labels: {a: [b]} }, destination: { type: directory, path: /o }",
            ),
            "6:75: both `name` and `labels`: remove one",
        ),
        (
            files(
                "name: a, selector: { labels: {a: []} }, destination: { type: directory, path: /o }",
            ),
            "6:66: `labels`: at least one label, each with at least one value, as {env: [production]}; \"*\" is any",
        ),
    ] {
        assert_eq!(mistakes(&service), [expected], "{service}");
    }
}

#[test]
fn plain_sides_stay_on_this_machine() {
    let outbound = |listen: &str, more: &str| {
        format!(
            "  - {{ type: proxy-outbound, name: o, selector: {{ name: w }}, listen: \"{listen}\", connect: \"h:1\", expect: [{{ trust_domain: td }}]{more} }}\n"
        )
    };
    let inbound = |connect: &str| {
        format!(
            "  - {{ type: proxy-inbound, name: o, selector: {{ name: w }}, listen: \"0.0.0.0:1\", connect: \"{connect}\", allow: [{{ trust_domain: td }}] }}\n"
        )
    };
    for service in [
        outbound("0.0.0.0:5432", ""),
        outbound("10.0.0.1:5432", ""),
        inbound("10.0.0.1:5432"),
        inbound("db:5432"),
    ] {
        let mistakes = mistakes(&service);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        assert!(mistakes[0].contains("is not loopback"), "{mistakes:#?}");
    }
    for service in [
        outbound("0.0.0.0:5432", ", allow_non_loopback: true"),
        outbound("127.0.0.2:5432", ""),
        outbound("[::1]:5432", ""),
        outbound("unix:///run/x", ""),
        inbound("localhost:5432"),
        inbound("unix:///run/x"),
    ] {
        let text = format!("{}services:\n{service}", head());
        assert!(parse(&text).is_ok(), "{service}");
    }
    let mistakes = mistakes(&outbound("db:5432", ""));
    assert!(
        mistakes[0].contains("listen on an IP address"),
        "{mistakes:#?}"
    );
}

#[test]
fn nothing_is_shared_by_accident() {
    let proxy = |name: &str, listen: &str| {
        format!(
            "  - {{ type: proxy-inbound, name: {name}, selector: {{ name: w }}, listen: \"{listen}\", connect: \"127.0.0.1:1\", allow: [{{ trust_domain: td }}] }}\n"
        )
    };
    let output = |name: &str, path: &str| {
        format!(
            "  - {{ type: workload-identity-x509, name: {name}, selector: {{ name: w }}, destination: {{ type: directory, path: {path} }} }}\n"
        )
    };
    for (services, expected) in [
        (
            proxy("a", "127.0.0.1:1") + &proxy("a", "127.0.0.1:2"),
            "7:34: `name`: a is taken by the service on line 6",
        ),
        (
            proxy("a", "127.0.0.1:1") + &proxy("b", "127.0.0.1:1"),
            "7:68: `listen`: 127.0.0.1:1 is taken by service a",
        ),
        (
            proxy("a", "0.0.0.0:1") + &proxy("b", "127.0.0.1:1"),
            "7:68: `listen`: 127.0.0.1:1 is taken by service a",
        ),
        (
            proxy("a", "127.0.0.1:1") + &proxy("b", "[::]:1"),
            "7:68: `listen`: [::]:1 is taken by service a",
        ),
        (
            proxy("a", "unix:///x") + &proxy("b", "unix:///x"),
            "7:68: `listen`: unix:///x is taken by service a",
        ),
        (
            output("a", "/o") + &output("b", "/o"),
            "7:82: `destination`: /o is written by service a already",
        ),
    ] {
        assert_eq!(mistakes(&services), [expected], "{services}");
    }
    for services in [
        proxy("a", "127.0.0.1:0") + &proxy("b", "127.0.0.1:0"),
        proxy("a", "127.0.0.1:1") + &proxy("b", "127.0.0.2:1"),
    ] {
        let text = format!("{}services:\n{services}", head());
        assert!(parse(&text).is_ok(), "{services}");
    }
}

#[test]
fn an_issuer_may_have_several_addresses() {
    let service = "services:\n  - { type: workload-identity-x509, name: f, selector: { name: w }, destination: { type: directory, path: /o } }\n";
    let text = format!("{}{service}", head()).replace(
        "address: \"127.0.0.1:3025\"",
        "addresses: [\"one:1\", \"two:2\"]",
    );
    let addresses = |overrides: &Overrides| {
        let resolved = ResolvedOverrides::resolve(overrides).unwrap();
        let configuration = Configuration::parse("a.yaml", &text, &resolved).unwrap();
        let addresses = configuration.issuer.addresses.into_iter();
        addresses.map(|a| a.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&Overrides::default()), ["one:1", "two:2"]);
    let stronger = Overrides {
        issuer: vec!["three:3".to_owned(), "four:4".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(addresses(&stronger), ["three:3", "four:4"]);
}

#[test]
fn overrides_are_stronger_than_the_file() {
    let service = "services:\n  - { type: workload-identity-x509, name: f, selector: { name: w }, destination: { type: directory, path: /o } }\n";
    let overrides = Overrides {
        issuer: vec!["other:1".to_owned()],
        ca_pins: vec![PIN.replace("ab", "cd")],
        token: Some(SecretString::from("from-the-environment")),
        storage: Some("/elsewhere".to_owned()),
        diagnostics: Some("127.0.0.1:9".to_owned()),
    };
    let resolved = ResolvedOverrides::resolve(&overrides).unwrap();
    for text in [
        format!("{}{service}", head()),
        format!(
            "version: v1\nonboarding: {{ join_method: token, token: from-the-file }}\n{service}"
        ),
    ] {
        let configuration = Configuration::parse("a.yaml", &text, &resolved).unwrap();
        assert_eq!(configuration.issuer.addresses[0].to_string(), "other:1");
        assert_eq!(
            configuration.issuer.trust,
            IssuerTrust::Pins(vec![PIN.replace("ab", "cd").parse().unwrap()])
        );
        assert!(
            matches!(&configuration.onboarding.token, Some(TokenSource::Value(token)) if token.expose_secret() == "from-the-environment")
        );
        assert!(!format!("{configuration:?}").contains("from-the"));
        assert_eq!(
            configuration.storage,
            Storage::Directory("/elsewhere".into())
        );
        assert_eq!(configuration.diagnostics.unwrap().port(), 9);
    }
    for (wrong, flag) in [
        (
            Overrides {
                issuer: vec!["x".into()],
                ..Overrides::default()
            },
            "--issuer (TBOT_ISSUER)",
        ),
        (
            Overrides {
                ca_pins: vec!["x".into()],
                ..Overrides::default()
            },
            "--ca-pin (TBOT_CA_PIN)",
        ),
        (
            Overrides {
                diagnostics: Some("1.1.1.1:1".into()),
                ..Overrides::default()
            },
            "--diagnostics (TBOT_DIAGNOSTICS)",
        ),
    ] {
        let error = ResolvedOverrides::resolve(&wrong).unwrap_err().to_string();
        assert!(error.starts_with(flag), "{error}");
    }
}
