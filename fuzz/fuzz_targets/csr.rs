//! Any bytes as a certificate request; and any bytes as the subject and attributes of
//! one that is signed as it should be. What is accepted is the key that signed it,
//! whatever names the request has.

#![no_main]

use std::sync::LazyLock;

use issuer::authority::SubjectKey;
use libfuzzer_sys::fuzz_target;
use rcgen::{KeyPair, PublicKeyData, SigningKey};

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("key"));

/// DER of one value.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let shortest = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    match shortest {
        [] => der.push(0),
        [short @ 0..=127] => der.push(*short),
        _ => {
            der.push(0x80 | shortest.len() as u8);
            der.extend(shortest);
        }
    }
    der.extend(content);
    der
}

/// A request (RFC 2986 section 4) with these bytes in place of subject and attributes.
fn signed(subject: &[u8], attributes: &[u8]) -> Vec<u8> {
    // ecdsa-with-SHA256 (RFC 5758 section 3.2).
    const ALGORITHM: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let version = tlv(0x02, &[0]);
    let key = KEY.subject_public_key_info();
    let info = [&version, subject, &key, attributes].concat();
    let info = tlv(0x30, &info);
    let signature = KEY.sign(&info).expect("signature");
    let signature = tlv(0x03, &[&[0][..], &signature].concat());
    tlv(0x30, &[info, tlv(0x30, ALGORITHM), signature].concat())
}

fuzz_target!(|data: &[u8]| {
    let _ = SubjectKey::from_csr(data);
    let [cut, rest @ ..] = data else { return };
    let (subject, attributes) = rest.split_at(usize::from(*cut).min(rest.len()));
    for (subject, attributes) in [
        (tlv(0x30, subject), tlv(0xa0, attributes)),
        (subject.to_vec(), attributes.to_vec()),
    ] {
        if let Ok(key) = SubjectKey::from_csr(&signed(&subject, &attributes)) {
            assert_eq!(
                key,
                SubjectKey::from_own_key(&KEY.subject_public_key_info())
            );
        }
    }
});
