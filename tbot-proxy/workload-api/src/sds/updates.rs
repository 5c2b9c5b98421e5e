//! A stream of discovery: requests in, states in, answers out.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream::BoxStream};
use prost::{Message, encoding::encode_varint};
use proto::envoy::config::core::v3::Node;
use telemetry::Throttle;
use tonic::{Status, Streaming};

use super::{Chooser, resources::Secrets};
use crate::{
    backend::{Denied, X509Context},
    grpc::{MAX_MESSAGE, too_long},
    meters,
    shared::status,
};

/// What a variant of the protocol remembers and decides; no I/O.
pub(super) trait Protocol: Send + 'static {
    /// Its requests.
    type Request: Message + Default + 'static;

    /// The Envoy, if the request names it.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// Takes a request in; `secrets` are what is there now. An error ends the stream.
    fn request(&mut self, request: Self::Request, secrets: &Secrets) -> Result<(), Status>;

    /// What is to be sent now, if anything: the pieces of one message.
    fn answer(&mut self, secrets: &Secrets) -> Option<Vec<Bytes>>;
}

pub(super) struct Updates<P: Protocol> {
    /// Until the client has said all; it may go on listening.
    requests: Option<Streaming<P::Request>>,
    states: BoxStream<'static, Result<Arc<X509Context>, Denied>>,
    chooser: Chooser,
    protocol: P,
    /// What the caller holds. Until it is known no request is read: so many names that are
    /// not there cannot wait for it.
    state: Option<Arc<X509Context>>,
    /// What was made of it, since the first request, in which the Envoy says which flavour
    /// it wants. While a stream has them, the next one does not make them again.
    secrets: Option<Arc<Secrets>>,
    pieces: VecDeque<Bytes>,
}

impl<P: Protocol> Updates<P> {
    pub(super) fn new(
        requests: Streaming<P::Request>,
        states: BoxStream<'static, Result<Arc<X509Context>, Denied>>,
        chooser: Chooser,
        protocol: P,
    ) -> Self {
        Self {
            requests: Some(requests),
            states,
            chooser,
            protocol,
            state: None,
            secrets: None,
            pieces: VecDeque::new(),
        }
    }

    /// Takes in what has come; whether anything has.
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), Status>>> {
        if let Some(state) = &self.state
            && let Some(requests) = &mut self.requests
        {
            match Pin::new(requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => {
                    let state = state.clone();
                    return Poll::Ready(Some(self.request(request, &state)));
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(too_long(status)))),
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => {}
            }
        }
        let state = match std::task::ready!(self.states.as_mut().poll_next(context)) {
            Some(Ok(state)) => state,
            Some(Err(denied)) => return Poll::Ready(Some(Err(status(denied)))),
            None => return Poll::Ready(None),
        };
        if self.secrets.is_some() {
            match self.chooser.secrets(&state) {
                Ok(secrets) => self.secrets = Some(secrets),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
        self.state = Some(state);
        Poll::Ready(Some(Ok(())))
    }

    fn request(&mut self, request: P::Request, state: &Arc<X509Context>) -> Result<(), Status> {
        self.chooser.meet(P::node(&request));
        let secrets = self.chooser.secrets(state)?;
        self.protocol.request(request, &secrets)?;
        self.secrets = Some(secrets);
        Ok(())
    }
}

impl<P: Protocol + Unpin> Stream for Updates<P> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                if this.pieces.is_empty() {
                    this.pieces = VecDeque::new();
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            match std::task::ready!(this.poll_news(context)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(())) => {
                    if let Some(secrets) = &this.secrets
                        && let Some(pieces) = this.protocol.answer(secrets)
                    {
                        this.pieces = pieces.into();
                    }
                }
            }
        }
    }
}

/// A message in pieces: its small fields, and then resources that are shared.
pub(super) struct Pieces {
    head: Vec<u8>,
    pieces: Vec<Bytes>,
    length: usize,
    left_out: usize,
}

impl Pieces {
    /// A message that has these fields, and whose field 2 is a list of resources.
    pub(super) fn new(head: &impl Message) -> Self {
        let head = head.encode_to_vec();
        Self {
            length: head.len(),
            head,
            pieces: Vec::new(),
            left_out: 0,
        }
    }

    /// Adds a resource: `before` and then `shared`. Whether there was room for it.
    pub(super) fn add(&mut self, before: &[u8], shared: &Bytes) -> bool {
        let length = before.len() + shared.len();
        let mut start = BytesMut::with_capacity(11 + before.len());
        // `resources`: field 2, a message.
        start.put_u8(0x12);
        encode_varint(length as u64, &mut start);
        start.put_slice(before);
        let more = start.len() + shared.len();
        if !self.pieces.is_empty() && self.length + more > MAX_MESSAGE {
            self.left_out += 1;
            return false;
        }
        self.length += more;
        self.pieces.push(start.freeze());
        self.pieces.push(shared.clone());
        true
    }

    /// As they travel.
    pub(super) fn framed(self) -> Vec<Bytes> {
        if self.left_out > 0 {
            static TOLD: Throttle = Throttle::ten_a_minute();
            let left_out = self.left_out;
            if let Some(held_back) = TOLD.pass() {
                tracing::warn!(
                    left_out,
                    held_back,
                    "secrets that do not fit into a message of 4 MiB are left out"
                );
            }
            meters::left_out("secret", left_out);
        }
        let mut first = BytesMut::with_capacity(5 + self.head.len());
        first.put_u8(0);
        first.put_u32(u32::try_from(self.length).unwrap_or(u32::MAX));
        first.put_slice(&self.head);
        let mut pieces = vec![first.freeze()];
        pieces.extend(self.pieces);
        pieces
    }
}

/// A nonce that no answer of any stream had before, not even of an earlier process.
pub(super) fn nonce() -> String {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos();
        AtomicU64::new(u64::try_from(nanos).unwrap_or(0))
    });
    format!("{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An Envoy has refused an answer.
pub(super) fn rejected(why: &str) {
    static TOLD: Throttle = Throttle::ten_a_minute();
    if let Some(held_back) = TOLD.pass() {
        let why: String = why.chars().take(500).collect();
        tracing::warn!(why, held_back, "an Envoy has refused a secret");
    }
    meters::sds_rejected();
}

#[cfg(test)]
mod tests;
