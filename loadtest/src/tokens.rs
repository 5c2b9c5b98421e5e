//! Mode `tokens`: how long a JWT-SVID takes that the server has in its cache.
//!
//! One connection, one call under way; each for the same audience, so that all but the
//! first come from the cache.

use std::{fmt, time::Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use workload_api::client::Endpoint;

use crate::{
    conformance::raw::{Answer, Call, Connection},
    tally::Tally,
};

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server, on this machine.
    pub endpoint: Endpoint,
    /// For whom the tokens are: fewer than 127 bytes.
    pub audience: String,
    /// Calls that are measured.
    pub calls: u32,
}

/// What it came to: microseconds from when a request was written to when the status came.
#[derive(Debug, Serialize)]
pub struct Report {
    calls: u32,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// Calls that are not measured: they fill the cache, and warm up.
const WARM_UP: u32 = 100;

/// Fetches tokens.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let connection = Connection::open(&plan.endpoint).await;
    let mut connection =
        connection.with_context(|| format!("cannot connect to {}", plan.endpoint))?;
    let mut tally = Tally::new()?;
    for number in 0..WARM_UP + plan.calls {
        let begun = Instant::now();
        let call = Call::Jwt(&plan.audience);
        connection.call("localhost", call).await?;
        for expected in [Answer::Message, Answer::Status] {
            let (_, answer) = connection.next().await?;
            if answer != expected {
                bail!(
                    "the server answers {answer:?} where {expected:?} was expected: is there a JWT-SVID for this process?"
                );
            }
        }
        if number >= WARM_UP {
            tally.succeed(begun.elapsed(), begun.elapsed());
        }
    }
    let micros = |quantile| tally.from_start.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        calls: plan.calls,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        max_us: micros(1.0),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} JWT-SVIDs: median {:.0} µs, p99 {:.0} µs, longest {:.0} µs",
            self.calls, self.p50_us, self.p99_us, self.max_us
        )
    }
}
