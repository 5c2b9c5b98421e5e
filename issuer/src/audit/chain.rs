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

use aws_lc_rs::digest;
use identity::{Algorithm, Jwk};

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
    /// Which audit key signed it: its RFC 7638 thumbprint.
    pub key_id: String,
    /// ES256 over [`Head::message`]: R and S, 32 bytes each.
    pub signature: Vec<u8>,
}

/// The public halves of audit keys. Their ids are their RFC 7638 thumbprints, so that
/// none can be passed off for another.
#[derive(Debug, Clone, Default)]
pub struct AuditKeys(Vec<Jwk>);

impl AuditKeys {
    /// Adds a key.
    pub fn add(&mut self, key: Jwk) {
        self.0.push(key);
    }

    /// Whether the key with this id is one of these.
    pub fn has(&self, key_id: &str) -> bool {
        self.0.iter().any(|key| key.thumbprint() == key_id)
    }

    /// Whether the key that this checkpoint names is one of these, and signed it.
    pub fn signed(&self, checkpoint: &Checkpoint) -> Result<(), NotSigned> {
        let key_id = &checkpoint.key_id;
        let key = self.0.iter().find(|key| key.thumbprint() == *key_id);
        let key = key.ok_or_else(|| NotSigned::UnknownKey(key_id.clone()))?;
        let message = checkpoint.head.message();
        match key.verifies(Algorithm::Es256, &message, &checkpoint.signature) {
            true => Ok(()),
            false => Err(NotSigned::WrongSignature(key_id.clone())),
        }
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
