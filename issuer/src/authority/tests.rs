use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use identity::{SpiffeId, TrustBundle, TrustDomain};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

use super::{
    Authority, AuthorityError, BACKDATE, CA_LIFE, CsrError, KeyKind, Leaf, LeafTemplate, Subject,
    SubjectKey, keyfile::SealingKey, rfc3339,
};
use crate::resources::DnsName;

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("test.example").unwrap()
}

fn authority() -> Authority {
    Authority::create(&trust_domain(), SystemTime::now(), CA_LIFE)
        .unwrap()
        .0
}

fn subject_key() -> SubjectKey {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    SubjectKey::from_csr(request.der()).unwrap()
}

fn leaf(authority: &Authority, path: &str, dns: &[&str]) -> Leaf {
    let id = SpiffeId::new(authority.trust_domain(), path).unwrap();
    let dns: Vec<_> = dns
        .iter()
        .map(|name| DnsName::parse(name).unwrap())
        .collect();
    let validity = authority
        .validity(SystemTime::now(), Duration::from_secs(3600))
        .unwrap();
    authority
        .sign_leaf(&LeafTemplate {
            dns_sans: &dns,
            ..LeafTemplate::new(&id, &subject_key(), validity)
        })
        .unwrap()
}

/// A leaf whose template is as `edit` leaves it.
fn leaf_with<'a>(key: &'a SubjectKey, edit: impl FnOnce(&mut LeafTemplate<'a>)) -> Leaf {
    let authority = authority();
    let id = SpiffeId::new(authority.trust_domain(), "/a").unwrap();
    let validity = authority
        .validity(SystemTime::now(), Duration::from_secs(3600))
        .unwrap();
    // The id outlives the template only here.
    let id: &'static SpiffeId = Box::leak(Box::new(id));
    let mut template = LeafTemplate::new(id, key, validity);
    edit(&mut template);
    authority.sign_leaf(&template).unwrap()
}

fn request_for(algorithm: &'static rcgen::SignatureAlgorithm) -> SubjectKey {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    SubjectKey::from_csr(request.der()).unwrap()
}

fn with<T>(der: &[u8], look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    look(&certificate)
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

#[test]
fn id_19_id_20_id_21_x5_07_x5_08_x5_09_the_authority_carries_the_id_of_its_trust_domain() {
    with(authority().certificate(), |ca| {
        assert_eq!(uris(ca), ["spiffe://test.example"]);
    });
}

#[test]
fn x5_06_x5_16_x5_21_the_authority_may_sign_certificates_and_lists_and_nothing_else() {
    with(authority().certificate(), |ca| {
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, None);
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, (1 << 5) | (1 << 6));
        assert!(ca.extended_key_usage().unwrap().is_none());
        assert!(!ca.subject().as_raw().is_empty());
        assert_eq!(ca.subject().as_raw(), ca.issuer().as_raw());
        ca.verify_signature(None).unwrap();
        let life = ca.validity().not_after.timestamp() - ca.validity().not_before.timestamp();
        assert_eq!(life as u64, (CA_LIFE + BACKDATE).as_secs());
    });
}

#[test]
fn x5_01_x5_03_x5_04_a_leaf_has_one_uri_and_the_dns_names_of_its_resource() {
    let leaf = leaf(&authority(), "/a/b", &["a.example.org", "*.b.example.org"]);
    with(&leaf.certificate, |leaf| {
        assert_eq!(uris(leaf), ["spiffe://test.example/a/b"]);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let dns: Vec<_> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect();
        assert_eq!(dns, ["a.example.org", "*.b.example.org"]);
    });
}

#[test]
fn x5_04_a_leaf_without_a_path_or_of_another_trust_domain_is_not_signed() {
    let authority = authority();
    let key = subject_key();
    let validity = authority
        .validity(SystemTime::now(), Duration::from_secs(60))
        .unwrap();
    for id in ["spiffe://test.example", "spiffe://other.example/a"] {
        let id = SpiffeId::parse(id).unwrap();
        let refused = authority.sign_leaf(&LeafTemplate::new(&id, &key, validity));
        assert!(
            matches!(refused, Err(AuthorityError::NotALeafId(_))),
            "{id}"
        );
    }
}

#[test]
fn x5_05_the_subject_is_empty_and_the_alternative_name_critical() {
    with(&leaf(&authority(), "/a", &[]).certificate, |leaf| {
        assert_eq!(leaf.subject().as_raw(), [0x30, 0x00]);
        assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
    });
}

#[test]
fn x5_05_with_a_subject_the_alternative_name_is_not_critical() {
    let subject = Subject::new("db é", "Example, Inc.", "Operations").unwrap();
    let leaf = leaf_with(&subject_key(), |template| template.subject = Some(&subject));
    with(&leaf.certificate, |leaf| {
        let text = leaf.subject().to_string();
        assert_eq!(text, "O=Example, Inc., OU=Operations, CN=db é");
        assert!(!leaf.subject_alternative_name().unwrap().unwrap().critical);
    });
    let partly = Subject::new("only", "", "").unwrap();
    let leaf = leaf_with(&subject_key(), |template| template.subject = Some(&partly));
    with(&leaf.certificate, |leaf| {
        assert_eq!(leaf.subject().to_string(), "CN=only")
    });
    // One without a part is none.
    let none = Subject::default();
    let leaf = leaf_with(&subject_key(), |template| template.subject = Some(&none));
    with(&leaf.certificate, |leaf| {
        assert_eq!(leaf.subject().as_raw(), [0x30, 0x00]);
        assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
    });
}

#[test]
fn a_subject_has_short_printable_parts() {
    let fits = "é".repeat(64);
    assert!(Subject::new(&fits, &fits, &fits).is_ok());
    for bad in ["é".repeat(65), "a\nb".to_owned(), "\0".to_owned()] {
        for at in 0..3 {
            let mut parts = [""; 3];
            parts[at] = &bad;
            assert!(
                Subject::new(parts[0], parts[1], parts[2]).is_err(),
                "{bad:?}"
            );
        }
    }
}

#[test]
fn x5_03_addresses_are_ip_sans() {
    let addresses = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let leaf = leaf_with(&subject_key(), |template| template.ip_sans = &addresses);
    with(&leaf.certificate, |leaf| {
        assert_eq!(uris(leaf), ["spiffe://test.example/a"]);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let found: Vec<Vec<u8>> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
                _ => None,
            })
            .collect();
        let octets = addresses.map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        });
        assert_eq!(found, octets);
    });
}

/// digitalSignature; of RSA keyEncipherment too.
#[test]
fn x5_17_the_key_usage_fits_the_key() {
    for (algorithm, kind, flags) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::Ec, 1),
        (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::Ec, 1),
        (&rcgen::PKCS_ED25519, KeyKind::Ed25519, 1),
        (&rcgen::PKCS_RSA_SHA256, KeyKind::Rsa, 1 | (1 << 2)),
    ] {
        let key = request_for(algorithm);
        assert_eq!(key.kind(), kind);
        let leaf = leaf_with(&key, |_| {});
        with(&leaf.certificate, |leaf| {
            let usage = leaf.key_usage().unwrap().unwrap();
            assert!(usage.critical);
            assert_eq!(usage.value.flags, flags, "{kind:?}");
            assert_eq!(leaf.public_key().raw, key.spki_der());
        });
    }
}

#[test]
fn a_request_for_a_key_of_another_curve_is_refused() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    assert_eq!(
        SubjectKey::from_csr(request.der()).unwrap_err(),
        CsrError::KeyType
    );
}

/// As OpenSSL makes it with `-conv_form compressed`. Go's strict parser cannot read a
/// certificate for it, so none is made.
#[test]
fn a_request_for_a_compressed_point_is_refused() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let request = "MIGmME4CAQAwDDEKMAgGA1UEAwwBeDA5MBMGByqGSM49AgEGCCqGSM49AwEHAyIAA65KuRilkQuq\
                   +amhhapOtGqjmYFJodtBN5r4tVtK4HyeoAAwCgYIKoZIzj0EAwIDSAAwRQIhANqGIqaweT7g/+y5\
                   zdq8AmyMF3bT43kNFJJBtM5hWJmnAiBTUxV3smutyP/qb9DtACcPmS83HzvCT9VL1hVuJC9d0Q==";
    let request = STANDARD.decode(request).unwrap();
    assert_eq!(
        SubjectKey::from_csr(&request).unwrap_err(),
        CsrError::KeyType
    );
}

#[test]
fn x5_13_a_leaf_says_outright_that_it_is_no_authority() {
    with(&leaf(&authority(), "/a", &[]).certificate, |leaf| {
        let constraints = leaf.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
    });
}

#[test]
fn x5_15_x5_17_x5_18_a_leaf_may_sign_and_nothing_else() {
    with(&leaf(&authority(), "/a", &[]).certificate, |leaf| {
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1);
    });
}

#[test]
fn x5_19_x5_20_a_leaf_is_for_servers_and_clients() {
    with(&leaf(&authority(), "/a", &[]).certificate, |leaf| {
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && usage.other.is_empty());
    });
}

#[test]
fn id_22_id_and_key_are_signed_and_the_chain_is_linked() {
    let authority = authority();
    let leaf = leaf(&authority, "/a", &[]);
    with(authority.certificate(), |ca| {
        with(&leaf.certificate, |leaf| {
            leaf.verify_signature(Some(ca.public_key())).unwrap();
            assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
            let key_id = |certificate: &X509Certificate<'_>, own: bool| {
                certificate.extensions().iter().find_map(|extension| {
                    match extension.parsed_extension() {
                        ParsedExtension::SubjectKeyIdentifier(id) if own => Some(id.0.to_vec()),
                        ParsedExtension::AuthorityKeyIdentifier(id) if !own => {
                            id.key_identifier.as_ref().map(|id| id.0.to_vec())
                        }
                        _ => None,
                    }
                })
            };
            assert!(key_id(leaf, false).is_some());
            assert_eq!(key_id(leaf, false), key_id(ca, true));
            assert_ne!(key_id(leaf, true), key_id(ca, true));
        });
    });
}

#[test]
fn serial_numbers_are_random_positive_and_sixteen_bytes_long() {
    let authority = authority();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let leaf = leaf(&authority, "/a", &[]);
        with(&leaf.certificate, |parsed| {
            assert_eq!(parsed.raw_serial(), leaf.serial.as_bytes());
            assert_eq!(parsed.raw_serial().len(), 16);
            assert!(parsed.raw_serial()[0] < 0x80);
        });
        assert!(seen.insert(leaf.serial));
    }
}

#[test]
fn a_leaf_is_backdated_and_never_outlives_its_authority() {
    let authority = authority();
    let now = SystemTime::now();
    let near = authority.validity(now, Duration::from_secs(60)).unwrap();
    assert!(now.duration_since(near.not_before).unwrap() <= BACKDATE + Duration::from_secs(1));
    let life = near.not_after.duration_since(near.not_before).unwrap();
    assert_eq!(life, BACKDATE + Duration::from_secs(60));
    let far = authority.validity(now, CA_LIFE * 2).unwrap();
    assert_eq!(far.not_after, authority.not_after());
    let late = authority.validity(authority.not_after(), Duration::from_secs(1));
    assert!(matches!(late, Err(AuthorityError::Expired { .. })));
}

#[test]
fn identity_reads_what_the_authority_signs() {
    let authority = authority();
    let bundle = TrustBundle::new(trust_domain(), vec![authority.certificate().clone()]).unwrap();
    let leaf = leaf(&authority, "/a/b", &[]);
    let verified = identity::ChainVerifier::new(4)
        .verify(
            &[leaf.certificate],
            &identity::TrustBundleSet::new([bundle]),
            1,
            SystemTime::now(),
        )
        .unwrap();
    assert_eq!(verified.id.as_str(), "spiffe://test.example/a/b");
    assert_eq!(verified.serial, leaf.serial);
}

#[test]
fn a_key_is_unsealed_only_by_its_file_for_its_trust_domain_under_its_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("kek");
    // What a first start that was killed left behind is in nobody's way.
    let left = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(left, "").unwrap();
    let key = SealingKey::open(&path, true).unwrap();
    let sealed = key.seal(&trust_domain(), "k1", b"the private key").unwrap();
    assert!(!sealed.windows(7).any(|window| window == b"private"));
    let again = SealingKey::open(&path, false).unwrap();
    let opened = again.open_sealed(&trust_domain(), "k1", &sealed).unwrap();
    assert_eq!(opened.as_slice(), b"the private key");
    let other = TrustDomain::parse("other.example").unwrap();
    assert!(again.open_sealed(&other, "k1", &sealed).is_err());
    assert!(again.open_sealed(&trust_domain(), "k2", &sealed).is_err());
    let mut bent = sealed.clone();
    *bent.last_mut().unwrap() ^= 1;
    assert!(again.open_sealed(&trust_domain(), "k1", &bent).is_err());
    assert!(
        again
            .open_sealed(&trust_domain(), "k1", &sealed[..5])
            .is_err()
    );
    let foreign = SealingKey::open(&home.path().join("other"), true).unwrap();
    assert!(foreign.open_sealed(&trust_domain(), "k1", &sealed).is_err());
}

#[test]
fn an_authority_is_loaded_only_with_its_own_key() {
    let (one, one_key) = Authority::create(&trust_domain(), SystemTime::now(), CA_LIFE).unwrap();
    let (_, two_key) = Authority::create(&trust_domain(), SystemTime::now(), CA_LIFE).unwrap();
    let load = |key| Authority::load(&trust_domain(), one.certificate().clone(), key);
    assert_eq!(load(&one_key).unwrap().pin(), one.pin());
    assert!(matches!(load(&two_key), Err(AuthorityError::KeyMismatch)));
    assert!(load(b"nonsense").is_err());
}

#[test]
fn a_request_must_be_whole_and_signed_by_its_own_key() {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let der = request.der().to_vec();
    SubjectKey::from_csr(&der).unwrap();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    let trailing = [der.as_slice(), &[0]].concat();
    for (bytes, expected) in [
        (forged, CsrError::Signature),
        (trailing, CsrError::Malformed),
        (der[..der.len() - 1].to_vec(), CsrError::Malformed),
        (Vec::new(), CsrError::Absent),
        (vec![0x30; 20_000], CsrError::TooLong(20_000)),
    ] {
        assert_eq!(SubjectKey::from_csr(&bytes).unwrap_err(), expected);
    }
}

#[test]
fn times_are_written_in_utc_without_fractions() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_296_706_999);
    assert_eq!(rfc3339(time), "2026-11-21T21:31:46Z");
}
