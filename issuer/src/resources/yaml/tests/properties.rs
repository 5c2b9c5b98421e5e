//! What holds for every resource, and for every file that somebody broke.

use std::collections::HashMap;

use proptest::{collection, option, prelude::*, sample::select};
use proto::admin::v1 as pb;

use crate::resources::{
    wire,
    yaml::{read, write},
};

fn text(most: usize) -> impl Strategy<Value = String> {
    let shown = |text: String| -> String {
        text.chars()
            .filter(|character| !character.is_control())
            .collect()
    };
    let bounded = move |text: String| text[..text.floor_char_boundary(most)].to_owned();
    prop_oneof![
        any::<String>().prop_map(shown).prop_map(bounded),
        "[ -~]{0,20}".prop_map(bounded),
        select(vec![
            "", "on", "null", "1.10", "~", "- a", "a: b", "#x", "{x}", "'", "\"q\""
        ])
        .prop_map(str::to_owned),
    ]
}

/// Not a template.
fn literal(most: usize) -> impl Strategy<Value = String> {
    text(most).prop_map(|text| text.replace("{{", "").replace("}}", ""))
}

fn template() -> impl Strategy<Value = String> {
    select(vec![
        "plain",
        "{{ user.name }}",
        "a-{{ join.github.repository }}-b",
        "{{ user.name }}{{ user.bot_name }}",
    ])
    .prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,30}"
}

fn life(most: i64) -> impl Strategy<Value = Option<prost_types::Duration>> {
    option::of((1..=most).prop_map(|seconds| prost_types::Duration { seconds, nanos: 0 }))
}

fn metadata(
    name: impl Strategy<Value = String>,
    ends: bool,
) -> impl Strategy<Value = pb::Metadata> {
    let labels = collection::hash_map("[!-~]{1,20}", text(256), 0..4);
    let lines = collection::vec(text(100), 0..4).prop_map(|lines| lines.join("\n"));
    let expires = option::of(0..253_402_300_800_i64).prop_map(move |seconds| {
        let seconds = seconds.filter(|_| ends)?;
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    });
    (name, labels, 0..=u64::MAX >> 1, expires, lines).prop_map(
        |(name, labels, revision, expires, description)| pb::Metadata {
            name,
            labels,
            revision,
            expires,
            description,
        },
    )
}

fn selectors() -> impl Strategy<Value = Vec<pb::LabelSelector>> {
    let values = collection::vec(text(60), 1..4);
    collection::btree_map("[!-)+-~]{1,20}", values, 0..4).prop_map(|keys| {
        keys.into_iter()
            .map(|(key, values)| pb::LabelSelector { key, values })
            .collect()
    })
}

fn rule() -> impl Strategy<Value = pb::Rule> {
    use pb::condition::Operator;
    let attribute = select(vec![
        "user.name",
        "join.github.repository",
        "join.meta.join_method",
    ]);
    // What is compared with nothing is refused: an attribute is never empty.
    let set = || text(40).prop_filter("empty", |text| !text.is_empty());
    let values = || collection::vec(set(), 1..4).prop_map(|values| pb::Values { values });
    let operator = prop_oneof![
        set().prop_map(Operator::Eq),
        set().prop_map(Operator::NotEq),
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Matches("a.*[b]".to_owned())),
        Just(Operator::Prefix("a: #".to_owned())),
    ];
    let condition = (attribute, operator).prop_map(|(attribute, operator)| pb::Condition {
        attribute: attribute.to_owned(),
        operator: Some(operator),
    });
    let expression = select(vec![
        "user.is_bot",
        "user.name == \"a: b\" || user.is_bot",
        "user.is_bot\n  && user.name != 'x' # no\n",
    ]);
    let source = prop_oneof![Just(None), collection::vec(condition, 1..4).prop_map(Some),];
    (source, expression, literal(80), any::<bool>()).prop_map(
        |(conditions, expression, description, require_verified)| match conditions {
            Some(conditions) => pb::Rule {
                conditions,
                description,
                require_verified,
                ..Default::default()
            },
            None => pb::Rule {
                expression: expression.replace(" # no", ""),
                description,
                require_verified,
                ..Default::default()
            },
        },
    )
}

fn claims() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        literal(60).prop_map(serde_json::Value::from),
        template().prop_map(serde_json::Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            collection::hash_map(text(30), inner, 0..4)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    });
    collection::btree_map("x[ -~]{0,20}", value, 0..4).prop_map(|claims| match claims.is_empty() {
        true => String::new(),
        false => serde_json::Value::from_iter(claims).to_string(),
    })
}

fn workload_identity() -> impl Strategy<Value = pb::WorkloadIdentitySpec> {
    let path = select(vec![
        "/a",
        "/a/b.c",
        "/x/{{ user.name }}",
        "/{{ user.name }}-x/y",
    ]);
    let subject = (
        option::of(template()),
        option::of(literal(64)),
        option::of(template()),
    );
    let sans = collection::hash_set(
        select(vec!["a.example", "*.example", "{{ user.name }}.example"]),
        0..3,
    );
    let ips = collection::hash_set(select(vec!["10.0.0.1", "fd00::1", "{{ user.name }}"]), 0..3);
    let federated = collection::hash_set("[a-z0-9]{1,12}\\.example", 0..3);
    let maxima = (life(14 * 86_400), life(86_400), life(86_400));
    let rules = (collection::vec(rule(), 0..3), collection::vec(rule(), 0..3));
    let algorithm = select(vec!["", "ES256", "RS256"]);
    (
        (
            path,
            prop_oneof![literal(100), template()],
            subject,
            sans,
            ips,
        ),
        (federated, maxima, rules, claims(), algorithm, any::<bool>()),
    )
        .prop_map(|((path, hint, subject, sans, ips), rest)| {
            let (federated, (x509, jwt, wit), (allow, deny), claims, algorithm, default) = rest;
            let of = |maximum: Option<prost_types::Duration>| maximum.filter(|_| default);
            let (common_name, organization, organizational_unit) = subject;
            let subject = pb::SubjectTemplate {
                common_name: common_name.unwrap_or_default(),
                organization: organization.unwrap_or_default(),
                organizational_unit: organizational_unit.unwrap_or_default(),
            };
            let owned =
                |set: std::collections::HashSet<&str>| set.into_iter().map(str::to_owned).collect();
            pb::WorkloadIdentitySpec {
                spiffe_path: path.to_owned(),
                hint,
                dns_sans: owned(sans),
                ip_sans: owned(ips),
                x509_subject: (subject != pb::SubjectTemplate::default()).then_some(subject),
                x509_maximum_ttl: x509,
                x509_default_ttl: of(x509),
                jwt_maximum_ttl: jwt,
                jwt_default_ttl: of(jwt),
                wit_maximum_ttl: wit,
                wit_default_ttl: of(wit),
                jwt_extra_claims_json: claims,
                jwt_algorithm: algorithm.to_owned(),
                allow,
                deny,
                federates_with: federated.into_iter().collect(),
            }
        })
}

fn resource() -> impl Strategy<Value = pb::Resource> {
    use pb::{lock_spec::Target, resource::Spec};
    let traits = collection::hash_map("[!-~]{1,20}", collection::vec(text(100), 0..4), 0..4);
    let bot = (collection::hash_set(name(), 0..4), traits, life(86_400)).prop_map(
        |(roles, traits, max_session_ttl)| {
            let traits = traits
                .into_iter()
                .map(|(name, values)| pb::Trait { name, values });
            Spec::Bot(pb::BotSpec {
                roles: roles.into_iter().collect(),
                traits: traits.collect(),
                max_session_ttl,
            })
        },
    );
    let role = (selectors(), selectors()).prop_map(|(allow, deny)| {
        Spec::Role(pb::RoleSpec {
            workload_identity_labels: allow,
            deny_workload_identity_labels: deny,
        })
    });
    let token = name().prop_map(|bot_name| {
        Spec::Token(pb::TokenSpec {
            join_method: "token".to_owned(),
            bot_name,
        })
    });
    let target = prop_oneof![
        name().prop_map(Target::Bot),
        any::<u128>().prop_map(|id| Target::BotInstanceId(uuid::Uuid::from_u128(id).to_string())),
        "sha256-[0-9a-f]{16}".prop_map(Target::JoinToken),
        name().prop_map(Target::Role),
        name().prop_map(Target::WorkloadIdentity),
        "/[a-z0-9]{1,9}".prop_map(|path| Target::SpiffeId(format!("spiffe://a.example{path}"))),
    ];
    let lock = (target, text(200)).prop_map(|(target, message)| {
        let target = Some(target);
        Spec::Lock(pb::LockSpec { target, message })
    });
    let federation = (1_u64..9).prop_map(|sequence| {
        Spec::SpiffeFederation(pb::SpiffeFederationSpec {
            static_bundle_json: format!("{{\"keys\": [],\n \"spiffe_sequence\": {sequence}}}"),
        })
    });
    prop_oneof![
        (metadata(name(), false), bot),
        (metadata(name(), false), role),
        (metadata("[a-z0-9]{32,64}", true), token),
        (metadata(name(), true), lock),
        (metadata("[a-z0-9]{1,20}\\.example", false), federation),
        (
            metadata(name(), false),
            workload_identity().prop_map(Spec::WorkloadIdentity)
        ),
    ]
    .prop_map(|(metadata, spec)| pb::Resource {
        metadata: Some(metadata),
        spec: Some(spec),
    })
}

/// Files that people might write.
const SEEDS: [&str; 4] = [
    include_str!("../../../../../examples/policy/bot-by-name.yaml"),
    include_str!("../../../../../examples/policy/github-actions-by-repository.yaml"),
    include_str!("../../../../../examples/policy/kubernetes-by-namespace.yaml"),
    "kind: lock\nversion: v1\nmetadata: {name: l, expires: 2099-01-01T00:00:00Z}\nspec: {target: {bot: b}, message: 'x'}\n---\nkind: spiffe_federation\nversion: v1\nmetadata: {name: a.example}\nspec: {bundle_source: {static: {bundle: '{\"keys\": []}'}}}\n",
];

/// What goes wrong at a place of a file.
#[derive(Debug, Clone)]
enum Slip {
    Insert(String),
    Remove(usize),
    Repeat(usize),
}

fn change() -> impl Strategy<Value = Slip> {
    let fragment = select(vec![
        ":",
        "- ",
        "\n",
        "  ",
        "{",
        "}",
        "[",
        "]",
        "'",
        "\"",
        "|\n",
        ">\n",
        "{{",
        "}}",
        "#",
        "&a ",
        "*a",
        "!!str ",
        "? ",
        "---\n",
        "~",
        "null",
        "1e999",
        "0x",
        "\\",
        "\t",
        "\u{85}",
        "\u{feff}",
        "user.name",
        " && ",
        "has(",
        ")",
        "/..",
        "%2f",
        "/bot/",
        "25h",
        "-1s",
    ]);
    prop_oneof![
        fragment.prop_map(|text| Slip::Insert(text.to_owned())),
        any::<char>().prop_map(|character| Slip::Insert(character.to_string())),
        (1..40_usize).prop_map(Slip::Remove),
        (1..80_usize).prop_map(Slip::Repeat),
    ]
}

fn changed(seed: &str, changes: Vec<(prop::sample::Index, Slip)>) -> String {
    let mut text: Vec<char> = seed.chars().collect();
    for (at, slip) in changes {
        let at = at.index(text.len() + 1);
        let until = |length: usize| (at + length).min(text.len());
        let (removed, inserted) = match slip {
            Slip::Insert(part) => (at, part.chars().collect::<Vec<_>>()),
            Slip::Remove(length) => (until(length), vec![]),
            Slip::Repeat(length) => (at, text[at..until(length)].to_vec()),
        };
        text.splice(at..removed, inserted);
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn what_is_written_is_what_is_read_for_every_kind(
        resources in collection::vec(resource(), 1..3)
    ) {
        let mut names = HashMap::new();
        for resource in &resources {
            prop_assert!(wire::from_wire(resource.clone()).is_ok(), "{:?}", wire::from_wire(resource.clone()).err());
            let metadata = resource.metadata.clone().unwrap_or_default();
            names.insert(metadata.name, ());
        }
        prop_assume!(names.len() == resources.len());
        let text = write(&resources);
        let back = read("-", &text).map_err(|mistakes| TestCaseError::fail(format!("{mistakes}\n{text}")))?;
        prop_assert_eq!(back, resources.clone(), "{}", text);
    }

    #[test]
    fn broken_files_are_told_at_a_place_in_them_and_what_is_read_comes_back(
        seed in select(SEEDS.to_vec()),
        changes in collection::vec((any::<prop::sample::Index>(), change()), 1..6),
    ) {
        let text = changed(seed, changes);
        match read("f", &text) {
            Ok(resources) => {
                let kept = |resource: &pb::Resource| {
                    wire::from_wire(resource.clone()).map(|resource| wire::to_wire(&resource))
                };
                let written = write(&resources);
                let again = read("f", &written)
                    .map_err(|mistakes| TestCaseError::fail(format!("{mistakes}\n{written}")))?;
                let one: Vec<_> = resources.iter().map(kept).collect();
                let other: Vec<_> = again.iter().map(kept).collect();
                prop_assert_eq!(one, other, "{}", written);
            }
            Err(mistakes) => {
                // A carriage return alone ends a line, too (YAML 1.2.2, section 5.4). The parser
                // says of an end that it came too early one line further on.
                let lines = text.split(['\r', '\n']).count() + 1;
                for mistake in mistakes.iter() {
                    prop_assert!((1..=lines).contains(&mistake.line), "{}\n{}", mistake, text);
                    prop_assert!(mistake.column >= 1, "{}", mistake);
                    prop_assert!(!mistake.message.contains(char::is_control), "{:?}", mistake);
                }
            }
        }
    }

    #[test]
    fn what_is_kept_is_what_was_written(resource in resource()) {
        let kept = wire::from_wire(resource.clone()).map(|resource| wire::to_wire(&resource));
        let again = wire::from_wire(resource).map(|resource| wire::to_wire(&resource));
        prop_assert_eq!(kept, again);
    }
}
