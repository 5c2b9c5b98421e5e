use std::collections::BTreeMap;

use proto::admin::v1 as pb;

use super::{DnsName, LabelSelector, ResourceName, SpiffePath, TokenSecret, wire, yaml};

fn selector(keys: &[(&str, &[&str])]) -> LabelSelector {
    let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    LabelSelector::new(
        keys.iter()
            .map(|(key, values)| ((*key).to_owned(), owned(values))),
    )
    .unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_selector_wants_every_key_and_one_of_its_values() {
    type Case<'a> = (
        &'a [(&'a str, &'a [&'a str])],
        &'a [(&'a str, &'a str)],
        bool,
    );
    let cases: &[Case<'_>] = &[
        (&[], &[], false),
        (&[], &[("env", "prod")], false),
        (&[("env", &["prod"])], &[("env", "prod")], true),
        (&[("env", &["prod"])], &[("env", "prod2")], false),
        (&[("env", &["prod"])], &[], false),
        (
            &[("env", &["dev", "prod"])],
            &[("env", "prod"), ("more", "x")],
            true,
        ),
        (
            &[("env", &["prod"]), ("app", &["web"])],
            &[("env", "prod")],
            false,
        ),
        (
            &[("env", &["prod"]), ("app", &["web"])],
            &[("env", "prod"), ("app", "web")],
            true,
        ),
        (&[("env", &["*"])], &[("env", "whatever")], true),
        (&[("env", &["*"])], &[("app", "web")], false),
        (&[("*", &["*"])], &[], true),
        (
            &[("*", &["*"]), ("env", &["prod"])],
            &[("env", "dev")],
            false,
        ),
        (&[("env", &["p*"])], &[("env", "prod")], false),
    ];
    for (keys, of, expected) in cases {
        assert_eq!(
            selector(keys).matches(&labels(of)),
            *expected,
            "{keys:?} on {of:?}"
        );
    }
    for wrong in [
        ("*", vec!["prod".to_owned()]),
        ("env", vec![]),
        ("", vec!["x".to_owned()]),
    ] {
        assert!(
            LabelSelector::new([(wrong.0.to_owned(), wrong.1)]).is_err(),
            "{}",
            wrong.0
        );
    }
}

#[test]
fn names_paths_and_dns_names_are_parsed_strictly() {
    for (text, fits) in [
        ("web", true),
        ("w", true),
        ("0.a-b_c", true),
        ("", false),
        ("Web", false),
        ("-a", false),
        (".a", false),
        ("a b", false),
        ("a/b", false),
        ("ä", false),
    ] {
        assert_eq!(ResourceName::parse(text).is_ok(), fits, "{text}");
    }
    assert!(ResourceName::parse(&"a".repeat(64)).is_ok());
    assert!(ResourceName::parse(&"a".repeat(65)).is_err());
    for (text, fits) in [
        ("/a", true),
        ("/a/B.c-d_e", true),
        ("/bots", true),
        ("/...", true),
        ("", false),
        ("/", false),
        ("a", false),
        ("/a/", false),
        ("/./a", false),
        ("/..", false),
        ("/bot", false),
        ("/bot/x", false),
        ("/issuer", false),
        ("/issuer/x", false),
        ("/a b", false),
    ] {
        assert_eq!(SpiffePath::parse(text).is_ok(), fits, "{text}");
    }
    for (text, fits) in [
        ("a.example.org", true),
        ("*.example.org", true),
        ("localhost", true),
        ("a1-b.c", true),
        ("", false),
        ("A.org", false),
        ("a..b", false),
        ("-a.b", false),
        ("a_b.c", false),
        ("10.0.0.1", false),
        ("a.*.b", false),
        ("a.b.", false),
        ("*", false),
    ] {
        assert_eq!(DnsName::parse(text).is_ok(), fits, "{text}");
    }
}

#[test]
fn outermost_times_and_lives_are_refused_and_do_not_panic() {
    for (seconds, nanos) in [
        (i64::MIN, i32::MIN),
        (i64::MAX, i32::MAX),
        (-1, 0),
        (0, -1),
        (0, 0),
    ] {
        let life = prost_types::Duration { seconds, nanos };
        let resource = pb::Resource {
            metadata: Some(pb::Metadata {
                name: "a".to_owned(),
                ..Default::default()
            }),
            spec: Some(pb::resource::Spec::WorkloadIdentity(
                pb::WorkloadIdentitySpec {
                    spiffe_path: "/a".to_owned(),
                    x509_maximum_ttl: Some(life),
                    ..Default::default()
                },
            )),
        };
        assert!(wire::from_wire(resource).is_err(), "{seconds} {nanos}");
    }
    for seconds in [i64::MIN, i64::MAX, -1, 253_402_300_800] {
        assert_eq!(
            wire::moment(&prost_types::Timestamp { seconds, nanos: 0 }),
            None
        );
    }
}

#[test]
fn yaml_out_is_yaml_in_for_every_text() {
    for hint in [
        "",
        "plain",
        "with space",
        "on",
        "1.10",
        "null",
        "a: b",
        "#x",
        "\"q\"",
        "ü",
        "- a",
        "{x}",
        "'",
    ] {
        let resource = pb::Resource {
            metadata: Some(pb::Metadata {
                name: "123".to_owned(),
                labels: [("yes".to_owned(), hint.to_owned())].into(),
                revision: 3,
                expires: None,
                ..Default::default()
            }),
            spec: Some(pb::resource::Spec::WorkloadIdentity(
                pb::WorkloadIdentitySpec {
                    spiffe_path: "/a/b".to_owned(),
                    hint: hint.to_owned(),
                    ..Default::default()
                },
            )),
        };
        let text = yaml::write(std::slice::from_ref(&resource));
        assert_eq!(yaml::read("-", &text).unwrap(), [resource], "{text}");
    }
}

#[test]
fn a_tokens_secret_is_shown_by_nothing_but_expose() {
    let secret = TokenSecret::generate().unwrap();
    assert_eq!(secret.expose().len(), 64);
    assert!(!format!("{secret:?}").contains(secret.expose()));
    assert!(
        !secret
            .public_name()
            .as_str()
            .contains(&secret.expose()[..8])
    );
    let error = TokenSecret::parse("Too-Short-And-Secret").unwrap_err();
    assert!(!error.to_string().contains("Secret\""), "{error}");
    assert!(TokenSecret::parse(secret.public_name().as_str()).is_err());
}

/// A lock that could lock nobody is a mistake, not a comfort.
#[test]
fn a_lock_names_somebody_who_can_be_refused() {
    use pb::lock_spec::Target;
    let trust_domain = identity::TrustDomain::parse("a.example").unwrap();
    let read = |target: Target| {
        let lock = pb::Resource {
            metadata: Some(pb::Metadata {
                name: "l".to_owned(),
                ..Default::default()
            }),
            spec: Some(pb::resource::Spec::Lock(pb::LockSpec {
                target: Some(target),
                message: String::new(),
            })),
        };
        wire::from_wire_in(&trust_domain, lock).map_err(|error| error.to_string())
    };
    for (id, why) in [
        ("spiffe://a.example/web", None),
        ("spiffe://a.example/bots/x", None),
        ("spiffe://b.example/web", Some("nobody would be locked")),
        ("spiffe://a.example2/web", Some("nobody would be locked")),
        ("spiffe://a.example", Some("nobody would be locked")),
        (
            "spiffe://a.example/bot/web/1",
            Some("name it as bot or bot_instance_id"),
        ),
        ("spiffe://a.example/issuer", Some("belong to the issuer")),
    ] {
        let came_to = read(Target::SpiffeId(id.to_owned()));
        match (why, came_to) {
            (None, came_to) => assert!(came_to.is_ok(), "{id}: {came_to:?}"),
            (Some(why), came_to) => assert!(came_to.unwrap_err().contains(why), "{id}"),
        }
    }
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let error = read(Target::JoinToken(secret.to_owned())).unwrap_err();
    assert!(error.contains("spec.target.join_token: "), "{error}");
    assert!(!error.contains(&secret[..16]), "{error}");
    for (name, fits) in [
        ("sha256-0123456789abcdef", true),
        ("sha256-0123456789abcde", false),
        ("sha256-0123456789ABCDEF", false),
        ("ci", false),
        ("", false),
    ] {
        assert_eq!(
            read(Target::JoinToken(name.to_owned())).is_ok(),
            fits,
            "{name}"
        );
    }
}

/// More than an attribute holds would be unknown to the rules that deny by it.
#[test]
fn a_bot_has_no_more_traits_than_rules_can_see() {
    let bot = |traits: usize, values: usize| {
        let traits = (0..traits).map(|number| pb::Trait {
            name: format!("t{number}"),
            values: vec!["x".to_owned(); values],
        });
        wire::from_wire(pb::Resource {
            metadata: Some(pb::Metadata {
                name: "b".to_owned(),
                ..Default::default()
            }),
            spec: Some(pb::resource::Spec::Bot(pb::BotSpec {
                traits: traits.collect(),
                ..Default::default()
            })),
        })
    };
    assert!(bot(16, 63).is_ok(), "1,024 names and values");
    let error = bot(17, 63).unwrap_err().to_string();
    assert!(error.contains("spec.traits: at most 1024"), "{error}");
}
