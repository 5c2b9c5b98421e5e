//! What is done for every call, whatever its method, before and after its handler:
//! id → span → limits → bound on its size → handler → measured.
//!
//! A call has an id (`x-request-id`: the caller's, or a new one) in every log line and
//! audit event that it leads to, and in its answer. It is refused here if its caller is
//! at a limit, and cut off here if it is larger than its method's bound, before it is
//! decoded.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context as TaskContext, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prost::Message as _;
use telemetry::request::{Context, HEADER, RequestId};
use tokio::sync::watch;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    limits::{Limited, Limits, Slot, Weight},
    listener::ConnectionInfo,
};
use crate::{
    access::{Caller, Denial},
    audit::{Event, EventName},
    service::Issuer,
};

/// Largest request of a method that is not named in [`request_max`].
const SMALL: usize = 64 * 1024;
/// gRPC's prefix of a message.
const PREFIX: usize = 5;
/// What a path that is no method of ours is counted as.
const OTHER: &str = "other";

/// Largest request message of a method, in bytes.
pub fn request_max(method: &str) -> usize {
    match method {
        // A certificate request of 16 KiB and what is around it.
        "tbot.join.v1.JoinService/Join" | "tbot.join.v1.JoinService/Renew" => super::REQUEST_MAX,
        // A thousand items with keys and attributes.
        "tbot.issue.v1.IssueService/IssueSvids" => proto::issue::v1::ISSUE_MAX,
        // A hundred, of anybody.
        "tbot.issue.v1.IssueService/JoinAndIssue" => 256 * 1024,
        "tbot.issue.v1.IssueService/Watch" => 1024,
        "grpc.health.v1.Health/Check" | "grpc.health.v1.Health/Watch" => 1024,
        // Whole fleets of resources may come in one file.
        "tbot.admin.v1.AdminService/ApplyResources" => super::APPLY_MAX,
        _ => SMALL,
    }
}

fn weight(method: &str) -> Weight {
    match method {
        "tbot.issue.v1.IssueService/Watch" | "grpc.health.v1.Health/Watch" => Weight::Stream,
        "tbot.issue.v1.IssueService/IssueSvids" | "tbot.join.v1.JoinService/Renew" => Weight::Call,
        _ if method.starts_with("grpc.reflection.") => Weight::Stream,
        _ => Weight::Light,
    }
}

/// Every method that is served, `package.Service/Method`.
pub fn methods() -> Result<Vec<String>, prost::DecodeError> {
    let mut methods: Vec<_> = [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]
    .map(str::to_owned)
    .into();
    let descriptors = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS)?;
    for file in &descriptors.file {
        if !file.package().starts_with("tbot.") {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                let (package, service) = (file.package(), service.name());
                methods.push(format!("{package}.{service}/{}", method.name()));
            }
        }
    }
    methods.sort_unstable();
    Ok(methods)
}

struct Method {
    name: &'static str,
    weight: Weight,
    request_max: usize,
    measures: OnceLock<Measures>,
}

impl Method {
    /// Made with the first call: a method that nobody calls has no series.
    fn measures(&self) -> &Measures {
        self.measures.get_or_init(|| Measures::of(self.name))
    }
}

/// What is measured of every call of a method, looked up once.
struct Measures {
    in_flight: metrics::Gauge,
    answered_ok: metrics::Counter,
    duration: metrics::Histogram,
}

impl Measures {
    fn of(method: &'static str) -> Self {
        Self {
            in_flight: metrics::gauge!("issuer_requests_in_flight", "method" => method),
            answered_ok: answered(method, Code::Ok),
            duration: metrics::histogram!("issuer_request_duration_seconds", "method" => method),
        }
    }
}

fn answered(method: &'static str, code: Code) -> metrics::Counter {
    let code = proto::code_name(code);
    metrics::counter!("issuer_requests_total", "method" => method, "code" => code)
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Method").field(&self.name).finish()
    }
}

/// Wraps every service of a listener.
#[derive(Debug, Clone)]
pub struct Requests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    issuer: Arc<Issuer>,
    limits: Arc<Limits>,
    draining: watch::Receiver<bool>,
    methods: BTreeMap<&'static str, Method>,
}

impl Requests {
    /// For a listener whose callers have these limits.
    pub fn new(
        issuer: Arc<Issuer>,
        limits: Arc<Limits>,
        draining: watch::Receiver<bool>,
    ) -> Result<Self, prost::DecodeError> {
        // Once a process: metrics want names that live as long as it.
        let methods = methods()?
            .into_iter()
            .map(|name| -> &'static str { name.leak() });
        let methods = methods.chain([OTHER]).map(|name| {
            let method = Method {
                name,
                weight: weight(name),
                request_max: request_max(name),
                measures: OnceLock::new(),
            };
            (name, method)
        });
        Ok(Self(Arc::new(Shared {
            issuer,
            limits,
            draining,
            methods: methods.collect(),
        })))
    }
}

impl Requests {
    /// Charges a call under way with more SVIDs than the one that every call is charged
    /// with; what refuses it is recorded.
    pub async fn charge(&self, caller: &Caller, more: u32) -> Result<(), Status> {
        match self.0.limits.charge(caller, more, Instant::now()) {
            Ok(()) => Ok(()),
            Err(limited) => Err(self.0.refuse(caller, &limited).await),
        }
    }

    /// Charges a call that got more SVIDs than it was charged with: by labels, nobody
    /// knows before how many there are.
    pub fn owe(&self, caller: &Caller, more: u32) {
        self.0.limits.owe(caller, more, Instant::now());
    }
}

impl Shared {
    fn method(&self, path: &str) -> Option<&Method> {
        let name = path.strip_prefix('/').unwrap_or(path);
        self.methods.get(name).or_else(|| self.methods.get(OTHER))
    }

    /// Records that a caller is at a limit: once a window.
    async fn refuse(&self, caller: &Caller, limited: &Limited) -> Status {
        let setting = limited.limit.setting();
        metrics::counter!("issuer_limited_total", "limit" => setting).increment(1);
        let denial = Denial::RateLimited.as_str();
        let event = Event::denial(EventName::SvidIssued, denial)
            .with("error", limited.to_string())
            .with("limit", setting);
        let source = format!("limited {setting} {}", caller.id);
        let recorded = self
            .issuer
            .record_refusal(&source, caller.told_in(event))
            .await;
        match recorded {
            Ok(()) => limited.status(),
            Err(error) => {
                tracing::error!(%error, "a refusal could not be recorded");
                Status::unavailable("the issuer's store is unavailable: try again")
            }
        }
    }
}

impl<S> Layer<S> for Requests {
    type Service = Requested<S>;

    fn layer(&self, inner: S) -> Requested<S> {
        Requested {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// A service whose calls have an id, limits and measurements.
#[derive(Debug, Clone)]
pub struct Requested<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<http::Request<Body>> for Requested<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that is ready, in place of which its clone waits.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(serve(self.shared.clone(), inner, request))
    }
}

async fn serve<S>(
    shared: Arc<Shared>,
    mut inner: S,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, S::Error>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    let begun = Instant::now();
    let id = RequestId::of(request.headers());
    let Some(method) = shared.method(request.uri().path()) else {
        return Ok(Status::unimplemented("no such method").into_http());
    };
    let name = method.name;
    // Of the highest level, so that no filter takes it from a line that it lets through.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        method = name,
        bot = tracing::field::Empty
    );
    telemetry::trace::follow(&span, request.headers_mut());
    let info = request.extensions().get::<ConnectionInfo>();
    if let Some(info) = info {
        info.has_asked();
    }
    let caller = info.and_then(|info| info.caller.clone());
    if let Some(caller) = &caller {
        span.record("bot", caller.id.as_str());
    }
    let context = Context::new(id.clone(), span.clone());
    let flight = Flight::begin(method.measures());
    let served = context.run(async {
        let slot = match &caller {
            None => None,
            Some(caller) => match shared.limits.admit(caller, method.weight, begun) {
                Ok(slot) => Some(slot),
                Err(limited) => {
                    tracing::debug!(%limited, "a call was refused");
                    return Ok(shared.refuse(caller, &limited).await.into_http());
                }
            },
        };
        // What our own streams do by themselves, reflection does not.
        let until_drained = || {
            name.starts_with("grpc.reflection.")
                .then(|| until_drained(shared.draining.clone()))
        };
        let left = method.request_max + PREFIX;
        request = request.map(|inner| {
            Body::new(Bounded {
                inner,
                left,
                method: name,
                // A stream of requests is bounded message by message, by its codec.
                is_bounded: method.weight != Weight::Stream,
                draining: until_drained(),
            })
        });
        let response = inner.call(request).await?;
        let drains = until_drained().map(|drained| (drained, shared.draining.clone()));
        Ok(response.map(|inner| {
            Body::new(Held {
                inner,
                draining: drains,
                _place: (slot, flight),
            })
        }))
    });
    let mut response = served.await?;
    response.headers_mut().insert(HEADER, id.header_value());
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
    measure(method, code, begun);
    let code = proto::code_name(code);
    tracing::debug!(parent: &span, code, took = ?begun.elapsed(), "answered");
    Ok(response)
}

fn measure(method: &Method, code: Code, begun: Instant) {
    let measures = method.measures();
    match code {
        Code::Ok => measures.answered_ok.increment(1),
        code => answered(method.name, code).increment(1),
    }
    measures.duration.record(begun.elapsed().as_secs_f64());
}

/// Counts a call while it is under way.
struct Flight(metrics::Gauge);

impl Flight {
    fn begin(measures: &Measures) -> Self {
        measures.in_flight.increment(1.0);
        Self(measures.in_flight.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A request's body that ends with an error once it is larger than it may be, and by
/// itself when the issuer drains, if it would not end then.
struct Bounded {
    inner: Body,
    draining: Option<Drained>,
    left: usize,
    method: &'static str,
    is_bounded: bool,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(context).is_ready()
        {
            self.draining = None;
            self.inner = Body::empty();
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && self.is_bounded
        {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => {
                    let (method, most) = (self.method, request_max(self.method));
                    return Poll::Ready(Some(Err(Status::out_of_range(format!(
                        "the request is larger than {most} bytes, the bound of {method}: ask for less at once"
                    )))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

type Drained = BoxFuture<'static, ()>;

fn until_drained(mut draining: watch::Receiver<bool>) -> Drained {
    Box::pin(async move { super::drained(&mut draining).await })
}

/// An answer's body: as long as it lasts, its call is under way. Streams that do not
/// end by themselves when the issuer drains are ended here.
struct Held {
    inner: Body,
    /// When, and whether, the issuer drains.
    draining: Option<(Drained, watch::Receiver<bool>)>,
    _place: (Option<Slot>, Flight),
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((drained, drains)) = &mut self.draining else {
            return Pin::new(&mut self.inner).poll_frame(context);
        };
        if drained.as_mut().poll(context).is_pending() {
            let drains = drains.clone();
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            let goes_on = matches!(&frame, Some(Ok(frame)) if frame.is_data());
            // Its request has ended because of the drain a moment ago: that is no end
            // that its client should take for the last word.
            if goes_on || !*drains.borrow() {
                return Poll::Ready(frame);
            }
        }
        self.draining = None;
        self.inner = Body::empty();
        let end = Status::unavailable("the issuer is stopping: connect again");
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(match end.add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
