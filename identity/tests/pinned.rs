//! The first connection of an agent: only a CA pin is known.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/pipe.rs"]
mod pipe;

use std::time::{Duration, SystemTime};

use identity::{
    CaPin, ClientOptions, ClientTls, IdentitySource, PinError, ServerOptions, ServerTls, TlsError,
    TrustBundleSet, VerifyError, pinned_client_config,
    testing::{TestCa, uri},
    tls::verify_pinned,
};
use pipe::Failure;
use rustls::{ClientConnection, ServerConnection};

const HOUR: Duration = Duration::from_secs(3600);

fn issuer_server(ca: &TestCa, root: &TestCa, send_authority: bool) -> ServerConnection {
    let source = IdentitySource::with(
        ca.svid("/issuer", HOUR),
        TrustBundleSet::new([root.bundle()]),
    );
    let options = ServerOptions {
        send_authority,
        client_auth_optional: true,
        ..ServerOptions::default()
    };
    ServerConnection::new(ServerTls::new(source, options).config().unwrap()).unwrap()
}

fn pin(ca: &TestCa) -> CaPin {
    CaPin::of_certificate(ca.certificate()).unwrap()
}

/// Handshake of a client with these pins; the client's error, if any.
fn connect(pins: &[CaPin], server: &mut ServerConnection) -> Result<ClientConnection, VerifyError> {
    let config = pinned_client_config(pins, "/issuer", &ClientOptions::default()).unwrap();
    let mut client = ClientConnection::new(config, ClientTls::server_name()).unwrap();
    match pipe::run(&mut client, server) {
        Ok(()) => Ok(client),
        Err(Failure::Client(error)) => Err(VerifyError::of_handshake(&error).unwrap().clone()),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn the_pinned_issuer_is_accepted_and_its_authority_learnt() {
    let root = TestCa::new("example.org");
    let other = TestCa::new("example.org");
    for ca in [root.clone(), root.intermediate()] {
        for pins in [vec![pin(&root)], vec![pin(&other), pin(&root)]] {
            let client = connect(&pins, &mut issuer_server(&ca, &root, true)).unwrap();
            let chain = client.peer_certificates().unwrap();
            let server = verify_pinned(&pins, "/issuer", chain, SystemTime::now()).unwrap();
            assert_eq!(server.identity.id.as_str(), "spiffe://example.org/issuer");
            assert_eq!(&server.authority, root.certificate());
        }
    }
}

#[test]
fn a_wrong_pin_names_what_was_expected_and_what_was_seen() {
    let (root, other) = (TestCa::new("example.org"), TestCa::new("example.org"));
    let error = connect(&[pin(&other)], &mut issuer_server(&root, &root, true)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&pin(&other).to_string()), "{text}");
    assert!(text.contains(&pin(&root).to_string()), "{text}");
    // A server that sends no authority shows none.
    let error = connect(&[pin(&root)], &mut issuer_server(&root, &root, false)).unwrap_err();
    assert!(
        matches!(&error, VerifyError::WrongPin { seen, .. } if seen == "none"),
        "{error}"
    );
}

/// Anyone can send a public CA certificate along; it must have issued the leaf.
#[test]
fn a_pinned_ca_that_did_not_issue_the_leaf_is_of_no_use() {
    let (root, liar) = (TestCa::new("example.org"), TestCa::new("example.org"));
    let mut chain = liar.svid("/issuer", HOUR).chain().to_vec();
    chain.push(root.certificate().clone());
    let error = verify_pinned(&[pin(&root)], "/issuer", &chain, SystemTime::now()).unwrap_err();
    assert!(
        matches!(error, VerifyError::UnknownAuthority { .. }),
        "{error}"
    );
}

#[test]
fn another_workload_of_the_same_trust_domain_is_not_the_issuer() {
    let root = TestCa::new("example.org");
    let mut chain = root.svid("/web", HOUR).chain().to_vec();
    chain.push(root.certificate().clone());
    let error = verify_pinned(&[pin(&root)], "/issuer", &chain, SystemTime::now()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server is spiffe://example.org/web, expected spiffe://example.org/issuer: check the address"
    );
    // Nor is an issuer of another domain that this CA signed for.
    let (mut chain, _) = root.issue("/issuer", |params| {
        params.subject_alt_names = vec![uri("spiffe://other.org/issuer")];
    });
    chain.push(root.certificate().clone());
    assert!(verify_pinned(&[pin(&root)], "/issuer", &chain, SystemTime::now()).is_err());
}

#[test]
fn validity_and_leaf_rules_hold_under_a_pin() {
    let root = TestCa::new("example.org");
    let mut chain = root.svid("/issuer", HOUR).chain().to_vec();
    chain.push(root.certificate().clone());
    let late = SystemTime::now() + 2 * HOUR;
    let error = verify_pinned(&[pin(&root)], "/issuer", &chain, late).unwrap_err();
    assert!(matches!(error, VerifyError::Expired { .. }));

    let mut two_ids = root
        .issue("/issuer", |params| {
            params.subject_alt_names.push(uri("spiffe://a/b"))
        })
        .0;
    two_ids.push(root.certificate().clone());
    let error = verify_pinned(&[pin(&root)], "/issuer", &two_ids, SystemTime::now()).unwrap_err();
    assert!(matches!(error, VerifyError::Leaf(_)));
    // The pin of a leaf is the pin of no authority.
    let leaf_pin = CaPin::of_certificate(&chain[0]).unwrap();
    let twice = [chain[0].clone(), chain[0].clone()];
    let error = verify_pinned(&[leaf_pin], "/issuer", &twice, SystemTime::now()).unwrap_err();
    assert!(
        matches!(error, VerifyError::PinnedAuthority { .. }),
        "{error}"
    );
}

#[test]
fn an_authority_that_is_missing_from_the_own_bundle_cannot_be_sent() {
    let (ca, other) = (TestCa::new("example.org"), TestCa::new("example.org"));
    let source = IdentitySource::with(
        ca.svid("/issuer", HOUR),
        TrustBundleSet::new([other.bundle()]),
    );
    let options = ServerOptions {
        send_authority: true,
        ..ServerOptions::default()
    };
    let error = ServerTls::new(source, options).config().unwrap_err();
    assert!(matches!(error, TlsError::NoAuthority { .. }), "{error}");
}

#[test]
fn a_pinned_connection_needs_a_pin() {
    let error = pinned_client_config(&[], "/issuer", &ClientOptions::default()).unwrap_err();
    assert!(matches!(error, TlsError::NoPin));
}

#[test]
fn pins_are_read_and_written() {
    let pin = pin(&TestCa::new("example.org"));
    let text = pin.to_string();
    assert_eq!(text.len(), "sha256:".len() + 64);
    assert_eq!(text.parse(), Ok(pin));
    let upper = format!("sha256:{}", text["sha256:".len()..].to_uppercase());
    assert_eq!(upper.parse(), Ok(pin));
    for (bad, error) in [
        (String::new(), "does not begin with"),
        (text["sha256:".len()..].to_owned(), "does not begin with"),
        (
            text[..text.len() - 1].to_owned(),
            "has 63 hexadecimal digits",
        ),
        (format!("{text}0"), "has 65 hexadecimal digits"),
        (text.replace("sha256:", "sha256: "), "' ' at byte 7"),
        (format!("{}é", &text[..text.len() - 2]), "'é' at byte 69"),
    ] {
        let result: Result<CaPin, PinError> = bad.parse();
        assert!(
            result.clone().unwrap_err().to_string().contains(error),
            "{bad:?}: {result:?}"
        );
    }
}
