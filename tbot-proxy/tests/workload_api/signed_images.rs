//! Containers of images in a real registry: what is signed for an image, and by whom,
//! decides what its containers get.

use e2e::{Image, Podman, Registry, SigningKey};
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    containers::client_in,
    rig::{Rig, client, next, svid, workload_identity, x509},
};

const SLSA: &str = "https://slsa.dev/provenance/v1";

/// The policies `release`, for the signature of an image, and `built`, for an attestation
/// about it, both by this key.
fn policies(key: &SigningKey) -> String {
    let public = key.public().replace('\n', "\n      ");
    let requirements = [
        ("release", "{ artifact_signature: true }".to_owned()),
        (
            "built",
            format!("{{ attestations: [ {{ predicate_type: \"{SLSA}\" }} ] }}"),
        ),
    ];
    requirements
        .map(|(name, requirements)| {
            format!(
                "---\nkind: sigstore_policy\nversion: v1\nmetadata: {{ name: {name} }}\nspec:\n  \
                 key:\n    public: |\n      {public}\n  requirements: {requirements}\n"
            )
        })
        .concat()
}

/// An issuer with these policies and an agent that asks this registry. Whom the policies of
/// this rule are satisfied for gets the name of its container.
fn rig(podman: &Podman, registry: &Registry, key: &SigningKey, asked: &str) -> Rig {
    let rule =
        format!(", rules: {{ allow: [ {{ expression: 'sigstore.policy_satisfied({asked})' }} ] }}");
    let id = "/container/{{ workload.podman.container.name }}";
    Rig::start_with(
        &(policies(key) + &workload_identity("app", id, &rule)),
        "{ name: app }",
        &format!(
            ", attestors: {{ podman: {{ addr: \"unix://{}\" }}, time_limit: 60s, sigstore: {{ \
             ca_path: {}, credentials_path: {}, allowed_private_network_prefixes: [{}], \
             time_limit: 60s }} }}",
            podman.socket().display(),
            registry.authority().display(),
            registry.credentials().display(),
            registry.network(),
        ),
    )
}

/// What a container of this image gets, and what the trail tells of the policies.
fn answer(podman: &Podman, rig: &Rig, image: &Image, name: &str) -> (String, Value) {
    let client = "workload_decides::client_as_another_user";
    let named = format!("--name={name}");
    let text = client_in(podman, rig, &image.name, &[&named], client);
    let answer = text.lines().find_map(|line| line.strip_prefix("answer: "));
    let answer = answer.unwrap_or_else(|| panic!("{text}")).to_owned();
    let event = rig.issuer.audit_event("the decision", |event| {
        let container = event.pointer("/fields/attributes/workload/podman/container/name");
        event["event"] == "spiffe.svid.issued" && container == Some(&Value::from(name))
    });
    (answer, event["fields"]["sigstore_policies"].clone())
}

#[test]
fn an_image_gets_what_the_policies_key_signed_it_for() {
    let (Some(podman), Some(registry)) = (Podman::start(), Registry::start()) else {
        return;
    };
    // One image in four repositories: signatures are those of its repository.
    let images = registry.take(
        &podman,
        ["acme/signed", "acme/unsigned", "acme/foreign", "acme/half"],
    );
    let [signed, unsigned, foreign, half] = &images;
    assert!(images.iter().all(|image| image.digest == signed.digest));
    let (ours, theirs) = (SigningKey::generate(), SigningKey::generate());
    for (image, signer, builder) in [
        (signed, &ours, &ours),
        (foreign, &theirs, &theirs),
        (half, &ours, &theirs),
    ] {
        registry.sign(image, signer);
        registry.attest(image, builder, SLSA, 100);
    }
    let rig = rig(&podman, &registry, &ours, "\"release\", \"built\"");

    let (answer_of_signed, told) = answer(&podman, &rig, signed, "signed");
    assert_eq!(answer_of_signed, "spiffe://e2e.example/container/signed");
    for policy in ["release", "built"] {
        assert_eq!(told[policy]["satisfied"], true, "{told}");
    }
    let not_the_key = "it is not signed by the key of the policy";
    for (image, name, policy, why) in [
        (unsigned, "unsigned", "release", "nothing that is signed"),
        (foreign, "foreign", "release", not_the_key),
        (half, "half", "built", not_the_key),
    ] {
        let (refused, told) = answer(&podman, &rig, image, name);
        assert_eq!(refused, "PermissionDenied", "{}: {told}", image.name);
        assert_eq!(told[policy]["satisfied"], false, "{told}");
        let error = told[policy]["error"].as_str().unwrap();
        assert!(error.contains(why), "{}: {told}", image.name);
    }
}

/// Three at once ask with more signatures than the issuer reads in one call.
#[test]
fn more_signatures_than_one_call_holds_are_sent_in_several() {
    const BYTES: usize = 180_000;
    let (Some(podman), Some(registry)) = (Podman::start(), Registry::start()) else {
        return;
    };
    let [image] = registry.take(&podman, ["acme/large"]);
    let key = SigningKey::generate();
    for _ in 0..2 {
        registry.attest(&image, &key, SLSA, BYTES);
    }
    let rig = rig(&podman, &registry, &key, "\"built\"");
    let names = ["one", "two", "three"];
    assert!(names.len() * 2 * BYTES > proto::issue::v1::ISSUE_MAX);
    let home = rig.socket().parent().unwrap().to_owned();
    std::thread::scope(|scope| {
        let clients = names.map(|name| {
            let (podman, rig, image) = (&podman, &rig, &image);
            scope.spawn(move || {
                let options = [format!("--name={name}"), format!("--env=NAME={name}")];
                let options = options.each_ref().map(String::as_str);
                let client = "signed_images::client_of_a_renewal";
                client_in(podman, rig, &image.name, &options, client)
            })
        });
        e2e::eventually("each container has its identity", || {
            names.iter().all(|name| home.join(name).exists())
        });
        // All of them are due together.
        rig.agent.renew();
        for (client, name) in clients.into_iter().zip(names) {
            let text = client.join().unwrap();
            let renewed = format!("renewed: spiffe://e2e.example/container/{name}");
            assert!(text.contains(&renewed), "{text}");
        }
    });
    let log = rig.agent.log();
    assert!(!log.contains("the issuer refused a call"), "{log}");
}

/// Run in containers: gets an identity, tells so by a file, and waits for the next one.
#[tokio::test]
#[ignore = "the client of another test"]
async fn client_of_a_renewal() {
    let socket = std::env::var("SPIFFE_ENDPOINT_SOCKET").unwrap();
    let mut client = client(socket.into()).await;
    let (mut stream, first) = loop {
        let begun = async {
            let mut stream = x509(&mut client).await?;
            let first = next(&mut stream).await?;
            Ok::<_, Status>((stream, first))
        };
        match begun.await {
            Ok(begun) => break begun,
            // Of a slow machine: the issuer did not answer in time. Clients come back.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    };
    let name = std::env::var("NAME").unwrap();
    std::fs::write(std::path::Path::new("/agent").join(name), "").unwrap();
    let second = next(&mut stream).await.unwrap();
    assert_ne!(svid(&first).serial(), svid(&second).serial());
    println!("renewed: {}", svid(&second).id());
}
