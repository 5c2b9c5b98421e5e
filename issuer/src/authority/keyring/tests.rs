use identity::{
    ChainVerifier, JwtSvid, Leeway, TrustBundleSet, UnprovenWit, VerifyError, tls::verify_pinned,
};

use super::*;
use crate::authority::{Lifecycle, Rotation, SubjectKey};

const HOUR: Duration = Duration::from_secs(3600);
const AUDIENCE: &str = "https://db.test.example";

/// Stored keys, and what opens them.
struct World {
    _home: tempfile::TempDir,
    trust_domain: TrustDomain,
    sealing: SealingKey,
    now: SystemTime,
    stored: Vec<StoredAuthority>,
}

impl World {
    fn new(lifecycle: Lifecycle) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut world = Self {
            sealing: SealingKey::open(&home.path().join("kek"), true).unwrap(),
            _home: home,
            trust_domain: TrustDomain::parse("test.example").unwrap(),
            now: SystemTime::now(),
            stored: Vec::new(),
        };
        for key_use in lifecycle.uses() {
            world.make(key_use, KeyState::Active);
        }
        world
    }

    fn make(&mut self, key_use: KeyUse, state: KeyState) -> &mut StoredAuthority {
        // Each a second younger than the one before, as their ages decide.
        self.now += Duration::from_secs(1);
        let rotation = Rotation {
            trust_domain: &self.trust_domain,
            sealing: &self.sealing,
            lifecycle: Lifecycle::default(),
            user: "test",
            now: self.now,
        };
        self.stored.push(rotation.make(key_use, state).unwrap());
        self.stored.last_mut().unwrap()
    }

    fn retire(&mut self, key_use: KeyUse) {
        for key in &mut self.stored {
            if key.key_use == key_use && key.state == KeyState::Active {
                key.state = KeyState::Retired;
            }
        }
    }

    fn keyring(&self) -> Keyring {
        self.open().unwrap()
    }

    fn open(&self) -> Result<Keyring, KeyringError> {
        let lifecycle = Lifecycle::default();
        Keyring::open(
            &self.trust_domain,
            &self.stored,
            &self.sealing,
            lifecycle,
            7,
        )
    }

    fn claims(&self, ttl: Duration) -> JwtClaims {
        let id = SpiffeId::new(&self.trust_domain, "/web").unwrap();
        JwtClaims::new(&id, &[AUDIENCE], self.now, self.now + ttl).unwrap()
    }

    fn validate(
        &self,
        token: &SignedToken,
        bundle: &TrustBundle,
    ) -> Result<JwtSvid, identity::TokenError> {
        let bundles = TrustBundleSet::new([bundle.clone()]);
        JwtSvid::validate(&token.token, AUDIENCE, &bundles, self.now, Leeway::MAX)
    }
}

fn with_wit() -> Lifecycle {
    Lifecycle {
        wit: true,
        ..Lifecycle::default()
    }
}

#[test]
fn jw_03_jw_05_jw_16_a_token_is_signed_by_the_key_of_its_algorithm_under_its_thumbprint() {
    let world = World::new(Lifecycle::default());
    let keyring = world.keyring();
    let mut kids = Vec::new();
    for algorithm in [JwtAlgorithm::Es256, JwtAlgorithm::Rs256] {
        let token = keyring.sign_jwt(algorithm, &world.claims(HOUR)).unwrap();
        let svid = world.validate(&token, keyring.bundle()).unwrap();
        assert_eq!(svid.id().as_str(), "spiffe://test.example/web");
        assert_eq!(svid.key_id(), token.key_id);
        let key = keyring
            .bundle()
            .jwt_authorities()
            .iter()
            .find(|key| key.key_id() == token.key_id);
        let thumbprint = key.and_then(|key| key.key()).map(identity::Jwk::thumbprint);
        assert_eq!(thumbprint.as_ref(), Some(&token.key_id));
        assert_eq!(
            key.unwrap().jwk()["kty"],
            if algorithm == JwtAlgorithm::Es256 {
                "EC"
            } else {
                "RSA"
            }
        );
        assert!(!format!("{token:?}").contains(&token.token));
        kids.push(token.key_id);
    }
    assert_ne!(kids[0], kids[1]);
}

#[test]
fn jw_07_jw_12_a_token_of_another_trust_domain_or_beyond_its_key_is_not_signed() {
    let world = World::new(with_wit());
    let keyring = world.keyring();
    let foreign = SpiffeId::parse("spiffe://other.example/web").unwrap();
    let claims = JwtClaims::new(&foreign, &[AUDIENCE], world.now, world.now + HOUR).unwrap();
    let refused = keyring.sign_jwt(JwtAlgorithm::Es256, &claims);
    assert!(matches!(refused, Err(AuthorityError::NotALeafId(_))));
    let long = world.claims(super::super::CA_LIFE * 2);
    let refused = keyring.sign_jwt(JwtAlgorithm::Rs256, &long);
    assert!(matches!(refused, Err(AuthorityError::Expired { .. })));
    let cut = keyring
        .jwt_validity(JwtAlgorithm::Es256, world.now, super::super::CA_LIFE * 2)
        .unwrap();
    assert!(cut.not_after < world.now + super::super::CA_LIFE + HOUR);
    let late = keyring.jwt_validity(JwtAlgorithm::Es256, cut.not_after, HOUR);
    assert!(matches!(late, Err(AuthorityError::Expired { .. })));
}

#[test]
fn wi_01_wi_17_wit_svids_have_keys_of_their_own_and_are_off_unless_switched_on() {
    let off = World::new(Lifecycle::default()).keyring();
    assert!(!off.has_wit() && off.bundle().wit_authorities().is_empty());
    let world = World::new(with_wit());
    let keyring = world.keyring();
    let id = SpiffeId::new(&world.trust_domain, "/web").unwrap();
    let holder = TokenKey::generate(KeyUse::Wit, world.now + HOUR).unwrap().0;
    let claims = WitClaims::new(&id, holder.public(), world.now, world.now + HOUR).unwrap();
    assert!(matches!(off.sign_wit(&claims), Err(AuthorityError::WitOff)));
    let token = keyring.sign_wit(&claims).unwrap();
    let bundles = TrustBundleSet::new([keyring.bundle().as_ref().clone()]);
    let unproven = UnprovenWit::validate(&token.token, &bundles, world.now, Leeway::MAX).unwrap();
    let proof = holder.sign(b"nonce").unwrap();
    assert_eq!(unproven.prove(b"nonce", &proof).unwrap().id(), &id);
    // Every kid of the bundle is of one key, of one use.
    let keys = keyring.bundle();
    let kids: std::collections::BTreeSet<_> = keys
        .jwt_authorities()
        .iter()
        .chain(keys.wit_authorities())
        .map(identity::KeyAuthority::key_id)
        .collect();
    assert_eq!(kids.len(), 3);
    assert!(!kids.contains(keyring.audit().key_id()));
}

#[test]
fn fe_01_fe_02_prepared_and_retired_keys_are_in_the_bundle_and_only_the_active_signs() {
    let mut world = World::new(Lifecycle::default());
    let before = world.keyring();
    for key_use in [KeyUse::X509, KeyUse::JwtEs256, KeyUse::JwtRs256] {
        world.make(key_use, KeyState::Prepared);
    }
    let published = world.keyring();
    assert_eq!(published.pin(), before.pin());
    assert_eq!(published.bundle().x509_authorities().len(), 2);
    assert_eq!(published.bundle().jwt_authorities().len(), 4);
    assert!(published.own_chain().is_empty());
    for key_use in [KeyUse::X509, KeyUse::JwtEs256, KeyUse::JwtRs256] {
        world.retire(key_use);
    }
    for key in &mut world.stored {
        if key.state == KeyState::Prepared {
            key.state = KeyState::Active;
        }
    }
    let after = world.keyring();
    assert_ne!(after.pin(), before.pin());
    assert_eq!(after.bundle(), published.bundle());
    for algorithm in [JwtAlgorithm::Es256, JwtAlgorithm::Rs256] {
        let old = before.sign_jwt(algorithm, &world.claims(HOUR)).unwrap();
        let new = after.sign_jwt(algorithm, &world.claims(HOUR)).unwrap();
        assert_ne!(old.key_id, new.key_id);
        // Both ways: what either signs is accepted with the bundle of the time between.
        assert!(world.validate(&old, published.bundle()).is_ok());
        assert!(world.validate(&new, published.bundle()).is_ok());
        assert!(world.validate(&new, before.bundle()).is_err());
    }
}

fn issuer_leaf(keyring: &Keyring, now: SystemTime) -> Vec<CertificateDer<'static>> {
    let id = SpiffeId::new(keyring.trust_domain(), "/issuer").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let key = SubjectKey::from_csr(request.der()).unwrap();
    let validity = keyring.validity(now, HOUR).unwrap();
    let leaf = keyring
        .sign_leaf(&LeafTemplate::new(&id, &key, validity))
        .unwrap();
    std::iter::once(leaf.certificate)
        .chain(keyring.own_chain().iter().cloned())
        .collect()
}

#[test]
fn after_rotations_the_issuers_chain_convinces_agents_of_any_ca_that_is_left() {
    let mut world = World::new(Lifecycle::default());
    let mut rings = vec![world.keyring()];
    for _ in 0..3 {
        world.retire(KeyUse::X509);
        world.make(KeyUse::X509, KeyState::Active);
        rings.push(world.keyring());
    }
    let newest = rings.last().unwrap();
    let now = world.now + Duration::from_secs(5);
    let chain = issuer_leaf(newest, now);
    for (age, ring) in rings.iter().enumerate() {
        // An agent that knows only that CA, and one that pins it.
        let alone = TrustBundle::new(
            world.trust_domain.clone(),
            vec![ring.x509().certificate().clone()],
        )
        .unwrap();
        let bundles = TrustBundleSet::new([alone]);
        let verified = ChainVerifier::new(0).verify(&chain, &bundles, 1, now);
        assert_eq!(verified.unwrap().id.path(), "/issuer", "{age}");
        let pin = ring.pin().parse().unwrap();
        let pinned = verify_pinned(&[pin], "/issuer", &chain, now).unwrap();
        assert_eq!(pinned.identity.id.path(), "/issuer", "{age}");
    }
    // A CA that never was ours convinces nobody.
    let other = World::new(Lifecycle::default()).keyring();
    let bundles = TrustBundleSet::new([other.bundle().as_ref().clone()]);
    let refused = ChainVerifier::new(0).verify(&chain, &bundles, 1, now);
    assert!(
        matches!(refused, Err(VerifyError::UnknownAuthority { .. })),
        "{refused:?}"
    );
    let pin = other.pin().parse().unwrap();
    assert!(verify_pinned(&[pin], "/issuer", &chain, now).is_err());
}

#[test]
fn a_cross_certificate_is_an_authority_of_the_trust_domain_and_no_more() {
    let mut world = World::new(Lifecycle::default());
    let old = world.keyring();
    world.retire(KeyUse::X509);
    world.make(KeyUse::X509, KeyState::Active);
    let new = world.keyring();
    let cross = &new.own_chain()[0];
    assert_eq!(
        identity::CaPin::of_certificate(cross).unwrap().to_string(),
        new.pin()
    );
    // It is one that a bundle would take: cA, keyCertSign, and it ends with the older CA.
    let bundle = TrustBundle::new(world.trust_domain.clone(), vec![cross.clone()]);
    assert!(bundle.is_ok());
    let parsed = x509_parser::parse_x509_certificate(cross).unwrap().1;
    let old_ca = old.x509().certificate();
    let old_ca = x509_parser::parse_x509_certificate(old_ca).unwrap().1;
    parsed.verify_signature(Some(old_ca.public_key())).unwrap();
    assert_eq!(parsed.issuer().as_raw(), old_ca.subject().as_raw());
    assert_ne!(parsed.subject().as_raw(), old_ca.subject().as_raw());
    assert_eq!(parsed.validity().not_after, old_ca.validity().not_after);
}

#[test]
fn a_keyring_needs_one_signer_of_each_use() {
    for key_use in [
        KeyUse::X509,
        KeyUse::JwtEs256,
        KeyUse::JwtRs256,
        KeyUse::Audit,
    ] {
        let mut world = World::new(Lifecycle::default());
        world.retire(key_use);
        let refused = world.open();
        assert!(
            matches!(refused, Err(KeyringError::NoKey(it)) if it == key_use),
            "{key_use}"
        );
    }
}

#[test]
fn a_stored_key_under_another_id_is_refused() {
    let mut world = World::new(Lifecycle::default());
    let at = world
        .stored
        .iter()
        .position(|key| key.key_use == KeyUse::JwtEs256)
        .unwrap();
    // Sealed under its id: a renamed row does not open at all.
    world.stored[at].key_id.push('x');
    assert!(matches!(world.open(), Err(KeyringError::KeyFile(_))));
}

#[test]
fn late_keys_are_told() {
    let world = World::new(Lifecycle::default());
    let keyring = world.keyring();
    let life = super::super::CA_LIFE;
    assert_eq!(
        keyring.end_is_near(world.now + life / 3 * 2 + life / 90),
        None
    );
    let warning = keyring
        .end_is_near(world.now + life / 6 * 5 + HOUR)
        .unwrap();
    assert!(warning.contains("x509"), "{warning}");
}
