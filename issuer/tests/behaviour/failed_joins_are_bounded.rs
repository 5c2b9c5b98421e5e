//! Wrong tokens from one address cost the audit log little, in parallel too; right
//! ones are not held against anybody.

use tonic::Code;

use super::harness::{Issuer, block_on};

/// `join::limit::BURST`.
const BURST: usize = 20;

#[test]
fn parallel_wrong_joins_are_bounded_as_those_in_a_row_are() {
    let issuer = Issuer::start();
    let begun = std::time::Instant::now();
    let wrong = "0".repeat(64);
    let outcomes = block_on(async {
        let joins = (0..240).map(|_| issuer.join(&wrong));
        futures_util::future::join_all(joins).await
    });
    let codes: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.err().unwrap().code())
        .collect();
    // One more every 3 s.
    let allowed = BURST + begun.elapsed().as_secs() as usize / 3 + 1;
    let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
    let (denied, limited) = (count(Code::Unauthenticated), count(Code::ResourceExhausted));
    assert_eq!(denied + limited, 240, "{codes:?}");
    assert!((BURST..=allowed).contains(&denied), "{denied} of {allowed}");
    let rows = issuer.audit();
    let rows = rows
        .iter()
        .filter(|event| event["fields"]["reason"] == "unknown_token");
    assert_eq!(rows.count(), denied);
}

#[test]
fn a_fleet_that_joins_at_once_from_one_address_is_let_in() {
    let issuer = Issuer::start();
    issuer.register("app");
    let tokens: Vec<_> = (0..3 * BURST).map(|_| issuer.token("app")).collect();
    block_on(async {
        let joins = tokens.iter().map(|token| issuer.join(token));
        for outcome in futures_util::future::join_all(joins).await {
            outcome.unwrap();
        }
    });
}
