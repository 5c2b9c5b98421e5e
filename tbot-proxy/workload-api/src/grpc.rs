//! gRPC as this server speaks it: requests read by tonic, answers framed here.
//!
//! A message that thousands of streams get is encoded and framed once; each stream
//! hands the same bytes to HTTP/2, and holds no buffer while it waits. tonic's own
//! answers are encoded a stream at a time, into a buffer that each stream keeps.

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use prost::Message;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Code, Status, Streaming,
    codec::{BufferSettings, DecodeBuf, Decoder},
};
use zeroize::Zeroizing;

use crate::{connection::Incoming, meters::Call};

pub(crate) type Request = http::Request<Incoming>;
pub(crate) type Answer = http::Response<tonic::body::Body>;

/// Longest message that gRPC's libraries take by default.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Longest request: a token of 64 KiB (`identity::jose::MAX_TOKEN`), or 32 audiences of
/// 2 KiB, and what is around them.
pub const MAX_REQUEST: usize = 72 * 1024;
/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The answer to what is no gRPC, and to what is compressed.
pub(crate) fn refusal(request: &Request) -> Option<Answer> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_grpc = header("content-type").is_some_and(|kind| {
        kind.strip_prefix(b"application/grpc")
            .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
    });
    if request.method() != http::Method::POST || !is_grpc {
        let mut answer = Answer::default();
        *answer.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Some(answer);
    }
    match header("grpc-encoding") {
        None | Some(b"identity") => None,
        Some(_) => {
            let status = Status::unimplemented("compressed requests are not read: send identity");
            let mut answer: Answer = status.into_http();
            let none = HeaderValue::from_static("identity");
            answer.headers_mut().insert("grpc-accept-encoding", none);
            Some(answer)
        }
    }
}

/// The one message of a request.
pub(crate) async fn message<M: Message + Default + 'static>(body: Incoming) -> Result<M, Status> {
    let mut messages = messages::<M>(body, MAX_REQUEST);
    match tokio::time::timeout(REQUEST_TIME, messages.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::internal("the request has no message")),
        Ok(Err(status)) => Err(too_long(status)),
        Err(_) => Err(Status::deadline_exceeded(
            "the request did not come within 10 seconds",
        )),
    }
}

/// The messages of a request, of at most so many bytes each.
pub(crate) fn messages<M: Message + Default + 'static>(
    body: Incoming,
    most: usize,
) -> Streaming<M> {
    Streaming::new_request(Reader::<M>(PhantomData), body, None, Some(most))
}

/// tonic calls it OUT_OF_RANGE; everybody else says RESOURCE_EXHAUSTED.
pub(crate) fn too_long(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message().to_owned()),
        _ => status,
    }
}

/// Reads messages without a buffer that waits.
struct Reader<M>(PhantomData<fn() -> M>);

impl<M: Message + Default> Decoder for Reader<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(bytes).map(Some).map_err(|error| {
            Status::invalid_argument(format!("the request cannot be read: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(64, 0)
    }
}

/// A message as it travels, wiped when the last one who has it lets go.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(PREFIX + length));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer is as long as it must be.
    message.encode_raw(&mut *bytes);
    Bytes::from_owner(bytes)
}

/// The answer to a call with one answer.
pub(crate) fn answer(result: Result<Bytes, Status>, call: Call) -> Answer {
    match result {
        Ok(message) => {
            call.sent(message.len());
            with_body(One {
                message: Some(message),
                call: Some(call),
            })
        }
        Err(status) => refuse(&status, call),
    }
}

/// An answer of nothing but a status.
pub(crate) fn refuse(status: &Status, mut call: Call) -> Answer {
    call.end(status.code());
    status.clone().into_http()
}

/// The answer to a call with many: until `drain`, the first error, or the end.
pub(crate) fn stream<S>(messages: S, drain: &CancellationToken, call: Call) -> Answer
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
{
    with_body(Many {
        messages,
        drain: Box::pin(drain.clone().cancelled_owned()),
        call: Some(call),
    })
}

fn with_body<B>(body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut answer = Answer::new(tonic::body::Body::new(body));
    let kind = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.add_header(&mut trailers).is_err() {
        let code = HeaderValue::from(status.code() as i32);
        trailers.insert("grpc-status", code);
    }
    Frame::trailers(trailers)
}

struct One {
    message: Option<Bytes>,
    call: Option<Call>,
}

impl Body for One {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        Poll::Ready(self.call.take().map(|mut call| {
            call.end(Code::Ok);
            Ok(trailers(&Status::ok("")))
        }))
    }
}

struct Many<S> {
    messages: S,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until the end.
    call: Option<Call>,
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> Body for Many<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(call) = &mut this.call else {
            return Poll::Ready(None);
        };
        let status = if this.drain.as_mut().poll(context).is_ready() {
            stopping()
        } else {
            match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                Some(Ok(message)) => {
                    call.sent(message.len());
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                Some(Err(status)) => status,
                // Never OK: py-spiffe would stop for good.
                None => Status::unavailable("the stream of updates ended: connect again"),
            }
        };
        call.end(status.code());
        this.call = None;
        Poll::Ready(Some(Ok(trailers(&status))))
    }
}

/// What calls are told while the server drains.
pub(crate) fn stopping() -> Status {
    Status::unavailable("the server is stopping: connect again")
}
