//! `tbot-proxy wait`: for scripts and units that start what needs an identity.

use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use ::config::parse_duration;
use clap::Args;
use http_client::Client;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Where the agent's diagnostics listen.
    #[arg(
        long,
        env = "TBOT_DIAGNOSTICS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:3082"
    )]
    diagnostics: SocketAddr,
    /// Waits for this service, instead of for all; can be given several times.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    timeout: Duration,
}

/// Why it is not ready.
enum NotYet {
    /// It may be later.
    Waiting(String),
    /// It never will be.
    Never(String),
}

impl Wait {
    /// 0 once all are ready, 1 if they are not in time; why not, on standard error.
    pub(super) fn run(&self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let waited = match runtime {
            Ok(runtime) => runtime.block_on(self.wait()),
            Err(error) => Err(error.to_string()),
        };
        match waited {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("tbot-proxy: {why}");
                ExitCode::FAILURE
            }
        }
    }

    async fn wait(&self) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let client = Client::plain().time_limit(Duration::from_secs(5));
        let paths: Vec<_> = match self.service.as_slice() {
            [] => vec!["/readyz".to_owned()],
            names => names.iter().map(|name| format!("/readyz/{name}")).collect(),
        };
        for path in paths {
            let url = format!("http://{}{path}", self.diagnostics);
            loop {
                let why = match look(&client, &url).await {
                    Ok(()) => break,
                    Err(NotYet::Never(why)) => return Err(why),
                    Err(NotYet::Waiting(why)) => why,
                };
                if Instant::now() >= deadline {
                    return Err(format!("not ready within {:?}: {why}", self.timeout));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

async fn look(client: &Client, url: &str) -> Result<(), NotYet> {
    let answer = client
        .get(url, None)
        .await
        .map_err(|error| NotYet::Waiting(error.to_string()))?;
    let body = || String::from_utf8_lossy(answer.body()).trim().to_owned();
    match answer.status().as_u16() {
        200 => Ok(()),
        404 => Err(NotYet::Never(format!("{url}: {}", body()))),
        _ => Err(NotYet::Waiting(reasons(&body()))),
    }
}

/// What is not ready and why, of the JSON of `/readyz` or of one service.
fn reasons(body: &str) -> String {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(body) else {
        return body.to_owned();
    };
    let reason = |entry: &serde_json::Value| {
        (entry["status"] != "ready").then(|| entry["reason"].as_str().unwrap_or("").to_owned())
    };
    let Some(services) = json["services"].as_object() else {
        return reason(&json).unwrap_or_default();
    };
    let lines: Vec<_> = services
        .iter()
        .filter_map(|(name, entry)| Some(format!("{name}: {}", reason(entry)?)))
        .collect();
    match lines.is_empty() {
        true => json["status"].as_str().unwrap_or_default().to_owned(),
        false => lines.join("; "),
    }
}
