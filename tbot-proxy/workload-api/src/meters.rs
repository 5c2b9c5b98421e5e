//! What is counted.

use metrics::{counter, gauge};
use tonic::Code;

const STREAMS: &str = "tbot_workload_api_streams";
const REQUESTS: &str = "tbot_workload_api_requests_total";
const SENT: &str = "tbot_workload_api_sent_bytes_total";
const CONNECTIONS: &str = "tbot_workload_api_connections";
const REFUSED: &str = "tbot_workload_api_connections_refused_total";
const STREAMS_REFUSED: &str = "tbot_workload_api_streams_refused_total";
const REJECTED: &str = "tbot_sds_rejections_total";
const LEFT_OUT: &str = "tbot_workload_api_left_out_total";

/// Describes every metric of this crate to the recorder of the process.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_gauge!(STREAMS, "Open streams, by method");
    describe_counter!(REQUESTS, "Calls that have ended, by method and gRPC code");
    describe_counter!(SENT, Unit::Bytes, "Messages sent, by method");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(REFUSED, "Connections closed at once, by reason");
    describe_counter!(
        STREAMS_REFUSED,
        "Streams and calls for which there was no place, by reason"
    );
    describe_counter!(REJECTED, "Answers that an Envoy has refused");
    describe_counter!(
        LEFT_OUT,
        "What did not fit into a message of 4 MiB, by kind, once an encoded message; kind name: names of an Envoy that there is no room to wait for"
    );
}

/// A call, until it is dropped.
#[derive(Debug)]
pub(crate) struct Call {
    method: &'static str,
    is_stream: bool,
    code: Option<Code>,
}

impl Call {
    pub(crate) fn new(method: &'static str, is_stream: bool) -> Self {
        if is_stream {
            gauge!(STREAMS, "method" => method).increment(1.0);
        }
        Self {
            method,
            is_stream,
            code: None,
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        counter!(SENT, "method" => self.method).increment(bytes as u64);
    }

    pub(crate) fn end(&mut self, code: Code) {
        self.code.get_or_insert(code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.is_stream {
            gauge!(STREAMS, "method" => self.method).decrement(1.0);
        }
        // The client went away.
        let code = proto::code_name(self.code.unwrap_or(Code::Cancelled));
        counter!(REQUESTS, "method" => self.method, "code" => code).increment(1);
    }
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected(());

impl Connected {
    pub(crate) fn new() -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

/// A connection that was closed at once.
pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A stream or call for which there was no place.
pub(crate) fn stream_refused(reason: &'static str) {
    counter!(STREAMS_REFUSED, "reason" => reason).increment(1);
}

/// An answer that an Envoy has refused.
pub(crate) fn sds_rejected() {
    counter!(REJECTED).increment(1);
}

/// So many of a kind did not fit.
pub(crate) fn left_out(kind: &'static str, count: usize) {
    if count > 0 {
        counter!(LEFT_OUT, "kind" => kind).increment(count as u64);
    }
}
