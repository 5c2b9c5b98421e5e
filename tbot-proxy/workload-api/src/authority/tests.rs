use std::{
    io::Cursor,
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{CONTINUATION, END_HEADERS, HEADERS, Mended, PADDED, PREFACE, PRIORITY};

const DATA: u8 = 0;
const SETTINGS: u8 = 4;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// `:authority: a%2Fb.sock` as C core writes it, and something after it.
fn block() -> Vec<u8> {
    let mut block = vec![0x83, 0x40, 10];
    block.extend_from_slice(b":authority\x0aa%2Fb.sock");
    block.extend_from_slice(b"\x44\x02/x");
    block
}

fn mended(bytes: &[u8]) -> Vec<u8> {
    let text = b"a%2Fb.sock";
    let mut bytes = bytes.to_vec();
    while let Some(at) = bytes.windows(text.len()).position(|it| it == text) {
        bytes[at + 1] = b'-';
    }
    bytes
}

/// Gives what it has in pieces of these sizes, and is not ready in between.
struct Weird {
    bytes: Cursor<Vec<u8>>,
    sizes: Vec<usize>,
    turn: usize,
    pending: bool,
}

impl Weird {
    fn new(bytes: &[u8], sizes: &[usize]) -> Self {
        Self {
            bytes: Cursor::new(bytes.to_vec()),
            sizes: sizes.to_vec(),
            turn: 0,
            pending: false,
        }
    }
}

impl AsyncRead for Weird {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.pending = !self.pending;
        if self.pending {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.sizes[self.turn % self.sizes.len()].min(buffer.remaining());
        self.turn += 1;
        let start = usize::try_from(self.bytes.position()).unwrap();
        let all = self.bytes.get_ref();
        let piece = all[start..all.len().min(start + size)].to_vec();
        buffer.put_slice(&piece);
        self.bytes.set_position((start + piece.len()) as u64);
        Poll::Ready(Ok(()))
    }
}

async fn through(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut passed = Vec::new();
    let mut mended = Mended::new(Weird::new(bytes, sizes));
    mended.read_to_end(&mut passed).await.unwrap();
    assert!(mended.held.is_empty() && mended.held.capacity() == 0);
    passed
}

fn connection() -> Vec<u8> {
    let block = block();
    let (one, two) = block.split_at(9);
    let padded = [&[3], block.as_slice(), &[0; 3]].concat();
    let weighted = [&[0, 0, 0, 0, 16], block.as_slice()].concat();
    let both = [&[2, 0, 0, 0, 0, 16], block.as_slice(), &[0; 2]].concat();
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, &[]),
        frame(HEADERS, END_HEADERS, &block),
        // Data is not looked at.
        frame(DATA, 1, b"\0\0\0\0\x0d\x01a%2f"),
        frame(HEADERS, END_HEADERS | PADDED, &padded),
        frame(HEADERS, END_HEADERS | PRIORITY, &weighted),
        frame(HEADERS, END_HEADERS | PRIORITY | PADDED, &both),
        // The authority lies in three frames, one of them empty.
        frame(HEADERS, 0, one),
        frame(CONTINUATION, 0, &two[..8]),
        frame(CONTINUATION, 0, &[]),
        frame(CONTINUATION, END_HEADERS, &two[8..]),
    ]
    .concat()
}

/// [`connection`] as it comes out.
fn expected() -> Vec<u8> {
    let mut bytes = mended(&connection());
    // The fragmented one.
    let split = frame(CONTINUATION, 0, &block()[9..17]);
    let at = bytes
        .windows(split.len())
        .position(|it| it == split)
        .unwrap();
    let percent = bytes[at..].iter().position(|byte| *byte == b'%');
    if let Some(percent) = percent {
        bytes[at + percent] = b'-';
    }
    bytes
}

#[tokio::test]
async fn every_header_block_is_mended_however_it_comes() {
    for sizes in [&[1][..], &[7], &[1000], &[1, 50, 3], &[9], &[24], &[10_000]] {
        let passed = through(&connection(), sizes).await;
        assert_eq!(passed, expected(), "{sizes:?}");
    }
    assert!(!expected().windows(5).any(|it| it == b"a%2Fb"));
}

#[tokio::test]
async fn a_header_block_that_is_cut_short_passes_as_it_came() {
    let whole = [PREFACE, &frame(HEADERS, END_HEADERS, &block())].concat();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert_eq!(through(cut, &[5]).await, cut);
    }
}

#[tokio::test]
async fn what_is_no_http_2_passes_as_it_came() {
    let request = b"GET /a%2Fb HTTP/1.1\r\nhost: a%2Fb.sock\r\n\r\n";
    assert_eq!(through(request, &[3]).await, request);
}

#[tokio::test]
async fn blocks_without_end_are_not_held() {
    // CONTINUATION frames that never end, of every size.
    for size in [0, 1, 1000, 16_384] {
        let mut bytes = [PREFACE, &frame(HEADERS, 0, b"\x83")].concat();
        for _ in 0..40 {
            bytes.extend(frame(CONTINUATION, 0, &vec![0x83; size]));
        }
        let mut mended = Mended::new(Weird::new(&bytes, &[4096]));
        let mut most = 0;
        let mut passed = Vec::new();
        let mut buffer = [0; 512];
        loop {
            let count = mended.read(&mut buffer).await.unwrap();
            most = most.max(mended.held.len());
            if count == 0 {
                break;
            }
            passed.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(passed, bytes);
        assert!(most <= super::MAX_BLOCK + 2 * super::CHUNK, "{most}");
    }
}

#[tokio::test]
async fn frames_that_are_too_long_or_out_of_order_pass_as_they_came() {
    let long = frame(HEADERS, END_HEADERS, &vec![0; 20_000]);
    let interrupted = [
        frame(HEADERS, 0, &block()[..5]),
        frame(DATA, 0, b"x"),
        frame(CONTINUATION, END_HEADERS, &block()[5..]),
    ]
    .concat();
    let padding = frame(HEADERS, END_HEADERS | PADDED, &[200, 0x83]);
    for odd in [long, interrupted, padding] {
        let bytes = [PREFACE, &odd, &frame(HEADERS, END_HEADERS, &block())].concat();
        assert_eq!(through(&bytes, &[100]).await, bytes);
    }
}

#[test]
fn an_idle_connection_holds_two_words_and_no_buffer() {
    assert!(size_of::<Mended<()>>() <= 48, "{}", size_of::<Mended<()>>());
}

proptest! {
    #[test]
    fn nothing_that_comes_is_a_panic_and_no_length_changes(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..12),
        tail in prop::collection::vec(any::<u8>(), 0..30),
        sizes in prop::collection::vec(1_usize..200, 1..5),
    ) {
        let mut bytes = PREFACE.to_vec();
        for (kind, flags, payload) in &frames {
            bytes.extend(frame(*kind, *flags, payload));
        }
        bytes.extend(tail);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let passed = runtime.block_on(through(&bytes, &sizes));
        prop_assert_eq!(passed.len(), bytes.len());
        // However it is cut, the same comes out.
        prop_assert_eq!(passed, runtime.block_on(through(&bytes, &[10_000])));
    }
}
