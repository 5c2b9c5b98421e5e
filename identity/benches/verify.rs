//! What a peer's chain costs: verified, and remembered. Plain timing, best of several
//! rounds (the least disturbed one), on one thread.

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

use identity::{
    ChainVerifier, ClientOptions, ClientTls, IdentitySource, ServerOptions, ServerTls,
    TrustBundleSet, testing::TestCa,
};

const ROUNDS: usize = 7;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    let ca = TestCa::new("example.org");
    let bundles = TrustBundleSet::new([ca.bundle()]);
    let now = SystemTime::now();
    for (name, svid) in [
        ("leaf", ca.svid("/web", HOUR)),
        (
            "leaf and intermediate",
            ca.intermediate().svid("/web", HOUR),
        ),
    ] {
        let forgetful = ChainVerifier::new(0);
        let uncached = best(200, || {
            let peer = forgetful.verify(svid.chain(), &bundles, 1, now);
            assert!(black_box(peer).is_ok());
        });
        let verifier = ChainVerifier::new(1024);
        let cached = best(20_000, || {
            let peer = verifier.verify(svid.chain(), &bundles, 1, now);
            assert!(black_box(peer).is_ok());
        });
        println!(
            "{name}: uncached {:.2} us, cached {:.3} us, ratio cached/uncached {:.4}",
            uncached * 1e6,
            cached * 1e6,
            cached / uncached
        );
    }
    let source = IdentitySource::with(ca.svid("/web", HOUR), bundles);
    let server = ServerTls::new(source.clone(), ServerOptions::default());
    let client = ClientTls::new(source, ClientOptions::default());
    let config = best(100_000, || {
        black_box((server.config().is_ok(), client.config().is_ok()));
    });
    println!("config() of server and client: {:.1} ns", config * 1e9);
}

/// Seconds a call, in the best round.
fn best(calls: u32, mut call: impl FnMut()) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed().as_secs_f64() / f64::from(calls)
        })
        .fold(f64::INFINITY, f64::min)
}
