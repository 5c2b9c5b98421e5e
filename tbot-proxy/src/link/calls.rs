//! What is done for every call to the issuer: it gets an id (`x-request-id`), which both
//! sides log, and the trace context of the work that it is made for.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use telemetry::request::{self, HEADER, RequestId};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::Service;
use tracing::field::Empty;

/// A channel whose calls have an id.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Channel);

impl Calls {
    pub(super) fn over(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let id = RequestId::generate();
        let method = request.uri().path().trim_start_matches('/').to_owned();
        // Of the highest level, so that no filter takes it from a line that it lets through.
        let span = tracing::error_span!("call", request_id = %id, method, code = Empty);
        request.headers_mut().insert(HEADER, id.header_value());
        telemetry::trace::inject(&span, request.headers_mut());
        // The one that is ready, in place of which its clone waits.
        let clone = self.0.clone();
        let answer = std::mem::replace(&mut self.0, clone).call(request);
        let context = request::Context::new(id, span.clone());
        Box::pin(context.run(async move {
            let answer = answer.await;
            // What went wrong is for the caller to tell; here is under which id.
            match &answer {
                Ok(answer) => match Status::from_header_map(answer.headers()) {
                    Some(status) if status.code() != Code::Ok => {
                        span.record("code", tracing::field::debug(status.code()));
                        tracing::info!(why = status.message(), "the issuer refused a call");
                    }
                    _ => tracing::debug!("the issuer answered"),
                },
                Err(error) => tracing::info!(%error, "a call to the issuer has no answer"),
            }
            answer
        }))
    }
}
