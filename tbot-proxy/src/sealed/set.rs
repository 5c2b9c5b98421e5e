//! One set as it lies in the store.

use std::{
    io,
    sync::Arc,
    time::{Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use identity::{SpiffeId, X509Svid};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::BotName;
use crate::{
    cache::Place,
    kept::{Attested, KeptDocument, KeptSvid},
    reads::Reads,
    trust::{Obtained, RenewOrder},
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
        format!("set-{}", hex::encode(digest))
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
    /// Whether it was granted under another policy than `order` tells of, as far as it tells
    /// of any; or to a bot that may have nothing now.
    pub(crate) fn is_of_other_policy(&mut self, order: RenewOrder) -> bool {
        let is_known = self.obtained.policy.is_some() || order.policy.is_none();
        !is_known || self.obtained.is_of_other_policy(order)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSet {
    bot: String,
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
        /// In base64, as the keys.
        chain_der: Vec<String>,
        key_pkcs8: Secret,
    },
    Wit {
        token: Secret,
        key_pkcs8: Secret,
    },
}

/// Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl Secret {
    fn of(bytes: &[u8]) -> Self {
        Self(BASE64.encode(bytes))
    }

    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        BASE64.decode(&self.0).ok().map(Zeroizing::new)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// As it is sealed.
pub(super) fn write(bot: &BotName, name: &Name, set: &Restored) -> Option<Zeroizing<Vec<u8>>> {
    let stored = StoredSet {
        bot: bot.0.clone(),
        name: name.clone(),
        svids: set.svids.iter().map(|svid| stored(svid)).collect(),
        reads: Reads::clone(&set.reads),
        workload: set.attested.workload.as_deref().cloned(),
        obtained: set.obtained,
    };
    // A buffer that grew would leave what it held: its size is found out first.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, &stored).ok()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, &stored).ok()?;
    Some(bytes)
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
                chain_der: svid.chain().iter().map(|der| BASE64.encode(der)).collect(),
                key_pkcs8: Secret::of(svid.key_pkcs8_der()),
            },
            KeptDocument::Wit { token, key_pkcs8 } => StoredDocument::Wit {
                token: Secret(token.expose_secret().to_owned()),
                key_pkcs8: Secret::of(key_pkcs8),
            },
        },
    }
}

impl StoredSvid {
    /// `None`: it is not what it says, or it has expired.
    fn read(self, now: SystemTime) -> Option<KeptSvid> {
        let id = SpiffeId::parse(&self.id).ok()?;
        let (mut not_before, mut not_after) = (self.not_before, self.not_after);
        let document = match self.document {
            StoredDocument::X509 {
                chain_der,
                key_pkcs8,
            } => {
                let chain = chain_der.iter().map(|text| BASE64.decode(text));
                let chain = chain.map(|der| der.map(CertificateDer::from));
                let chain = chain.collect::<Result<_, _>>().ok()?;
                let key = PrivatePkcs8KeyDer::from(key_pkcs8.bytes()?.to_vec());
                let svid = X509Svid::new(chain, key.into()).ok()?;
                if *svid.id() != id {
                    return None;
                }
                (not_before, not_after) = (svid.not_before(), svid.not_after());
                KeptDocument::X509(Arc::new(svid))
            }
            StoredDocument::Wit { token, key_pkcs8 } => KeptDocument::Wit {
                token: SecretString::from(token.0.as_str()),
                key_pkcs8: Arc::new(key_pkcs8.bytes()?),
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
pub(super) fn read(
    entry: &str,
    bytes: &[u8],
    now: SystemTime,
) -> Option<(BotName, Name, Restored)> {
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
    Some((BotName(stored.bot), stored.name, set))
}
