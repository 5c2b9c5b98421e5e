//! `status`: the agent on one screen.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use http_client::Client;
use terminal::Format;

use crate::status::Status;

/// Where an agent's diagnostics listen.
#[derive(Debug, Args)]
pub(super) struct DiagnosticsAddress {
    /// The agent's diagnostics.
    #[arg(
        long = "diagnostics",
        env = "TBOT_DIAGNOSTICS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:3082"
    )]
    pub(super) address: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    diagnostics: DiagnosticsAddress,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl DiagnosticsAddress {
    /// Asks for a path; status code and body.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let client = Client::plain()
            .time_limit(Duration::from_secs(10))
            .max_body(16 << 20);
        let uri = format!("http://{}{path}", self.address);
        let answer = client.get(&uri, None).await.with_context(|| {
            format!(
                "cannot ask the agent at {}: does it run, with `diagnostics: {{listen: \"{}\"}}`? --diagnostics names another",
                self.address, self.address
            )
        })?;
        Ok((answer.status().as_u16(), answer.into_body().to_vec()))
    }
}

impl StatusArgs {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (code, body) = self.diagnostics.get("/status").await?;
        if code != 200 {
            bail!(
                "{} answered {code}: is it a tbot-proxy?",
                self.diagnostics.address
            );
        }
        if self.output == Format::Json {
            return terminal::print_json(&serde_json::from_slice(&body)?);
        }
        let status: Status = serde_json::from_slice(&body).with_context(|| {
            format!(
                "{} is no tbot-proxy of this release",
                self.diagnostics.address
            )
        })?;
        show(&status)
    }
}

fn show(status: &Status) -> anyhow::Result<()> {
    let connected = match status.issuer.connected {
        true => "connected",
        false => "not connected",
    };
    let bot = status.bot.id.as_deref().unwrap_or("none");
    let until = status
        .bot
        .expires
        .as_ref()
        .map(|at| format!(", until {at}"));
    terminal::print(&format!(
        "tbot-proxy {}: {}\nissuer     {}, {connected}\nbot        {}{}\ntrusted    {}\n\n",
        status.version,
        status.status,
        status.issuer.address,
        terminal::plain(bot),
        until.unwrap_or_default(),
        status.issuer.trust_domains.join(", "),
    ))?;
    let services = status.services.iter().map(|(name, entry)| {
        let state = match entry.status {
            crate::state::Status::Ready => "ready",
            crate::state::Status::NotReady => "not ready",
        };
        vec![name.clone(), state.to_owned(), entry.updated_at.clone()]
    });
    terminal::print_table(&["SERVICE", "STATUS", "SINCE"], services.collect())?;
    terminal::print("\n")?;
    let identities = status.identities.iter().flat_map(|set| {
        set.svids.iter().map(|svid| {
            vec![
                svid.id.clone(),
                svid.workload_identity.clone(),
                svid.expires.clone(),
                left(svid.seconds_left),
                set.followers.to_string(),
            ]
        })
    });
    terminal::print_table(
        &[
            "SPIFFE ID",
            "WORKLOAD IDENTITY",
            "EXPIRES",
            "LEFT",
            "FOLLOWERS",
        ],
        identities.collect(),
    )?;
    let reasons: Vec<_> = trouble(status).collect();
    if reasons.is_empty() {
        return Ok(());
    }
    terminal::print("\nTrouble:\n")?;
    for reason in reasons {
        terminal::print(&format!("  {}\n", terminal::plain(&reason)))?;
    }
    Ok(())
}

/// All that is wrong now, each once.
fn trouble(status: &Status) -> impl Iterator<Item = String> {
    let bot = status.bot.reason.iter().map(|why| format!("bot: {why}"));
    let services = status.services.iter().filter_map(|(name, entry)| {
        let why = entry.reason.as_ref()?;
        Some(format!("{name}: {why}"))
    });
    let sets = status
        .identities
        .iter()
        .filter_map(|set| Some(format!("{}: {}", set.selected, set.reason.as_ref()?)));
    let mut all: Vec<_> = bot.chain(services).chain(sets).collect();
    all.sort();
    all.dedup();
    all.into_iter()
}

/// `2h03m`, `4m10s`, `59s`.
fn left(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}
