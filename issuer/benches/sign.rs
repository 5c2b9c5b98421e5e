//! Instructions of what one SVID costs the authority: to take the key of a certificate
//! request, to sign an X509-SVID, to sign a JWT-SVID.

// What gungraun's macros make is not written by us.
#![allow(missing_docs, unused_qualifications, clippy::expect_used)]

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use gungraun::prelude::*;
use identity::{JwtClaims, SpiffeId, TrustDomain, jose, jwt_svid};
use issuer::authority::{
    Authority, AuthorityError, CA_LIFE, CsrError, KeyUse, Leaf, LeafTemplate, SubjectKey, TokenKey,
    Validity,
};

const TTL: Duration = Duration::from_secs(3600);

fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("key");
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("request");
    let csr = request.der().to_vec();
    // The tables that are made once per process.
    SubjectKey::from_csr(&csr).expect("request");
    csr
}

fn id() -> SpiffeId {
    let trust_domain = TrustDomain::parse("bench.example").expect("trust domain");
    SpiffeId::new(&trust_domain, "/apps/web").expect("id")
}

fn authority() -> (Authority, SpiffeId, SubjectKey, Validity) {
    let (id, now) = (id(), SystemTime::now());
    let (authority, _) = Authority::create(&id.trust_domain(), now, CA_LIFE).expect("authority");
    let key = SubjectKey::from_csr(&csr()).expect("request");
    let validity = authority.validity(now, TTL).expect("validity");
    (authority, id, key, validity)
}

fn token_key() -> (TokenKey, JwtClaims) {
    let now = SystemTime::now();
    let (key, _) = TokenKey::generate(KeyUse::JwtEs256, now + CA_LIFE).expect("key");
    let audiences = ["bench".to_owned()];
    let claims = JwtClaims::new(&id(), &audiences, now, now + TTL).expect("claims");
    key.sign(b"warm").expect("signature");
    (key, claims)
}

#[library_benchmark]
#[bench::p256(setup = csr)]
fn take_key(csr: Vec<u8>) -> Result<SubjectKey, CsrError> {
    SubjectKey::from_csr(black_box(&csr))
}

#[library_benchmark]
#[bench::p256(setup = authority)]
fn sign_x509(
    (authority, id, key, validity): (Authority, SpiffeId, SubjectKey, Validity),
) -> Result<Leaf, AuthorityError> {
    black_box(&authority).sign_leaf(&LeafTemplate::new(&id, &key, validity))
}

#[library_benchmark]
#[bench::es256(setup = token_key)]
fn sign_jwt((key, claims): (TokenKey, JwtClaims)) -> String {
    let header = jose::Header {
        algorithm: key.algorithm(),
        r#type: jwt_svid::TYPE,
        key_id: key.key_id(),
    };
    jose::compact(header, black_box(claims.claims()), |message| {
        key.sign(message)
    })
    .expect("signature")
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [take_key, sign_x509, sign_jwt]
);
main!(library_benchmark_groups = instructions);
