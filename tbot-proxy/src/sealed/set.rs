//! One set as it lies in the store.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use identity::{SpiffeId, X509Svid};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    cache::Place,
    kept::{Attested, KeptDocument, KeptSvid},
    reads::Reads,
    trust::Obtained,
};

/// For whom a set is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Whom {
    /// A service of this agent.
    Service,
    /// Workloads that are attested.
    Workloads,
}

/// Which set it is: there is one of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    whom: Whom,
    place: Place,
    /// [`Reads::key`] of those that it is for.
    key: String,
}

impl Name {
    pub(crate) fn new(whom: Whom, place: Place, reads: &Reads, attested: &Attested) -> Self {
        Self {
            whom,
            place,
            key: reads.key(attested.workload.as_deref()),
        }
    }

    pub(crate) fn is_at(&self, whom: Whom, place: &Place) -> bool {
        (self.whom, &self.place) == (whom, place)
    }

    pub(crate) fn whom(&self) -> Whom {
        self.whom
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Name of its entry, which tells nothing of it.
    pub(crate) fn text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let digest = digest(&SHA256, &json);
        let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        format!("set-{}", digits.collect::<String>())
    }
}

/// A set as it was.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub(crate) svids: Vec<Arc<KeptSvid>>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) attested: Attested,
    pub(crate) obtained: Obtained,
}

impl Restored {
    /// Whether all of it is of this trust domain.
    pub(super) fn is_of(&self, trust_domain: &str) -> bool {
        let mut svids = self.svids.iter();
        svids.all(|svid| svid.id.trust_domain_name() == trust_domain)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSet {
    name: Name,
    svids: Vec<StoredSvid>,
    reads: Reads,
    workload: Option<Value>,
    obtained: Obtained,
}

#[derive(Serialize, Deserialize)]
struct StoredSvid {
    workload_identity: String,
    id: String,
    hint: String,
    federates_with: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    renew_at: Option<SystemTime>,
    document: StoredDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredDocument {
    X509 {
        chain_der: Vec<Vec<u8>>,
        key_pkcs8: Secret<Vec<u8>>,
    },
    Wit {
        token: Secret<String>,
        key_pkcs8: Secret<Vec<u8>>,
    },
}

/// Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// As it is sealed.
pub(super) fn write(name: &Name, set: &Restored) -> Zeroizing<Vec<u8>> {
    let stored = StoredSet {
        name: name.clone(),
        svids: set.svids.iter().map(|svid| stored(svid)).collect(),
        reads: Reads::clone(&set.reads),
        workload: set.attested.workload.as_deref().cloned(),
        obtained: set.obtained,
    };
    // Numbers of an octet each: four bytes at most. A buffer that grew would leave what it held.
    let secrets: usize = stored.svids.iter().map(StoredSvid::size).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024 + 4 * secrets));
    if serde_json::to_writer(&mut *bytes, &stored).is_err() {
        bytes.clear();
    }
    bytes
}

fn stored(svid: &KeptSvid) -> StoredSvid {
    StoredSvid {
        workload_identity: svid.workload_identity.clone(),
        id: svid.id.to_string(),
        hint: svid.hint.clone(),
        federates_with: svid.federates_with.clone(),
        not_before: svid.not_before,
        not_after: svid.not_after,
        renew_at: svid.renew_at,
        document: match &svid.document {
            KeptDocument::X509(svid) => StoredDocument::X509 {
                chain_der: svid.chain().iter().map(|der| der.to_vec()).collect(),
                key_pkcs8: Secret(svid.key_pkcs8_der().to_vec()),
            },
            KeptDocument::Wit { token, key_pkcs8 } => StoredDocument::Wit {
                token: Secret(token.expose_secret().to_owned()),
                key_pkcs8: Secret(key_pkcs8.to_vec()),
            },
        },
    }
}

impl StoredSvid {
    fn size(&self) -> usize {
        let document = match &self.document {
            StoredDocument::X509 {
                chain_der,
                key_pkcs8,
            } => chain_der.iter().map(Vec::len).sum::<usize>() + key_pkcs8.0.len(),
            StoredDocument::Wit { token, key_pkcs8 } => token.0.len() + key_pkcs8.0.len(),
        };
        document + 1024
    }

    /// `None`: it is not what it says, or it has expired.
    fn read(self, now: SystemTime) -> Option<KeptSvid> {
        let id = SpiffeId::parse(&self.id).ok()?;
        let (mut not_before, mut not_after) = (self.not_before, self.not_after);
        let document = match self.document {
            StoredDocument::X509 {
                chain_der,
                key_pkcs8,
            } => {
                let chain = chain_der.into_iter().map(CertificateDer::from).collect();
                let key = PrivatePkcs8KeyDer::from(key_pkcs8.0.clone());
                let svid = X509Svid::new(chain, key.into()).ok()?;
                if *svid.id() != id {
                    return None;
                }
                (not_before, not_after) = (svid.not_before(), svid.not_after());
                KeptDocument::X509(Arc::new(svid))
            }
            StoredDocument::Wit { token, key_pkcs8 } => KeptDocument::Wit {
                token: SecretString::from(token.0.as_str()),
                key_pkcs8: Arc::new(Zeroizing::new(key_pkcs8.0.clone())),
            },
        };
        (not_after > now).then_some(KeptSvid {
            workload_identity: self.workload_identity,
            id,
            hint: self.hint,
            federates_with: self.federates_with,
            not_before,
            not_after,
            renew_at: self.renew_at,
            document,
        })
    }
}

/// `None`: there is nothing in it that could be served.
pub(super) fn read(entry: &str, bytes: &[u8], now: SystemTime) -> Option<(Name, Restored)> {
    let stored: StoredSet = serde_json::from_slice(bytes).ok()?;
    let svids: Vec<_> = stored
        .svids
        .into_iter()
        .filter_map(|svid| svid.read(now).map(Arc::new))
        .collect();
    if svids.is_empty() || stored.name.text() != entry {
        return None;
    }
    let set = Restored {
        svids,
        reads: Arc::new(stored.reads),
        attested: Attested {
            workload: stored.workload.map(Arc::new),
            at: Instant::now(),
        },
        // Orders that were given to that process, and not by the issuer.
        obtained: Obtained {
            local: 0,
            refusals: 0,
            ..stored.obtained
        },
    };
    Some((stored.name, set))
}
