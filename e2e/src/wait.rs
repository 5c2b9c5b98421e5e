use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before the test fails. Generous: the machine is
/// shared, and no test measures time by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` is true.
#[track_caller]
pub fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    eventually_some(what, || probe().then_some(()));
}

/// Waits until `probe` has something.
#[track_caller]
pub fn eventually_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "did not happen in {PATIENCE:?}: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
