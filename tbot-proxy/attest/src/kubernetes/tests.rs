//! Lists as kubelets of 1.28 and later write them.

use super::{
    PodReference,
    pods::{ContainerType, Pods},
};

const LIST: &str = include_str!("samples/pods.json");
const POD: &str = "6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e";

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

#[test]
fn every_kind_of_container_is_found_by_its_id() {
    let pods = Pods::read(LIST.as_bytes()).unwrap();
    let digest = |digit| Some(format!("sha256:{}", id(digit)));
    for (digit, name, image, image_digest, r#type) in [
        (
            'a',
            "migrate",
            "registry.example/shop/migrate:3",
            digest('1'),
            ContainerType::Init,
        ),
        (
            'b',
            "proxy",
            "envoyproxy/envoy:v1.40",
            digest('2'),
            ContainerType::Sidecar,
        ),
        (
            'c',
            "api",
            "registry.example/shop/api:3",
            digest('3'),
            ContainerType::Regular,
        ),
        (
            'd',
            "debugger-8xk2p",
            "busybox",
            digest('4'),
            ContainerType::Ephemeral,
        ),
    ] {
        for uid in [None, Some(POD)] {
            let found = pods.container(&id(digit), uid).unwrap();
            assert_eq!((&*found.name, &*found.image), (name, image));
            assert_eq!((&found.image_digest, found.r#type), (&image_digest, r#type));
            assert_eq!(found.pod.name, "api-6d4b75cb6d-x2x7q");
            assert_eq!(
                (&*found.pod.namespace, &*found.pod.service_account),
                ("shop", "api")
            );
            assert_eq!(found.pod.labels["app"], "api");
        }
    }
    // A pod of a file, an image of no registry.
    let found = pods
        .container(&id('e'), Some("5c1d2e3f40516273849506a7b8c9d0e1"))
        .unwrap();
    assert_eq!(
        (&found.image_digest, &*found.pod.service_account),
        (&None, "")
    );
}

#[test]
fn a_container_counts_for_its_own_pod_only_and_while_it_runs() {
    let pods = Pods::read(LIST.as_bytes()).unwrap();
    assert_eq!(
        pods.container(&id('c'), Some("11111111-2222-3333-4444-555555555555")),
        None
    );
    // The one that ran before its restart.
    assert_eq!(pods.container(&id('9'), None), None);
    assert_eq!(pods.container("", None), None);
    assert!(pods.has_pod(POD) && pods.has_pod("11111111-2222-3333-4444-666666666666"));
    assert!(!pods.has_pod("00000000-0000-0000-0000-000000000000"));
}

#[test]
fn an_id_that_two_pods_claim_is_of_the_one_that_the_cgroup_names() {
    let list = LIST.replace(&id('e'), &id('c'));
    let pods = Pods::read(list.as_bytes()).unwrap();
    assert_eq!(pods.container(&id('c'), None), None);
    let found = pods.container(&id('c'), Some(POD)).unwrap();
    assert_eq!(found.name, "api");
    assert!(pods.container(&id('b'), None).is_some());
}

#[test]
fn a_pod_is_found_by_what_names_it_while_it_runs() {
    let pods = Pods::read(LIST.as_bytes()).unwrap();
    let find = |key: Option<(&str, &str)>, uid: Option<&str>| {
        let key = key.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let uid = uid.map(str::to_owned);
        let found = pods.pod(&PodReference { key, uid });
        found.map(|pod| pod.uid.clone())
    };
    let key = Some(("shop", "api-6d4b75cb6d-x2x7q"));
    for (key, uid) in [(key, None), (None, Some(POD)), (key, Some(POD))] {
        assert_eq!(find(key, uid).as_deref(), Some(POD), "{key:?} {uid:?}");
    }
    assert_eq!(find(Some(("default", "api-6d4b75cb6d-x2x7q")), None), None);
    assert_eq!(find(Some(("shop", "other")), Some(POD)), None);
    let finished = LIST.replace("\"Running\"", "\"Succeeded\"");
    let finished = Pods::read(finished.as_bytes()).unwrap();
    assert_eq!(finished.pod(&PodReference::of_uid(POD)), None);
}

#[test]
fn a_name_that_two_running_pods_have_is_nobody_s() {
    let other = "11111111-2222-3333-4444-777777777777";
    let mut list: serde_json::Value = serde_json::from_str(LIST).unwrap();
    let items = list["items"].as_array_mut().unwrap();
    let mut next = items
        .iter()
        .find(|item| item["metadata"]["uid"] == POD)
        .unwrap()
        .clone();
    next["metadata"]["uid"] = other.into();
    items.push(next);
    let pods = Pods::read(list.to_string().as_bytes()).unwrap();
    let key = Some(("shop".to_owned(), "api-6d4b75cb6d-x2x7q".to_owned()));
    let mut reference = PodReference { key, uid: None };
    assert_eq!(pods.pod(&reference), None);
    for uid in [POD, other] {
        reference.uid = Some(uid.to_owned());
        assert_eq!(pods.pod(&reference).unwrap().uid, uid);
    }
}

#[test]
fn what_is_no_list_is_an_error() {
    for bytes in [
        &b""[..],
        b"[]",
        b"null",
        b"{}",
        b"{\"kind\":\"Status\",\"code\":403}",
        b"Unauthorized",
        b"{\"items\":[{}]}",
        b"{\"items\":[{\"metadata\":{\"name\":\"x\",\"uid\":7},\"spec\":{}}]}",
    ] {
        assert!(
            Pods::read(bytes).is_err(),
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert!(Pods::read(b"{\"kind\":\"PodList\",\"items\":null}").is_ok());
}
