//! What stands beside an image in a registry, up to the verdict: any bytes as a bundle
//! and what it signs, any bytes as a manifest and the content of its layers (made into
//! bundles as the agent does it), and bundles that are signed with any change in them.
//! Only what somebody signed for this very image satisfies a policy.

#![no_main]

use std::{collections::HashSet, fs, path::PathBuf, sync::LazyLock};

use attest::sigstore::{ImageSignature, Manifest, attestation, signature};
use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use serde_json::Value;
use sigstore_policy::{
    Authority, IdentitySource, ImageDigest, MatcherSource, Payload, Policy, PolicySource,
    Requirements,
};

/// Of `sigstore-policy/tests/fixtures/payloads`, in the order by which an input names them.
const SIGNED: [&str; 12] = [
    "key-p256",
    "key-p384",
    "key-ed25519",
    "key-rsa",
    "key-signature",
    "key-manifest",
    "key-provenance",
    "key-other-image",
    "keyless-signature",
    "keyless-simple-signing",
    "keyless-provenance",
    "keyless-other-image",
];
const SLSA: &str = "https://slsa.dev/provenance/v1";

struct World {
    image: ImageDigest,
    /// For which nobody signed anything.
    stranger: ImageDigest,
    policies: Vec<Policy>,
    signed: Vec<(Value, Option<Vec<u8>>)>,
    /// All that was ever signed.
    contents: HashSet<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let facts: Value = serde_json::from_str(&fixture("facts.json")).expect("JSON");
    let image = facts["image"].as_str().expect("image");
    let exact = |name: &str| MatcherSource::Exact(facts[name].as_str().expect(name).to_owned());
    let keyless = Authority::Keyless {
        identities: vec![IdentitySource {
            issuer: exact("issuer"),
            subject: exact("subject"),
        }],
        trusted_roots: vec![fixture("root.json")],
    };
    let keys = ["p256", "p384", "ed25519", "rsa"];
    let keys = keys.map(|name| Authority::Key(fixture(&format!("keys/{name}.pem"))));
    let policies = keys.into_iter().chain([keyless]).flat_map(|authority| {
        let attested = Requirements::Attestations(vec![SLSA.to_owned()]);
        [Requirements::Signature, attested].map(|requirements| {
            let authority = authority.clone();
            let source = PolicySource {
                authority,
                requirements,
            };
            Policy::new(&source).expect("policy")
        })
    });
    let policies = policies.collect();
    let signed: Vec<_> = SIGNED
        .iter()
        .map(|name| {
            let json: Value =
                serde_json::from_str(&fixture(&format!("payloads/{name}.json"))).expect("JSON");
            let simple = json["simple_signing"].as_str();
            let simple = simple.map(|text| STANDARD.decode(text).expect("Base64"));
            (json["bundle"].clone(), simple)
        })
        .collect();
    let contents = signed
        .iter()
        .filter_map(|(bundle, simple)| content(bundle, simple.as_deref()));
    World {
        image: image.parse().expect("digest"),
        stranger: format!("sha256:{}", "7".repeat(64))
            .parse()
            .expect("digest"),
        policies,
        contents: contents.collect(),
        signed,
    }
});

fn fixture(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("../sigstore-policy/tests/fixtures");
    fs::read_to_string(folder.join(name)).expect(name)
}

/// What the signature of a bundle is over; of the manifest of an image its digest.
fn content(bundle: &Value, simple_signing: Option<&[u8]>) -> Option<Vec<u8>> {
    if let Some(signed) = simple_signing {
        return Some(signed.to_vec());
    }
    let payload = bundle.pointer("/dsseEnvelope/payload");
    let payload = payload.or(bundle.pointer("/messageSignature/messageDigest/digest"))?;
    STANDARD.decode(payload.as_str()?).ok()
}

/// A manifest, and the content of each of its layers.
fn converted(manifest: &[u8], content: &[u8]) -> Vec<Payload> {
    let layers = Manifest::read(manifest).map_or(Vec::new(), |manifest| manifest.layers);
    let made = layers.iter().take(4).flat_map(|layer| {
        let annotations = &layer.annotations;
        [
            signature(content, annotations),
            attestation(content, annotations),
        ]
    });
    made.flatten().map(payload).collect()
}

fn payload(found: ImageSignature) -> Payload {
    Payload {
        bundle: found.bundle,
        simple_signing: Some(found.simple_signing).filter(|signed| !signed.is_empty()),
    }
}

/// Where a change is made: the number of a value, the first byte, how many bytes go, and
/// what comes in their place. What is Base64 is changed within.
type Change<'a> = (u8, u16, u8, &'a [u8]);

fn changed(number: usize, changes: &[u8]) -> Payload {
    let (mut bundle, mut simple_signing) = WORLD.signed[number].clone();
    let mut input = Unstructured::new(changes);
    let changes = input.arbitrary_iter::<Change<'_>>();
    for change in changes.into_iter().flatten().flatten().take(8) {
        let mut values = Vec::new();
        leaves(&mut bundle, &mut values);
        let which = usize::from(change.0) % (values.len() + 1);
        match (values.get_mut(which), &mut simple_signing) {
            (Some(value), _) => **value = edited(value, change),
            (None, Some(signed)) => edit(signed, change),
            (None, None) => {}
        }
    }
    Payload {
        bundle: bundle.to_string().into_bytes(),
        simple_signing,
    }
}

fn leaves<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Object(map) => map.values_mut().for_each(|value| leaves(value, found)),
        Value::Array(items) => items.iter_mut().for_each(|value| leaves(value, found)),
        _ => found.push(value),
    }
}

fn edited(value: &Value, change: Change<'_>) -> Value {
    let Some(text) = value.as_str() else {
        return Value::Null;
    };
    match STANDARD.decode(text) {
        Ok(mut bytes) if !bytes.is_empty() => {
            edit(&mut bytes, change);
            Value::String(STANDARD.encode(bytes))
        }
        _ => {
            let mut bytes = text.as_bytes().to_vec();
            edit(&mut bytes, change);
            Value::String(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}

fn edit(bytes: &mut Vec<u8>, (_, at, gone, put): Change<'_>) {
    let start = usize::from(at) % (bytes.len() + 1);
    let end = (start + usize::from(gone)).min(bytes.len());
    bytes.splice(start..end, put.iter().copied());
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let mut halves = rest.splitn(2, |byte| *byte == 0);
    let first = halves.next().unwrap_or_default();
    let second = halves.next();
    let payloads = match kind {
        0 => vec![Payload {
            bundle: first.to_vec(),
            simple_signing: second.map(<[u8]>::to_vec),
        }],
        1 => converted(first, second.unwrap_or_default()),
        number => vec![changed(usize::from(number - 2) % SIGNED.len(), rest)],
    };
    let world = &*WORLD;
    for policy in &world.policies {
        if policy.check(&world.image, &payloads).is_ok() {
            let was_signed = |payload: &Payload| {
                let bundle = serde_json::from_slice(&payload.bundle).expect("JSON");
                let content = content(&bundle, payload.simple_signing.as_deref());
                content.is_some_and(|content| world.contents.contains(&content))
            };
            assert!(
                payloads.iter().any(was_signed),
                "{policy:?} takes a forgery"
            );
        }
        assert!(policy.check(&world.stranger, &payloads).is_err());
    }
});
