//! Issuance calls: identities that are wanted at one moment go in one call.
//!
//! After a start, a signal or an order to renew at once, all identities are due
//! together; each of them asks for itself, and what was asked within [`GATHERING`]
//! travels as one batch. The issuer grants or refuses each item by itself, so one
//! that may not be had does not keep the others from being renewed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prost::Message;
use proto::issue::v1::{
    ISSUE_MAX, ImageSignature, IssueSvidsRequest, SvidRequest, SvidResult, WorkloadReads,
    issue_service_client::IssueServiceClient,
};
use serde_json::Value;
use tokio::sync::oneshot;
use tonic::{Code, Status};

use crate::{
    link::{CallError, IssuerLink},
    reads::Reads,
};

/// How long the first of a batch waits for others. A renewal has half a life of
/// time; a start is not seen to be slower.
const GATHERING: Duration = Duration::from_millis(10);

/// Most items of one call; the issuer takes 1,000.
const BATCH_MAX: usize = 500;

/// Most bytes of one item: that, and what is around it, is what the issuer reads.
const ITEM_MAX: usize = ISSUE_MAX - 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Issuance {
    link: Arc<IssuerLink>,
    waiting: Mutex<Vec<Waiting>>,
    /// In tests, who answers in place of an issuer.
    #[cfg(test)]
    script: Option<testing::Script>,
}

#[derive(Debug)]
struct Waiting {
    request: SvidRequest,
    answer: oneshot::Sender<Result<SvidResult, IssueError>>,
}

impl Issuance {
    pub(crate) fn over(link: Arc<IssuerLink>) -> Arc<Self> {
        Arc::new(Self {
            link,
            waiting: Mutex::default(),
            #[cfg(test)]
            script: None,
        })
    }

    /// Has one item issued.
    pub(crate) async fn issue(
        self: &Arc<Self>,
        request: SvidRequest,
    ) -> Result<SvidResult, IssueError> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.answer(request).await;
        }
        let bytes = request.encoded_len();
        if bytes > ITEM_MAX {
            return Err(IssueError::Refused {
                message: format!(
                    "what is known of the workload, with the signatures of its image, takes {bytes} bytes; the issuer reads {ITEM_MAX}"
                ),
                reads: Reads::All,
            });
        }
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(Waiting { request, answer });
            waiting.len() == 1
        };
        if is_first {
            // A task of its own: whoever was first may be stopped while others wait.
            tokio::spawn(self.clone().gather());
        }
        answered.await.unwrap_or_else(|_| {
            Err(IssueError::Unavailable(
                "the issuance was abandoned".to_owned(),
            ))
        })
    }

    async fn gather(self: Arc<Self>) {
        tokio::time::sleep(GATHERING).await;
        let mut waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        // Those that nobody waits for any more are not issued.
        waiting.retain(|one| !one.answer.is_closed());
        while !waiting.is_empty() {
            let rest = waiting.split_off(fitting(waiting.iter().map(|one| &one.request)));
            let batch = std::mem::replace(&mut waiting, rest);
            tokio::spawn(self.clone().call(batch));
        }
    }

    async fn call(self: Arc<Self>, batch: Vec<Waiting>) {
        let (requests, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|one| (one.request, one.answer))
            .unzip();
        let call = self.link.call(|channel| {
            let requests = requests.clone();
            async move {
                IssueServiceClient::new(channel)
                    .issue_svids(IssueSvidsRequest { requests })
                    .await
            }
        });
        let results = match call.await {
            Ok(answer) if answer.results.len() == answers.len() => Ok(answer.results),
            Ok(answer) => Err(IssueError::Unavailable(format!(
                "the issuer's answer cannot be used: {} results to {} requests",
                answer.results.len(),
                answers.len()
            ))),
            Err(error) => Err(IssueError::from(error)),
        };
        match results {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    // Whoever asked may have been stopped.
                    _ = answer.send(granted(result));
                }
            }
            Err(error) => {
                for answer in answers {
                    _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// How many of the first items go in one call; at least one.
fn fitting<'a>(items: impl Iterator<Item = &'a SvidRequest>) -> usize {
    let mut bytes = 0;
    let fits = items.take(BATCH_MAX).take_while(|item| {
        let item = item.encoded_len();
        bytes += 1 + prost::length_delimiter_len(item) + item;
        bytes <= ISSUE_MAX
    });
    fits.count().max(1)
}

/// What the agent found signed for the image of a workload (the tree below `workload`).
pub(crate) fn image_signatures(workload: Option<&Value>) -> Vec<ImageSignature> {
    #[cfg(feature = "sigstore")]
    if let Some(found) = workload.and_then(attest::sigstore::signatures_of) {
        let signatures = found.iter().map(|one| ImageSignature {
            bundle_json: one.bundle.clone(),
            simple_signing: one.simple_signing.clone(),
        });
        return signatures.collect();
    }
    #[cfg(not(feature = "sigstore"))]
    let _ = workload;
    Vec::new()
}

/// What the issuer granted of an item, or that it refused it.
fn granted(mut result: SvidResult) -> Result<SvidResult, IssueError> {
    match result.refusal.take() {
        None => Ok(result),
        Some(refusal) => {
            let status = Status::new(Code::from(refusal.code), refusal.message);
            Err(IssueError::of_item(CallError::from(status), result.reads))
        }
    }
}

/// Why nothing was issued.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum IssueError {
    /// The issuer has decided so.
    #[error("{message}")]
    Refused {
        message: String,
        /// What of the workload that depends on.
        reads: Reads,
    },
    /// It cannot be known now.
    #[error("{0}")]
    Unavailable(String),
}

impl IssueError {
    /// The issuer has answered what no issuer of ours would.
    pub(crate) fn unusable(why: &str) -> Self {
        Self::Unavailable(format!("the issuer's answer cannot be used: {why}"))
    }

    fn of_item(error: CallError, reads: Option<WorkloadReads>) -> Self {
        match &error {
            // What was asked was not understood: that is so of this workload, whatever an
            // issuer says that it depends on.
            CallError::Refused {
                code: Code::InvalidArgument,
                ..
            } => Self::Refused {
                message: error.to_string(),
                reads: Reads::All,
            },
            CallError::Refused { .. } => Self::Refused {
                message: error.to_string(),
                reads: Reads::of(reads),
            },
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<CallError> for IssueError {
    /// A bot that may not ask may have nothing. Any other refusal of a whole call says
    /// nothing of what it asked for.
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused {
                code: Code::PermissionDenied,
                ..
            } => Self::Refused {
                message: error.to_string(),
                reads: Reads::Nothing,
            },
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod testing {
    //! An issuer that answers as a test says.

    use std::{fmt, sync::Arc};

    use futures_util::future::BoxFuture;
    use identity::IdentitySource;
    use proto::issue::v1::{SvidRequest, SvidResult};

    use super::{Issuance, IssueError, IssuerLink};
    use crate::{configuration::HostPort, link::Addresses};

    type Answer = Result<SvidResult, IssueError>;

    pub(crate) struct Script(Box<dyn Fn(SvidRequest) -> BoxFuture<'static, Answer> + Send + Sync>);

    impl Script {
        pub(super) fn answer(&self, request: SvidRequest) -> BoxFuture<'static, Answer> {
            (self.0)(request)
        }
    }

    impl fmt::Debug for Script {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Script")
        }
    }

    impl Issuance {
        pub(crate) fn scripted(
            answer: impl Fn(SvidRequest) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
        ) -> Arc<Self> {
            let nowhere = HostPort::parse("127.0.0.1:1").unwrap();
            let addresses = Addresses::new(vec![nowhere]);
            Arc::new(Self {
                link: IssuerLink::new(addresses, IdentitySource::new()),
                waiting: Default::default(),
                script: Some(Script(Box::new(answer))),
            })
        }
    }
}
