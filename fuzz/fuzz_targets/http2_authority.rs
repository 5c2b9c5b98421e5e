//! Any bytes as what a client of HTTP/2 sends, in pieces of any size: what comes out of
//! the adapter is as long as what went in, the same however it was cut, and differs in
//! nothing when it is sent through again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use workload_api::authority::Mender;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Through the adapter in pieces of this size, as a connection does it.
fn through(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut mender = Mender::default();
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        let count = mender.mend(&mut held);
        passed.extend(held.drain(..count));
    }
    mender.give_up();
    let count = mender.mend(&mut held);
    assert_eq!(count, held.len());
    passed.extend(held);
    passed
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let bytes = [PREFACE, bytes].concat();
    let whole = through(&bytes, bytes.len());
    assert_eq!(whole.len(), bytes.len());
    assert_eq!(through(&bytes, usize::from(size).max(1)), whole);
    assert_eq!(through(&whole, whole.len()), whole);
});
