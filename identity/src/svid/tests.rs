use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::*;
use crate::testing::{TestCa, uri};

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
/// DER of KeyUsage digitalSignature.
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];

fn ca() -> TestCa {
    TestCa::new("example.org")
}

/// The error of an SVID whose leaf is as `edit` leaves it.
fn refused(edit: impl FnOnce(&mut CertificateParams)) -> SvidError {
    let (chain, key) = ca().issue("/web", edit);
    X509Svid::new(chain, key).expect_err("it was accepted")
}

/// What the validator rules say to the same.
fn leaf(edit: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, SvidError> {
    let (chain, _) = ca().issue("/web", edit);
    Leaf::parse(&chain[0])
}

/// SubjectAltName with one raw URI.
fn raw_san(text: &[u8]) -> CustomExtension {
    let length = u8::try_from(text.len()).expect("short");
    let mut der = vec![0x30, length + 2, 0x86, length];
    der.extend(text);
    CustomExtension::from_oid_content(SUBJECT_ALT_NAME, der)
}

#[test]
fn a_good_svid_says_what_was_issued() {
    let svid = ca()
        .intermediate()
        .svid("/ns/a/sa/web", Duration::from_secs(600));
    assert_eq!(svid.id().as_str(), "spiffe://example.org/ns/a/sa/web");
    assert_eq!(svid.chain().len(), 2);
    assert_eq!(svid.certified_key().cert, svid.chain());
    let ttl = svid
        .not_after()
        .duration_since(svid.not_before())
        .expect("order");
    assert_eq!(ttl.as_secs(), 660);
    assert_eq!(svid.serial().to_string().len(), 32);

    let again = X509Svid::from_pem(svid.chain_pem().as_bytes(), svid.key_pem().as_bytes())
        .expect("what we write we read");
    assert_eq!(again.chain(), svid.chain());
    assert_eq!(again.key_pkcs8_der(), svid.key_pkcs8_der());
    assert_eq!(again.leaf(), svid.leaf());
}

#[test]
fn x5_01_exactly_one_uri_san_is_required() {
    assert_eq!(
        refused(|params| params.subject_alt_names.clear()),
        SvidError::UriNames { count: 0 }
    );
    assert_eq!(
        refused(|params| {
            params.subject_alt_names = vec![SanType::DnsName("a.org".try_into().expect("name"))];
        }),
        SvidError::UriNames { count: 0 }
    );
}

#[test]
fn x5_02_more_than_one_uri_san_is_refused() {
    for second in [
        "spiffe://example.org/other",
        "spiffe://example.org/web",
        "https://example.org/",
    ] {
        let add = |params: &mut CertificateParams| params.subject_alt_names.push(uri(second));
        assert_eq!(refused(add), SvidError::UriNames { count: 2 }, "{second}");
        let put_first =
            |params: &mut CertificateParams| params.subject_alt_names.insert(0, uri(second));
        assert_eq!(leaf(put_first), Err(SvidError::UriNames { count: 2 }));
    }
}

#[test]
fn x5_03_other_kinds_of_san_do_not_confuse_the_id() {
    let found = leaf(|params| {
        let names = [
            SanType::DnsName("spiffe.example.com".try_into().expect("name")),
            SanType::Rfc822Name("a@example.com".try_into().expect("name")),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        params.subject_alt_names.splice(0..0, names);
    })
    .expect("a leaf");
    assert_eq!(found.id().as_str(), "spiffe://example.org/web");
}

#[test]
fn x5_04_leaf_id_has_a_path() {
    let root_path = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri("spiffe://example.org")];
    };
    let error = refused(root_path);
    assert!(matches!(&error, SvidError::NoPath { id } if id.is_trust_domain()));
}

#[test]
fn x5_05_empty_subject_needs_a_critical_san() {
    let not_critical = |params: &mut CertificateParams| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![raw_san(b"spiffe://example.org/web")];
    };
    assert!(matches!(
        refused(not_critical),
        SvidError::SanNotCritical { .. }
    ));
    assert!(leaf(not_critical).is_ok(), "a rule for issuers");

    // With a subject it need not be critical; without one rcgen makes it so.
    let (chain, key) = ca().issue("/web", |params| {
        not_critical(params);
        params.distinguished_name.push(DnType::CommonName, "web");
    });
    assert!(X509Svid::new(chain, key).is_ok());
    let (chain, key) = ca().issue("/web", |_| {});
    let parsed = certificate::parse(&chain[0]).expect("DER");
    assert!(parsed.subject().iter().next().is_none());
    assert!(X509Svid::new(chain.clone(), key).is_ok());
}

#[test]
fn x5_06_intermediates_are_cas() {
    let other = ca().svid("/other", Duration::from_secs(60));
    let (mut chain, key) = ca().issue("/web", |_| {});
    chain.push(other.chain()[0].clone());
    let error = X509Svid::new(chain, key).expect_err("a leaf behind a leaf");
    assert_eq!(error, SvidError::IntermediateNotCa { place: Place(1) });
    assert_eq!(
        error.to_string(),
        "certificate 2 of the chain is not a CA certificate: only intermediates may follow the leaf"
    );
}

#[test]
fn x5_11_a_ca_certificate_is_no_svid() {
    let intermediate = ca().intermediate();
    // Its id has no path, which is found first; with a path it is still a CA.
    assert!(matches!(
        Leaf::parse(intermediate.certificate()),
        Err(SvidError::NoPath { .. })
    ));
    let with_path = ca().intermediate_with(|params| {
        params.subject_alt_names = vec![uri("spiffe://example.org/ca")];
    });
    assert!(matches!(
        Leaf::parse(with_path.certificate()),
        Err(SvidError::LeafIsCa { .. })
    ));
}

#[test]
fn x5_13_leaf_says_that_it_is_no_ca() {
    let silent = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    assert!(matches!(
        refused(silent),
        SvidError::NoBasicConstraints { .. }
    ));
    // RFC 5280 4.2.1.9: absent means false, so a peer's leaf may leave it out.
    assert!(leaf(silent).is_ok());
}

#[test]
fn x5_15_key_usage_is_there_and_critical() {
    let absent = |params: &mut CertificateParams| params.key_usages.clear();
    assert!(matches!(refused(absent), SvidError::NoKeyUsage { .. }));
    assert!(matches!(leaf(absent), Err(SvidError::NoKeyUsage { .. })));

    let not_critical = |params: &mut CertificateParams| {
        params.key_usages.clear();
        let usage = CustomExtension::from_oid_content(KEY_USAGE, DIGITAL_SIGNATURE.to_vec());
        params.custom_extensions = vec![usage];
    };
    assert!(matches!(
        refused(not_critical),
        SvidError::KeyUsageNotCritical { .. }
    ));
    assert!(leaf(not_critical).is_ok(), "a rule for issuers");
}

#[test]
fn x5_16_intermediates_may_sign_certificates() {
    for usages in [vec![], vec![KeyUsagePurpose::CrlSign]] {
        let intermediate = ca().intermediate_with(|params| params.key_usages = usages.clone());
        let (chain, key) = intermediate.issue("/web", |_| {});
        assert_eq!(
            X509Svid::new(chain, key).expect_err("accepted"),
            SvidError::IntermediateCannotSign { place: Place(1) },
            "{usages:?}"
        );
    }
}

#[test]
fn x5_17_leaf_has_digital_signature() {
    let other = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    };
    assert!(matches!(
        refused(other),
        SvidError::NoDigitalSignature { .. }
    ));
    let both = |params: &mut CertificateParams| {
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
    };
    assert!(leaf(both).is_ok());
}

#[test]
fn x5_18_leaf_signs_nothing() {
    for (usage, name) in [
        (KeyUsagePurpose::KeyCertSign, "keyCertSign"),
        (KeyUsagePurpose::CrlSign, "cRLSign"),
    ] {
        let error = refused(|params| params.key_usages.push(usage));
        assert!(
            matches!(&error, SvidError::LeafSigns { usage, .. } if *usage == name),
            "{error}"
        );
    }
}

#[test]
fn x5_19_extended_key_usage_may_be_absent() {
    assert!(leaf(|params| params.extended_key_usages.clear()).is_ok());
}

#[test]
fn x5_20_extended_key_usage_has_both_tls_purposes() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    for (usages, lacking) in [
        (vec![ServerAuth], "clientAuth"),
        (vec![ClientAuth, CodeSigning], "serverAuth"),
        (vec![Any], "serverAuth and clientAuth"),
    ] {
        let error = refused(|params| params.extended_key_usages = usages.clone());
        assert!(
            matches!(&error, SvidError::ExtendedKeyUsage { missing, .. } if *missing == lacking),
            "{error}"
        );
        assert_eq!(
            leaf(|params| params.extended_key_usages = usages)
                .expect_err("accepted")
                .to_string(),
            error.to_string()
        );
    }
    let more = |params: &mut CertificateParams| params.extended_key_usages.push(CodeSigning);
    assert!(leaf(more).is_ok());
}

#[test]
fn x5_23_leaf_is_not_a_ca() {
    let ca_leaf = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    assert!(matches!(leaf(ca_leaf), Err(SvidError::LeafIsCa { .. })));
    assert!(matches!(refused(ca_leaf), SvidError::LeafIsCa { .. }));
}

#[test]
fn x5_24_validator_refuses_signing_bits() {
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        assert!(matches!(
            leaf(|params| params.key_usages.push(usage)),
            Err(SvidError::LeafSigns { .. })
        ));
    }
}

#[test]
fn x5_25_uri_is_a_well_formed_spiffe_id() {
    for text in [
        "https://example.org/web",
        "spiffe://Example.org/web",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/web/",
        "spiffe://example.org:443/web",
        "spiffe://example.org/%77eb",
    ] {
        let error = leaf(|params| params.subject_alt_names = vec![uri(text)]);
        assert!(matches!(error, Err(SvidError::Id(_))), "{text}: {error:?}");
    }
    // Bytes that are no text count as a URI, and as none that could be an id.
    for bytes in [
        &b"spiffe://example.org/\xff"[..],
        "spiffe://example.org/ä".as_bytes(),
    ] {
        let error = leaf(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions = vec![raw_san(bytes)];
        });
        assert!(
            matches!(error, Err(SvidError::Malformed { .. } | SvidError::Id(_))),
            "{error:?}"
        );
    }
}

#[test]
fn x5_26_validator_refuses_an_id_without_path() {
    let error = leaf(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]);
    assert!(matches!(error, Err(SvidError::NoPath { .. })));
    let error = leaf(|params| params.subject_alt_names = vec![uri("spiffe://example.org/")]);
    assert!(matches!(error, Err(SvidError::Id(_))));
}

#[test]
fn the_key_is_that_of_the_leaf() {
    let (chain, _) = ca().issue("/web", |_| {});
    let (_, other) = ca().issue("/web", |_| {});
    let error = X509Svid::new(chain, other).expect_err("accepted");
    assert!(matches!(error, SvidError::KeyMismatch { .. }), "{error}");
}

#[test]
fn chains_are_bounded_and_not_empty() {
    let (chain, key) = ca().issue("/web", |_| {});
    let long = vec![chain[0].clone(); MAX_CHAIN + 1];
    assert_eq!(
        X509Svid::new(long, key.clone_key()).expect_err("accepted"),
        SvidError::ChainTooLong { certificates: 17 }
    );
    assert_eq!(
        X509Svid::new(vec![], key).expect_err("accepted"),
        SvidError::EmptyChain
    );
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let good = ca().svid("/web", Duration::from_secs(60));
    let der = good.chain()[0].to_vec();
    for cut in 0..der.len() {
        assert!(Leaf::parse(&der[..cut].into()).is_err(), "cut at {cut}");
    }
    let mut trailing = der.clone();
    trailing.push(0);
    let error = Leaf::parse(&trailing.into()).expect_err("accepted");
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
    // Every flipped byte is read or refused; what it says is not our concern here.
    for at in 0..der.len() {
        let mut flipped = der.clone();
        flipped[at] ^= 0x55;
        let _ = Leaf::parse(&flipped.into());
    }
}

#[test]
fn bad_keys_are_refused_without_showing_them() {
    let svid = ca().svid("/web", Duration::from_secs(60));
    let chain = svid.chain_pem();
    let pem = svid.key_pem();
    let secret = pem.lines().nth(1).expect("a line of base64");
    let cases = [
        (String::new(), "there is no PRIVATE KEY section"),
        (chain.clone(), "there is no PRIVATE KEY section"),
        (
            pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            "it is encrypted",
        ),
        (pem.replace("-----END", "END"), "its END line is missing"),
        (
            pem.replace(secret, &format!("!{secret}")),
            "its base64 is malformed",
        ),
        (pem.replace(secret, ""), "unencrypted ECDSA"),
    ];
    for (text, reason) in cases {
        let error = X509Svid::from_pem(chain.as_bytes(), text.as_bytes()).expect_err(reason);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(reason), "{shown}");
        assert!(!shown.contains(secret), "the key is shown: {shown}");
    }
}

#[test]
fn debug_shows_no_key() {
    let svid = ca().svid("/web", Duration::from_secs(60));
    let shown = format!("{svid:?} {svid:#?}");
    let bytes = format!("{:?}", &svid.key_pkcs8_der()[40..60]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
    assert!(!shown.to_lowercase().contains("key_pkcs8"));
    assert!(shown.contains("spiffe://example.org/web"));
}

#[test]
fn ed25519_and_p384_keys_are_taken() {
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let chain = ca().issue_for(&key, "/web", |_| {});
        let svid = X509Svid::from_pem(rcgen_pem(&chain).as_bytes(), key.serialize_pem().as_bytes())
            .expect("an SVID");
        assert_eq!(svid.key_pkcs8_der(), key.serialized_der());
    }
}

fn rcgen_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for der in chain {
        pem("CERTIFICATE", der, &mut text);
    }
    text
}

#[test]
fn serials_drop_the_sign_byte() {
    for (bytes, shown) in [
        (&[0x00, 0x80, 0x01][..], "8001"),
        (&[0x80, 0x01], "8001"),
        (&[0], "00"),
        (&[0, 0], "00"),
        (&[7], "07"),
        (&[], ""),
    ] {
        assert_eq!(Serial::from_bytes(bytes).to_string(), shown);
    }
    assert_eq!(Serial::from_bytes(&[0, 0x80]), Serial::from_bytes(&[0x80]));
}
