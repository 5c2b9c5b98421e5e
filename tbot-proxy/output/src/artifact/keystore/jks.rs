//! JKS as Java's `sun.security.provider.JavaKeyStore` reads it.
//!
//! The format is small and frozen. The one crate for it brings an old ASN.1 stack, so it
//! is written here: big-endian; a magic number, version 2, the number of entries, the
//! entries, and SHA-1 over (password as UTF-16BE, `Mighty Aphrodite`, all before). A key
//! is XORed with a stream of SHA-1 from password and salt (`KeyProtector`), which is no
//! encryption to rely on.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand,
};
use zeroize::Zeroizing;

use super::KeystoreError;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const PRIVATE_KEY: u32 = 1;
const TRUSTED: u32 = 2;
const WHITENER: &[u8] = b"Mighty Aphrodite";
const SHA1: usize = 20;

/// `SEQUENCE { OID 1.3.6.1.4.1.42.2.17.1.1 (KeyProtector), NULL }`.
const PROTECTOR: [u8; 16] = [
    0x30, 0x0e, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00,
];

pub(super) struct Writer {
    password: Zeroizing<Vec<u8>>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Writer {
    /// A store of this many entries.
    pub(super) fn new(password: &str, entries: usize) -> Result<Self, KeystoreError> {
        let utf16 = password.encode_utf16().flat_map(u16::to_be_bytes);
        let mut writer = Self {
            password: Zeroizing::new(utf16.collect()),
            bytes: Zeroizing::default(),
        };
        writer.number(MAGIC);
        writer.number(VERSION);
        writer.length(entries, "the list of entries")?;
        Ok(writer)
    }

    /// A private key (PKCS#8 DER) with its chain.
    pub(super) fn key<D: AsRef<[u8]>>(
        &mut self,
        alias: &str,
        at: SystemTime,
        pkcs8: &[u8],
        chain: &[D],
    ) -> Result<(), KeystoreError> {
        self.number(PRIVATE_KEY);
        self.text(alias)?;
        self.time(at);
        let protected = self.protect(pkcs8)?;
        self.length(protected.len(), "the key")?;
        self.bytes.extend_from_slice(&protected);
        self.length(chain.len(), "the chain")?;
        chain
            .iter()
            .try_for_each(|der| self.certificate(der.as_ref()))
    }

    /// A certificate that is trusted.
    pub(super) fn trusted(
        &mut self,
        alias: &str,
        at: SystemTime,
        der: &[u8],
    ) -> Result<(), KeystoreError> {
        self.number(TRUSTED);
        self.text(alias)?;
        self.time(at);
        self.certificate(der)
    }

    pub(super) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let mut whole = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        whole.update(&self.password);
        whole.update(WHITENER);
        whole.update(&self.bytes);
        self.bytes.extend_from_slice(whole.finish().as_ref());
        self.bytes
    }

    /// `EncryptedPrivateKeyInfo` of Java's `KeyProtector`.
    fn protect(&self, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let mut salt = [0; SHA1];
        rand::fill(&mut salt).map_err(|_| KeystoreError::Random)?;
        let mut protected = Zeroizing::new(salt.to_vec());
        let mut block = self.digest(&salt);
        for piece in key.chunks(SHA1) {
            protected.extend(piece.iter().zip(block.as_ref()).map(|(key, pad)| key ^ pad));
            block = self.digest(block.as_ref());
        }
        protected.extend_from_slice(self.digest(key).as_ref());
        let octets = der(0x04, &[&protected])?;
        der(0x30, &[&PROTECTOR, &octets])
    }

    /// SHA-1 over password and `data`.
    fn digest(&self, data: &[u8]) -> aws_lc_rs::digest::Digest {
        let input = Zeroizing::new([self.password.as_slice(), data].concat());
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &input)
    }

    fn certificate(&mut self, der: &[u8]) -> Result<(), KeystoreError> {
        self.text("X.509")?;
        self.length(der.len(), "a certificate")?;
        self.bytes.extend_from_slice(der);
        Ok(())
    }

    fn number(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    fn length(&mut self, length: usize, of: &'static str) -> Result<(), KeystoreError> {
        let length = u32::try_from(length).map_err(|_| KeystoreError::TooLong(of))?;
        self.number(length);
        Ok(())
    }

    /// What is written here is ASCII, for which Java's modified UTF-8 is the same.
    fn text(&mut self, text: &str) -> Result<(), KeystoreError> {
        let length = u16::try_from(text.len()).map_err(|_| KeystoreError::TooLong("an alias"))?;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn time(&mut self, at: SystemTime) {
        let milliseconds = at
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let milliseconds = u64::try_from(milliseconds).unwrap_or_default();
        self.bytes.extend_from_slice(&milliseconds.to_be_bytes());
    }
}

/// The leaf of the chain of a store's first entry, which is a private key.
pub(super) fn leaf(store: &[u8]) -> Option<&[u8]> {
    let mut at = Reader(store);
    let is_ours = at.number()? == MAGIC && at.number()? == VERSION && at.number()? >= 1;
    if !is_ours || at.number()? != PRIVATE_KEY {
        return None;
    }
    at.text()?; // alias
    at.take(size_of::<u64>())?; // time
    at.block()?; // key
    if at.number()? == 0 {
        return None;
    }
    at.text()?; // kind of certificate
    at.block()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }
}

/// One DER element around its parts.
fn der(tag: u8, parts: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Zeroizing::new(vec![tag]);
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => bytes.push(short),
        Ok(long) => bytes.extend([0x81, long]),
        Err(_) => {
            let length = u16::try_from(length).map_err(|_| KeystoreError::TooLong("the key"))?;
            bytes.push(0x82);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes)
}
