use super::{methods, request_max, weight};
use crate::api::limits::Weight;

/// The table in the reference says what is in force.
#[test]
fn the_reference_lists_the_bound_of_every_method() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/issuer-operating.md"
    );
    let reference = std::fs::read_to_string(path).unwrap();
    let listed: Vec<_> = reference
        .lines()
        .filter(|line| line.starts_with("| `tbot.") || line.starts_with("| `grpc."))
        .map(str::to_owned)
        .collect();
    let wanted: Vec<_> = methods()
        .unwrap()
        .iter()
        .map(|method| {
            let (number, unit) = match request_max(method) {
                most if most % (1024 * 1024) == 0 => (most / 1024 / 1024, "MiB"),
                most => (most / 1024, "KiB"),
            };
            format!("| `{method}` | {number} {unit} |")
        })
        .collect();
    assert_eq!(
        listed,
        wanted,
        "docs/reference/issuer-operating.md should say:\n{}",
        wanted.join("\n")
    );
}

#[test]
fn what_signs_is_charged_and_streams_are_counted_as_streams() {
    for (method, expected) in [
        ("tbot.issue.v1.IssueService/IssueSvids", Weight::Call),
        ("tbot.join.v1.JoinService/Renew", Weight::Call),
        ("tbot.issue.v1.IssueService/Watch", Weight::Stream),
        ("grpc.health.v1.Health/Watch", Weight::Stream),
        ("grpc.health.v1.Health/Check", Weight::Light),
        ("other", Weight::Light),
    ] {
        assert_eq!(weight(method), expected, "{method}");
    }
}
