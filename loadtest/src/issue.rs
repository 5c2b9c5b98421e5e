//! Mode `issue`: SVIDs, asked of a real issuer by many agents over gRPC and mutual TLS.
//!
//! An operation is one call of `IssueSvids` and its answer; each agent is a bot instance of its own with one
//! connection and one call under way, as a real agent has. Its keys are made before the run, so
//! that the load takes little of the machine that it shares with the issuer, and are used again:
//! the issuer does for a known key all that it does for a new one.
//!
//! An answer counts as good only if every item was granted and each document belongs to what was asked for
//! (the certificate holds the public key of its request). What was received can be written to a
//! file, one serial number or `jti` a line, to be compared with the audit trail.

use std::{fs::File, io::Write, path::Path, sync::Arc};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use proto::issue::v1::{
    IssueSvidsResponse, SvidResult, issue_service_client::IssueServiceClient, svid::Document,
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    OpError, OpErrorKind,
    run::{Worker, within},
    stream::Stream,
};
use wanted::{Asked, Asker, Wanted};

pub mod agents;
pub mod wanted;

/// Longest answer that is read: 1,000 SVIDs are about one MiB.
const ANSWER_MOST: usize = 64 * 1024 * 1024;

/// What all agents share.
#[derive(Debug)]
pub struct Plan {
    /// What is asked for.
    pub wanted: Wanted,
    /// Where every SVID received is written to.
    pub issued: Option<Ledger>,
}

/// A file with a line for each SVID that was received: its serial number or `jti`.
#[derive(Debug)]
pub struct Ledger(File);

impl Ledger {
    /// Makes the file anew.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path);
        file.map(Self)
            .with_context(|| format!("--issued {}: cannot make it", path.display()))
    }

    /// Written at once, so that the file is whole up to whatever moment this program ends at.
    fn note(&self, results: &[SvidResult]) -> std::io::Result<()> {
        let mut lines = String::new();
        for svid in results.iter().flat_map(|result| &result.svids) {
            lines += match &svid.document {
                Some(Document::X509(x509)) => &x509.serial_number,
                Some(Document::Jwt(jwt)) => &jwt.jti,
                Some(Document::Wit(wit)) => &wit.jti,
                None => "",
            };
            lines.push('\n');
        }
        (&self.0).write_all(lines.as_bytes())
    }
}

/// Asks until the run is over; a connection that fails is replaced by the next call.
pub async fn work(worker: Worker, stream: Option<Stream>, plan: Arc<Plan>, agent: usize) {
    let mut asker = Asker::new(agent);
    let mut client = None;
    if let Some(stream) = stream {
        worker.note_negotiated(&stream);
        client = client_over(stream).await.ok();
    }
    while let Some(started) = worker.take().await {
        let operation = async {
            let client = match &mut client {
                Some(client) => client,
                None => {
                    let stream = worker.link.open_unbounded().await?;
                    worker.shaken(started, &stream)?;
                    client.insert(client_over(stream).await?)
                }
            };
            let (request, asked) = asker
                .next(&plan.wanted)
                .map_err(|error| OpError::new(OpErrorKind::Corrupt, error))?;
            let answer = client.issue_svids(request).await;
            Ok((
                answer.map_err(|status| failure(&status))?.into_inner(),
                asked,
            ))
        };
        let answered = within(worker.window.op_timeout, operation).await;
        let result = answered.and_then(|(answer, asked)| {
            let received = answer
                .results
                .iter()
                .map(|result| result.svids.len() as u64);
            worker.received(started, received.sum());
            plan.check(answer, &asked)
        });
        if let Err(error) = &result {
            // An issuer without its store keeps its connections; another may have a store.
            let away = error.kind == OpErrorKind::Unavailable && worker.link.has_fallback();
            if away || is_lost(error.kind) {
                client = None;
                worker.link.try_next_target();
            }
        }
        worker.ended(started, result).await;
    }
}

impl Plan {
    /// Notes what was received; fails if it is not what was asked for.
    fn check(&self, answer: IssueSvidsResponse, asked: &[Asked]) -> Result<(), OpError> {
        let corrupt = |what: &str| Err(OpError::new(OpErrorKind::Corrupt, what));
        if let Some(ledger) = &self.issued {
            ledger.note(&answer.results).map_err(|error| {
                OpError::new(OpErrorKind::Corrupt, format_args!("--issued: {error}"))
            })?;
        }
        if answer.results.len() != asked.len() {
            return corrupt("the answer has another number of results than the request had items");
        }
        for (SvidResult { svids, refusal, .. }, asked) in answer.results.iter().zip(asked) {
            if let Some(refusal) = refusal {
                let kind = kind_of(Code::from_i32(refusal.code));
                return Err(OpError::new(kind, &refusal.message));
            }
            if svids.is_empty() {
                return Err(OpError::new(
                    OpErrorKind::Refused,
                    "no SVID: nothing that these labels select may be had",
                ));
            }
            if !svids.iter().all(|svid| asked.is_answered_by(svid)) {
                return corrupt("an SVID is of another kind or key than was asked for");
            }
        }
        Ok(())
    }
}

/// gRPC over a stream that is already open; when it ends, so does the client.
async fn client_over(stream: Stream) -> Result<IssueServiceClient<Channel>, OpError> {
    let channel = channel_over(stream)
        .await
        .map_err(|error| OpError::new(OpErrorKind::Closed, error))?;
    Ok(IssueServiceClient::new(channel).max_decoding_message_size(ANSWER_MOST))
}

async fn channel_over(stream: Stream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    // The name is required and means nothing over a stream of our own.
    Endpoint::from_static("http://issuer")
        .connect_with_connector(connector)
        .await
}

fn failure(status: &Status) -> OpError {
    let mut cause: &dyn std::error::Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // A status that the issuer sent has no source; one that the transport made has.
    let kind = match std::error::Error::source(status) {
        Some(_) => OpErrorKind::Closed,
        None => kind_of(status.code()),
    };
    match kind {
        OpErrorKind::Closed => OpError::new(kind, cause),
        _ => OpError::new(
            kind,
            format_args!("{:?}: {}", status.code(), status.message()),
        ),
    }
}

fn kind_of(code: Code) -> OpErrorKind {
    match code {
        Code::Unavailable => OpErrorKind::Unavailable,
        Code::ResourceExhausted => OpErrorKind::Exhausted,
        _ => OpErrorKind::Refused,
    }
}

fn is_lost(kind: OpErrorKind) -> bool {
    use OpErrorKind::{Closed, Connect, Handshake, Reset, Timeout};
    matches!(kind, Closed | Connect | Handshake | Reset | Timeout)
}
