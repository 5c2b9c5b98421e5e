//! What a process tells of itself while it runs, the same in issuer and agent.
//!
//! - [`install`]: the log on standard error, its level changeable at run time
//!   ([`LogLevel`]), and, with the feature `otlp`, traces to an OpenTelemetry
//!   collector.
//! - [`request`]: the id of the request that a task works for, so that a log line,
//!   an audit event and an answer can be brought together.
//! - [`trace`]: W3C trace context in HTTP headers.
//! - [`Throttle`]: a bound on lines of the log that others can cause.
//!
//! Nothing here knows what is logged. What must not be told is kept out where it is
//! held: secrets have no `Debug` and are in no field of a span.

mod log;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod request;
mod throttle;
pub mod trace;

pub use self::log::{
    LogFormat, LogLevel, Setup, Telemetry, TelemetryError, check_collector, install,
    without_password,
};
pub use self::throttle::Throttle;
