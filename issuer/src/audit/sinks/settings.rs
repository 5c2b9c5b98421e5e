//! What is configured of the sinks.

use std::{net::IpAddr, path::PathBuf};

/// Which sinks there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkSettings {
    /// A file.
    pub file: Option<FileSettings>,
    /// Standard output.
    pub stdout: bool,
    /// An OpenTelemetry collector.
    pub otlp: Option<OtlpSettings>,
}

/// A file of records, rotated by size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// Where; older ones have `.1`, `.2`, … behind it.
    pub path: PathBuf,
    /// How large it may grow, in bytes.
    pub max_size: u64,
    /// How many older ones are kept.
    pub keep: u64,
}

impl FileSettings {
    /// Size of a file if nothing is said.
    pub const DEFAULT_MAX_SIZE: u64 = 100 << 20;
    /// The smallest that makes sense.
    pub const SMALLEST_MAX_SIZE: u64 = 4 << 10;
    /// Older files that are kept if nothing is said.
    pub const DEFAULT_KEEP: u64 = 10;
    /// The most.
    pub const MOST_KEPT: u64 = 10_000;
}

/// A collector that speaks OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// `http://host:port`, or `https://host:port` with a `ca_file`.
    pub endpoint: String,
    /// Certificates (PEM) of which one must have signed the collector's.
    pub ca_file: Option<PathBuf>,
}

/// Bytes: `64KiB`, `100MiB`, `2GiB`, or a plain number.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 64KiB, 100MiB or 2GiB");
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let size = number.checked_mul(unit).ok_or_else(wrong)?;
    match size {
        FileSettings::SMALLEST_MAX_SIZE.. => Ok(size),
        _ => Err(format!("{text:?} is too small: at least 4KiB")),
    }
}

/// Whether records may be sent there: to this machine, or encrypted.
pub fn check_endpoint(endpoint: &str, has_ca_file: bool) -> Result<(), String> {
    // It is told by probes and logs, and the store keeps a cursor by it.
    let told = telemetry::without_password(endpoint);
    let wrong = |why: &str| Err(format!("the collector {told:?} is not accepted: {why}"));
    if endpoint.contains('@') {
        return wrong("it names a user: collectors have none here");
    }
    let Ok(uri) = endpoint.parse::<http::Uri>() else {
        return wrong("it is no URL, as http://127.0.0.1:4317");
    };
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() => wrong("it is no URL, as http://127.0.0.1:4317"),
        Some("https") if has_ca_file => Ok(()),
        Some("https") => wrong("name the certificates that may have signed its own (ca_file)"),
        Some("http") if has_ca_file => wrong("with a ca_file it begins with https://"),
        Some("http") if is_here => Ok(()),
        Some("http") => wrong(
            "records would cross the network unencrypted: write https:// and name a ca_file, or send to a collector on this machine",
        ),
        _ => wrong("it begins with http:// or https://"),
    }
}

#[cfg(test)]
mod tests;
