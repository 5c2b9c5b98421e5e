//! Leases: a connection lives as long as what authorized it holds (DESIGN D4).
//!
//! One task a service ends the leases that time or trust end (and counts what live connections carry); those that a policy ends are ended by
//! [`crate::ProxyService::update`] itself. Our own SVID's rotation ends none.
//!
//! Ends of identities are times of the wall clock, which jumps (NTP, a machine that was asleep), while timers do
//! not: so no sleep is longer than [`LONGEST_SLEEP`], and each wake-up asks the clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::Identity;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{CloseReason, OnExpiry, close_reason::Close, record::rfc3339, service::Service};

/// So late may an expiry be noticed after the wall clock has jumped.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// So often what live connections have carried is put into the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Chains verified between two yields; verifying one takes up to 0.1 ms.
const AT_A_TIME: usize = 16;

/// Ends leases until the service stops.
pub(crate) async fn keep(service: Arc<Service>, mut identity: watch::Receiver<Arc<Identity>>) {
    let mut count = interval(COUNT_EVERY);
    count.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checked = identity.borrow_and_update().bundle_generation;
    let mut wake = Instant::now();
    loop {
        tokio::select! {
            changed = identity.changed() => {
                if changed.is_err() {
                    return;
                }
                let generation = identity.borrow_and_update().bundle_generation;
                if generation != checked {
                    checked = generation;
                    end_untrusted(&service).await;
                }
            }
            () = service.registry.expiry_moved.notified() => {}
            _ = count.tick() => {
                service.meters.carried(service.registry.take_untold());
                continue;
            }
            () = sleep_until(wake) => {}
        }
        end_expired(&service);
        wake = Instant::now() + until_expiry(&service);
    }
}

/// Time until the next lease is to end, or until the clock is to be asked again.
fn until_expiry(service: &Service) -> Duration {
    let grace = service.in_force().config.limits.lease_grace;
    service
        .registry
        .next_expiry()
        .map_or(LONGEST_SLEEP, |ends| {
            (ends + grace)
                .duration_since(SystemTime::now())
                .unwrap_or_default()
                .clamp(Duration::from_millis(1), LONGEST_SLEEP)
        })
}

/// Cuts (or logs) the connections whose peers' identity has ended, grace included.
fn end_expired(service: &Service) {
    let config = &service.in_force().config;
    let Some(moment) = SystemTime::now().checked_sub(config.limits.lease_grace) else {
        return;
    };
    for (number, peer) in service.registry.take_expired(moment) {
        let ended = rfc3339(peer.not_after);
        match config.on_expiry {
            OnExpiry::Close => {
                let detail = format_args!("the identity of {} ended at {ended}", peer.id);
                let close = Close::new(CloseReason::PeerSvidExpired, detail);
                service.registry.cut_peer(number, &close);
            }
            OnExpiry::Log => tracing::warn!(
                target: "connection",
                service = service.name,
                peer_id = %peer.id,
                peer_serial = %peer.serial,
                ended,
                "live connections outlive their peer's identity (on_expiry: log)"
            ),
        }
    }
}

/// Cuts the connections whose peers the bundles of this moment verify no more. One whose identity has merely
/// expired is [`end_expired`]'s, which may grant it a grace.
pub(crate) async fn end_untrusted(service: &Service) {
    let chains = service.registry.chains();
    for some in chains.chunks(AT_A_TIME) {
        let in_force = service.in_force();
        let now = SystemTime::now();
        for (number, chain) in some {
            match in_force.tls.identify(chain, now) {
                Ok(peer) => service.registry.renew(*number, peer),
                Err(_) if service.registry.is_expired(*number, now) => {}
                Err(error) => {
                    let close = Close::new(CloseReason::TrustWithdrawn, error);
                    service.registry.cut_peer(*number, &close);
                }
            }
        }
        yield_now().await;
    }
}
