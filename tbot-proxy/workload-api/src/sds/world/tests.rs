use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use identity::{TrustBundleSet, testing::TestCa};
use prost::Message;
use proto::{envoy::service::discovery::v3 as pb, google};
use tonic::Code;

use super::{Wanted, World};
use crate::{
    BundleContext, HeldX509, X509Context,
    sds::{Options, names::MOST_ABSENT, resources::Secrets, updates::Protocol},
};

/// Two SVIDs, and bundles of two trust domains.
pub(in crate::sds) fn context(ca: &TestCa, other: &TestCa) -> X509Context {
    let held = |path: &str| HeldX509 {
        svid: Arc::new(ca.svid(path, Duration::from_secs(60))),
        hint: String::new(),
    };
    X509Context {
        svids: vec![held("/a"), held("/b")],
        bundles: Arc::new(BundleContext {
            own: ca.trust_domain().clone(),
            bundles: Arc::new(TrustBundleSet::new([ca.bundle(), other.bundle()])),
        }),
    }
}

pub(in crate::sds) fn secrets(context: &X509Context) -> Secrets {
    Secrets::of(context, &Options::default(), true)
}

pub(in crate::sds) fn message<M: Message + Default>(pieces: &[Bytes]) -> M {
    let all = pieces.concat();
    let length = u32::from_be_bytes(all[1..5].try_into().unwrap());
    assert_eq!(length as usize, all.len() - 5);
    M::decode(&all[5..]).unwrap()
}

fn names_of(response: &pb::DiscoveryResponse) -> Vec<String> {
    let name = |any: &prost_types::Any| {
        use proto::envoy::extensions::transport_sockets::tls::v3::Secret;
        assert_eq!(any.type_url, super::SECRET);
        Secret::decode(any.value.as_slice()).unwrap().name
    };
    response.resources.iter().map(name).collect()
}

fn asks(names: &[&str]) -> pb::DiscoveryRequest {
    pb::DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: super::SECRET.to_owned(),
        ..Default::default()
    }
}

fn answer(world: &mut World, secrets: &Secrets) -> Option<pb::DiscoveryResponse> {
    world.answer(secrets).map(|pieces| message(&pieces))
}

#[test]
fn a_stream_lives_through_acks_changes_and_new_names() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let first = secrets(&context(&ca, &other));
    let mut world = World::default();
    assert!(answer(&mut world, &first).is_none(), "nobody has asked");
    world.request(asks(&["default"]), &first).unwrap();
    let one = answer(&mut world, &first).unwrap();
    assert_eq!(names_of(&one), ["default"]);
    // The ACK is not answered.
    let mut ack = asks(&["default"]);
    ack.response_nonce = one.nonce.clone();
    ack.version_info = one.version_info.clone();
    world.request(ack.clone(), &first).unwrap();
    assert!(answer(&mut world, &first).is_none());
    // The same secrets from a new state are not, new ones are.
    assert!(answer(&mut world, &secrets_of_same(&ca, &other, &first)).is_none());
    let second = secrets(&context(&ca, &other));
    let two = answer(&mut world, &second).unwrap();
    assert_ne!(
        (&one.nonce, &one.version_info),
        (&two.nonce, &two.version_info)
    );
    // A stale one is not heard, whatever it wants.
    let mut stale = asks(&["default", "ALL"]);
    stale.response_nonce = one.nonce;
    world.request(stale, &second).unwrap();
    assert!(answer(&mut world, &second).is_none());
    // A new name is answered with all.
    let mut more = asks(&["default", "ALL"]);
    more.response_nonce = two.nonce.clone();
    world.request(more, &second).unwrap();
    let three = answer(&mut world, &second).unwrap();
    assert_eq!(names_of(&three), ["ALL", "default"]);
    // A name less is not.
    let mut less = asks(&["default"]);
    less.response_nonce = three.nonce;
    world.request(less, &second).unwrap();
    assert!(answer(&mut world, &second).is_none());
}

/// The same content, made anew.
fn secrets_of_same(ca: &TestCa, other: &TestCa, like: &Secrets) -> Secrets {
    let mut context = context(ca, other);
    context.svids.clear();
    let mut same = secrets(&context);
    same.adopt(like);
    same
}

#[test]
fn a_rejected_answer_is_not_repeated_and_the_next_change_is_sent() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let first = secrets(&context(&ca, &other));
    let mut world = World::default();
    world.request(asks(&["default"]), &first).unwrap();
    let one = answer(&mut world, &first).unwrap();
    let mut nack = asks(&["default"]);
    nack.response_nonce = one.nonce;
    nack.error_detail = Some(google::rpc::Status {
        code: 3,
        message: "no".to_owned(),
    });
    world.request(nack, &first).unwrap();
    assert!(answer(&mut world, &first).is_none());
    assert!(answer(&mut world, &secrets(&context(&ca, &other))).is_some());
}

#[test]
fn an_unknown_name_is_not_answered_until_it_is_there_and_harms_no_other() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let mut context = context(&ca, &other);
    let mut fewer = context.clone();
    fewer.svids.truncate(1);
    let id = "spiffe://one.example/b";
    let mut world = World::default();
    let few = secrets(&fewer);
    world.request(asks(&[id]), &few).unwrap();
    assert!(answer(&mut world, &few).is_none());
    assert_eq!(
        names_of(&answer(&mut world, &secrets(&context)).unwrap()),
        [id]
    );
    let mut world = World::default();
    world
        .request(asks(&[id, "default", "nonsense", ""]), &few)
        .unwrap();
    let one = answer(&mut world, &secrets(&fewer)).unwrap();
    assert_eq!(names_of(&one), ["default"]);
    // Withdrawn: the others stay, and there is no empty answer.
    context.svids.clear();
    Arc::make_mut(&mut context.bundles).bundles = Arc::default();
    assert!(answer(&mut world, &secrets(&context)).is_none());
}

#[test]
fn no_names_at_all_is_everything_under_full_names() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let mut world = World::default();
    let there = secrets(&context(&ca, &other));
    world.request(asks(&[]), &there).unwrap();
    let all = answer(&mut world, &there).unwrap();
    assert_eq!(
        names_of(&all),
        [
            "spiffe://one.example/a",
            "spiffe://one.example/b",
            "spiffe://one.example",
            "spiffe://two.example",
        ]
    );
    // Names, and then none: nothing is wanted any more.
    let mut world = World::default();
    world.request(asks(&["default"]), &there).unwrap();
    world.request(asks(&[]), &there).unwrap();
    assert!(answer(&mut world, &secrets(&context(&ca, &other))).is_none());
}

#[test]
fn another_type_ends_the_stream() {
    let there = secrets(&context(&TestCa::new("a"), &TestCa::new("b")));
    let mut other = asks(&["default"]);
    other.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let status = World::default().request(other, &there).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[test]
fn five_thousand_names_that_are_not_there_are_not_kept_and_harm_no_other() {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let there = secrets(&context(&ca, &other));
    let mut world = World::default();
    let absent: Vec<String> = (0..5000).map(|index| format!("{index:04}")).collect();
    let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
    for names in absent.chunks(2500) {
        let mut request = asks(&[names, &["default", "ROOTCA"]].concat());
        request.response_nonce.clone_from(&world.nonce);
        world.request(request, &there).unwrap();
        let Wanted::Names(kept) = &world.wanted else {
            panic!("{world:?}");
        };
        assert_eq!(kept.iter().count(), MOST_ABSENT + 2);
        world.sent.retain(|_| false);
        let one = answer(&mut world, &there).unwrap();
        assert_eq!(names_of(&one), ["ROOTCA", "default"]);
    }
}
