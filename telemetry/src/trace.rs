//! W3C trace context (`traceparent`, `tracestate`) in HTTP headers. Without the
//! feature `otlp` there are no traces, and nothing is sent or read.

/// Puts a span's trace context into the headers of a request that is made in it.
#[cfg(feature = "otlp")]
pub fn inject(span: &tracing::Span, headers: &mut http::HeaderMap) {
    use opentelemetry::propagation::TextMapPropagator as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    crate::otlp::propagator().inject_context(&span.context(), &mut Headers(headers));
}

/// Makes the trace context in the headers of a request the parent of the span that
/// serves it. What is not well-formed is as if absent.
#[cfg(feature = "otlp")]
pub fn follow(span: &tracing::Span, headers: &mut http::HeaderMap) {
    use opentelemetry::propagation::TextMapPropagator as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let parent = crate::otlp::propagator().extract(&Headers(headers));
    // An error: nobody follows traces.
    let _ = span.set_parent(parent);
}

/// Does nothing.
#[cfg(not(feature = "otlp"))]
pub fn inject(_: &tracing::Span, _: &mut http::HeaderMap) {}

/// Does nothing.
#[cfg(not(feature = "otlp"))]
pub fn follow(_: &tracing::Span, _: &mut http::HeaderMap) {}

#[cfg(feature = "otlp")]
struct Headers<'a>(&'a mut http::HeaderMap);

#[cfg(feature = "otlp")]
impl opentelemetry::propagation::Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = http::HeaderName::from_bytes(key.as_bytes());
        let value = http::HeaderValue::from_str(&value);
        if let (Ok(name), Ok(value)) = (name, value) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(feature = "otlp")]
impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
