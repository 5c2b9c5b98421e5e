use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

use identity::Jwk;

use super::{AuditKeys, Checkpoint, Fault, Hash, Head, NotSigned, Record, START, Verifier};

#[derive(Debug, Clone)]
struct Owned {
    sequence: u64,
    time_ms: i64,
    event: String,
    success: bool,
    fields: String,
    hash: Hash,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        Record {
            sequence: self.sequence,
            time_ms: self.time_ms,
            event: &self.event,
            success: self.success,
            fields: &self.fields,
        }
    }
}

/// A trail of `length` records, as the issuer would write it.
fn trail(length: u64) -> Vec<Owned> {
    let mut records: Vec<_> = (1..=length)
        .map(|sequence| Owned {
            sequence,
            time_ms: 1_763_769_600_000 + i64::try_from(sequence).unwrap(),
            event: "spiffe.svid.issued".to_owned(),
            success: sequence % 7 != 0,
            fields: format!(r#"{{"spiffe_id":"spiffe://example.org/{sequence}"}}"#),
            hash: START,
        })
        .collect();
    chain(&mut records);
    records
}

/// Makes every link anew.
fn chain(records: &mut [Owned]) {
    let mut previous = START;
    for record in records {
        record.hash = record.record().hash(&previous);
        previous = record.hash;
    }
}

struct Signer {
    key: EcdsaKeyPair,
    public: Jwk,
}

impl Signer {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let public = Jwk::from_spki(der.as_ref()).unwrap();
        Self { key, public }
    }

    fn keys(&self) -> AuditKeys {
        let mut keys = AuditKeys::default();
        keys.add(self.public.clone());
        keys
    }

    fn sign(&self, record: &Owned) -> Checkpoint {
        let head = Head {
            trust_domain: "example.org".to_owned(),
            sequence: record.sequence,
            hash: record.hash,
            time_ms: record.time_ms,
        };
        let signature = self.key.sign(&SystemRandom::new(), &head.message());
        Checkpoint {
            signature: signature.unwrap().as_ref().to_vec(),
            head,
            key_id: self.public.thumbprint(),
        }
    }
}

fn walk(
    keys: AuditKeys,
    records: &[Owned],
    checkpoints: &[Checkpoint],
) -> Result<super::Verified, Fault> {
    let mut verifier = Verifier::from_start(keys);
    for checkpoint in checkpoints {
        verifier.checkpoint(checkpoint)?;
    }
    for record in records {
        verifier.record(&record.record(), &record.hash)?;
    }
    verifier.finish(true)
}

/// Computed with Python's hashlib: another implementation of the same rule.
#[test]
fn the_rule_is_what_the_documentation_says() {
    let record = Record {
        sequence: 1,
        time_ms: 1_763_769_600_123,
        event: "bot.join",
        success: true,
        fields: r#"{"bot_name":"app"}"#,
    };
    let first = record.hash(&START);
    assert_eq!(hex::encode(first), FIRST);
    let second = Record {
        sequence: 2,
        event: "bot.renew",
        success: false,
        fields: r#"{"reason":"locked","error":"ä"}"#,
        ..record
    };
    assert_eq!(hex::encode(second.hash(&first)), SECOND);
    let head = Head {
        trust_domain: "example.org".to_owned(),
        sequence: 2,
        hash: second.hash(&first),
        time_ms: 1_763_769_600_123,
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &head.message());
    assert_eq!(hex::encode(digest), HEAD);
}

const FIRST: &str = "2b8be3ff39681dd04e19026ce028bc8e26a96d3f8530edde98b06f1f92cd51dd";
const SECOND: &str = "f49e2293bba4a6bf3f73a7482a221f912b9ec12ef7c17b85a645e9caddf1e4ad";
const HEAD: &str = "437afc5e90ae6b9529c50774591abe0b4652039592474d5e45fa3d251116c5f1";

#[test]
fn an_untouched_trail_is_verified() {
    let (signer, records) = (Signer::new(), trail(20));
    let signed = [signer.sign(&records[9]), signer.sign(&records[19])];
    let verified = walk(signer.keys(), &records, &signed).unwrap();
    assert_eq!((verified.first, verified.last), (1, 20));
    assert_eq!((verified.checkpoints, verified.signed_to), (2, 20));
    assert!(!verified.first_on_trust);
    assert_eq!(verified.hash, records[19].hash);
}

#[test]
fn whatever_is_done_to_a_record_is_found_and_named() {
    type Tamper = fn(&mut Vec<Owned>);
    let cases: [(&str, Tamper, Fault); 11] = [
        (
            "fields",
            |r| r[6].fields.push(' '),
            Fault::Changed { sequence: 7 },
        ),
        (
            "time",
            |r| r[6].time_ms += 1,
            Fault::Changed { sequence: 7 },
        ),
        (
            "event",
            |r| r[6].event = "bot.join".to_owned(),
            Fault::Changed { sequence: 7 },
        ),
        (
            "verdict",
            |r| r[6].success = true,
            Fault::Changed { sequence: 7 },
        ),
        (
            "link",
            |r| r[6].hash[31] ^= 1,
            Fault::Changed { sequence: 7 },
        ),
        (
            "removed",
            |r| drop(r.remove(6)),
            Fault::Missing {
                first: 7,
                last: 7,
                next: 8,
            },
        ),
        (
            "removed and renumbered",
            |r| {
                r.remove(6);
                r[6..].iter_mut().for_each(|record| record.sequence -= 1);
            },
            Fault::Changed { sequence: 7 },
        ),
        (
            "contents swapped",
            |r| {
                let (a, b) = (r[6].sequence, r[7].sequence);
                r.swap(6, 7);
                (r[6].sequence, r[7].sequence) = (a, b);
            },
            Fault::Changed { sequence: 7 },
        ),
        (
            "inserted and renumbered",
            |r| {
                let copy = r[6].clone();
                r.insert(6, copy);
                r[7..].iter_mut().for_each(|record| record.sequence += 1);
            },
            Fault::Changed { sequence: 8 },
        ),
        (
            "cut tail",
            |r| r.truncate(15),
            Fault::CutTail {
                first: 16,
                last: 20,
            },
        ),
        (
            "made anew",
            |r| {
                r[6].success = true;
                chain(r);
            },
            Fault::Rewritten { first: 1, last: 10 },
        ),
    ];
    let signer = Signer::new();
    for (name, tamper, fault) in cases {
        let mut records = trail(20);
        let signed = [signer.sign(&records[9]), signer.sign(&records[19])];
        tamper(&mut records);
        assert_eq!(walk(signer.keys(), &records, &signed), Err(fault), "{name}");
    }
}

#[test]
fn records_beyond_the_signed_head_are_named() {
    let signer = Signer::new();
    let records = trail(20);
    let signed = [signer.sign(&records[16])];
    let fault = Fault::NeverSigned {
        sequence: 18,
        signed: 17,
    };
    assert_eq!(walk(signer.keys(), &records, &signed), Err(fault));
    let fault = Fault::NeverSigned {
        sequence: 1,
        signed: 0,
    };
    assert_eq!(walk(signer.keys(), &records, &[]), Err(fault));
}

#[test]
fn a_checkpoint_needs_the_right_key_and_trail() {
    let (signer, other, records) = (Signer::new(), Signer::new(), trail(3));
    let signed = signer.sign(&records[2]);
    let wrong = Fault::Checkpoint {
        sequence: 3,
        why: NotSigned::WrongSignature(signer.public.thumbprint()),
    };
    let mut passed_off = signed.clone();
    passed_off.key_id = other.public.thumbprint();
    assert!(matches!(
        walk(other.keys(), &records, &[passed_off]),
        Err(Fault::Checkpoint {
            sequence: 3,
            why: NotSigned::WrongSignature(_)
        })
    ));
    let unknown = Fault::Checkpoint {
        sequence: 3,
        why: NotSigned::UnknownKey(signer.public.thumbprint()),
    };
    for keys in [other.keys(), AuditKeys::default()] {
        let outcome = walk(keys, &records, std::slice::from_ref(&signed));
        assert_eq!(outcome, Err(unknown.clone()));
    }
    for tamper in [
        |head: &mut Head| head.trust_domain = "example.net".to_owned(),
        |head: &mut Head| head.time_ms += 1,
    ] {
        let mut forged = signed.clone();
        tamper(&mut forged.head);
        assert_eq!(walk(signer.keys(), &records, &[forged]), Err(wrong.clone()));
    }
    let mut elsewhere = signer.sign(&records[1]);
    elsewhere.head.trust_domain = "example.net".to_owned();
    let message = elsewhere.head.message();
    elsewhere.signature = signer
        .key
        .sign(&SystemRandom::new(), &message)
        .unwrap()
        .as_ref()
        .to_vec();
    assert!(matches!(
        walk(signer.keys(), &records, &[signed, elsewhere]),
        Err(Fault::TrustDomain { sequence: 2, .. })
    ));
}

#[test]
fn a_checkpoint_kept_elsewhere_finds_a_chain_that_the_key_holder_made_anew() {
    let signer = Signer::new();
    let mut records = trail(20);
    let kept = signer.sign(&records[11]);
    records[3].success = !records[3].success;
    chain(&mut records);
    // The forger has the audit key: everything in the store fits.
    let signed = [signer.sign(&records[9]), signer.sign(&records[19])];
    assert!(walk(signer.keys(), &records, &signed).is_ok());
    let with_kept = [signed.as_slice(), &[kept]].concat();
    let fault = Fault::Rewritten {
        first: 11,
        last: 12,
    };
    assert_eq!(walk(signer.keys(), &records, &with_kept), Err(fault));
}

#[test]
fn a_part_is_verified_from_the_link_before_it() {
    let (signer, records) = (Signer::new(), trail(20));
    let mut verifier = Verifier::after(signer.keys(), 10, records[9].hash);
    verifier.checkpoint(&signer.sign(&records[4])).unwrap();
    for record in &records[10..] {
        verifier.record(&record.record(), &record.hash).unwrap();
    }
    let verified = verifier.finish(false).unwrap();
    assert_eq!((verified.first, verified.last), (11, 20));
    assert!(verified.first_on_trust);
    let mut verifier = Verifier::after(signer.keys(), 10, records[8].hash);
    let record = &records[10];
    assert_eq!(
        verifier.record(&record.record(), &record.hash),
        Err(Fault::Changed { sequence: 11 })
    );
}

#[test]
fn a_record_delivered_twice_is_no_fault_but_a_forged_one_is() {
    let records = trail(9);
    let mut verifier = Verifier::from_anywhere(AuditKeys::default());
    for record in records[..6].iter().chain(&records[3..]) {
        verifier.record(&record.record(), &record.hash).unwrap();
    }
    let mut forged = records[4].clone();
    forged.success = !forged.success;
    assert_eq!(
        verifier.record(&forged.record(), &forged.hash),
        Err(Fault::Order {
            sequence: 5,
            due: 10
        })
    );
    let verified = verifier.finish(false).unwrap();
    assert_eq!((verified.repeated, verified.last), (3, 9));
}

#[test]
fn an_empty_trail_is_verified() {
    let verified = walk(AuditKeys::default(), &[], &[]).unwrap();
    assert_eq!((verified.first, verified.last), (0, 0));
}
