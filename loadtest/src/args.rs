//! The command line: what was typed, and what it resolves to.

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use rustls::pki_types::ServerName;
use workload_api::client::Endpoint;

use crate::{
    address::Address,
    bulk::Direction,
    client_tls::{self, Cipher, ClientTls, Group, Resume},
    idle::Plan,
    process::Selection,
    request::Sizes,
    run::{Load, Work},
    serve::Mode,
    window::Bounds,
};

pub mod conformance;
pub mod issue;
pub mod streams;
pub mod tokens;

/// Longest run of any kind: nothing here runs for ever.
const LONGEST: Duration = Duration::from_secs(3600);
/// Connections at most.
const MOST_CONNECTIONS: usize = 100_000;

/// Loads TLS proxies and the issuer on this machine and measures what it costs them.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure new connections: TCP, TLS handshake, one byte echoed.
    Handshake(HandshakeArgs),
    /// Measure requests and responses on connections that stay.
    Rr(RequestArgs),
    /// Measure bytes one way, as fast as they go.
    Bulk(BulkArgs),
    /// Hold connections that carry nothing and measure the memory they cost.
    Idle(IdleArgs),
    /// Ask an issuer for SVIDs as many agents do.
    Issue(issue::IssueArgs),
    /// Check a SPIFFE Workload API against its norms, with this process as the workload.
    Conformance(conformance::ConformanceArgs),
    /// Hold streams of a SPIFFE Workload API and measure what they cost.
    Streams(streams::StreamsArgs),
    /// Fetch JWT-SVIDs from a SPIFFE Workload API and measure how long each takes.
    Tokens(tokens::TokensArgs),
    /// Be a plain backend: echo, sink or source.
    Serve(ServeArgs),
    /// Make an authority and SPIFFE certificates for a comparison.
    Certs(CertsArgs),
}

/// What every load on a proxy has.
#[derive(Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// What every load has.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Address on this machine: IP:PORT, tcp:IP:PORT or unix:///PATH.
    #[arg(long, value_parser = Address::from_str)]
    target: Address,
    /// Admit a target on one of this machine's own non-loopback addresses.
    #[arg(long)]
    allow_private: bool,
    /// Connections at one time.
    #[arg(short = 'c', long, default_value_t = 32)]
    connections: usize,
    /// Longest time for one operation, such as 500ms.
    #[arg(long, default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Share of failed operations above which the exit status is 1.
    #[arg(long, default_value_t = 0.0)]
    max_error_rate: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// TLS.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Speak TLS 1.3 (needs --ca).
    #[arg(long, requires = "ca")]
    tls: bool,
    /// PEM file with the client's certificate chain, leaf first.
    #[arg(long, requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// PEM file with the client's private key.
    #[arg(long, requires_all = ["tls", "cert"])]
    key: Option<PathBuf>,
    /// PEM file with the authorities to trust.
    #[arg(long, requires = "tls")]
    ca: Option<PathBuf>,
    /// DNS name to send (SNI) and to find in the server's certificate.
    #[arg(long, requires = "tls")]
    server_name: Option<String>,
    /// SPIFFE ID that the server must have.
    #[arg(long, requires = "tls", value_name = "SPIFFE_ID")]
    expect_id: Option<String>,
    /// Whether to resume TLS sessions.
    #[arg(long, requires = "tls", value_enum, default_value_t = Resume::Never)]
    resume: Resume,
    /// Key exchange group.
    #[arg(long, value_enum, default_value_t = Group::X25519)]
    group: Group,
    /// Cipher suite.
    #[arg(long, value_enum, default_value_t = Cipher::Aes128gcm)]
    cipher: Cipher,
}

/// Processes to account for.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Account for these processes, by id.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Account for the processes of this command name.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    process: Vec<String>,
    /// Include the descendants of these processes.
    #[arg(long)]
    children: bool,
}

impl ProcessArgs {
    fn selection(self) -> Selection {
        Selection {
            pids: self.pid,
            names: self.process,
            children: self.children,
        }
    }
}

/// How long and how much.
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Length of the measured window [default: 10s; 60s at most with a count].
    #[arg(short = 'd', long, value_parser = duration)]
    duration: Option<Duration>,
    /// Time before the window, not counted.
    #[arg(long, default_value = "1s", value_parser = duration)]
    warmup: Duration,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// `handshake`
#[derive(Debug, Args)]
pub struct HandshakeArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// End after this many measured operations.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Operations per second over all connections (open loop).
    #[arg(long)]
    rate: Option<f64>,
    /// End the operation with the handshake, without an echoed byte: whether the server accepted
    /// the client's certificate is then unknown.
    #[arg(long)]
    no_probe: bool,
}

/// `rr`
#[derive(Debug, Args)]
pub struct RequestArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// End after this many measured operations.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Operations per second over all connections (open loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Bytes of a request, such as 128 or 4KiB.
    #[arg(long, default_value = "128", value_parser = size)]
    size: u64,
    /// Bytes of a response, if it is not the request's echo.
    #[arg(long, value_parser = size)]
    response_size: Option<u64>,
}

/// `bulk`
#[derive(Debug, Args)]
pub struct BulkArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    window: WindowArgs,
    /// End after about this many bytes, warm-up included, such as 1GiB.
    #[arg(long, value_parser = size)]
    bytes: Option<u64>,
    /// Which way.
    #[arg(long, value_enum, default_value_t = Direction::Upload)]
    direction: Direction,
    /// Bytes handed over at one time.
    #[arg(long, default_value = "64KiB", value_parser = size)]
    chunk: u64,
}

/// `idle`
#[derive(Debug, Args)]
pub struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections that are open before memory is first read.
    #[arg(long, default_value_t = 64)]
    baseline: usize,
    /// Wait before each reading.
    #[arg(long, default_value = "1s", value_parser = duration)]
    settle: Duration,
    /// Time to hold the connections after the second reading.
    #[arg(long, default_value = "0s", value_parser = duration)]
    hold: Duration,
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// What to do with a connection.
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// Where to listen (port 0: any free port; the address is printed).
    #[arg(long, value_parser = Address::from_str)]
    pub listen: Address,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// End after this time.
    #[arg(long = "for", default_value = "1h", value_parser = duration)]
    pub lifetime: Duration,
}

/// `certs`
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// Directory to write to; made if need be.
    #[arg(long)]
    pub out: PathBuf,
    /// Trust domain of the ids.
    #[arg(long, default_value = "bench.test")]
    pub trust_domain: String,
}

/// A load, ready to run.
#[derive(Debug)]
pub struct Resolved {
    /// Its mode's name.
    pub mode: &'static str,
    /// What to run.
    pub load: Load,
    /// How to idle, in that mode.
    pub idle: Option<Plan>,
    /// Whom to account for.
    pub processes: Selection,
    /// Share of failed operations that is tolerated.
    pub max_error_rate: f64,
    /// Whether to print JSON.
    pub json: bool,
}

impl HandshakeArgs {
    /// Checks and resolves.
    pub fn resolve(self) -> anyhow::Result<Resolved> {
        if self.no_probe && self.target.tls.resume == Resume::Always {
            bail!(
                "--no-probe with --resume always: without the echo no session ticket is ever read"
            );
        }
        let bounds = self.window.bounds(self.target.load.timeout, self.count)?;
        let work = Work::Handshake {
            probe: !self.no_probe,
        };
        self.target
            .resolve("handshake", work, bounds, self.window.threads, self.rate)
    }
}

impl RequestArgs {
    /// Checks and resolves.
    pub fn resolve(self) -> anyhow::Result<Resolved> {
        let sizes = Sizes {
            request: in_memory("--size", self.size)?,
            response: self
                .response_size
                .map(|n| in_memory("--response-size", n))
                .transpose()?,
        };
        let bounds = self.window.bounds(self.target.load.timeout, self.count)?;
        self.target.resolve(
            "rr",
            Work::Request(sizes),
            bounds,
            self.window.threads,
            self.rate,
        )
    }
}

impl BulkArgs {
    /// Checks and resolves.
    pub fn resolve(self) -> anyhow::Result<Resolved> {
        let work = Work::Bulk {
            direction: self.direction,
            chunk: in_memory("--chunk", self.chunk)?,
        };
        let mut bounds = self.window.bounds(self.target.load.timeout, None)?;
        bounds.bytes = self.bytes;
        self.target
            .resolve("bulk", work, bounds, self.window.threads, None)
    }
}

impl IdleArgs {
    /// Checks and resolves.
    pub fn resolve(self) -> anyhow::Result<Resolved> {
        ensure!(self.hold <= LONGEST, "--hold: at most {LONGEST:?}");
        ensure!(self.settle <= LONGEST, "--settle: at most {LONGEST:?}");
        let bounds = Bounds {
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            count: None,
            bytes: None,
            op_timeout: self.target.load.timeout,
        };
        let plan = Plan {
            baseline: self.baseline,
            settle: self.settle,
            hold: self.hold,
        };
        let work = Work::Handshake { probe: true };
        let resolved = self.target.resolve("idle", work, bounds, 1, None)?;
        Ok(Resolved {
            idle: Some(plan),
            ..resolved
        })
    }
}

impl WindowArgs {
    fn bounds(&self, op_timeout: Duration, count: Option<u64>) -> anyhow::Result<Bounds> {
        let default = Duration::from_secs(if count.is_some() { 60 } else { 10 });
        let duration = self.duration.unwrap_or(default);
        ensure!(
            !duration.is_zero(),
            "--duration 0: nothing could be measured"
        );
        ensure!(
            duration <= LONGEST,
            "--duration {duration:?}: at most {LONGEST:?}"
        );
        ensure!(
            self.warmup <= LONGEST,
            "--warmup {:?}: at most {LONGEST:?}",
            self.warmup
        );
        ensure!(count != Some(0), "--count 0: nothing could be measured");
        Ok(Bounds {
            warmup: self.warmup,
            duration,
            count,
            bytes: None,
            op_timeout,
        })
    }
}

impl TargetArgs {
    fn resolve(
        self,
        mode: &'static str,
        work: Work,
        bounds: Bounds,
        threads: usize,
        rate: Option<f64>,
    ) -> anyhow::Result<Resolved> {
        let mut resolved = self.load.resolve(mode, work, bounds, threads, rate)?;
        resolved.load.tls = self.tls.resolve()?.into_iter().collect();
        Ok(resolved)
    }
}

impl LoadArgs {
    fn resolve(
        self,
        mode: &'static str,
        work: Work,
        bounds: Bounds,
        threads: usize,
        rate: Option<f64>,
    ) -> anyhow::Result<Resolved> {
        self.target.check_target(self.allow_private)?;
        let connections = self.connections;
        ensure!(
            (1..=MOST_CONNECTIONS).contains(&connections),
            "--connections {connections}: from 1 to {MOST_CONNECTIONS}"
        );
        ensure!(
            (1..=64).contains(&threads),
            "--threads {threads}: from 1 to 64"
        );
        ensure!(
            !self.timeout.is_zero(),
            "--timeout 0: no operation could end in time"
        );
        ensure!(
            self.timeout <= LONGEST,
            "--timeout {:?}: at most {LONGEST:?}",
            self.timeout
        );
        ensure!(
            (0.0..=1.0).contains(&self.max_error_rate),
            "--max-error-rate {}: a share from 0 to 1",
            self.max_error_rate
        );
        if let Some(rate) = rate {
            ensure!(
                (0.01..=1e6).contains(&rate),
                "--rate {rate}: from 0.01 to 1000000 a second"
            );
        }
        Ok(Resolved {
            mode,
            load: Load {
                fallbacks: Vec::new(),
                tls: Vec::new(),
                target: self.target,
                connections,
                threads,
                rate,
                bounds,
                work,
            },
            idle: None,
            processes: self.processes.selection(),
            max_error_rate: self.max_error_rate,
            json: self.json,
        })
    }
}

impl TlsArgs {
    fn resolve(self) -> anyhow::Result<Option<ClientTls>> {
        let Some(ca) = self.ca.filter(|_| self.tls) else {
            return Ok(None);
        };
        let server_name = self.server_name.map(|name| {
            ServerName::try_from(name.clone()).with_context(|| {
                format!("--server-name `{name}` is neither a DNS name nor an IP address")
            })
        });
        if let Some(id) = &self.expect_id {
            ensure!(
                id.starts_with("spiffe://"),
                "--expect-id `{id}`: a SPIFFE ID begins with spiffe://"
            );
        }
        ClientTls::load(&client_tls::Options {
            cert: self.cert,
            key: self.key,
            ca,
            server_name: server_name.transpose()?,
            expect_id: self.expect_id,
            resume: self.resume,
            group: self.group,
            cipher: self.cipher,
        })
        .map(Some)
    }
}

/// Sizes that are held in memory for every connection.
fn in_memory(option: &str, bytes: u64) -> anyhow::Result<usize> {
    const MOST: u64 = 64 * 1024 * 1024;
    ensure!(
        (1..=MOST).contains(&bytes),
        "{option} {bytes}: from 1 byte to 64MiB"
    );
    usize::try_from(bytes).with_context(|| format!("{option} {bytes}"))
}

/// Load is sent to this machine only.
fn this_machine(endpoint: &Endpoint) -> anyhow::Result<()> {
    match endpoint {
        Endpoint::Unix(_) => Ok(()),
        Endpoint::Tcp(address) => Address::Tcp(*address).check_target(false),
    }
}

/// Reads `250ms`, `10s`, `2m`, `1h` or plain seconds.
fn duration(text: &str) -> anyhow::Result<Duration> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let seconds = scaled(text, &UNITS)
        .with_context(|| format!("`{text}` is no duration: write 250ms, 10s, 2m or 1h"))?;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("`{text}` is out of range"))
}

/// Reads `128`, `64KiB`, `4MiB` or `1GiB`.
fn size(text: &str) -> anyhow::Result<u64> {
    const UNITS: [(&str, f64); 4] = [
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("B", 1.0),
    ];
    let bytes = scaled(text, &UNITS)
        .filter(|bytes| (0.0..1e18).contains(bytes) && bytes.fract() == 0.0)
        .with_context(|| format!("`{text}` is no size: write 128, 64KiB, 4MiB or 1GiB"))?;
    Ok(bytes as u64)
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let unit = units
        .iter()
        .find_map(|(name, scale)| Some((text.strip_suffix(name)?, scale)));
    let (number, scale) = unit.unwrap_or((text, &1.0));
    let digits = number.starts_with(|c: char| c.is_ascii_digit());
    number
        .parse::<f64>()
        .ok()
        .filter(|_| digits)
        .map(|number| number * scale)
}

#[cfg(test)]
mod tests;
