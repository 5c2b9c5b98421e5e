//! What is asked for, as it came over the wire and as it is decided on.
//!
//! Here a request is taken apart and its certificate requests are checked, which
//! costs more than deciding: it happens in the caller's task, before anything is
//! looked up. What is wrong with an item is kept with it, as the refusal that it
//! ends in unless something before it in the order of decisions refuses first.

use std::{collections::HashSet, sync::Arc};

use policy::Attributes;
use proto::issue::v1 as pb;

use super::attributes;
use crate::{
    access::{Caller, Denial, Refused},
    authority::SubjectKey,
    resources::{LabelSelector, SvidKind},
    signatures::Signatures,
};

/// Most items of a batch.
pub const ITEMS_MAX: usize = 1000;
/// Most SVIDs that one call issues.
pub const SVIDS_MAX: usize = 1000;

/// Who asks.
#[derive(Debug, Clone)]
pub enum Asker {
    /// A bot instance that proved its certificate, or has just joined.
    Bot(Arc<Caller>),
    /// Somebody who is only thought of (`issuer explain`).
    Supposed {
        /// Name of the bot.
        bot_name: String,
        /// The attributes below `join` and `workload`, and `user.bot_instance_id` if the
        /// locks of an instance are to count.
        attributes: Attributes,
    },
}

impl Asker {
    /// Name of the bot.
    pub fn bot_name(&self) -> &str {
        match self {
            Self::Bot(caller) => &caller.bot_name,
            Self::Supposed { bot_name, .. } => bot_name,
        }
    }
}

/// What kind of document is wanted, with what only this kind needs.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// An X509-SVID for a key.
    X509(Key),
    /// A JWT-SVID for these audiences.
    Jwt(Arc<[String]>),
    /// A WIT-SVID for a key.
    Wit(Key),
}

/// The key that a document is to be bound to.
#[derive(Debug, Clone)]
pub enum Key {
    /// Its holder proved to have the private one.
    Proved(Arc<SubjectKey>),
    /// None yet: whoever explains, and selection by labels, decide without.
    Open,
    /// There is none that can be used.
    Unusable(Refused),
}

impl Wanted {
    /// Which kind it is.
    pub fn kind(&self) -> SvidKind {
        match self {
            Self::X509(_) => SvidKind::X509,
            Self::Jwt(_) => SvidKind::Jwt,
            Self::Wit(_) => SvidKind::Wit,
        }
    }

    /// The key, of those that have one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::X509(key) | Self::Wit(key) => Some(key),
            Self::Jwt(_) => None,
        }
    }
}

/// One SVID of one workload identity, asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Name of the workload identity, as asked.
    pub workload_identity: String,
    /// What it was selected by, unless by its name.
    pub labels: Option<Arc<LabelSelector>>,
    /// What kind.
    pub wanted: Wanted,
    /// Wanted life.
    pub ttl: Option<prost_types::Duration>,
    /// What the agent says of the workload: `workload.*`.
    pub workload: Arc<Attributes>,
    /// What it found signed for the workload's image.
    pub signatures: Arc<Signatures>,
}

/// One item of a request, taken apart.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it selects.
    pub selection: Selection,
    /// What kind, with [`Key::Open`] where keys come from [`Item::keys`].
    pub wanted: Wanted,
    /// The keys, in the order of the request, with their place in it.
    pub keys: Vec<(u32, Arc<SubjectKey>)>,
    /// Wanted life.
    pub ttl: Option<prost_types::Duration>,
    /// See [`Ask::workload`].
    pub workload: Arc<Attributes>,
    /// See [`Ask::signatures`].
    pub signatures: Arc<Signatures>,
}

/// Which workload identities.
#[derive(Debug, Clone)]
pub enum Selection {
    /// The one of this name.
    Name(String),
    /// Those with these labels.
    Labels {
        /// The labels.
        selector: Arc<LabelSelector>,
        /// After the resource of this name.
        after: Option<String>,
    },
}

impl Item {
    /// Takes a request apart and checks its certificate requests. Errors: it is no
    /// request.
    pub fn new(request: pb::SvidRequest) -> Result<Self, Refused> {
        let selection = selection(request.selector)?;
        let by_name = matches!(selection, Selection::Name(_));
        let mut keys = Vec::new();
        let wanted = match request.document {
            Some(pb::svid_request::Document::X509(x509)) => {
                Wanted::X509(take_keys(&x509.csrs_der, by_name, &mut keys))
            }
            Some(pb::svid_request::Document::Wit(wit)) => {
                Wanted::Wit(take_keys(&wit.csrs_der, by_name, &mut keys))
            }
            Some(pb::svid_request::Document::Jwt(jwt)) => Wanted::Jwt(jwt.audiences.into()),
            None => return Err(no_request("it names no kind of document")),
        };
        let mut workload = match &request.workload_attributes {
            Some(asserted) => attributes::asserted(asserted)?,
            None => Attributes::new(),
        };
        let signatures = Signatures::new(request.image_signatures)
            .map_err(|why| Refused::new(Denial::InvalidRequest, why))?;
        signatures.tell(&mut workload);
        Ok(Self {
            selection,
            wanted,
            keys,
            ttl: request.ttl,
            workload: Arc::new(workload),
            signatures: Arc::new(signatures),
        })
    }

    /// What it asks of the workload identity of this name.
    pub(super) fn ask_for(&self, workload_identity: &str) -> Ask {
        Ask {
            workload_identity: workload_identity.to_owned(),
            labels: match &self.selection {
                Selection::Name(_) => None,
                Selection::Labels { selector, .. } => Some(selector.clone()),
            },
            wanted: self.wanted.clone(),
            ttl: self.ttl,
            workload: self.workload.clone(),
            signatures: self.signatures.clone(),
        }
    }
}

/// Refuses the second of two items that would bind one key: no two SVIDs share one.
pub(super) fn refuse_shared_keys(items: &mut [Result<Item, Refused>]) {
    let mut seen = HashSet::new();
    for slot in items {
        let Ok(item) = slot else { continue };
        let fresh = item.keys.iter().all(|(_, key)| seen.insert(*key.sha256()));
        if !fresh {
            let unusable = Key::Unusable(shared_key());
            match &mut item.wanted {
                Wanted::X509(key) | Wanted::Wit(key) => *key = unusable,
                Wanted::Jwt(_) => {}
            }
        }
    }
}

fn selection(selector: Option<pb::svid_request::Selector>) -> Result<Selection, Refused> {
    match selector {
        Some(pb::svid_request::Selector::Name(name)) => Ok(Selection::Name(name)),
        Some(pb::svid_request::Selector::Labels(labels)) => {
            let keys = labels
                .selectors
                .into_iter()
                .map(|one| (one.key, one.values));
            let selector =
                LabelSelector::new(keys).map_err(|error| no_request(&error.to_string()))?;
            if selector.is_empty() {
                let why = "a label selector has at least one key (`*: *` selects every one)";
                return Err(no_request(why));
            }
            Ok(Selection::Labels {
                selector: Arc::new(selector),
                after: Some(labels.after).filter(|after| !after.is_empty()),
            })
        }
        None => Err(no_request("it names no workload identity")),
    }
}

/// Checks the requests. By name there is exactly one; by labels as many as there are
/// SVIDs wanted, none to learn how many that would be.
fn take_keys(csrs: &[Vec<u8>], by_name: bool, keys: &mut Vec<(u32, Arc<SubjectKey>)>) -> Key {
    if by_name && csrs.len() != 1 {
        let detail = format!(
            "{} certificate requests came, by name there is one",
            csrs.len()
        );
        return Key::Unusable(Refused::new(Denial::InvalidCsr, detail));
    }
    if csrs.len() > SVIDS_MAX {
        let detail = format!(
            "{} certificate requests came, at most {SVIDS_MAX}",
            csrs.len()
        );
        return Key::Unusable(Refused::new(Denial::InvalidCsr, detail));
    }
    for (place, csr) in (0..).zip(csrs) {
        match SubjectKey::from_csr(csr) {
            Ok(key) if keys.iter().any(|(_, other)| **other == key) => {
                return Key::Unusable(shared_key());
            }
            Ok(key) => keys.push((place, Arc::new(key))),
            Err(error) => {
                let mut detail = error.to_string();
                if !by_name {
                    detail = format!("certificate request {place}: {detail}");
                }
                return Key::Unusable(Refused::new(Denial::InvalidCsr, detail));
            }
        }
    }
    match keys.first() {
        Some((_, key)) if by_name => Key::Proved(key.clone()),
        _ => Key::Open,
    }
}

fn shared_key() -> Refused {
    let detail = "two certificate requests have one key: each SVID needs a key of its own";
    Refused::new(Denial::InvalidCsr, detail)
}

fn no_request(why: &str) -> Refused {
    Refused::new(
        Denial::InvalidRequest,
        format!("the item is no request: {why}"),
    )
}
