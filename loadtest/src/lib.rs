//! A load generator for TLS proxies and for the issuer on this machine, and the backends to put
//! behind the proxies.
//!
//! What a figure printed here promises:
//!
//! - **The warm-up is not in it.** Operations count when their *intended* start lies in the
//!   measured window; CPU time and completions are both read at the window's two edges, so work
//!   in flight at one edge cancels with that at the other.
//! - **Latency is corrected for coordinated omission** when a rate is given: it runs from the
//!   moment at which the operation was due, whether or not the target let us start it then. The
//!   uncorrected figure stands beside it. In a closed loop nothing is ever due, so there is only
//!   the service time, and it is labelled so.
//! - **CPU time is the target's own**: user and system time of the named processes, all their
//!   threads and, if asked, their descendants, divided by the operations completed. It survives
//!   a noisy machine far better than throughput does.
//! - **Failures are counted by kind**, never dropped, and too many make the exit status 1.
//!
//! Every run is bounded in time and, if asked, in count, ends with its report on SIGINT or SIGTERM, and only addresses of this machine are
//! accepted as targets: see [`address`].

pub mod address;
pub mod args;
pub mod bulk;
pub mod certs;
pub mod client_tls;
pub mod conformance;
pub mod error;
pub mod handshake;
pub mod idle;
pub mod issue;
pub mod pace;
pub mod process;
pub mod report;
pub mod request;
pub mod run;
pub mod serve;
pub mod stream;
pub mod streams;
pub mod tally;
pub mod tokens;
pub mod window;

pub use error::{Failure, OpError, OpErrorKind};
