//! Asking the issuer for a set of SVIDs: keys, pages, and what comes back.

use std::{sync::Arc, time::SystemTime};

use identity::{SpiffeId, X509Svid};
use proto::issue::v1::{
    Svid, SvidRequest, WitRequest, X509Request, svid::Document, svid_request::Document as Wanted,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    configuration::Selector,
    issuance::{Issuance, IssueError, image_signatures},
    join::expired_on_arrival,
    key::{Key, time_of},
    reads::Reads,
};

/// Most pages of one set: 100,000 identities of one workload are a mistake.
const PAGES_MAX: usize = 100;

/// Keys that go with the first page by labels: how many SVIDs there are is not known.
const FIRST_KEYS: usize = 4;

/// Most keys of one page; the issuer gives 1,000 SVIDs.
const KEYS_MAX: usize = 500;

/// What kind of documents a set has. JWT-SVIDs are for audiences and never in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SetKind {
    X509,
    Wit,
}

/// One SVID that is kept.
#[derive(Debug)]
pub(crate) struct KeptSvid {
    /// Name of the `workload_identity`.
    pub(crate) workload_identity: String,
    pub(crate) id: SpiffeId,
    pub(crate) hint: String,
    /// Trust domains other than its own whose bundles go with it.
    pub(crate) federates_with: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) renew_at: Option<SystemTime>,
    pub(crate) document: KeptDocument,
}

pub(crate) enum KeptDocument {
    X509(Arc<X509Svid>),
    Wit {
        token: SecretString,
        key_pkcs8: Arc<Zeroizing<Vec<u8>>>,
    },
}

impl std::fmt::Debug for KeptDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::X509(svid) => write!(f, "X509({})", svid.serial()),
            Self::Wit { .. } => f.write_str("Wit([redacted])"),
        }
    }
}

impl KeptDocument {
    /// The X509-SVID, if it is one.
    pub(crate) fn x509(&self) -> Option<&Arc<X509Svid>> {
        match self {
            Self::X509(svid) => Some(svid),
            Self::Wit { .. } => None,
        }
    }
}

/// What the issuer granted: in its order, and what that depends on.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) svids: Vec<Arc<KeptSvid>>,
    pub(crate) reads: Reads,
}

/// Has a whole set issued. By labels there may be no SVID in it. `expected`: how many
/// there were the last time.
pub(crate) async fn ask(
    issuance: &Arc<Issuance>,
    selector: &Selector,
    kind: SetKind,
    workload: Option<&Value>,
    expected: usize,
) -> Result<Granted, IssueError> {
    let mut granted = Granted {
        svids: Vec::new(),
        reads: Reads::Nothing,
    };
    let by_name = matches!(selector.selection, crate::configuration::Selection::Name(_));
    let mut wanted = match (by_name, expected) {
        (true, _) => 1,
        (false, 0) => FIRST_KEYS,
        (false, expected) => expected.min(KEYS_MAX),
    };
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let keys = keys(wanted).await?;
        let csrs_der = keys.iter().map(Key::csr).collect();
        let request = SvidRequest {
            selector: Some(selector.selection.to_wire(&after)),
            document: Some(match kind {
                SetKind::X509 => Wanted::X509(X509Request { csrs_der }),
                SetKind::Wit => Wanted::Wit(WitRequest { csrs_der }),
            }),
            ttl: Some(prost_types::Duration {
                seconds: selector.ttl.as_secs().cast_signed(),
                nanos: 0,
            }),
            workload_attributes: workload.and_then(to_struct),
            image_signatures: image_signatures(workload),
        };
        let page = issuance.issue(request).await?;
        granted.reads = granted.reads.and(Reads::of(page.reads));
        if by_name && page.svids.len() != 1 {
            return Err(IssueError::unusable("it does not hold one SVID"));
        }
        for svid in page.svids {
            granted.svids.push(Arc::new(kept(svid, kind, &keys)?));
        }
        if by_name || page.remaining == 0 {
            return Ok(granted);
        }
        wanted = usize::try_from(page.remaining).map_or(KEYS_MAX, |more| more.min(KEYS_MAX));
        after = page.next_after;
    }
    Err(IssueError::unusable("there is no end to its pages"))
}

/// Key pairs; many are made off the async threads.
async fn keys(count: usize) -> Result<Vec<Key>, IssueError> {
    let make = move || (0..count).map(|_| Key::generate()).collect();
    let keys: Result<Vec<_>, _> = match count {
        0..=8 => make(),
        _ => tokio::task::spawn_blocking(make)
            .await
            .map_err(|error| IssueError::Unavailable(error.to_string()))?,
    };
    keys.map_err(|error| IssueError::Unavailable(error.to_string()))
}

fn kept(answer: Svid, kind: SetKind, keys: &[Key]) -> Result<KeptSvid, IssueError> {
    let key_of = |place: u32| {
        let key = usize::try_from(place)
            .ok()
            .and_then(|place| keys.get(place));
        key.ok_or_else(|| IssueError::unusable("an SVID is for a key that was not sent"))
    };
    let id = SpiffeId::parse(&answer.spiffe_id).map_err(|error| {
        IssueError::unusable(&format!("SPIFFE ID `{}`: {error}", answer.spiffe_id))
    })?;
    let (mut not_before, mut not_after) = (time_of(answer.not_before), time_of(answer.not_after));
    let document = match (answer.document, kind) {
        (Some(Document::X509(document)), SetKind::X509) => {
            let svid = key_of(document.csr)?
                .certified(document.chain_der)
                .map_err(|error| IssueError::unusable(&error.to_string()))?;
            if *svid.id() != id {
                return Err(IssueError::unusable(
                    "a certificate is for another SPIFFE ID than is said",
                ));
            }
            (not_before, not_after) = (Some(svid.not_before()), Some(svid.not_after()));
            KeptDocument::X509(Arc::new(svid))
        }
        (Some(Document::Wit(document)), SetKind::Wit) => KeptDocument::Wit {
            key_pkcs8: Arc::new(key_of(document.csr)?.pkcs8()),
            token: SecretString::from(document.token),
        },
        _ => return Err(IssueError::unusable("it holds a document of another kind")),
    };
    let (Some(not_before), Some(not_after)) = (not_before, not_after) else {
        return Err(IssueError::unusable("an SVID has no life"));
    };
    let now = SystemTime::now();
    if not_after <= now {
        return Err(IssueError::Unavailable(expired_on_arrival(not_after, now)));
    }
    Ok(KeptSvid {
        workload_identity: answer.workload_identity,
        id,
        hint: answer.hint,
        federates_with: answer.federates_with,
        not_before,
        not_after,
        renew_at: time_of(answer.renew_at),
        document,
    })
}

/// `None` if it is no object.
pub(crate) fn to_struct(value: &Value) -> Option<prost_types::Struct> {
    match to_wire(value).kind {
        Some(prost_types::value::Kind::StructValue(object)) => Some(object),
        _ => None,
    }
}

fn to_wire(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(to_wire).collect(),
        }),
        Value::Object(members) => Kind::StructValue(prost_types::Struct {
            fields: members
                .iter()
                .map(|(name, value)| (name.clone(), to_wire(value)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
