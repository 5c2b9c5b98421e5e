//! Whether a SPIFFE Workload API keeps its norms, told by what a client can see.
//!
//! Against any server: the process that runs this is the workload. A norm is *kept*,
//! *broken*, or *not seen*, with the reason: a norm for clients, one that shows only when
//! something happens that did not, or one that only whoever runs the server can tell.
//! Nothing is sent that a well-meaning or a careless client would not send.
//!
//! The norms have the ids of `spec/spiffe-norms.md`, in which the documents of SPIFFE
//! (at spiffe/spiffe 665a28f) are taken apart.

mod jwt;
pub(crate) mod raw;
mod report;
mod requests;
mod wit;
mod x509;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use tonic::{Code, Status, transport::Channel};
use workload_api::client::{self, Client, Endpoint};

pub use self::report::{Outcome, Report, Row, SHOWN_BY_A_HEALTHY_SERVER};

use self::report::NORMS;

/// What is asked, and for how long answers are waited for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is.
    pub endpoint: Endpoint,
    /// Longest time for an answer, and for a first message.
    pub timeout: Duration,
    /// How long to wait for an update of an open stream; zero: not at all.
    pub watch: Duration,
}

/// Asks everything. An error: the server cannot be reached at all.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let channel = tokio::time::timeout(plan.timeout, plan.endpoint.channel());
    let channel = channel.await.map_err(anyhow::Error::from);
    let channel = channel.and_then(|channel| Ok(channel?));
    let channel = channel.with_context(|| format!("cannot connect to {}", plan.endpoint))?;
    let mut suite = Suite {
        plan: plan.clone(),
        seen: BTreeMap::new(),
        has_identity: false,
        client: client::client(channel.clone()).max_decoding_message_size(64 * 1024 * 1024),
        channel,
    };
    requests::check(&mut suite).await;
    x509::check(&mut suite).await;
    jwt::check(&mut suite).await;
    wit::check(&mut suite).await;
    Ok(Report::new(plan.endpoint.to_string(), suite.seen))
}

/// What has been seen so far.
struct Suite {
    plan: Plan,
    channel: Channel,
    client: Client,
    seen: BTreeMap<&'static str, Outcome>,
    /// Whether the server has an X509-SVID for this process.
    has_identity: bool,
}

impl Suite {
    /// Notes what a check came to. What is broken once stays so, and what was seen is
    /// not unseen.
    fn note(&mut self, norm: &'static str, outcome: Outcome) {
        debug_assert!(NORMS.iter().any(|(id, ..)| *id == norm), "{norm}");
        let rank = |outcome: &Outcome| match outcome {
            Outcome::NotSeen(_) => 0,
            Outcome::Kept => 1,
            Outcome::Broken(_) => 2,
        };
        match self.seen.get(norm) {
            Some(before) if rank(before) >= rank(&outcome) => {}
            _ => drop(self.seen.insert(norm, outcome)),
        }
    }

    /// Kept, or broken for this reason.
    fn expect(&mut self, norm: &'static str, holds: bool, otherwise: impl Into<String>) {
        let outcome = match holds {
            true => Outcome::Kept,
            false => Outcome::Broken(otherwise.into()),
        };
        self.note(norm, outcome);
    }

    fn unseen(&mut self, norms: &[&'static str], why: &str) {
        for norm in norms {
            self.note(norm, Outcome::NotSeen(why.to_owned()));
        }
    }

    /// An answer in time; else a status of ours.
    async fn soon<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match tokio::time::timeout(self.plan.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded(format!(
                "nothing came within {:?}",
                self.plan.timeout
            ))),
        }
    }

    /// Expects a refusal with this code.
    fn refused<T>(
        &mut self,
        norm: &'static str,
        what: &str,
        answer: Result<T, Status>,
        code: Code,
    ) {
        let found = match answer {
            Ok(_) => "an answer".to_owned(),
            Err(status) if status.code() == code => {
                self.note(norm, Outcome::Kept);
                return;
            }
            Err(status) => format!("{:?} ({})", status.code(), status.message()),
        };
        let why = format!("{what}: expected {code:?}, found {found}");
        self.note(norm, Outcome::Broken(why));
    }
}

/// The first message of a stream, whichever way an error comes.
macro_rules! first {
    ($suite:expr, $call:expr) => {{
        let call = $call;
        $suite
            .soon(async move {
                let mut stream = call.await?.into_inner();
                match stream.message().await? {
                    Some(message) => Ok((stream, message)),
                    None => Err(tonic::Status::unknown("the stream ended without a message")),
                }
            })
            .await
    }};
}
use first;
