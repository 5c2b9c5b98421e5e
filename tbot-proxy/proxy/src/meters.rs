//! Metrics of one service. Each handle is fetched once: a look-up by labels costs a hundred times what
//! counting does. No label holds a SPIFFE ID.

use std::{io, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
};
use rustix::io::Errno;

use crate::{CloseReason, Direction, registry::Bytes};

/// Handles of one service's metrics.
pub(crate) struct Meters {
    pub(crate) open: Gauge,
    pub(crate) handshake: Histogram,
    pub(crate) resumed: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    service: String,
    direction: Direction,
    /// In the order of [`CloseReason::ALL`].
    closed: Vec<Counter>,
}

impl Meters {
    pub(crate) fn new(service: &str, direction: Direction) -> Self {
        describe();
        let name = || service.to_owned();
        let way = direction.as_str();
        Self {
            open: metrics::gauge!("tbot_connections_open", "service" => name(), "direction" => way),
            handshake: metrics::histogram!("tbot_handshake_duration_seconds", "service" => name(), "direction" => way),
            resumed: counter!("tbot_tls_resumed_total", "service" => name(), "direction" => way),
            bytes_in: counter!("tbot_connection_bytes_total", "service" => name(), "direction" => "in"),
            bytes_out: counter!("tbot_connection_bytes_total", "service" => name(), "direction" => "out"),
            closed: CloseReason::ALL
                .iter()
                .map(|reason| {
                    counter!(
                        "tbot_connections_total",
                        "service" => name(), "direction" => way, "reason" => reason.as_str()
                    )
                })
                .collect(),
            service: name(),
            direction,
        }
    }

    /// One connection has ended.
    pub(crate) fn closed(&self, reason: CloseReason) {
        let place = CloseReason::ALL.iter().position(|other| *other == reason);
        if let Some(counter) = place.and_then(|place| self.closed.get(place)) {
            counter.increment(1);
        }
    }

    /// Connections, living or ended, have carried so many bytes more.
    pub(crate) fn carried(&self, bytes: Bytes) {
        let (bytes_in, bytes_out) = self.direction.in_and_out(bytes);
        self.bytes_in.increment(bytes_in);
        self.bytes_out.increment(bytes_out);
    }

    /// `accept` failed; rare, so the handle is fetched here.
    pub(crate) fn accept_failed(&self, error: &io::Error) {
        let error = match Errno::from_io_error(error) {
            Some(Errno::MFILE) => "emfile",
            Some(Errno::NFILE) => "enfile",
            Some(Errno::NOBUFS) => "enobufs",
            Some(Errno::NOMEM) => "enomem",
            Some(Errno::CONNABORTED) => "econnaborted",
            _ => "other",
        };
        counter!(
            "tbot_accept_errors_total",
            "service" => self.service.clone(), "direction" => self.direction.as_str(), "error" => error
        )
        .increment(1);
    }

    /// A handshake was completed.
    pub(crate) fn handshake(&self, took: Duration, resumed: bool) {
        self.handshake.record(took.as_secs_f64());
        if resumed {
            self.resumed.increment(1);
        }
    }
}

fn describe() {
    describe_gauge!(
        "tbot_connections_open",
        "Connections that are accepted and not yet ended."
    );
    describe_counter!(
        "tbot_connections_total",
        "Connections that have ended, by reason."
    );
    describe_counter!(
        "tbot_connection_bytes_total",
        "Plaintext bytes: in, client to server; out, server to client. Those of a live connection within two seconds."
    );
    describe_histogram!(
        "tbot_handshake_duration_seconds",
        metrics::Unit::Seconds,
        "Time of completed TLS handshakes."
    );
    describe_counter!("tbot_accept_errors_total", "Failures of accept, by errno.");
    describe_counter!(
        "tbot_tls_resumed_total",
        "Handshakes that resumed a session."
    );
}
