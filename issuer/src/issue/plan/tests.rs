use std::{collections::BTreeSet, sync::Arc};

use serde_json::json;

use super::{Batch, Outcome, Room, Settled};
use crate::{
    access::Denial,
    catalog::Catalog,
    issue::{
        Item, Selection, Wanted,
        testing::{asker, attributes, catalog, keyring, moment},
    },
    resources::LabelSelector,
};

/// Bot `web` may have `w00` to `w39`; the rules refuse it every fourth.
fn fleet() -> Catalog {
    let mut yaml = String::from(
        "kind: role\nversion: v1\nmetadata: { name: web }\n\
         spec: { allow: { workload_identity_labels: { set: [big] } } }\n\
         ---\nkind: bot\nversion: v1\nmetadata: { name: web }\nspec: { roles: [web] }\n",
    );
    for number in 0..40 {
        let rules = match number % 4 {
            0 => ", rules: { allow: [{ expression: \"user.bot_name == 'nobody'\" }] }",
            _ => "",
        };
        yaml.push_str(&format!(
            "---\nkind: workload_identity\nversion: v1\n\
             metadata: {{ name: w{number:02}, labels: {{ set: big }} }}\n\
             spec: {{ spiffe: {{ id: /w/{number:02} }}{rules} }}\n"
        ));
    }
    catalog(&yaml)
}

fn by_labels(after: &str, workload: serde_json::Value) -> Item {
    let selector = LabelSelector::new([("set".to_owned(), vec!["big".to_owned()])]).unwrap();
    Item {
        selection: Selection::Labels {
            selector: Arc::new(selector),
            after: Some(after.to_owned()).filter(|after| !after.is_empty()),
        },
        wanted: Wanted::Jwt(["db".to_owned()].into()),
        keys: Vec::new(),
        ttl: None,
        workload: Arc::new(attributes(&workload)),
        signatures: Arc::default(),
    }
}

fn settled(catalog: &Catalog, room: Room, items: Vec<Item>) -> Settled {
    let batch = Batch {
        keyring: keyring(),
        jwt_issuer: None,
        asker: asker(),
        items: items.into_iter().map(Ok).collect(),
        room,
        now: moment(),
    };
    let mut plan = batch.plan(catalog);
    let jobs = plan.jobs();
    let documents = jobs.iter().map(|approved| batch.sign(approved)).collect();
    plan.take_documents(documents);
    Settled::new(&batch, plan)
}

fn outcomes(catalog: &Catalog, room: Room, items: Vec<Item>) -> Vec<Outcome> {
    settled(catalog, room, items).into_outcomes()
}

fn names(outcome: &Outcome) -> Vec<String> {
    let grants = outcome.grants.iter();
    grants
        .map(|grant| grant.approved.workload_identity.to_string())
        .collect()
}

/// Follows `next_after` until nothing remains; how many calls that took.
fn all_pages(
    catalog: &Catalog,
    room: Room,
    workload: &serde_json::Value,
) -> (BTreeSet<String>, usize) {
    let (mut seen, mut after, mut calls) = (BTreeSet::new(), String::new(), 0);
    loop {
        let item = by_labels(&after, workload.clone());
        let outcome = outcomes(catalog, room, vec![item]).remove(0);
        calls += 1;
        for name in names(&outcome) {
            assert!(seen.insert(name.clone()), "{name} came twice");
        }
        if outcome.remaining == 0 {
            assert_eq!(outcome.next_after, "");
            return (seen, calls);
        }
        assert!(outcome.next_after > after, "{after} leads nowhere");
        after = outcome.next_after;
    }
}

#[test]
fn whatever_is_scarce_ends_a_page_and_the_next_goes_on_behind_it() {
    let catalog = fleet();
    let nothing = json!({});
    let whole = all_pages(&catalog, Room::WHOLE, &nothing);
    assert_eq!((whole.0.len(), whole.1), (30, 1));
    let scarce = [
        (
            "svids",
            Room {
                svids: 7,
                ..Room::WHOLE
            },
            5,
        ),
        (
            "decisions",
            Room {
                decisions: 8,
                ..Room::WHOLE
            },
            5,
        ),
        (
            "looks",
            Room {
                looks: 9,
                ..Room::WHOLE
            },
            5,
        ),
        (
            "bytes",
            Room {
                bytes: 20_000,
                ..Room::WHOLE
            },
            3,
        ),
    ];
    for (what, room, calls) in scarce {
        let pages = all_pages(&catalog, room, &nothing);
        assert_eq!(pages.0, whole.0, "{what}");
        assert!(
            (2..=2 * calls).contains(&pages.1),
            "{what}: {} calls",
            pages.1
        );
    }
}

/// What an agent sends once is recorded with each SVID that it gets for it.
#[test]
fn a_page_ends_where_too_much_would_be_recorded() {
    let labels: serde_json::Map<_, _> = (0..10)
        .map(|number| (format!("l{number}"), json!("x".repeat(1000))))
        .collect();
    let long = json!({ "workload": { "kubernetes": { "labels": labels } } });
    let room = Room {
        recorded: 50_000,
        ..Room::WHOLE
    };
    let outcome = outcomes(&fleet(), room, vec![by_labels("", long.clone())]).remove(0);
    assert_eq!(outcome.grants.len(), 4);
    assert_eq!(all_pages(&fleet(), room, &long).0.len(), 30);
    assert_eq!(all_pages(&fleet(), room, &json!({})).1, 1);
}

#[test]
fn the_items_of_a_call_share_its_room_and_those_without_any_are_told_to_ask_again() {
    let catalog = fleet();
    let room = Room {
        looks: 50,
        ..Room::WHOLE
    };
    let item = || by_labels("", json!({}));
    let settled = settled(&catalog, room, vec![item(), item(), item()]);
    assert_eq!(
        settled
            .events()
            .iter()
            .filter(|event| event.is_success())
            .count(),
        30 + 7
    );
    let outcomes = settled.into_outcomes();
    assert_eq!((names(&outcomes[0]).len(), outcomes[0].remaining), (30, 0));
    assert_eq!(names(&outcomes[1]).len(), 7);
    assert_eq!(
        (outcomes[1].remaining, outcomes[1].next_after.as_str()),
        (1, "w09")
    );
    assert_eq!(names(&outcomes[2]).len(), 0);
    assert_eq!(
        (outcomes[2].remaining, outcomes[2].next_after.as_str()),
        (1, "")
    );
    assert!(outcomes.iter().all(|outcome| outcome.refused.is_none()));
}

#[test]
fn by_name_what_does_not_fit_is_refused_with_an_event_of_its_own() {
    let named = |name: &str| Item {
        selection: Selection::Name(name.to_owned()),
        ..by_labels("", json!({}))
    };
    let room = Room {
        svids: 1,
        ..Room::WHOLE
    };
    let items = vec![named("w01"), named("w02"), named("w00"), named("no")];
    let settled = settled(&fleet(), room, items);
    let reasons: Vec<_> = settled
        .outcomes()
        .iter()
        .map(|outcome| outcome.refused.as_ref().map(|refused| refused.denial))
        .collect();
    assert_eq!(
        reasons,
        [
            None,
            Some(Denial::TooMuch),
            Some(Denial::NoRule),
            Some(Denial::UnknownWorkloadIdentity)
        ]
    );
    let recorded: Vec<_> = settled
        .events()
        .iter()
        .map(|event| event.text_field("reason"))
        .collect();
    assert_eq!(
        recorded,
        ["", "too_much", "no_rule", "unknown_workload_identity"]
    );
}
