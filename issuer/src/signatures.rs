//! What is signed for the image of a workload's container: what the agent found, and what
//! resources `sigstore_policy` demand of it.
//!
//! The agent finds signatures and verifies none; that is done here, on each decision whose
//! rules ask for it. Verifying costs milliseconds, so a policy remembers its verdicts: the
//! same signatures of the same image get the same one, until the policy is another.
//! An issuer that was built without the cargo feature `sigstore` takes no such policy, and
//! none is satisfied.

use policy::{Attributes, Value};

#[cfg(not(feature = "sigstore"))]
mod absent;
#[cfg(feature = "sigstore")]
mod judge;

#[cfg(not(feature = "sigstore"))]
pub use self::absent::{Judge, Signatures};
#[cfg(feature = "sigstore")]
pub use self::judge::{Judge, Signatures};

const COUNT: &str = "workload.sigstore.signature_count";
const HASH: &str = "workload.sigstore.signatures_hash";

/// Says how many there are, whatever the agent says. Without signatures and without a word
/// of the agent there is nothing to say.
fn tell(attributes: &mut Attributes, count: usize, hash: &str) {
    if count == 0 && attributes.get("workload.sigstore.attested").is_none() {
        return;
    }
    let told = [
        (COUNT, Value::Int(i64::try_from(count).unwrap_or(i64::MAX))),
        (HASH, Value::String(hash.to_owned())),
    ];
    for (path, value) in told {
        if let Err(error) = attributes.set(path, value) {
            tracing::warn!(%error, "signatures of images are not told");
        }
    }
}
