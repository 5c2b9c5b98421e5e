//! JWT-SVIDs of services of this agent: one task keeps one token fresh.
//!
//! A token that was issued stays until it expires, whatever happens to the issuer
//! meanwhile. It is renewed when the issuer suggests, else at half of its life; and when
//! it orders, or its policy changes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::issue::v1::{
    JwtRequest, Svid, SvidRequest, svid::Document, svid_request::Document as Wanted,
    svid_request::Selector as Select,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use crate::{
    configuration::Selection,
    issuance::{Issuance, IssueError, image_signatures},
    join::{PATIENCE, expired_on_arrival},
    kept::{Keeping, to_struct},
    key::time_of,
    metrics::{RENEWALS, result},
    reads::Reads,
    schedule::{Life, Schedule},
    state::{IdentityState, rfc3339},
    trust::Obtained,
};

/// Which token.
#[derive(Debug, Clone)]
pub(crate) struct JwtWish {
    pub(crate) selection: Selection,
    pub(crate) audiences: Vec<String>,
    /// The resource's if `None`.
    pub(crate) ttl: Option<Duration>,
}

/// A token.
pub(crate) struct Token {
    pub(crate) token: Zeroizing<String>,
    /// SPIFFE ID.
    pub(crate) id: String,
    pub(crate) issued: SystemTime,
    pub(crate) expires: SystemTime,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", rfc3339(self.expires))
    }
}

/// What there is now.
#[derive(Debug, Clone)]
pub(crate) struct TokenNow {
    pub(crate) token: Option<Arc<Token>>,
    /// Why there is none, or why it is not renewed.
    pub(crate) reason: Option<String>,
}

impl TokenNow {
    pub(crate) fn state(&self) -> IdentityState {
        IdentityState {
            held: self.token.is_some(),
            reason: self.reason.clone(),
        }
    }
}

/// A token that is kept fresh until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptToken {
    pub(crate) now: watch::Receiver<TokenNow>,
    _task: AbortOnDropHandle<()>,
}

impl KeptToken {
    /// Starts to keep it.
    pub(crate) fn start(wish: JwtWish, keeping: Keeping) -> Self {
        let (sender, now) = watch::channel(TokenNow {
            token: None,
            reason: Some("starting".to_owned()),
        });
        Self {
            now,
            _task: AbortOnDropHandle::new(tokio::spawn(keep(wish, keeping, sender))),
        }
    }
}

async fn keep(wish: JwtWish, keeping: Keeping, now_is: watch::Sender<TokenNow>) {
    let mut schedule = Schedule::empty(SystemTime::now());
    let mut order = keeping.trust.order();
    let mut bot = keeping.bot.clone();
    let mut obtained = Obtained::under(None);
    let mut trouble: Option<String> = None;
    let mut lost_at = None;
    loop {
        let now = SystemTime::now();
        if schedule.has_expired(now) {
            lost_at = expire(&wish, &mut schedule, &now_is, now).or(lost_at);
        }
        let bot_now = bot.borrow_and_update().clone();
        let why = match bot_now.held {
            true => trouble.clone().or(bot_now.reason),
            false => bot_now.reason.or(trouble.clone()),
        };
        let reason = match (lost_at.map(rfc3339), why) {
            (Some(at), Some(why)) => Some(format!("the JWT-SVID has expired at {at}: {why}")),
            (_, why) => why,
        };
        tell(&now_is, |now| now.reason = reason);
        let due = schedule.is_due(now);
        if due && bot_now.held {
            // Asked before the issuer's first message, it could not be told from one that is
            // to be renewed.
            _ = tokio::time::timeout(PATIENCE, order.wait_for(Option::is_some)).await;
            let under = Obtained::under(*order.borrow_and_update());
            let issued = {
                let call = ask(&keeping.issuance, &wish);
                tokio::pin!(call);
                // The issuer may be long in answering: what there is expires all the same.
                tokio::select! {
                    issued = &mut call => issued,
                    () = schedule.expiry() => {
                        lost_at = expire(&wish, &mut schedule, &now_is, SystemTime::now()).or(lost_at);
                        call.await
                    }
                }
            };
            metrics::counter!(
                RENEWALS,
                "identity" => wish.selection.metric_label(),
                "result" => result(issued.is_ok()),
            )
            .increment(1);
            match issued {
                Ok((token, life)) => {
                    (obtained, trouble, lost_at) = (under, None, None);
                    tell(&now_is, |now| now.token = Some(Arc::new(token)));
                    schedule.renewed(life, SystemTime::now());
                }
                Err(error) => {
                    let delay = schedule.failed(SystemTime::now(), false);
                    tracing::warn!(
                        selected = %wish.selection,
                        %error,
                        retry_in_seconds = delay.as_secs_f64().round(),
                        "JWT-SVID not issued"
                    );
                    trouble = Some(format!("{}: {error}", wish.selection));
                }
            }
            continue;
        }
        tokio::select! {
            () = schedule.wait_for_more(now) => {}
            Ok(()) = bot.changed() => {}
            Ok(()) = order.changed() => {
                let Some(order) = *order.borrow_and_update() else { continue };
                if let Some(within) = obtained.renewal_within(order) {
                    schedule.hasten(within, SystemTime::now());
                }
            }
        }
    }
}

/// Takes the token away; the end of its life.
fn expire(
    wish: &JwtWish,
    schedule: &mut Schedule,
    now_is: &watch::Sender<TokenNow>,
    now: SystemTime,
) -> Option<SystemTime> {
    schedule.lost(now);
    let expired = now_is.borrow().token.as_ref().map(|token| token.expires)?;
    let at = rfc3339(expired);
    tracing::error!(selected = %wish.selection, not_after = at, "the JWT-SVID has expired and is taken away");
    tell(now_is, |now| {
        now.token = None;
        now.reason = Some(format!("the JWT-SVID has expired at {at}"));
    });
    Some(expired)
}

fn tell(now_is: &watch::Sender<TokenNow>, change: impl FnOnce(&mut TokenNow)) {
    now_is.send_if_modified(|now| {
        let before = now.clone();
        change(now);
        let same_token = match (&before.token, &now.token) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        !same_token || before.reason != now.reason
    });
}

async fn ask(issuance: &Arc<Issuance>, wish: &JwtWish) -> Result<(Token, Life), IssueError> {
    let select = wish.selection.to_wire("");
    let issued = issue(issuance, select, wish.audiences.clone(), wish.ttl, None).await?;
    let (svid, token, _) = issued;
    let (Some(issued), Some(expires)) = (time_of(svid.not_before), time_of(svid.not_after)) else {
        return Err(IssueError::unusable("the JWT-SVID has no life"));
    };
    let now = SystemTime::now();
    if expires <= now {
        return Err(IssueError::Unavailable(expired_on_arrival(expires, now)));
    }
    tracing::info!(
        id = svid.spiffe_id,
        workload_identity = svid.workload_identity,
        not_after = rfc3339(expires),
        "JWT-SVID issued"
    );
    let life = Life {
        not_before: issued,
        not_after: expires,
        renew_at: time_of(svid.renew_at),
    };
    let token = Token {
        token,
        id: svid.spiffe_id,
        issued,
        expires,
    };
    Ok((token, life))
}

/// Has one JWT-SVID issued: what the issuer says of it, the token, and what that depends on.
pub(crate) async fn issue(
    issuance: &Arc<Issuance>,
    select: Select,
    audiences: Vec<String>,
    ttl: Option<Duration>,
    workload: Option<&Value>,
) -> Result<(Svid, Zeroizing<String>, Reads), IssueError> {
    let request = SvidRequest {
        selector: Some(select),
        document: Some(Wanted::Jwt(JwtRequest { audiences })),
        ttl: ttl.map(|ttl| prost_types::Duration {
            seconds: ttl.as_secs().cast_signed(),
            nanos: 0,
        }),
        workload_attributes: workload.and_then(to_struct),
        image_signatures: image_signatures(workload),
    };
    let answer = issuance.issue(request).await?;
    let (count, reads) = (answer.svids.len(), Reads::of(answer.reads));
    let Ok([mut issued]) = <[_; 1]>::try_from(answer.svids) else {
        return Err(IssueError::unusable(&format!(
            "it holds {count} JWT-SVIDs, and one is wanted: select it by `name`, or by labels that only one has"
        )));
    };
    match issued.document.take() {
        Some(Document::Jwt(document)) => Ok((issued, Zeroizing::new(document.token), reads)),
        _ => Err(IssueError::unusable("it holds no JWT-SVID")),
    }
}
