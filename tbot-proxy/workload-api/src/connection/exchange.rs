//! One call: a request in, its answer out.
//!
//! Straight on `h2`: what hyper adds for servers of any kind costs a connection memory
//! that nothing here needs.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http_body::{Body, Frame};
use tonic::{Status, body};

use super::{Place, Session};

/// The body of a request. What has been read makes room for more.
pub(crate) struct Incoming(RecvStream);

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = match ready!(self.0.poll_data(context)) {
            None => return Poll::Ready(None),
            Some(Ok(data)) => data,
            // The client has no more to say, and takes no harm by it (RFC 9113 8.1).
            Some(Err(error)) => {
                let is_end = matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL));
                return Poll::Ready((!is_end).then_some(Err(error)));
            }
        };
        let released = self.0.flow_control().release_capacity(data.len());
        Poll::Ready(Some(released.map(|()| Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Answers a call, which has this place. Dropped, or ended by the client: the call ends.
pub(super) fn exchange<S: Session>(
    session: Arc<S>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    place: Place,
) -> impl Future<Output = ()> + Send {
    // Boxed: a stream has room for what it is most of its life.
    let begun = Box::pin(begin(session, request, respond));
    async move {
        if let Some((mut body, mut stream)) = begun.await {
            // An error: the client, or the connection, is gone.
            let _ = send(&mut body, &mut stream).await;
        }
        drop(place);
    }
}

/// Answers a call with nothing but a status, at once.
pub(super) fn refuse(status: &Status, mut respond: SendResponse<Bytes>) {
    let (head, _) = status.clone().into_http::<body::Body>().into_parts();
    // An error: the client, or the connection, is gone.
    let _ = respond.send_response(http::Response::from_parts(head, ()), true);
}

/// Sends the head of the answer; its body, if there is one, and where that goes.
async fn begin<S: Session>(
    session: Arc<S>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<(body::Body, SendStream<Bytes>)> {
    let mut answer = session.answer(request.map(Incoming));
    let answer = poll_fn(|context| match respond.poll_reset(context) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => answer.as_mut().poll(context).map(Some),
    });
    let (head, body) = answer.await?.into_parts();
    let head = http::Response::from_parts(head, ());
    let is_all = body.is_end_stream();
    let stream = respond.send_response(head, is_all).ok()?;
    (!is_all).then_some((body, stream))
}

/// Sends a body. Room is asked for once there is something to send: a stream that waits
/// holds nothing of the connection's window.
async fn send(body: &mut body::Body, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    loop {
        let frame = poll_fn(|context| {
            poll_gone(stream, context)?;
            Pin::new(&mut *body)
                .poll_frame(context)
                .map(Ok::<_, h2::Error>)
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        };
        match frame.into_data().map_err(Frame::into_trailers) {
            Ok(data) => {
                if !data.is_empty() {
                    stream.reserve_capacity(1);
                    poll_fn(|context| poll_room(stream, context)).await?;
                }
                stream.send_data(data, false)?;
            }
            Err(Ok(trailers)) => {
                stream.reserve_capacity(0);
                return stream.send_trailers(trailers);
            }
            Err(Err(_)) => {}
        }
    }
}

/// Whether there is room for a byte; an error if there will be none.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    poll_gone(stream, context)?;
    while stream.capacity() == 0 {
        if ready!(stream.poll_capacity(context)).transpose()?.is_none() {
            return Poll::Ready(Err(Reason::CANCEL.into()));
        }
    }
    Poll::Ready(Ok(()))
}

/// An error if the client has reset the stream, or is gone; else it wakes when that is so.
fn poll_gone(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Result<(), h2::Error> {
    match stream.poll_reset(context) {
        Poll::Pending => Ok(()),
        Poll::Ready(gone) => Err(gone?.into()),
    }
}
