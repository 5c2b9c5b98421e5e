//! Workloads in real containers, each with the identity of its container.

use e2e::Podman;
use tonic::Code;

use crate::rig::{Rig, fetch, workload_identity};

/// What a process in a container with these options gets: the SPIFFE ID of its first
/// X509-SVID, or a code.
fn answer(podman: &Podman, rig: &Rig, options: &[&str]) -> String {
    let client = "workload_decides::client_as_another_user";
    let text = client_in(podman, rig, Podman::IMAGE, options, client);
    let answer = text.lines().find_map(|line| line.strip_prefix("answer: "));
    answer.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// What this test says, run as a client in a container of this image with these options.
pub(crate) fn client_in(
    podman: &Podman,
    rig: &Rig,
    image: &str,
    options: &[&str],
    test: &str,
) -> String {
    let client = rig.client_of_others();
    let home = client.parent().unwrap().display().to_string();
    let volume = format!("--volume={home}:/agent");
    let all = [
        &[
            "--rm",
            &*volume,
            "--env=SPIFFE_ENDPOINT_SOCKET=/agent/wl.sock",
        ],
        options,
    ]
    .concat();
    let program = ["/agent/client", "--exact", test, "--ignored", "--nocapture"];
    podman.container_of(image, &all, &program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_the_identity_that_its_labels_allow() {
    let Some(podman) = Podman::start() else {
        return;
    };
    let rule = ", rules: { allow: [ { expression: 'workload.podman.container.labels[\"app\"] == \"web\"' } ] }";
    let id = "/container/{{ workload.podman.container.name }}";
    let rig = Rig::start_with(
        &workload_identity("app", id, rule),
        "{ name: app }",
        &format!(
            ", attestors: {{ podman: {{ addr: \"unix://{}\" }} }}",
            podman.socket().display()
        ),
    );
    let one = answer(&podman, &rig, &["--name=one", "--label=app=web"]);
    assert_eq!(one, "spiffe://e2e.example/container/one");
    let two = answer(
        &podman,
        &rig,
        &["--name=two", "--label=app=web", "--user=4001"],
    );
    assert_eq!(two, "spiffe://e2e.example/container/two");
    let other = answer(&podman, &rig, &["--name=other", "--label=app=db"]);
    assert_eq!(other, "PermissionDenied");
    // In no container.
    let refused = fetch(&mut rig.client().await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}
