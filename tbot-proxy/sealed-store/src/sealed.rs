//! One file: what is in it, and how it is sealed.
//!
//! `magic (6) ‖ key id (8) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`; additional data: magic,
//! key id and the name of the entry.

use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use crate::{KeyError, SealingKey};

/// What it is, and in which form.
const MAGIC: &[u8; 6] = b"TBSS1\n";
const ID: usize = 8;
const NONCE: usize = 12;

/// Why a file is no entry.
#[derive(Debug)]
pub(crate) enum Unreadable {
    OtherKey,
    Damaged,
    /// The system does not give it now.
    Now(std::io::Error),
}

pub(crate) fn seal(key: &SealingKey, name: &str, entry: &[u8]) -> Result<Vec<u8>, KeyError> {
    // In place: nothing of the entry stays anywhere else.
    let mut sealed = Zeroizing::new(Vec::with_capacity(entry.len() + 64));
    sealed.extend_from_slice(entry);
    let nonce = key
        .aead()
        .seal_in_place_append_tag(Aad::from(bound_to(key, name)), &mut *sealed)
        .map_err(|_| KeyError::Seal)?;
    let parts = [&MAGIC[..], key.id(), nonce.as_ref(), &sealed];
    Ok(parts.concat())
}

pub(crate) fn open(
    key: &SealingKey,
    name: &str,
    bytes: Vec<u8>,
) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Unreadable::Damaged)?;
    let (id, rest) = rest.split_at_checked(ID).ok_or(Unreadable::Damaged)?;
    if id != key.id() {
        return Err(Unreadable::OtherKey);
    }
    let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or(Unreadable::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unreadable::Damaged)?;
    let mut entry = Zeroizing::new(sealed.to_vec());
    let length = key
        .aead()
        .open_in_place(nonce, Aad::from(bound_to(key, name)), &mut entry)
        .map_err(|_| Unreadable::Damaged)?
        .len();
    entry.truncate(length);
    Ok(entry)
}

fn bound_to(key: &SealingKey, name: &str) -> Vec<u8> {
    [&MAGIC[..], key.id(), name.as_bytes()].concat()
}
