//! An issuer that knows no signatures.

use ::config::Path;
use policy::Attributes;
use proto::{admin::v1 as admin, issue::v1 as pb};

use super::tell;

const ABSENT: &str = "this issuer was built without the cargo feature `sigstore`";

/// Signatures that are not looked at.
#[derive(Debug, Default)]
pub struct Signatures(());

impl Signatures {
    /// Drops what an agent sent.
    pub fn new(_: Vec<pb::ImageSignature>) -> Result<Self, String> {
        Ok(Self(()))
    }

    /// Says of the workload that nothing is signed.
    pub fn tell(&self, attributes: &mut Attributes) {
        tell(attributes, 0, "");
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        true
    }
}

/// What there is none of.
#[derive(Debug)]
pub enum Judge {}

impl Judge {
    /// Refuses every policy.
    pub fn new(_: &admin::SigstorePolicySpec, at: &Path) -> Result<Self, Vec<(Path, String)>> {
        let message = format!("{ABSENT}: it cannot hold a sigstore_policy");
        Err(vec![(at.clone(), message)])
    }

    /// Cannot be asked.
    pub fn verdict(&self, _: &Attributes, _: &Signatures) -> Result<(), String> {
        match *self {}
    }
}
