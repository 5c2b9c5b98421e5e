//! What the agents ask for, and the keys that they ask it for.

use std::time::Duration;

use anyhow::Context;
use proto::issue::v1::{
    IssueSvidsRequest, JwtRequest, LabelSelector, LabelSelectors, Svid, SvidRequest, WitRequest,
    X509Request, svid, svid_request,
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};

/// Text in which `{n}` stands for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub String);

impl Pattern {
    /// The text for this number.
    pub fn with(&self, number: u64) -> String {
        self.0.replace("{n}", &number.to_string())
    }
}

/// Which workload identities.
#[derive(Debug, Clone)]
pub enum Selection {
    /// The one of this name.
    Name(Pattern),
    /// Those with these labels.
    Labels(Vec<(Pattern, Vec<Pattern>)>),
}

/// Which kind of SVID.
#[derive(Debug, Clone)]
pub enum Document {
    /// X.509.
    X509,
    /// JWT, for these audiences.
    Jwt(Vec<String>),
    /// WIT.
    Wit,
}

/// What one call asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Which workload identities.
    pub selection: Selection,
    /// `{n}` is drawn from `0..numbers`.
    pub numbers: u64,
    /// Which kind.
    pub document: Document,
    /// Life; `None`: the resource's default.
    pub ttl: Option<Duration>,
    /// Attributes of the workload.
    pub attributes: Option<prost_types::Struct>,
    /// Items of a call.
    pub batch: usize,
    /// Keys of an item (by labels: SVIDs at most).
    pub keys_per_item: usize,
    /// Keys made before the run; at least as many as a call needs.
    pub keys: Vec<Key>,
    /// Whether each call makes its keys anew.
    pub fresh_keys: bool,
}

impl Wanted {
    /// Keys that one call needs.
    pub fn keys_per_call(&self) -> usize {
        match self.document {
            Document::Jwt(_) => 0,
            Document::X509 | Document::Wit => self.batch * self.keys_per_item,
        }
    }
}

/// A key pair of which nothing is left but what the issuer is shown.
#[derive(Debug, Clone)]
pub struct Key {
    /// SubjectPublicKeyInfo, DER.
    public: Vec<u8>,
    /// Certificate request signed with it, DER.
    csr: Vec<u8>,
}

impl Key {
    /// Makes a key pair (ECDSA P-256) and its request.
    pub fn generate() -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .context("cannot sign a certificate request")?;
        Ok(Self {
            public: key.subject_public_key_info(),
            csr: csr.der().to_vec(),
        })
    }
}

/// What an item asked for, to hold its answer against.
#[derive(Debug)]
pub struct Asked {
    keys: Vec<Key>,
    document: Document,
}

impl Asked {
    /// Whether this can be the answer.
    pub fn is_answered_by(&self, svid: &Svid) -> bool {
        match (&self.document, &svid.document) {
            (Document::X509, Some(svid::Document::X509(x509))) => {
                let key = usize::try_from(x509.csr)
                    .ok()
                    .and_then(|at| self.keys.get(at));
                let leaf = x509.chain_der.first();
                leaf.zip(key).is_some_and(|(leaf, key)| {
                    let mut parts = leaf.windows(key.public.len());
                    parts.any(|part| part == key.public)
                })
            }
            (Document::Jwt(_), Some(svid::Document::Jwt(jwt))) => is_compact_jws(&jwt.token),
            (Document::Wit, Some(svid::Document::Wit(wit))) => is_compact_jws(&wit.token),
            _ => false,
        }
    }
}

fn is_compact_jws(token: &str) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
}

/// Makes one agent's requests.
#[derive(Debug)]
pub struct Asker {
    random: u64,
    next_key: usize,
}

impl Asker {
    /// Of the agent with this number.
    pub fn new(agent: usize) -> Self {
        Self {
            random: agent as u64,
            next_key: agent.wrapping_mul(7),
        }
    }

    /// The next call.
    pub fn next(&mut self, wanted: &Wanted) -> anyhow::Result<(IssueSvidsRequest, Vec<Asked>)> {
        let mut requests = Vec::with_capacity(wanted.batch);
        let mut asked = Vec::with_capacity(wanted.batch);
        for _ in 0..wanted.batch {
            let number = self.number() % wanted.numbers.max(1);
            let keys = match wanted.document {
                Document::Jwt(_) => Vec::new(),
                Document::X509 | Document::Wit => self.keys(wanted)?,
            };
            requests.push(SvidRequest {
                ttl: wanted.ttl.map(|ttl| prost_types::Duration {
                    seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
                    nanos: 0,
                }),
                workload_attributes: wanted.attributes.clone(),
                image_signatures: Vec::new(),
                selector: Some(selector(&wanted.selection, number)),
                document: Some(document(&wanted.document, &keys)),
            });
            asked.push(Asked {
                keys,
                document: wanted.document.clone(),
            });
        }
        Ok((IssueSvidsRequest { requests }, asked))
    }

    fn keys(&mut self, wanted: &Wanted) -> anyhow::Result<Vec<Key>> {
        if wanted.fresh_keys {
            return (0..wanted.keys_per_item).map(|_| Key::generate()).collect();
        }
        let made = wanted.keys.len().max(1);
        let from = self.next_key;
        self.next_key = (from + wanted.keys_per_item) % made;
        let keys = (from..from + wanted.keys_per_item).map(|at| wanted.keys.get(at % made));
        keys.map(|key| key.cloned().context("no key was made"))
            .collect()
    }

    /// SplitMix64: spreads the calls over all numbers.
    fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn selector(selection: &Selection, number: u64) -> svid_request::Selector {
    match selection {
        Selection::Name(name) => svid_request::Selector::Name(name.with(number)),
        Selection::Labels(labels) => {
            let selectors = labels.iter().map(|(key, values)| LabelSelector {
                key: key.with(number),
                values: values.iter().map(|value| value.with(number)).collect(),
            });
            svid_request::Selector::Labels(LabelSelectors {
                selectors: selectors.collect(),
                after: String::new(),
            })
        }
    }
}

fn document(document: &Document, keys: &[Key]) -> svid_request::Document {
    let csrs_der = keys.iter().map(|key| key.csr.clone()).collect();
    match document {
        Document::X509 => svid_request::Document::X509(X509Request { csrs_der }),
        Document::Jwt(audiences) => svid_request::Document::Jwt(JwtRequest {
            audiences: audiences.clone(),
        }),
        Document::Wit => svid_request::Document::Wit(WitRequest { csrs_der }),
    }
}

#[cfg(test)]
mod tests;
