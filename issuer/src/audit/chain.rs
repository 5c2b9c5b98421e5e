//! The chain of the audit trail: one rule, pure, for whoever writes it and whoever
//! checks it.
//!
//! Each record's hash is made of the hash before it and of everything in the record,
//! so a record cannot be changed, removed, inserted or moved without every later
//! hash being wrong. Signed heads ([`Checkpoint`]) say how long the chain was and how
//! it ended at a moment: they find a tail that was cut off, and a chain that was made
//! anew by somebody who has not the audit key.
//!
//! What that does not prove: whoever has the audit key *and* the store can make a
//! whole new chain, and whoever can write the store can put back an older state of
//! all of it. Only a checkpoint that was kept elsewhere shows either.

mod verifier;

use std::{collections::HashMap, fmt};

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};

pub use self::verifier::{Fault, Verified, Verifier};

/// A link of the chain: SHA-256.
pub type Hash = [u8; 32];

/// What the first record is chained to.
pub const START: Hash = [0; 32];

/// What no other use of SHA-256 here begins with.
const RECORD: &[u8] = b"tbot-audit-v1\0";
/// What no other message that the audit key signs begins with.
const HEAD: &[u8] = b"tbot-audit-head-v1\0";

/// A record, as its hash sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// From 1, without a gap.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Name of the event.
    pub event: &'a str,
    /// Whether what was asked was granted.
    pub success: bool,
    /// The fields: a JSON object, byte for byte as it was recorded.
    pub fields: &'a str,
}

impl Record<'_> {
    /// The record's link, after the link before it.
    ///
    /// `SHA-256("tbot-audit-v1\0" ‖ previous ‖ sequence u64 ‖ time_ms i64 ‖
    /// length u32 ‖ event ‖ success u8 ‖ length u32 ‖ fields)`, numbers big-endian,
    /// lengths in bytes.
    pub fn hash(&self, previous: &Hash) -> Hash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(RECORD);
        context.update(previous);
        context.update(&self.sequence.to_be_bytes());
        context.update(&self.time_ms.to_be_bytes());
        context.update(&length(self.event));
        context.update(self.event.as_bytes());
        context.update(&[u8::from(self.success)]);
        context.update(&length(self.fields));
        context.update(self.fields.as_bytes());
        let mut hash = START;
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

/// How long the chain was at a moment, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose trail it is.
    pub trust_domain: String,
    /// Number of the newest record.
    pub sequence: u64,
    /// Its link.
    pub hash: Hash,
    /// When this was so: milliseconds since 1970.
    pub time_ms: i64,
}

impl Head {
    /// What the audit key signs: `"tbot-audit-head-v1\0" ‖ length u32 ‖ trust domain ‖
    /// sequence u64 ‖ hash ‖ time_ms i64`, numbers big-endian.
    pub fn message(&self) -> Vec<u8> {
        let mut message = HEAD.to_vec();
        message.extend(length(&self.trust_domain));
        message.extend(self.trust_domain.as_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(self.hash);
        message.extend(self.time_ms.to_be_bytes());
        message
    }
}

/// A head that the audit key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What was signed.
    pub head: Head,
    /// Which audit key signed it.
    pub key_id: String,
    /// ECDSA P-256 with SHA-256 over [`Head::message`], DER.
    pub signature: Vec<u8>,
}

/// The public halves of audit keys.
#[derive(Clone, Default)]
pub struct AuditKeys {
    by_id: HashMap<String, Vec<u8>>,
}

impl AuditKeys {
    /// Adds a key: its SubjectPublicKeyInfo, DER.
    pub fn add(&mut self, key_id: impl Into<String>, public_key_der: Vec<u8>) {
        self.by_id.insert(key_id.into(), public_key_der);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Each key with its id, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let keys = self.by_id.iter();
        keys.map(|(key_id, der)| (key_id.as_str(), der.as_slice()))
    }

    /// Whether one of these keys signed this checkpoint.
    pub fn signed(&self, checkpoint: &Checkpoint) -> Result<(), NotSigned> {
        let key = self.by_id.get(&checkpoint.key_id);
        let key = key.ok_or_else(|| NotSigned::UnknownKey(checkpoint.key_id.clone()))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&checkpoint.head.message(), &checkpoint.signature)
            .map_err(|_| NotSigned::WrongSignature(checkpoint.key_id.clone()))
    }
}

impl fmt::Debug for AuditKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}

/// Why a checkpoint proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// Its key is not one of those that are trusted.
    #[error("it names the audit key {0:?}, which is not one of the given ones")]
    UnknownKey(String),
    /// The signature is not by that key, or not over this.
    #[error("its signature is not by the audit key {0:?}")]
    WrongSignature(String),
}

/// Names and fields are bounded far below 4 GiB.
fn length(text: &str) -> [u8; 4] {
    u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests;
