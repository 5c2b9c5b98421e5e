//! One value per identity generation, built when it is first wanted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use super::TlsError;
use crate::{Identity, IdentitySource};

/// What was built last, and for which generation. The fast path takes no lock; building
/// is done by one caller while the others wait for it.
pub(super) struct PerGeneration<T> {
    built: ArcSwapOption<Built<T>>,
    building: Mutex<()>,
    /// Rises with each `expire`, so that a value can be replaced within a generation.
    epoch: AtomicU64,
}

struct Built<T> {
    generation: u64,
    epoch: u64,
    value: Arc<T>,
}

impl<T> PerGeneration<T> {
    pub(super) fn new() -> Self {
        Self {
            built: ArcSwapOption::empty(),
            building: Mutex::new(()),
            epoch: AtomicU64::new(0),
        }
    }

    /// The value of the source's current generation, if its SVID can be presented.
    pub(super) fn get(
        &self,
        source: &IdentitySource,
        build: impl FnOnce(&Identity) -> Result<T, TlsError>,
    ) -> Result<Arc<T>, TlsError> {
        let identity = source.load();
        identity.presentable()?;
        if let Some(value) = self.built_for(identity.generation) {
            return Ok(value);
        }
        drop(identity);
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        // Read again under the lock: an older generation must not replace a newer value.
        let epoch = self.epoch.load(Ordering::Acquire);
        let identity = source.load();
        if let Some(value) = self.built_for(identity.generation) {
            return Ok(value);
        }
        let value = Arc::new(build(&identity)?);
        self.built.store(Some(Arc::new(Built {
            generation: identity.generation,
            epoch,
            value: value.clone(),
        })));
        Ok(value)
    }

    /// Makes the next `get` build anew.
    pub(super) fn expire(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn built_for(&self, generation: u64) -> Option<Arc<T>> {
        let built = self.built.load();
        let built = built.as_ref()?;
        let is_current =
            built.generation == generation && built.epoch == self.epoch.load(Ordering::Acquire);
        is_current.then(|| built.value.clone())
    }
}
