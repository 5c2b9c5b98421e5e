//! Any bytes as the kubelet's list of pods: a container is found in the pod that is
//! asked for, and in no other.

#![no_main]

use attest::pods::Pods;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(pods) = Pods::read(data) else { return };
    // Ids that the list may hold: what stands between `://` and a quote.
    let text = String::from_utf8_lossy(data);
    for rest in text.split("://").skip(1).take(16) {
        let id = rest.split('"').next().unwrap_or(rest);
        if let Some(found) = pods.container(id, None) {
            let uid = &found.pod.uid;
            assert!(pods.has_pod(uid));
            assert_eq!(pods.container(id, Some(uid)), Some(found));
            assert_eq!(pods.container(id, Some(&format!("{uid}x"))), None);
            if let Some(digest) = &found.image_digest {
                assert!(digest.contains(':') && !digest.contains('@'));
            }
        }
    }
});
