use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
};
use time::OffsetDateTime;

use super::*;
use crate::{
    TrustBundle,
    testing::{TestCa, uri},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn set(bundles: impl IntoIterator<Item = TrustBundle>) -> TrustBundleSet {
    TrustBundleSet::new(bundles)
}

/// Verified without any memory.
fn verify(
    chain: &[CertificateDer<'_>],
    bundles: &TrustBundleSet,
) -> Result<PeerIdentity, VerifyError> {
    ChainVerifier::new(0).verify(chain, bundles, 1, SystemTime::now())
}

#[test]
fn a_verified_peer_is_described() {
    let ca = TestCa::new("example.org");
    let svid = ca.intermediate().svid("/web", HOUR);
    let peer = verify(svid.chain(), &set([ca.bundle()])).expect("a peer");
    assert_eq!(&peer.id, svid.id());
    assert_eq!(&peer.serial, svid.serial());
    assert_eq!(peer.not_after, svid.not_after());
    assert_eq!(peer.leaf_sha256, sha256(&svid.chain()[0]));
}

#[test]
fn not_after_is_the_earliest_of_the_path() {
    let now = SystemTime::now();
    let soon = OffsetDateTime::from(now + Duration::from_secs(600));
    let later = OffsetDateTime::from(now + Duration::from_secs(1200));
    let short_root = TestCa::with("example.org", |params| params.not_after = soon);
    let root = TestCa::new("example.org");
    let short_intermediate = root.intermediate_with(|params| params.not_after = later);
    for (svid, bundle, expected) in [
        (short_root.svid("/web", HOUR), short_root.bundle(), soon),
        (short_intermediate.svid("/web", HOUR), root.bundle(), later),
    ] {
        let peer = verify(svid.chain(), &set([bundle])).expect("a peer");
        assert_eq!(
            OffsetDateTime::from(peer.not_after).unix_timestamp(),
            expected.unix_timestamp()
        );
    }
}

#[test]
fn x5_07_to_x5_10_the_ids_of_authorities_do_not_decide() {
    // Only a SHOULD on issuers: upstream CAs carry no SPIFFE ID, or one of another domain.
    for names in [
        vec![],
        vec![uri("spiffe://other.org")],
        vec![uri("https://ca.example")],
    ] {
        let root = TestCa::with("example.org", |params| {
            params.subject_alt_names = names.clone()
        });
        let below = root.intermediate_with(|params| params.subject_alt_names = names.clone());
        let svid = below.svid("/web", HOUR);
        let result = verify(svid.chain(), &set([root.bundle()]));
        assert!(result.is_ok(), "{names:?}: {result:?}");
    }
}

#[test]
fn x5_21_purposes_of_an_authority_do_not_restrict_what_it_signs() {
    let root = TestCa::new("example.org");
    let below = root.intermediate_with(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::OcspSigning];
    });
    assert!(verify(below.svid("/web", HOUR).chain(), &set([root.bundle()])).is_ok());
}

#[test]
fn x5_30_an_authority_need_not_be_self_signed() {
    let below = TestCa::new("example.org").intermediate();
    let bundle = TrustBundle::new(
        below.trust_domain().clone(),
        vec![below.certificate().clone()],
    );
    let svid = below.svid("/web", HOUR);
    assert!(verify(svid.chain(), &set(bundle.clone())).is_ok());
    assert!(verify(&svid.chain()[..1], &set(bundle)).is_ok());
}

#[test]
fn x5_11_a_ca_certificate_does_not_authenticate() {
    let ca = TestCa::new("example.org");
    let intermediate = ca.intermediate_with(|params| {
        params.subject_alt_names = vec![uri("spiffe://example.org/ca")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let bundles = set([ca.bundle()]);
    for certificate in [ca.certificate(), intermediate.certificate()] {
        let error = verify(std::slice::from_ref(certificate), &bundles).expect_err("accepted");
        assert!(matches!(error, VerifyError::Leaf(_)), "{error}");
    }
}

#[test]
fn x5_12_path_length_holds() {
    let constrained = |most: u8| {
        TestCa::with("example.org", move |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
        })
    };
    for (most, accepted) in [(0, false), (1, true)] {
        let root = constrained(most);
        let svid = root.intermediate().svid("/web", HOUR);
        let result = verify(svid.chain(), &set([root.bundle()]));
        assert_eq!(result.is_ok(), accepted, "root allows {most}: {result:?}");
    }
    let direct = constrained(0);
    assert!(verify(direct.svid("/web", HOUR).chain(), &set([direct.bundle()])).is_ok());
    // The same for an intermediate's own constraint.
    let root = TestCa::new("example.org");
    let first = root.intermediate_with(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let svid = first.intermediate().svid("/web", HOUR);
    assert!(matches!(
        verify(svid.chain(), &set([root.bundle()])),
        Err(VerifyError::Path { .. })
    ));
}

#[test]
fn x5_14_uri_name_constraints_are_not_passed_over() {
    let other = TestCa::with("example.org", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.org".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    // A DNS SAN outside the permitted tree is refused; no DNS SAN, nothing to refuse.
    let (chain, _) = other.issue("/web", |params| {
        let name = "web.example.org".try_into().expect("name");
        params.subject_alt_names.push(rcgen::SanType::DnsName(name));
    });
    assert!(matches!(
        verify(&chain, &set([other.bundle()])),
        Err(VerifyError::Path { .. })
    ));
    let (chain, _) = other.issue("/web", |_| {});
    assert!(verify(&chain, &set([other.bundle()])).is_ok());
    // webpki does not evaluate URI constraints; it fails closed rather than ignore them.
    let uri_constraint = TestCa::with("example.org", |params| {
        params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[2, 5, 29, 30],
            // permittedSubtrees [0] { base [6] "example.org" }
            [
                &[0x30, 0x11, 0xa0, 0x0f, 0x30, 0x0d, 0x86, 0x0b][..],
                b"example.org",
            ]
            .concat(),
        )];
    });
    let (chain, _) = uri_constraint.issue("/web", |_| {});
    let result = verify(&chain, &set([uri_constraint.bundle()]));
    assert!(
        matches!(result, Err(VerifyError::Path { .. })),
        "{result:?}"
    );
}

#[test]
fn x5_16_intermediates_need_key_cert_sign() {
    let ca = TestCa::new("example.org");
    let crippled =
        ca.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let (chain, _) = crippled.issue("/web", |_| {});
    let error = verify(&chain, &set([ca.bundle()])).expect_err("accepted");
    assert!(error.to_string().contains("keyCertSign"), "{error}");
}

#[test]
fn x5_22_only_the_bundle_of_the_own_trust_domain_counts() {
    let (ours, theirs) = (TestCa::new("ours.org"), TestCa::new("theirs.org"));
    let svid = ours.svid("/web", HOUR);
    assert!(verify(svid.chain(), &set([ours.bundle(), theirs.bundle()])).is_ok());
    assert_eq!(
        verify(svid.chain(), &set([theirs.bundle()])),
        Err(VerifyError::NoBundle {
            id: svid.id().clone()
        })
    );
    // An authority of one domain that issues for another is not believed.
    let (forged, _) = theirs.issue("/web", |params| {
        params.subject_alt_names = vec![uri("spiffe://ours.org/web")];
    });
    let error = verify(&forged, &set([ours.bundle(), theirs.bundle()])).expect_err("accepted");
    assert!(
        matches!(error, VerifyError::UnknownAuthority { .. }),
        "{error}"
    );
    // A name alone does not make an authority: same subject, other key.
    let subject = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "root");
    };
    let (real, fake) = (
        TestCa::with("ours.org", subject),
        TestCa::with("ours.org", subject),
    );
    assert!(verify(fake.svid("/web", HOUR).chain(), &set([real.bundle()])).is_err());
    assert!(verify(real.svid("/web", HOUR).chain(), &set([real.bundle()])).is_ok());
}

#[test]
fn x5_22_time_is_checked() {
    let ca = TestCa::new("example.org");
    let now = SystemTime::now();
    let bundles = set([ca.bundle()]);
    let expired = ca.svid_window("/web", now - HOUR, now - Duration::from_secs(2));
    assert!(matches!(
        verify(expired.chain(), &bundles),
        Err(VerifyError::Expired { .. })
    ));
    let future = ca.svid_window("/web", now + Duration::from_secs(10), now + HOUR);
    assert!(matches!(
        verify(future.chain(), &bundles),
        Err(VerifyError::NotYetValid { .. })
    ));

    let ended = OffsetDateTime::from(now - Duration::from_secs(2));
    let intermediate = ca.intermediate_with(|params| params.not_after = ended);
    assert!(matches!(
        verify(intermediate.svid("/web", HOUR).chain(), &bundles),
        Err(VerifyError::Path { .. })
    ));
    let root = TestCa::with("example.org", |params| params.not_after = ended);
    assert!(matches!(
        verify(root.svid("/web", HOUR).chain(), &set([root.bundle()])),
        Err(VerifyError::AuthorityOutOfValidity { .. })
    ));
}

#[test]
fn x5_22_signatures_are_checked() {
    let ca = TestCa::new("example.org");
    let mut der = ca.svid("/web", HOUR).chain()[0].to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(verify(&[der.into()], &set([ca.bundle()])).is_err());
}

#[test]
fn x5_22_unknown_critical_extensions_are_refused() {
    let ca = TestCa::new("example.org");
    for (critical, accepted) in [(true, false), (false, true)] {
        let (chain, _) = ca.issue("/web", |params| {
            let mut odd = rcgen::CustomExtension::from_oid_content(
                &[1, 3, 6, 1, 4, 1, 65980, 99],
                vec![5, 0],
            );
            odd.set_criticality(critical);
            params.custom_extensions = vec![odd];
        });
        assert_eq!(verify(&chain, &set([ca.bundle()])).is_ok(), accepted);
    }
}

#[test]
fn x5_23_to_26_leaf_rules_are_checked_again() {
    let ca = TestCa::new("example.org");
    type Edit = fn(&mut CertificateParams);
    let cases: [(&str, Edit); 6] = [
        ("x5_23", |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
        ("x5_24", |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ("x5_24", |p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
        ("x5_25", |p| {
            p.subject_alt_names = vec![uri("https://example.org/web")]
        }),
        ("x5_26", |p| {
            p.subject_alt_names = vec![uri("spiffe://example.org")]
        }),
        ("x5_20", |p| p.extended_key_usages.truncate(1)),
    ];
    for (norm, edit) in cases {
        let (chain, _) = ca.issue("/web", edit);
        let result = verify(&chain, &set([ca.bundle()]));
        assert!(
            matches!(result, Err(VerifyError::Leaf(_))),
            "{norm}: {result:?}"
        );
    }
}

#[test]
fn x5_33_without_authorities_nobody_is_trusted() {
    let svid = TestCa::new("example.org").svid("/web", HOUR);
    let empty = TrustBundle::new(svid.id().trust_domain(), vec![]).expect("a bundle");
    assert_eq!(
        verify(svid.chain(), &set([empty])),
        Err(VerifyError::UnknownAuthority {
            id: svid.id().clone()
        })
    );
}

#[test]
fn missing_intermediates_and_excess_are_refused() {
    let ca = TestCa::new("example.org");
    let bundles = set([ca.bundle()]);
    let svid = ca.intermediate().svid("/web", HOUR);
    assert!(verify(&svid.chain()[..1], &bundles).is_err());
    assert_eq!(verify(&[], &bundles), Err(VerifyError::NoCertificate));
    let long = vec![svid.chain()[0].clone(); MAX_CHAIN + 1];
    assert_eq!(
        verify(&long, &bundles),
        Err(VerifyError::ChainTooLong { certificates: 17 })
    );
    // A root behind the chain, as many servers send it, does no harm.
    let with_root = [svid.chain(), &[ca.certificate().clone()]].concat();
    assert!(verify(&with_root, &bundles).is_ok());
}

#[test]
fn revoked_leaves_and_intermediates_are_refused() {
    let ca = TestCa::new("example.org");
    let intermediate = ca.intermediate();
    let (direct, below) = (ca.svid("/a", HOUR), intermediate.svid("/b", HOUR));
    let number = certificate_serial(intermediate.certificate());
    let other = Serial::from_bytes(&[1, 2, 3]);

    let cases = [
        (vec![ca.revoke([&other])], true, true),
        (vec![ca.revoke([direct.serial()])], false, true),
        (vec![ca.revoke([&number])], true, false),
        (vec![intermediate.revoke([below.serial()])], true, false),
        (vec![intermediate.revoke([]), ca.revoke([])], true, true),
    ];
    for (at, (lists, direct_passes, below_passes)) in cases.into_iter().enumerate() {
        let bundles = set([ca.bundle().with_crls(lists).expect("CRLs")]);
        for (svid, passes) in [(&direct, direct_passes), (&below, below_passes)] {
            let result = verify(svid.chain(), &bundles);
            assert_eq!(result.is_ok(), passes, "case {at}: {result:?}");
            if let Err(error) = result {
                assert!(matches!(error, VerifyError::Revoked { .. }), "{error}");
            }
        }
    }
}

fn certificate_serial(der: &CertificateDer<'_>) -> Serial {
    Serial::from_bytes(crate::certificate::parse(der).expect("DER").raw_serial())
}

/// During a key rotation two authorities carry one name, and each has its own list.
#[test]
fn lists_of_two_authorities_with_one_name_do_not_mix() {
    let named = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "example.org CA");
    };
    let (old, new) = (
        TestCa::with("example.org", named),
        TestCa::with("example.org", named),
    );
    let (kept, revoked) = (old.svid("/kept", HOUR), new.svid("/revoked", HOUR));
    let authorities = vec![old.certificate().clone(), new.certificate().clone()];
    for lists in [
        vec![old.revoke([]), new.revoke([revoked.serial()])],
        vec![new.revoke([revoked.serial()]), old.revoke([])],
        vec![new.revoke([revoked.serial()])],
    ] {
        let bundle = TrustBundle::new(old.trust_domain().clone(), authorities.clone())
            .and_then(|bundle| bundle.with_crls(lists))
            .expect("a bundle");
        let bundles = set([bundle]);
        assert!(verify(kept.chain(), &bundles).is_ok());
        assert!(matches!(
            verify(revoked.chain(), &bundles),
            Err(VerifyError::Revoked { .. })
        ));
    }
}

#[test]
fn a_hit_costs_no_verification() {
    let ca = TestCa::new("example.org");
    let (bundles, now) = (set([ca.bundle()]), SystemTime::now());
    let verifier = ChainVerifier::new(64);
    let svid = ca.intermediate().svid("/web", HOUR);
    let first = verifier
        .verify(svid.chain(), &bundles, 1, now)
        .expect("a peer");
    for _ in 0..10 {
        assert_eq!(
            verifier.verify(svid.chain(), &bundles, 1, now).as_ref(),
            Ok(&first)
        );
    }
    assert_eq!(
        verifier.stats(),
        VerifierStats {
            hits: 10,
            misses: 1,
            entries: 1
        }
    );
    // Proof that nothing was verified: with the cache's key equal, even empty bundles pass.
    assert!(
        verifier
            .verify(svid.chain(), &TrustBundleSet::default(), 1, now)
            .is_ok()
    );
}

#[test]
fn a_new_generation_is_a_miss() {
    let ca = TestCa::new("example.org");
    let now = SystemTime::now();
    let verifier = ChainVerifier::new(64);
    let svid = ca.svid("/web", HOUR);
    assert!(
        verifier
            .verify(svid.chain(), &set([ca.bundle()]), 1, now)
            .is_ok()
    );
    let revoked = set([ca
        .bundle()
        .with_crls(vec![ca.revoke([svid.serial()])])
        .expect("a CRL")]);
    assert!(matches!(
        verifier.verify(svid.chain(), &revoked, 2, now),
        Err(VerifyError::Revoked { .. })
    ));
    assert!(
        verifier
            .verify(svid.chain(), &TrustBundleSet::default(), 3, now)
            .is_err()
    );
    assert_eq!(
        verifier.stats(),
        VerifierStats {
            hits: 0,
            misses: 3,
            entries: 1
        }
    );
}

#[test]
fn a_hit_honours_both_ends_of_validity() {
    let ca = TestCa::with("example.org", |params| {
        params.not_before = OffsetDateTime::now_utc() - 2 * DAY;
        params.not_after = OffsetDateTime::now_utc() + 2 * DAY;
    });
    let (bundles, now) = (set([ca.bundle()]), SystemTime::now());
    let verifier = ChainVerifier::new(64);
    let svid = ca.svid("/web", HOUR);
    let at = |moment| verifier.verify(svid.chain(), &bundles, 1, moment);
    assert!(at(now).is_ok());
    assert!(at(svid.not_after()).is_ok());
    assert!(matches!(
        at(svid.not_after() + Duration::from_secs(1)),
        Err(VerifyError::Expired { .. })
    ));
    assert!(at(svid.not_before()).is_ok());
    assert!(matches!(
        at(svid.not_before() - Duration::from_secs(1)),
        Err(VerifyError::NotYetValid { .. })
    ));
    assert!(at(now).is_ok(), "a clock that went and came back");
    assert_eq!(
        verifier.stats(),
        VerifierStats {
            hits: 3,
            misses: 3,
            entries: 1
        }
    );
}

#[test]
fn another_chain_around_the_same_leaf_is_another_chain() {
    let ca = TestCa::new("example.org");
    let (bundles, now) = (set([ca.bundle()]), SystemTime::now());
    let verifier = ChainVerifier::new(64);
    let svid = ca.intermediate().svid("/web", HOUR);
    assert!(verifier.verify(svid.chain(), &bundles, 1, now).is_ok());
    assert!(
        verifier
            .verify(&svid.chain()[..1], &bundles, 1, now)
            .is_err()
    );
}

#[test]
fn memory_is_bounded_under_a_flood() {
    let ca = TestCa::new("example.org");
    let stranger = TestCa::new("example.org");
    let (bundles, now) = (set([ca.bundle()]), SystemTime::now());
    for capacity in [0, 1, 5, 16] {
        let verifier = ChainVerifier::new(capacity);
        for _ in 0..40 {
            let svid = ca.svid("/web", HOUR);
            assert!(verifier.verify(svid.chain(), &bundles, 1, now).is_ok());
            assert!(
                verifier
                    .verify(stranger.svid("/web", HOUR).chain(), &bundles, 1, now)
                    .is_err()
            );
            assert!(verifier.stats().entries <= capacity);
        }
    }
    // Strangers alone leave nothing behind.
    let verifier = ChainVerifier::new(64);
    for _ in 0..50 {
        assert!(
            verifier
                .verify(stranger.svid("/web", HOUR).chain(), &bundles, 1, now)
                .is_err()
        );
    }
    assert_eq!(
        verifier.stats(),
        VerifierStats {
            hits: 0,
            misses: 50,
            entries: 0
        }
    );
}

#[test]
fn the_least_recently_used_goes_first() {
    let ca = TestCa::new("example.org");
    let (bundles, now) = (set([ca.bundle()]), SystemTime::now());
    let verifier = ChainVerifier::new(4);
    let kept = ca.svid("/kept", HOUR);
    assert!(verifier.verify(kept.chain(), &bundles, 1, now).is_ok());
    for _ in 0..20 {
        assert!(
            verifier
                .verify(ca.svid("/web", HOUR).chain(), &bundles, 1, now)
                .is_ok()
        );
        assert!(verifier.verify(kept.chain(), &bundles, 1, now).is_ok());
    }
    assert_eq!(verifier.stats().hits, 20);
}

#[test]
fn errors_say_who_and_why() {
    let svid = TestCa::new("example.org").svid("/web", HOUR);
    let error = verify(svid.chain(), &TrustBundleSet::default()).expect_err("accepted");
    assert_eq!(
        error.to_string(),
        "spiffe://example.org/web is not trusted: there is no trust bundle of trust domain example.org"
    );
    assert_eq!(error.claimed_id(), Some(svid.id()));
}
