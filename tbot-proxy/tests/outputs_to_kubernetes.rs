//! Agents that keep one Secret of Kubernetes together, against the stand-in for the API server
//! that the crate `output` is tested with.

#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use e2e::{Agent, Issuer, eventually, x509_output};
use identity::X509Svid;
use rustix::process::Signal;
use serde_json::Value;
use zeroize::Zeroizing;

// Not all of it is needed here.
#[allow(dead_code)]
#[path = "../output/tests/behaviours/kubernetes/fake_api.rs"]
mod fake_api;

use fake_api::FakeApi;

/// The SVID in the Secret: key and certificate fit, or there is none.
fn svid(secret: &Value) -> X509Svid {
    let data = |key: &str| {
        let text = secret["data"][key].as_str().unwrap();
        Zeroizing::new(decode(text))
    };
    X509Svid::from_pem(&data("tls.crt"), &data("tls.key")).unwrap()
}

/// Base64, without a crate for one test.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![];
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|known| *known == byte).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn replicas_keep_one_secret_whole_and_the_last_one_takes_it_away() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    let api = FakeApi::default();
    let kubeconfig = runtime.block_on(api.start(home.path()));
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let secret = format!(
        "type: workload-identity-x509, name: secret, selector: {{ name: app }}, \
         destination: {{ type: kubernetes_secret, name: web, kubeconfig_path: {} }}",
        kubeconfig.display()
    );
    let wipe = [("TBOT_WIPE_ON_EXIT", "true")];
    let start = |token: &str, directory: &str| {
        let services = [
            secret.clone(),
            x509_output("app", &home.path().join(directory)),
        ];
        Agent::start_with_environment(&issuer, token, &services, &wipe)
    };
    let mut first = start(&token, "first");
    let before = svid(&api.get("web").unwrap());
    assert_eq!(before.id().as_str(), "spiffe://e2e.example/app");
    let mut second = start(&issuer.token("app", &[]), "second");
    let serial = || svid(&api.get("web").unwrap()).serial().clone();
    let mut issued = before.not_before();
    for agent in [&first, &second, &first] {
        let old = serial();
        agent.renew();
        eventually("the Secret has another SVID", || serial() != old);
        let now = svid(&api.get("web").unwrap()).not_before();
        assert!(now >= issued, "an older set replaced a newer one");
        issued = now;
    }

    // Rights that are taken away degrade this output alone.
    api.forbids.store(true, Ordering::Relaxed);
    first.renew();
    eventually("the output says why it is not ready", || {
        first
            .get("/readyz/secret")
            .is_some_and(|(status, body)| status == 503 && body.contains("service account"))
    });
    assert_eq!(first.get("/readyz/app-files").unwrap().0, 200);
    api.forbids.store(false, Ordering::Relaxed);
    first.wait();
    let old = serial();
    first.renew();
    eventually("it writes again", || serial() != old);

    // The set in the Secret is the first one's: the other leaves it.
    for (agent, is_left) in [(&mut second, true), (&mut first, false)] {
        agent.process().signal(Signal::TERM);
        assert!(agent.process().wait().success());
        assert_eq!(api.get("web").is_some(), is_left);
    }
}
