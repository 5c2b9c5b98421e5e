//! Memory of the data path: large buffers owned by the thread, small leftovers owned by a connection.
use std::cell::RefCell;

/// Payload of a full TLS record (RFC 8446 5.1).
pub(crate) const RECORD_PAYLOAD: usize = 16_384;
/// A full TLS 1.3 record with an AEAD tag of 16 bytes: header, payload, content type, tag.
pub(crate) const RECORD_WIRE: usize = 5 + RECORD_PAYLOAD + 1 + 16;
/// Ciphertext read at once. A multiple of the record, so that reads of a bulk stream stay aligned
/// to records and leave no part of one behind.
pub(crate) const TLS_READ: usize = 4 * RECORD_WIRE;
/// Plaintext read at once.
pub(crate) const PLAIN_READ: usize = 4 * RECORD_PAYLOAD;
/// Room for what `PLAIN_READ` becomes, with a key update and alerts before it.
const TLS_WRITE: usize = TLS_READ + 2_048;

/// The buffers of one worker thread. What they hold means something within one poll only.
pub(crate) struct Buffers {
    /// Ciphertext read from a TLS socket; decrypted in place.
    pub(crate) tls_in: Box<[u8]>,
    /// Plaintext of a batch of records, on its way to a plain socket.
    pub(crate) plain_out: Vec<u8>,
    /// Plaintext read from a plain socket.
    pub(crate) plain_in: Box<[u8]>,
    /// Ciphertext on its way to a TLS socket: always full length, so that rustls can write into it.
    pub(crate) tls_out: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            tls_in: vec![0; TLS_READ].into(),
            plain_out: Vec::with_capacity(TLS_READ),
            plain_in: vec![0; PLAIN_READ].into(),
            tls_out: vec![0; TLS_WRITE],
        }
    }

    /// Lends the thread's buffers to `f`, which must not poll another connection.
    pub(crate) fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());
        }
        BUFFERS.with(|buffers| match buffers.try_borrow_mut() {
            Ok(mut buffers) => f(&mut buffers),
            // A verifier or certificate resolver that polls a connection within a handshake.
            Err(_) => f(&mut Self::new()),
        })
    }
}

/// Bytes that wait, in memory that exists only while there are some.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    bytes: Vec<u8>,
    taken: usize,
}

impl Leftover {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Memory held, in bytes.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.reserve_exact(bytes.len());
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Drops the first `count` bytes, and the memory with the last.
    pub(crate) fn consume(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Moves everything to the front of `to`, which must have room, and frees the memory.
    pub(crate) fn move_to(&mut self, to: &mut [u8]) -> usize {
        let count = self.len();
        to[..count].copy_from_slice(self.as_slice());
        *self = Self::default();
        count
    }
}
