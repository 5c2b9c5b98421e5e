//! The id of a request, and the task-local that carries it.
//!
//! An agent makes an id for each call and sends it as `x-request-id`; the issuer
//! takes it over, or makes one, and answers with it. Whatever is done for the
//! request, in whatever task, is done [within its context](Context::run): log lines
//! have its span, audit events its id. An id is a name to search for and proves
//! nothing: callers choose their own, so it is bounded and of harmless characters.

use std::{fmt, sync::Arc};

use tracing::Instrument;

/// Name of the header, and of the gRPC metadata.
pub const HEADER: &str = "x-request-id";
/// Longest id that is taken over.
const LENGTH_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Id of a request: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new one: a UUID whose order is that of time (version 7).
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    /// A caller's; `None`: it is not of the accepted form.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=LENGTH_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        fits.then(|| Self(text.into()))
    }

    /// The caller's id in the headers of a request, or a new one.
    pub fn of(headers: &http::HeaderMap) -> Self {
        headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(Self::parse)
            .unwrap_or_else(Self::generate)
    }

    /// The id of the request that this task works for, if it does.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the value of a header.
    pub fn header_value(&self) -> http::HeaderValue {
        // Its characters are those of a header's value.
        http::HeaderValue::from_str(&self.0)
            .unwrap_or_else(|_| http::HeaderValue::from_static("invalid"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a piece of work belongs to: a request, and a span of the log and the trace.
/// To be carried to another task.
#[derive(Debug, Clone)]
pub struct Context {
    request: Option<RequestId>,
    span: tracing::Span,
}

impl Context {
    /// That of a request that begins.
    pub fn new(request: RequestId, span: tracing::Span) -> Self {
        Self {
            request: Some(request),
            span,
        }
    }

    /// That of this task.
    pub fn current() -> Self {
        Self {
            request: RequestId::current(),
            span: tracing::Span::current(),
        }
    }

    /// With another span, if anybody follows that: else the log would lose this one.
    pub fn with_span(mut self, span: &tracing::Span) -> Self {
        if !span.is_disabled() {
            self.span = span.clone();
        }
        self
    }

    /// Runs `work` within it.
    pub async fn run<T>(self, work: impl Future<Output = T>) -> T {
        let work = work.instrument(self.span);
        match self.request {
            Some(request) => CURRENT.scope(request, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests;
