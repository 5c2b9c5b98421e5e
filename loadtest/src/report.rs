//! The result of a run, for people and for programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{OpErrorKind, idle, process::Root, run::Outcome, tally::Tally};

/// Bytes of a GiB.
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// A run's result. Field names are the JSON's; absent figures were not measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// `handshake`, `rr`, `bulk`, `idle` or `issue`.
    pub mode: &'static str,
    /// The address that was loaded.
    pub target: String,
    /// TLS parameters, if TLS was used and a handshake succeeded.
    pub tls: Option<TlsReport>,
    /// Connections at one time.
    pub connections: usize,
    /// Operations per second asked for; absent in a closed loop.
    pub rate: Option<f64>,
    /// Length of the measured window.
    pub seconds: f64,
    /// Measured operations that ended well.
    pub succeeded: u64,
    /// Measured operations that failed.
    pub failed: u64,
    /// `failed / (succeeded + failed)`.
    pub error_rate: f64,
    /// Failures by kind.
    pub errors: BTreeMap<&'static str, ErrorReport>,
    /// Operations per second achieved.
    pub per_second: f64,
    /// Payload bytes in the window.
    pub bytes: u64,
    /// Payload MiB per second (bulk).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib_per_second: Option<f64>,
    /// SVIDs received in measured operations (issue).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svids: Option<u64>,
    /// SVIDs per second (issue).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svids_per_second: Option<f64>,
    /// Handshakes measured, by kind.
    pub handshakes: Handshakes,
    /// From when each operation was due (corrected for coordinated omission); with a rate only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_corrected_us: Option<Latency>,
    /// From when each operation was started (the service time).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_uncorrected_us: Option<Latency>,
    /// CPU time of the named processes.
    pub cpu: Vec<Cpu>,
    /// CPU time of this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_cpu: Option<Cpu>,
    /// Memory per connection of the named processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<MemoryReport>,
}

/// What TLS settled on.
#[derive(Debug, Serialize)]
pub struct TlsReport {
    /// Such as `TLSv1_3`.
    pub version: String,
    /// Key exchange.
    pub group: String,
    /// Cipher suite.
    pub cipher: String,
}

/// Failures of one kind.
#[derive(Debug, Serialize)]
pub struct ErrorReport {
    /// How many.
    pub count: u64,
    /// The first one's words.
    pub first: String,
}

/// TLS handshakes by kind.
#[derive(Debug, Default, Serialize)]
pub struct Handshakes {
    /// Full ones.
    pub full: u64,
    /// Resumed ones.
    pub resumed: u64,
}

/// Latencies, microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90 of 100 are at most this.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

/// CPU time of one process (with its descendants, if asked) in the window.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// Command name.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// User and system time.
    pub seconds: f64,
    /// Per operation that ended in the window, microseconds.
    pub us_per_operation: Option<f64>,
    /// Per GiB of payload, seconds.
    pub seconds_per_gib: Option<f64>,
    /// Per SVID received in the window, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_per_svid: Option<f64>,
}

/// Memory of one process (with its descendants, if asked), bytes.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    /// Command name.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Resident set with the baseline open.
    pub rss_before: u64,
    /// Resident set with all open.
    pub rss_after: u64,
    /// Difference per connection.
    pub rss_per_connection: f64,
    /// Proportional set with the baseline open.
    pub pss_before: u64,
    /// Proportional set with all open.
    pub pss_after: u64,
    /// Difference per connection.
    pub pss_per_connection: f64,
}

/// What the report is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Mode.
    pub mode: &'static str,
    /// Address.
    pub target: String,
    /// Connections.
    pub connections: usize,
    /// Rate.
    pub rate: Option<f64>,
}

impl Report {
    /// Of a measured run.
    pub fn of_run(subject: Subject, outcome: &Outcome) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let tally = &outcome.tally;
        let bulk = subject.mode == "bulk";
        let issue = subject.mode == "issue";
        let cpu = |root: &Root, used: Duration| {
            let per = |unit: f64| (unit > 0.0).then(|| used.as_secs_f64() / unit);
            Cpu {
                name: root.name.clone(),
                pid: root.pid,
                seconds: used.as_secs_f64(),
                us_per_operation: per(outcome.completed as f64)
                    .filter(|_| !bulk)
                    .map(|s| s * 1e6),
                seconds_per_gib: per(outcome.bytes as f64 / GIB).filter(|_| bulk),
                us_per_svid: per(outcome.svids as f64).filter(|_| issue).map(|s| s * 1e6),
            }
        };
        let myself = Root {
            pid: std::process::id(),
            name: "loadtest".to_owned(),
        };
        let latency = |histogram| Latency::of(histogram).filter(|_| !bulk);
        Self {
            seconds,
            per_second: outcome.completed as f64 / seconds,
            bytes: outcome.bytes,
            mib_per_second: bulk.then(|| outcome.bytes as f64 / GIB * 1024.0 / seconds),
            svids: issue.then_some(tally.svids),
            svids_per_second: issue.then(|| outcome.svids as f64 / seconds),
            latency_corrected_us: subject.rate.and_then(|_| latency(&tally.from_due)),
            latency_uncorrected_us: latency(&tally.from_start),
            cpu: outcome
                .cpu
                .iter()
                .map(|(root, used)| cpu(root, *used))
                .collect(),
            generator_cpu: Some(cpu(&myself, outcome.generator_cpu)),
            ..Self::of_tally(subject, tally)
        }
    }

    /// Of an idle run.
    pub fn of_idle(subject: Subject, outcome: &idle::Outcome) -> Self {
        let per = |before: u64, after: u64| {
            (after as f64 - before as f64) / (outcome.opened.max(1)) as f64
        };
        let memory = outcome
            .memory
            .iter()
            .map(|(root, before, after)| MemoryReport {
                name: root.name.clone(),
                pid: root.pid,
                rss_before: before.rss,
                rss_after: after.rss,
                rss_per_connection: per(before.rss, after.rss),
                pss_before: before.pss,
                pss_after: after.pss,
                pss_per_connection: per(before.pss, after.pss),
            });
        Self {
            memory: memory.collect(),
            ..Self::of_tally(subject, &outcome.tally)
        }
    }

    fn of_tally(subject: Subject, tally: &Tally) -> Self {
        let failed = tally.failed();
        let tried = tally.succeeded + failed;
        let error = |(kind, (count, first)): (&OpErrorKind, &(u64, String))| {
            (
                kind.as_str(),
                ErrorReport {
                    count: *count,
                    first: first.clone(),
                },
            )
        };
        Self {
            schema: 1,
            mode: subject.mode,
            target: subject.target,
            tls: tally.negotiated.as_ref().map(|n| TlsReport {
                version: n.version.clone(),
                group: n.group.clone(),
                cipher: n.cipher.clone(),
            }),
            connections: subject.connections,
            rate: subject.rate,
            seconds: 0.0,
            succeeded: tally.succeeded,
            failed,
            error_rate: if tried == 0 {
                0.0
            } else {
                failed as f64 / tried as f64
            },
            errors: tally.failures.iter().map(error).collect(),
            per_second: 0.0,
            bytes: 0,
            mib_per_second: None,
            svids: None,
            svids_per_second: None,
            handshakes: Handshakes {
                full: tally.full_handshakes,
                resumed: tally.resumed_handshakes,
            },
            latency_corrected_us: None,
            latency_uncorrected_us: None,
            cpu: Vec::new(),
            generator_cpu: None,
            memory: Vec::new(),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: us(histogram.value_at_quantile(0.5)),
            p90: us(histogram.value_at_quantile(0.9)),
            p99: us(histogram.value_at_quantile(0.99)),
            p99_9: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
            mean: histogram.mean() / 1e3,
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p99_9,
            max,
            ..
        } = self;
        write!(
            f,
            "p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p99_9:.0}  max {max:.0} µs"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_head(&mut text)?;
        for (kind, error) in &self.errors {
            writeln!(
                text,
                "  error       {kind}: {} (first: {})",
                error.count, error.first
            )?;
        }
        if let Some(latency) = &self.latency_corrected_us {
            writeln!(text, "  latency     {latency}, from when due")?;
        }
        if let Some(latency) = &self.latency_uncorrected_us {
            let note = if self.rate.is_some() {
                ", uncorrected"
            } else {
                " (service time)"
            };
            writeln!(text, "  latency     {latency}{note}")?;
        }
        for cpu in self.cpu.iter().chain(&self.generator_cpu) {
            write!(
                text,
                "  cpu         {} ({}): {:.2} s",
                cpu.name, cpu.pid, cpu.seconds
            )?;
            if let Some(us) = cpu.us_per_operation {
                write!(text, ", {us:.1} µs per operation")?;
            }
            if let Some(seconds) = cpu.seconds_per_gib {
                write!(text, ", {seconds:.3} s per GiB")?;
            }
            if let Some(us) = cpu.us_per_svid {
                write!(text, ", {us:.1} µs per SVID")?;
            }
            text.push('\n');
        }
        for memory in &self.memory {
            writeln!(
                text,
                "  memory      {} ({}): {:.1} KiB resident per connection, {:.1} KiB proportional",
                memory.name,
                memory.pid,
                memory.rss_per_connection / 1024.0,
                memory.pss_per_connection / 1024.0,
            )?;
        }
        f.write_str(text.trim_end())
    }
}

impl Report {
    fn write_head(&self, text: &mut String) -> fmt::Result {
        write!(text, "{} to {}", self.mode, self.target)?;
        match &self.tls {
            Some(tls) => writeln!(text, ", {}, {}, {}", tls.version, tls.group, tls.cipher)?,
            None => text.push('\n'),
        }
        write!(text, "  load        {} connections", self.connections)?;
        match self.rate {
            Some(rate) => write!(text, ", {rate} operations/s asked for")?,
            None if self.mode != "idle" => text.push_str(", closed loop"),
            None => {}
        }
        if self.seconds > 0.0 {
            write!(text, ", {:.2} s", self.seconds)?;
        }
        write!(text, "\n  succeeded   {}", self.succeeded)?;
        match self.mib_per_second {
            Some(rate) => write!(text, ", {rate:.0} MiB/s")?,
            None if self.seconds > 0.0 => write!(text, ", {:.0}/s", self.per_second)?,
            None => {}
        }
        if let (Some(svids), Some(rate)) = (self.svids, self.svids_per_second) {
            write!(text, ", {svids} SVIDs, {rate:.0}/s")?;
        }
        if self.handshakes.full + self.handshakes.resumed > 0 {
            let Handshakes { full, resumed } = self.handshakes;
            write!(text, ", {full} full and {resumed} resumed handshakes")?;
        }
        writeln!(
            text,
            "\n  failed      {} ({:.3} %)",
            self.failed,
            self.error_rate * 100.0
        )
    }
}
