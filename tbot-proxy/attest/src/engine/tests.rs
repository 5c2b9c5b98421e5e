//! Answers recorded from Podman 4.3.1 (both of its APIs), and one in the form that the
//! Docker Engine API 1.43 documents, all without what nobody reads.

use std::collections::BTreeMap;

use super::inspect::{Inspected, Pod, container, image_digest, pod};

const ID: &str = "030044703ef078e23b6e91bcc8bdbe3e6f9940647f9a31467fb7c126bc059911";

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

#[test]
fn containers_are_read_from_every_api() {
    let image_id = "a0c2a0d2ab2c04174ad5a01bcfaf6ab1cbaaf68caae1777399a6d6d89bd4887e";
    let podman = include_bytes!("samples/podman-container.json");
    assert_eq!(
        container(podman).unwrap(),
        Inspected {
            id: ID.to_owned(),
            name: "t2".to_owned(),
            image: "localhost/attest-test:1".to_owned(),
            image_id: image_id.to_owned(),
            image_digest: Some(
                "sha256:d93bfbefbb3cf063e06222d4c986c1004b57f095ec6208eadde5383b34e63765"
                    .to_owned()
            ),
            labels: labels([("a", "b")]),
            pid: 32140,
            pod: Some(
                "7daec5dc7263f5004ba937e1e092e479ac96e15d35ad7cb8aeeb10c675639588".to_owned()
            ),
        }
    );
    let compatible = include_bytes!("samples/podman-as-docker-container.json");
    assert_eq!(
        container(compatible).unwrap(),
        Inspected {
            id: ID.to_owned(),
            name: "t2".to_owned(),
            image: "localhost/attest-test:1".to_owned(),
            image_id: format!("sha256:{image_id}"),
            image_digest: None,
            labels: labels([("a", "b")]),
            pid: 32140,
            pod: None,
        }
    );
    let docker = container(include_bytes!("samples/docker-container.json")).unwrap();
    assert_eq!((&*docker.name, &*docker.image), ("web-1", "nginx:1.25"));
    assert_eq!(docker.labels["com.docker.compose.service"], "web");
    assert_eq!(docker.pid, 4242);
}

#[test]
fn pods_are_read() {
    let sample = include_bytes!("samples/podman-pod.json");
    let expected = Pod {
        name: "mypod".to_owned(),
        labels: labels([("tier", "back")]),
    };
    assert_eq!(pod(sample).unwrap(), expected);
}

#[test]
fn what_is_no_answer_of_an_engine_is_an_error() {
    for bytes in [
        &b""[..],
        b"null",
        b"[]",
        b"{}",
        b"\"x\"",
        b"{\"message\":\"no such container\"}",
        b"{\"Id\":\"x\",\"Name\":\"x\",\"Image\":\"x\",\"State\":{\"Pid\":-1},\"Config\":{}}",
        b"{\"Id\":\"x\",\"Name\":\"x\",\"Image\":\"x\",\"State\":{},\"Config\":{\"Labels\":{\"a\":1}}}",
    ] {
        assert!(container(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
    for bytes in [&b""[..], b"null", b"{}", b"{\"Name\":null}"] {
        assert!(pod(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
    let least =
        b"{\"Id\":\"x\",\"Name\":\"/n\",\"Image\":\"i\",\"State\":{},\"Config\":{\"Labels\":null}}";
    assert_eq!(container(least).unwrap().pid, 0);
}

#[test]
fn a_digest_is_the_one_by_which_the_named_registry_knows_the_image() {
    const A: &str = "sha256:aa";
    const B: &str = "sha256:bb";
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&[], "app:1", None),
        (&["nginx@sha256:aa"], "nginx:1.25", Some(A)),
        // Known by one digest, whatever it is called here.
        (
            &["nginx@sha256:aa", "mirror:5000/nginx@sha256:aa"],
            "x",
            Some(A),
        ),
        // By two: that of the repository that is named.
        (
            &["nginx@sha256:aa", "mirror:5000/nginx@sha256:bb"],
            "nginx:1",
            Some(A),
        ),
        (
            &["nginx@sha256:aa", "mirror:5000/nginx@sha256:bb"],
            "mirror:5000/nginx:1",
            Some(B),
        ),
        (
            &["nginx@sha256:aa", "mirror:5000/nginx@sha256:bb"],
            "mirror:5000/nginx",
            Some(B),
        ),
        (
            &["nginx@sha256:aa", "mirror:5000/nginx@sha256:bb"],
            "other",
            None,
        ),
        (&["nginx@sha256:aa", "nginx@sha256:bb"], "nginx:1", None),
        (
            &["nginx@sha256:aa", "nginx@sha256:bb"],
            "nginx@sha256:bb",
            Some(B),
        ),
        (
            &["nginx@sha256:aa", "nginx@sha256:bb"],
            "nginx@sha256:cc",
            None,
        ),
        (&["without-digest"], "without-digest", None),
    ];
    for (digests, named, expected) in cases {
        let answer = serde_json::json!({ "RepoDigests": digests }).to_string();
        let found = image_digest(answer.as_bytes(), named).unwrap();
        assert_eq!(found.as_deref(), *expected, "{digests:?} {named}");
    }
    assert_eq!(image_digest(b"{\"RepoDigests\":null}", "x").unwrap(), None);
    assert!(image_digest(b"\"x\"", "x").is_err());
}
