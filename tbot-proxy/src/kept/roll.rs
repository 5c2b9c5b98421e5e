//! Every set that is kept, for metrics and `status`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::SystemTime,
};

use tokio::sync::watch;

use super::SetNow;
use crate::{
    configuration::Selector,
    metrics::{IDENTITY_EXPIRY, OFFLINE_BUDGET, timestamp},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    sets: Mutex<Vec<Listed>>,
}

/// A set of the roll.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) selector: Selector,
    pub(super) keeper: Weak<watch::Sender<Arc<SetNow>>>,
}

impl Roll {
    pub(super) fn add(&self, listed: Listed) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() == sets.capacity() {
            sets.retain(Listed::is_kept);
        }
        sets.push(listed);
    }

    /// Those that are kept now.
    pub(crate) fn sets(&self) -> Vec<Listed> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(Listed::is_kept);
        sets.clone()
    }

    /// Until when each identity that the configuration names would last if the issuer
    /// were gone from now on, in the text format of Prometheus. Several sets of one
    /// selector: the one that ends first.
    pub(crate) fn gauges(&self) -> String {
        let mut expiries = BTreeMap::new();
        for listed in self.sets() {
            let Some(expiry) = listed.now().and_then(|(now, _)| now.expiry()) else {
                continue;
            };
            let first = expiries
                .entry(listed.selector.selection.metric_label())
                .or_insert(expiry);
            *first = expiry.min(*first);
        }
        let mut text = String::new();
        let mut family = |name: &str, help: &str, value: &dyn Fn(SystemTime) -> f64| {
            _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (identity, expiry) in &expiries {
                // Names of identities need no escaping.
                _ = writeln!(text, "{name}{{identity=\"{identity}\"}} {}", value(*expiry));
            }
            text.push('\n');
        };
        family(
            IDENTITY_EXPIRY,
            "When the first SVID of an identity expires, since 1970",
            &timestamp,
        );
        let now = SystemTime::now();
        family(
            OFFLINE_BUDGET,
            "How long an identity lasts without the issuer",
            &|expiry| {
                let left = expiry.duration_since(now).unwrap_or_default();
                left.as_secs_f64().floor()
            },
        );
        text
    }
}

impl Listed {
    /// As it is now, and how many follow it; `None` if it is kept no longer.
    pub(crate) fn now(&self) -> Option<(Arc<SetNow>, usize)> {
        let keeper = self.keeper.upgrade()?;
        let now = keeper.borrow().clone();
        // The one who keeps it holds it too.
        Some((now, keeper.receiver_count().saturating_sub(1)))
    }

    fn is_kept(&self) -> bool {
        self.keeper.strong_count() > 0
    }
}
