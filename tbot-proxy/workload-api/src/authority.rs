//! Clients whose `:authority` is not one are served all the same.
//!
//! gRPC over a Unix socket has no host to name, and some clients put the socket's path
//! there: C core percent-encodes it (`tmp%2Fwl.sock`, so do Python, C++, Ruby and PHP),
//! others send it as it is. `h2` refuses such a request (hyperium/h2#487). So what a
//! client sends passes through here first, and an authority that is none is made one by
//! putting another character in place of each that does not belong. Nothing here reads
//! the authority, so what it becomes does not matter.
//!
//! A stand-in takes as many bytes as what it stands for, and in Huffman code as many
//! bits. No length changes: not the string's, not the frame's, and not the size of what
//! both ends remember in their HPACK tables, which therefore stay the same table. The
//! adapter needs to remember nothing of a header block that has passed; a later
//! reference to it finds the stand-in. Between blocks it holds one word of state, and it
//! may give up at any time: what it does not understand it passes on as it came, for
//! `h2` to judge.

mod block;

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 says first (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// Longest frame that `h2` takes as we configure it (RFC 9113 6.5.2).
const MAX_FRAME: usize = 16 * 1024;
/// Longest header block that is held until it is whole, with its frame headers. `h2`
/// takes less (`max_header_list_size`).
const MAX_BLOCK: usize = 2 * MAX_FRAME;
/// How much is read at once while something is held.
const CHUNK: usize = 4 * 1024;
/// Most frames of a header block that is held: each byte that comes has all looked at.
const MAX_FRAGMENTS: usize = 16;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Follows what a client sends, frame by frame, and mends its header blocks in place.
#[derive(Debug, Clone)]
pub struct Mender {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of the preface have passed.
    Preface(usize),
    /// So many bytes of a frame are still to pass.
    Frames(usize),
    /// Nothing is looked at any more.
    Off,
}

impl Default for Mender {
    fn default() -> Self {
        Self {
            state: State::Preface(0),
        }
    }
}

impl Mender {
    /// Mends what is whole in `bytes`, and tells how many of them may pass. The others
    /// are to be given again, together with more.
    pub fn mend(&mut self, bytes: &mut [u8]) -> usize {
        let mut passed = 0;
        loop {
            let rest = &mut bytes[passed..];
            if rest.is_empty() {
                return passed;
            }
            match self.state {
                State::Off => return bytes.len(),
                State::Preface(seen) => {
                    let count = rest.len().min(PREFACE.len() - seen);
                    if rest[..count] != PREFACE[seen..seen + count] {
                        self.state = State::Off;
                        continue;
                    }
                    passed += count;
                    self.state = match seen + count == PREFACE.len() {
                        true => State::Frames(0),
                        false => State::Preface(seen + count),
                    };
                }
                State::Frames(left) if left > 0 => {
                    let count = rest.len().min(left);
                    passed += count;
                    self.state = State::Frames(left - count);
                }
                State::Frames(_) => match Step::at(rest) {
                    Step::Incomplete => return passed,
                    Step::Unknown => self.state = State::Off,
                    Step::Other(length) => self.state = State::Frames(length),
                    Step::Headers(length, fragments) => {
                        block::mend_fragments(&mut rest[..length], &fragments);
                        passed += length;
                    }
                },
            }
        }
    }

    /// From here on everything passes.
    pub fn give_up(&mut self) {
        self.state = State::Off;
    }
}

/// Where in the bytes of a header block's frames its fragments are.
type Fragments = Vec<std::ops::Range<usize>>;

/// What comes next.
enum Step {
    /// Not all of it is there.
    Incomplete,
    /// Not what a client sends, or more than `h2` takes.
    Unknown,
    /// A frame of so many bytes that has no headers.
    Other(usize),
    /// A whole header block: HEADERS, and CONTINUATION until the end.
    Headers(usize, Fragments),
}

impl Step {
    fn at(bytes: &[u8]) -> Self {
        let Some(first) = Frame::at(bytes) else {
            return Self::Incomplete;
        };
        if first.payload > MAX_FRAME {
            return Self::Unknown;
        }
        if first.kind != HEADERS {
            return Self::Other(FRAME_HEADER + first.payload);
        }
        let mut end = FRAME_HEADER + first.payload;
        if bytes.len() < end {
            return Self::Incomplete;
        }
        let Some(fragment) = first.headers(&bytes[..end]) else {
            return Self::Unknown;
        };
        let mut fragments = vec![fragment];
        let mut ended = first.flags & END_HEADERS != 0;
        while !ended {
            let Some(next) = Frame::at(&bytes[end..]) else {
                return Self::Incomplete;
            };
            let start = end + FRAME_HEADER;
            end = start + next.payload;
            let is_long = end > MAX_BLOCK || fragments.len() == MAX_FRAGMENTS;
            if next.kind != CONTINUATION || is_long {
                return Self::Unknown;
            }
            if bytes.len() < end {
                return Self::Incomplete;
            }
            fragments.push(start..end);
            ended = next.flags & END_HEADERS != 0;
        }
        Self::Headers(end, fragments)
    }
}

/// The header of a frame (RFC 9113 4.1).
struct Frame {
    payload: usize,
    kind: u8,
    flags: u8,
}

impl Frame {
    fn at(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..FRAME_HEADER)?;
        let payload = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        Some(Self {
            payload: usize::try_from(payload).ok()?,
            kind: header[3],
            flags: header[4],
        })
    }

    /// The fragment in a whole HEADERS frame (RFC 9113 6.2).
    fn headers(&self, frame: &[u8]) -> Option<std::ops::Range<usize>> {
        let mut start = FRAME_HEADER;
        let mut end = frame.len();
        if self.flags & PADDED != 0 {
            end = end.checked_sub(usize::from(*frame.get(start)?))?;
            start += 1;
        }
        if self.flags & PRIORITY != 0 {
            start += 5;
        }
        (start <= end).then_some(start..end)
    }
}

/// A connection whose client's header blocks are mended as they are read.
#[derive(Debug)]
pub struct Mended<S> {
    stream: S,
    mender: Mender,
    /// Read and not passed on: nothing, but while a header block is on its way.
    held: Vec<u8>,
    /// So many of those may pass.
    ready: usize,
}

impl<S> Mended<S> {
    /// Of a connection from which nothing has been read.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            mender: Mender::default(),
            held: Vec::new(),
            ready: 0,
        }
    }

    /// Passes on what may pass.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ready.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.drain(..count);
        self.ready -= count;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Mended<S> {
    /// Reads more of what is held; at the end of the stream all of it may pass.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [mem::MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut chunk))?;
        if chunk.filled().is_empty() {
            self.mender.give_up();
        }
        self.held.extend_from_slice(chunk.filled());
        self.ready = self.mender.mend(&mut self.held);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.ready > 0 {
                this.pass(buffer);
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() {
                ready!(this.poll_more(context))?;
                continue;
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let read = &mut buffer.filled_mut()[before..];
            let passed = this.mender.mend(read);
            if passed == read.len() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(&read[passed..]);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
