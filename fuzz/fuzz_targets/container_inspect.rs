//! Any bytes as an engine's answer about a container, a pod or an image: a digest is one
//! that the answer holds.

#![no_main]

use attest::inspect::{container, image_digest, pod};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(found) = container(data) {
        assert!(!found.name.starts_with('/'));
        assert_ne!(found.pod.as_deref(), Some(""));
        assert_ne!(found.image_digest.as_deref(), Some(""));
    }
    let _ = pod(data);
    // The name of an image, then the answer.
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (named, answer) = data.split_at(cut);
    let Ok(named) = std::str::from_utf8(named) else {
        return;
    };
    for named in [named, "nginx@sha256:aa", "mirror:5000/nginx"] {
        if let Ok(Some(digest)) = image_digest(answer, named) {
            assert!(!digest.contains('@'));
        }
    }
});
