use prost::Message;
use prost_types::Any;
use proto::broker as pb;

use super::{KubernetesObject, Reference, Unresolved};

fn of(type_url: &str, value: Vec<u8>) -> Option<pb::WorkloadReference> {
    Some(pb::WorkloadReference {
        reference: Some(Any {
            type_url: type_url.to_owned(),
            value,
        }),
    })
}

fn pid(pid: i32) -> Option<pb::WorkloadReference> {
    let value = pb::WorkloadPidReference { pid }.encode_to_vec();
    of(
        "type.googleapis.com/spiffe.broker.WorkloadPIDReference",
        value,
    )
}

fn object(
    plural: &str,
    group: &str,
    key: Option<(&str, &str)>,
    uid: &str,
) -> Option<pb::WorkloadReference> {
    let value = pb::KubernetesObjectReference {
        r#type: Some(pb::KubernetesObjectType {
            plural: plural.to_owned(),
            group: group.to_owned(),
        }),
        key: key.map(|(namespace, name)| pb::KubernetesObjectKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        uid: uid.to_owned(),
    };
    of(
        "type.googleapis.com/spiffe.broker.KubernetesObjectReference",
        value.encode_to_vec(),
    )
}

const UID: &str = "a1b2c3d4-0000-4000-8000-00000000000F";

#[test]
fn ba_03_ba_06_ba_07_well_formed_references_are_read() {
    let read = Reference::read(pid(42)).unwrap();
    assert!(matches!(read, Reference::Pid(pid) if pid.get() == 42));
    for (key, uid) in [
        (Some(("default", "web-0")), ""),
        (None, UID),
        (Some(("", "node-1")), UID),
    ] {
        let read = Reference::read(object("pods", "core", key, uid)).unwrap();
        let expected = KubernetesObject {
            plural: "pods".to_owned(),
            group: "core".to_owned(),
            key: key.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
        };
        assert_eq!(read, Reference::Kubernetes(expected));
    }
}

#[test]
fn ba_03_ba_06_ba_07_all_others_are_invalid() {
    let cases = [
        None,
        Some(pb::WorkloadReference { reference: None }),
        of("", vec![]),
        of("type.googleapis.com/spiffe.broker.Other", vec![]),
        of("spiffe.broker.WorkloadPIDReferences", vec![]),
        of(
            "type.googleapis.com/spiffe.broker.WorkloadPIDReference",
            vec![0xff],
        ),
        pid(0),
        pid(-1),
        pid(i32::MIN),
        object("", "core", None, UID),
        object("pods", "", None, UID),
        object("pods", "core", None, ""),
        object("pods", "core", Some(("default", "")), UID),
        object("pods", "core", None, "a1b2c3d4"),
        object(
            "pods",
            "core",
            Some(("default", "web-0")),
            "a1b2c3d4-0000-4000-8000-00000000000g",
        ),
    ];
    for case in cases {
        let read = Reference::read(case.clone());
        assert!(
            matches!(read, Err(Unresolved::Invalid(_))),
            "{case:?}: {read:?}"
        );
    }
}
