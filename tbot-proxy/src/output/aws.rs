//! Sessions of AWS for an output, renewed at half of their life or as configured.
//!
//! A session lives on when its SVID expires: it was granted while that held.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::output::aws::{AwsError, Credentials, Endpoint};
use identity::{Identity, X509Svid};
use tokio::sync::watch;

use super::documents::{Made, MadeSet};
use crate::{
    configuration::AwsOutput,
    schedule::{Life, Schedule},
    state::{IdentityState, rfc3339},
};

/// What the session is renewed by, and what it is.
struct Session {
    set: MadeSet,
    expires: SystemTime,
}

pub(super) async fn make(
    settings: AwsOutput,
    mut state: watch::Receiver<IdentityState>,
    mut changes: watch::Receiver<Arc<Identity>>,
    made: watch::Sender<Made>,
) {
    let mut schedule = Schedule::empty(SystemTime::now());
    let mut session: Option<Session> = None;
    let mut trouble: Option<String> = None;
    let mut number = 0;
    loop {
        let now = SystemTime::now();
        if schedule.has_expired(now) {
            if let Some(expired) = session.take() {
                let at = rfc3339(expired.expires);
                tracing::error!(expired_at = at, "the session of AWS has expired");
                trouble.get_or_insert_with(|| format!("the session of AWS has expired at {at}"));
            }
            schedule.lost(now);
        }
        let identity = changes.borrow_and_update().clone();
        let IdentityState { reason, .. } = state.borrow_and_update().clone();
        made.send_replace(Made {
            set: session.as_ref().map(|session| session.set.clone()),
            state: IdentityState {
                held: session.is_some(),
                reason: trouble.clone().or(reason),
            },
        });
        let due = schedule.is_due(now);
        if let Some(svid) = identity.svid.as_ref().filter(|_| due) {
            let began = SystemTime::now();
            match call(&settings, svid.clone()).await {
                Ok(credentials) => {
                    number += 1;
                    tracing::info!(
                        role = settings.session.role.as_str(),
                        expires = rfc3339(credentials.expires()),
                        "session of AWS granted"
                    );
                    let life = Life {
                        not_before: began,
                        not_after: credentials.expires(),
                        renew_at: settings.renewal.map(|after| began + after),
                    };
                    schedule.renewed(life, SystemTime::now());
                    trouble = None;
                    session = Some(Session {
                        expires: credentials.expires(),
                        set: MadeSet {
                            number,
                            artifacts: Arc::new(credentials.to_artifacts(
                                &settings.profile,
                                svid.id().as_str(),
                                began,
                            )),
                            expires: Some(credentials.expires()),
                        },
                    });
                }
                Err(error) => {
                    let is_refusal = matches!(error, AwsError::Refused { .. });
                    let delay = schedule.failed(SystemTime::now(), is_refusal);
                    tracing::warn!(
                        role = settings.session.role.as_str(),
                        %error,
                        retry_in_seconds = delay.as_secs_f64().round(),
                        "no session of AWS"
                    );
                    trouble = Some(error.to_string());
                }
            }
            continue;
        }
        tokio::select! {
            () = schedule.wait_for_more(now) => {}
            Ok(()) = state.changed() => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

async fn call(settings: &AwsOutput, svid: Arc<X509Svid>) -> Result<Credentials, AwsError> {
    let (address, ca) = (settings.endpoint.clone(), settings.endpoint_ca.clone());
    // CA certificates are read anew: they change under a process that runs for months.
    let endpoint =
        tokio::task::spawn_blocking(move || Endpoint::new(address.as_deref(), ca.as_deref()))
            .await
            .map_err(|error| AwsError::Call(error.to_string()))??;
    let call = settings.session.call(&svid, &endpoint, SystemTime::now());
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(called) => called,
        Err(_) => Err(AwsError::Call(format!("no answer within {PATIENCE:?}"))),
    }
}

/// How long AWS may take.
const PATIENCE: Duration = Duration::from_secs(30);
