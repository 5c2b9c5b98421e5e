use identity::{SpiffeId, TrustDomain};

use super::{Decision, PathPrefix, PeerPolicy, PeerRule};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn prefix(text: &str) -> PeerRule {
    PeerRule::PathPrefix(PathPrefix::parse(text).unwrap())
}

fn domain(name: &str) -> PeerRule {
    PeerRule::TrustDomain(TrustDomain::parse(name).unwrap())
}

#[test]
fn each_rule_matches_whole_ids_and_whole_segments() {
    let cases = [
        (PeerRule::Id(id("spiffe://td/a")), "spiffe://td/a", true),
        (PeerRule::Id(id("spiffe://td/a")), "spiffe://td/A", false),
        (PeerRule::Id(id("spiffe://td/a")), "spiffe://td/a/b", false),
        (PeerRule::Id(id("spiffe://td/a")), "spiffe://dt/a", false),
        (domain("td"), "spiffe://td/anything/at/all", true),
        (domain("td"), "spiffe://td.example/a", false),
        (domain("td"), "spiffe://t/d", false),
        (prefix("spiffe://td/a"), "spiffe://td/a", true),
        (prefix("spiffe://td/a"), "spiffe://td/a/b/c", true),
        (prefix("spiffe://td/a"), "spiffe://td/ab", false),
        (prefix("spiffe://td/a"), "spiffe://td/b/a", false),
        (prefix("spiffe://td"), "spiffe://td/a", true),
        (prefix("spiffe://td"), "spiffe://td2/a", false),
    ];
    for (rule, peer, expected) in cases {
        assert_eq!(rule.matches(&id(peer)), expected, "{rule} on {peer}");
    }
}

#[test]
fn nobody_is_allowed_by_default() {
    let policy = PeerPolicy::default();
    assert!(policy.allows_nobody());
    assert_eq!(policy.decide(&id("spiffe://td/a")), Decision::NotAllowed);
}

#[test]
fn deny_is_stronger_than_allow() {
    let policy = PeerPolicy::new(
        vec![prefix("spiffe://td/a/bad")],
        vec![
            PeerRule::Id(id("spiffe://td/a/bad/one")),
            prefix("spiffe://td/a"),
        ],
    );
    let decision = policy.decide(&id("spiffe://td/a/bad/one"));
    assert_eq!(
        decision.to_string(),
        "denied by path_prefix=spiffe://td/a/bad"
    );
    assert_eq!(
        policy.decide(&id("spiffe://td/a/good")).to_string(),
        "allowed by path_prefix=spiffe://td/a"
    );
}
