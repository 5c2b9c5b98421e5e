//! A refused peer learns that by an access_denied alert.
#[path = "support/rig.rs"]
mod rig;
#[path = "support/support.rs"]
mod support;

use rig::{CASES, handshake, read_to_end};

#[tokio::test]
async fn refused_with_access_denied() {
    for (role, version) in CASES {
        let (ours, mut theirs) = handshake(role, version).await;
        ours.refuse();
        let (_, seen) = read_to_end(&mut theirs).await;
        let alert = seen.unwrap_err().to_string();
        assert!(
            alert.contains("AccessDenied"),
            "{role:?} {version:?}: {alert}"
        );
    }
}
