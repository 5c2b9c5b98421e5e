//! What of a set goes to workloads.
//!
//! It is made once, where the set changes, and everybody who serves it hands on the same
//! objects: a server encodes each once for however many streams, and knows what it has
//! sent already without a look inside. What does not change stays the same object, the
//! trust bundles too when only the SVIDs are new.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use identity::{SpiffeId, TrustBundleSet, TrustDomain};
use secrecy::ExposeSecret as _;
use workload_api::{BundleContext, HeldX509, IssuedWit, WitContext, X509Context};

use super::{KeptDocument, KeptSvid};

/// See the module. `Default`: nothing is held.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    /// If X509-SVIDs are held.
    x509: Option<Arc<X509Context>>,
    /// If WIT-SVIDs are held: all of them.
    wit: Option<Arc<WitContext>>,
    /// If there are several: those of each identity that was asked for.
    wit_of: Mutex<HashMap<SpiffeId, Arc<WitContext>>>,
}

impl Contexts {
    /// What goes to workloads for these, and what went to them `before`.
    pub(super) fn of(
        svids: &[Arc<KeptSvid>],
        bundles: &Arc<TrustBundleSet>,
        before: &Self,
    ) -> Self {
        let bundles = |own: TrustDomain| {
            let same = |it: &Arc<BundleContext>| it.own == own && Arc::ptr_eq(&it.bundles, bundles);
            let before = before.bundle_context().filter(|it| same(it));
            before.cloned().unwrap_or_else(|| {
                let bundles = bundles.clone();
                Arc::new(BundleContext { own, bundles })
            })
        };
        let (mut x509, mut wit) = (vec![], vec![]);
        for svid in svids {
            let hint = svid.hint.clone();
            match &svid.document {
                KeptDocument::X509(document) => x509.push(HeldX509 {
                    svid: document.clone(),
                    hint,
                }),
                KeptDocument::Wit { token, key_pkcs8 } => wit.push(IssuedWit {
                    id: svid.id.clone(),
                    token: token.expose_secret().to_owned(),
                    key_pkcs8: key_pkcs8.clone(),
                    hint,
                    not_after: svid.not_after,
                }),
            }
        }
        let own_of_x509 = x509.first().map(|held| held.svid.id().trust_domain());
        let own_of_wit = wit.first().map(|wit| wit.id.trust_domain());
        Self {
            x509: own_of_x509.map(|own| {
                Arc::new(X509Context {
                    svids: x509,
                    bundles: bundles(own),
                })
            }),
            wit: own_of_wit.map(|own| {
                Arc::new(WitContext {
                    svids: wit,
                    bundles: bundles(own),
                })
            }),
            wit_of: Mutex::default(),
        }
    }

    /// The X509-SVIDs, if any are held.
    pub(crate) fn x509(&self) -> Option<Arc<X509Context>> {
        self.x509.clone()
    }

    /// The trust bundles, if any SVID is held.
    pub(crate) fn bundles(&self) -> Option<Arc<BundleContext>> {
        self.bundle_context().cloned()
    }

    /// The WIT-SVIDs, or those of `id` only, if any are held.
    pub(crate) fn wit(&self, id: Option<&SpiffeId>) -> Option<Arc<WitContext>> {
        let all = self.wit.as_ref()?;
        let Some(id) = id.filter(|id| !all.svids.iter().all(|svid| svid.id == **id)) else {
            return Some(all.clone());
        };
        let mut wit_of = self.wit_of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = wit_of.get(id) {
            return Some(known.clone());
        }
        let of_id = all.svids.iter().filter(|svid| svid.id == *id);
        let svids: Vec<_> = of_id.cloned().collect();
        if svids.is_empty() {
            return None;
        }
        let context = Arc::new(WitContext {
            svids,
            bundles: all.bundles.clone(),
        });
        wit_of.insert(id.clone(), context.clone());
        Some(context)
    }

    fn bundle_context(&self) -> Option<&Arc<BundleContext>> {
        let x509 = self.x509.as_ref().map(|it| &it.bundles);
        x509.or(self.wit.as_ref().map(|it| &it.bundles))
    }
}

#[cfg(test)]
mod tests;
