use super::*;
use serde_json::json;

fn github() -> Attributes {
    Attributes::from_json(&json!({
        "join": {"meta": {"join_method": "github"}, "github": {
            "repository": "org/app", "ref": "refs/heads/main", "actor": "alice", "repository_owner": "org"}},
        "user": {"name": "bot-ci", "is_bot": true, "labels": {"team": "ci"}, "traits": {"team": ["a", "b"]}},
        "workload": {"unix": {"attested": true, "uid": 1000}},
    }))
    .unwrap()
}

#[test]
fn expressions_hold_or_not() {
    let attributes = github();
    for (source, expected) in [
        ("join.github.repository == \"org/app\"", true),
        (
            "join.github.ref.startsWith('refs/heads/') && user.is_bot",
            true,
        ),
        ("\"a\" in user.traits[\"team\"]", true),
        ("user.labels.team == \"ci\"", true),
        ("has(join.gitlab)", false),
        (
            "has(join.github.environment) && join.github.environment == \"x\"",
            false,
        ),
        (
            "!has(join.github.environment) || join.github.environment == \"x\"",
            true,
        ),
        ("workload.unix.uid >= 1000", true),
        ("user.traits.team.exists(t, t == \"b\")", true),
        ("join.github.repository.split('/')[1] == 'app'", true),
        ("join.github.repository.matches('^org/[a-z]+$')", true),
        ("join.gitlab.sub == 'x' || user.is_bot", true),
    ] {
        let expression =
            Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(expression.holds(&attributes), Ok(expected), "{source}");
    }
}
