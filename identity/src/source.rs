//! The watched source of identity and trust.
use crate::{TrustBundleSet, X509Svid};
use std::sync::Arc;
use tokio::sync::watch;

/// Identity and trust at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// Our SVID, once there is one.
    pub svid: Option<Arc<X509Svid>>,
    /// Whom we trust.
    pub bundles: Arc<TrustBundleSet>,
    /// Rises with each change of either.
    pub generation: u64,
    /// Rises with each change of the bundles.
    pub bundle_generation: u64,
}

/// Holds the current [`Identity`] and tells watchers of changes.
#[derive(Debug)]
pub struct IdentitySource {
    tx: watch::Sender<Arc<Identity>>,
}
impl IdentitySource {
    /// Empty: no SVID, no trust.
    pub fn new() -> Arc<Self> {
        unimplemented!()
    }
    /// With a first SVID and bundles.
    pub fn with(svid: X509Svid, bundles: TrustBundleSet) -> Arc<Self> {
        let _ = (svid, bundles);
        unimplemented!()
    }
    /// What holds now.
    pub fn current(&self) -> Arc<Identity> {
        self.tx.borrow().clone()
    }
    /// Follows changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.tx.subscribe()
    }
    /// Replaces the SVID.
    pub fn set_svid(&self, svid: Arc<X509Svid>) {
        let _ = svid;
        unimplemented!()
    }
    /// Takes the SVID away.
    pub fn clear_svid(&self) {
        unimplemented!()
    }
    /// Replaces the bundles; nothing happens if they are equal.
    pub fn set_bundles(&self, bundles: TrustBundleSet) {
        let _ = bundles;
        unimplemented!()
    }
    /// Replaces both at once.
    pub fn set(&self, svid: Arc<X509Svid>, bundles: TrustBundleSet) {
        let _ = (svid, bundles);
        unimplemented!()
    }
}
