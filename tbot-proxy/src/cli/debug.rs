//! `debug`: the level of the log of a running agent, and its profiles.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use config::{format_duration, parse_duration};
use http_client::Client;
use serde_json::Value;
use terminal::Format;

use crate::{
    configuration::{Configuration, Overrides, Source},
    debug::PROFILE_MAX,
};

#[cfg(test)]
mod tests;

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Debug {
    /// Shows what is logged, or logs something else from now on.
    LogLevel(LogLevel),
    /// Where time or memory goes (in a build with the feature `profiling`).
    Profile(Profile),
}

/// Where a running agent is debugged.
#[derive(Debug, Args)]
struct Socket {
    /// Configuration of the agent, which names its debug socket.
    #[arg(short, long, env = "TBOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its debug socket, whatever a configuration says
    /// [default: /var/lib/tbot-proxy/debug.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LogLevel {
    #[command(flatten)]
    socket: Socket,
    /// error, warn, info, debug, trace, or directives such as `info,proxy=debug`.
    level: Option<String>,
    /// As it was, after this time.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "level")]
    r#for: Option<Duration>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Profile {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Where CPU time goes: folded stacks, for flame graphs.
    Cpu {
        #[command(flatten)]
        socket: Socket,
        /// For how long samples are taken.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=PROFILE_MAX))]
        seconds: u64,
        /// Where to write it.
        #[arg(short, long, value_name = "FILE", default_value = "cpu.folded")]
        file: PathBuf,
    },
    /// What is allocated now, by who allocated it: pprof's format.
    Heap {
        #[command(flatten)]
        socket: Socket,
        /// Where to write it.
        #[arg(short, long, value_name = "FILE", default_value = "heap.pb.gz")]
        file: PathBuf,
    },
}

impl Debug {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::LogLevel(level) => level.run().await,
            Self::Profile(profile) => profile.run().await,
        }
    }
}

impl LogLevel {
    async fn run(self) -> anyhow::Result<()> {
        let (method, path) = match (&self.level, self.r#for) {
            (None, _) => ("GET", "/log-level".to_owned()),
            (Some(_), None) => ("PUT", "/log-level".to_owned()),
            (Some(_), Some(time)) => ("PUT", format!("/log-level?for={}", format_duration(time))),
        };
        let body = self.level.unwrap_or_default();
        let patience = Duration::from_secs(10);
        let answer = self.socket.ask(method, &path, body, patience).await?;
        let answer: Value = serde_json::from_slice(&answer).context("the agent's answer")?;
        if self.output == Format::Json {
            return terminal::print_json(&answer);
        }
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let (level, configured) = (text("level"), text("configured"));
        let more = match (level == configured, answer["temporary"] == true) {
            (true, _) => String::new(),
            (false, true) => format!(" for a while, then {configured}"),
            (false, false) => format!(" until the agent is restarted, then {configured}"),
        };
        terminal::print(&format!("{}{more}\n", terminal::plain(&level)))
    }
}

impl Profile {
    async fn run(self) -> anyhow::Result<()> {
        let (socket, path, seconds, file) = match self.kind {
            Kind::Cpu {
                socket,
                seconds,
                file,
            } => (
                socket,
                format!("/profile/cpu?seconds={seconds}"),
                seconds,
                file,
            ),
            Kind::Heap { socket, file } => (socket, "/profile/heap".to_owned(), 0, file),
        };
        let patience = Duration::from_secs(seconds + 60);
        let profile = socket.ask("GET", &path, String::new(), patience).await?;
        std::fs::write(&file, &profile)
            .with_context(|| format!("cannot write {}", file.display()))?;
        terminal::print(&format!("{}: {} bytes\n", file.display(), profile.len()))
    }
}

impl Socket {
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(file) = &self.config else {
            return Ok(PathBuf::from("/var/lib/tbot-proxy/debug.sock"));
        };
        let configuration =
            Configuration::read(&Source::File(file.clone()), &Overrides::default())?;
        configuration.debug.ok_or_else(|| {
            anyhow!(
                "{}: no debug socket: with `storage` in memory it needs `debug: {{listen: unix:///path}}`",
                file.display()
            )
        })
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: String,
        patience: Duration,
    ) -> anyhow::Result<Bytes> {
        let socket = self.path()?;
        let client = Client::unix(&socket)
            .time_limit(patience)
            .max_body(256 << 20);
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://agent{path}"))
            .body(Bytes::from(body))?;
        let answer = client.send(request).await.with_context(|| {
            format!(
                "cannot ask the agent at {}: does it run, and as this user? -c or --socket names another",
                socket.display()
            )
        })?;
        let (code, body) = (answer.status().as_u16(), answer.into_body());
        if code != 200 {
            let why = String::from_utf8_lossy(&body);
            bail!("{}", terminal::plain(why.trim()));
        }
        Ok(body)
    }
}
