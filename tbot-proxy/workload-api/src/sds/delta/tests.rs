use std::collections::{BTreeMap, HashMap};

use identity::testing::TestCa;
use prost::Message;
use proto::envoy::{extensions::transport_sockets::tls::v3::Secret, service::discovery::v3 as pb};

use super::Delta;
use crate::sds::{
    names::MOST_ABSENT,
    resources::Secrets,
    updates::Protocol,
    world::tests::{context, message, secrets},
};

fn subscribe(names: &[&str]) -> pb::DeltaDiscoveryRequest {
    pb::DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: super::SECRET.to_owned(),
        ..Default::default()
    }
}

fn answer(delta: &mut Delta, secrets: &Secrets) -> Option<pb::DeltaDiscoveryResponse> {
    let answer: pb::DeltaDiscoveryResponse = message(&delta.answer(secrets)?);
    for resource in &answer.resources {
        let secret = resource.resource.as_ref().unwrap();
        let secret = Secret::decode(secret.value.as_slice()).unwrap();
        assert_eq!(secret.name, resource.name);
    }
    Some(answer)
}

fn versions(answer: &pb::DeltaDiscoveryResponse) -> BTreeMap<String, String> {
    let of = |it: &pb::Resource| (it.name.clone(), it.version.clone());
    answer.resources.iter().map(of).collect()
}

#[test]
fn only_what_changed_is_sent() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let mut now = context(&ca, &other);
    let mut delta = Delta::default();
    let there = secrets(&now);
    delta
        .request(subscribe(&["default", "ROOTCA"]), &there)
        .unwrap();
    let first = answer(&mut delta, &there).unwrap();
    assert_eq!(
        versions(&first).keys().collect::<Vec<_>>(),
        ["ROOTCA", "default"]
    );
    assert!(answer(&mut delta, &secrets(&now)).is_none());
    // An ACK is not answered.
    let mut ack = subscribe(&[]);
    ack.response_nonce = first.nonce.clone();
    delta.request(ack, &there).unwrap();
    assert!(answer(&mut delta, &secrets(&now)).is_none());
    now.svids = context(&ca, &other).svids;
    let second = answer(&mut delta, &secrets(&now)).unwrap();
    assert_eq!(versions(&second).keys().collect::<Vec<_>>(), ["default"]);
    assert_ne!(first.nonce, second.nonce);
    assert_ne!(versions(&first)["default"], versions(&second)["default"]);
    // Subscribed to again: sent again.
    delta
        .request(subscribe(&["ROOTCA"]), &secrets(&now))
        .unwrap();
    let third = answer(&mut delta, &secrets(&now)).unwrap();
    assert_eq!(versions(&third).keys().collect::<Vec<_>>(), ["ROOTCA"]);
    let unsubscribe = pb::DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["default".to_owned()],
        ..Default::default()
    };
    delta.request(unsubscribe, &secrets(&now)).unwrap();
    now.svids = context(&ca, &other).svids;
    assert!(answer(&mut delta, &secrets(&now)).is_none());
}

#[test]
fn a_stream_that_resumes_gets_what_it_does_not_have() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let mut now = context(&ca, &other);
    let mut before = Delta::default();
    let there = secrets(&now);
    before
        .request(subscribe(&["default", "ROOTCA"]), &there)
        .unwrap();
    let held: HashMap<_, _> = versions(&answer(&mut before, &there).unwrap())
        .into_iter()
        .collect();
    let resume = |held: &HashMap<String, String>, now: &Secrets| {
        let mut request = subscribe(&["default", "ROOTCA", "spiffe://one.example/gone"]);
        request.initial_resource_versions = held.clone();
        let mut delta = Delta::default();
        delta.request(request, now).unwrap();
        answer(&mut delta, now)
    };
    // The same: nothing. Versions outlive the process: they are of the content.
    assert!(resume(&held, &there).is_none());
    now.svids = context(&ca, &other).svids;
    let now = secrets(&now);
    let news = resume(&held, &now).unwrap();
    assert_eq!(versions(&news).keys().collect::<Vec<_>>(), ["default"]);
    assert!(news.removed_resources.is_empty());
    // What it has and is gone is told as removed.
    let mut more = held;
    more.insert("spiffe://one.example/gone".to_owned(), "1".to_owned());
    let news = resume(&more, &now).unwrap();
    assert_eq!(news.removed_resources, ["spiffe://one.example/gone"]);
}

#[test]
fn an_unknown_name_waits_and_a_withdrawn_one_is_told_as_removed_once() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let now = context(&ca, &other);
    let mut fewer = now.clone();
    fewer.svids.truncate(1);
    let id = "spiffe://one.example/b";
    let mut delta = Delta::default();
    let few = secrets(&fewer);
    delta.request(subscribe(&[id, "nonsense"]), &few).unwrap();
    assert!(answer(&mut delta, &few).is_none());
    let there = answer(&mut delta, &secrets(&now)).unwrap();
    assert_eq!(versions(&there).keys().collect::<Vec<_>>(), [id]);
    let gone = answer(&mut delta, &secrets(&fewer)).unwrap();
    assert!(gone.resources.is_empty());
    assert_eq!(gone.removed_resources, [id]);
    assert!(answer(&mut delta, &secrets(&fewer)).is_none());
    assert!(answer(&mut delta, &secrets(&now)).is_some());
}

#[test]
fn a_wildcard_is_everything_under_full_names() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let secrets = secrets(&context(&ca, &other));
    for names in [&[][..], &["*"]] {
        let mut delta = Delta::default();
        delta.request(subscribe(names), &secrets).unwrap();
        assert_eq!(answer(&mut delta, &secrets).unwrap().resources.len(), 4);
    }
}

#[test]
fn five_thousand_names_that_are_not_there_are_told_as_removed_and_harm_no_other() {
    let there = secrets(&context(
        &TestCa::new("one.example"),
        &TestCa::new("two.example"),
    ));
    let absent: Vec<String> = (0..5000).map(|index| format!("{index:04}")).collect();
    let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
    let mut delta = Delta::default();
    let mut removed = 0;
    for names in absent.chunks(1000) {
        let names = [names, &["default"]].concat();
        delta.request(subscribe(&names), &there).unwrap();
        let one = answer(&mut delta, &there).unwrap();
        assert_eq!(versions(&one).keys().collect::<Vec<_>>(), ["default"]);
        removed += one.removed_resources.len();
        assert_eq!(delta.wanted.iter().count(), MOST_ABSENT + 1);
        assert!(delta.left_out.is_empty() && delta.held.len() == 1);
    }
    assert_eq!(removed, 5000 - MOST_ABSENT);
    // What it says that it holds is not kept either, and told once.
    let held = absent.iter().map(|it| ((*it).to_owned(), "x".repeat(9)));
    let mut request = subscribe(&absent);
    request.initial_resource_versions = held.collect();
    let mut delta = Delta::default();
    delta.request(request, &there).unwrap();
    let one = answer(&mut delta, &there).unwrap();
    assert_eq!(one.removed_resources.len(), 5000);
    assert!(delta.held.is_empty() && answer(&mut delta, &there).is_none());
}
