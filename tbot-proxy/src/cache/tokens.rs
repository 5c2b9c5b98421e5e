//! JWT-SVIDs of a set: issued when they are asked for, and served again until half of
//! their life. While the issuer is away they are served until they expire.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use proto::issue::v1::svid_request::Selector as Select;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    issuance::IssueError,
    jwt,
    kept::{Attested, Keeping, KeptSvid},
    key::time_of,
    metrics::{CACHE, RENEWALS, result},
    reads::Reads,
    trust::Obtained,
};

/// Most tokens of one set. More audiences than that are not kept.
const TOKENS_MAX: usize = 1_024;
/// Most bytes of the audiences of a token that is kept.
const AUDIENCES_MAX: usize = 2_048;

/// A workload identity and the audiences, in order, each once.
type Key = (String, Vec<String>);

/// One at a time asks for the token of a slot; the others wait for that.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Debug, Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<Key, Slot>>,
}

#[derive(Debug)]
struct Token {
    /// What it depends on, and how that was of the workload that asked: under another
    /// policy than that of the set it may be less than the members of the set agree in.
    reads: Reads,
    key: String,
    token: SecretString,
    not_after: SystemTime,
    /// Half of its life.
    renew_at: SystemTime,
    obtained: Obtained,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenError {
    /// The issuer does not grant it.
    #[error("{0}")]
    Refused(String),
    /// It cannot be known now.
    #[error("{0}")]
    Unavailable(String),
}

impl Tokens {
    pub(super) async fn token(
        &self,
        keeping: &Keeping,
        svid: &KeptSvid,
        audiences: &[String],
        attested: &Attested,
        ttl: Duration,
    ) -> Result<(String, SystemTime), TokenError> {
        let mut audiences = audiences.to_vec();
        audiences.sort_unstable();
        audiences.dedup();
        let place = (svid.workload_identity.clone(), audiences.clone());
        let slot = self.slot(&place);
        let mut kept = slot.lock().await;
        kept.take_if(|token| !token.is_for(attested));
        let order = *keeping.trust.order().borrow();
        if let Some(token) = kept.as_mut() {
            let is_current =
                order.is_none_or(|order| token.obtained.renewal_within(order).is_none());
            if is_current && SystemTime::now() < token.renew_at {
                count("hit");
                return Ok(token.give());
            }
        }
        count("miss");
        let issued = issue(keeping, svid, audiences, attested, ttl).await;
        metrics::counter!(RENEWALS, "identity" => "jwt", "result" => result(issued.is_ok()))
            .increment(1);
        let given = match issued {
            Ok((token, not_after, reads)) => {
                let now = SystemTime::now();
                let left = not_after.duration_since(now).unwrap_or_default();
                let token = Token {
                    key: reads.key(attested.workload.as_deref()),
                    reads,
                    token,
                    not_after,
                    renew_at: now + left / 2,
                    obtained: Obtained::under(order),
                };
                let given = token.give();
                *kept = Some(token);
                Ok(given)
            }
            Err(IssueError::Refused { message, .. }) => {
                *kept = None;
                Err(TokenError::Refused(message))
            }
            Err(IssueError::Unavailable(why)) => match kept.as_ref() {
                Some(token) if SystemTime::now() < token.not_after => Ok(token.give()),
                _ => {
                    *kept = None;
                    Err(TokenError::Unavailable(why))
                }
            },
        };
        if kept.is_none() {
            // Names that nothing is kept for are not kept either.
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots
                .get(&place)
                .is_some_and(|other| Arc::ptr_eq(other, &slot))
            {
                slots.remove(&place);
            }
        }
        given
    }

    fn slot(&self, key: &Key) -> Slot {
        if key.1.iter().map(String::len).sum::<usize>() > AUDIENCES_MAX {
            return Slot::default();
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= TOKENS_MAX && !slots.contains_key(key) {
            let now = SystemTime::now();
            // One that is locked is in use.
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(token) => token.as_ref().is_some_and(|token| now < token.renew_at),
                Err(_) => true,
            });
            if slots.len() >= TOKENS_MAX {
                return Slot::default();
            }
        }
        slots.entry(key.clone()).or_default().clone()
    }
}

impl Token {
    /// Whether it would be the same for this workload.
    fn is_for(&self, attested: &Attested) -> bool {
        self.reads.key(attested.workload.as_deref()) == self.key
    }

    fn give(&self) -> (String, SystemTime) {
        (self.token.expose_secret().to_owned(), self.not_after)
    }
}

async fn issue(
    keeping: &Keeping,
    svid: &KeptSvid,
    audiences: Vec<String>,
    attested: &Attested,
    ttl: Duration,
) -> Result<(SecretString, SystemTime, Reads), IssueError> {
    // The service's wish is for X509-SVIDs; a token lives as long as the resource says,
    // and no longer than that.
    let ttl = (ttl < JWT_DEFAULT).then_some(ttl);
    let select = Select::Name(svid.workload_identity.clone());
    let workload = attested.workload.as_deref();
    let (issued, token, reads) =
        jwt::issue(&keeping.issuance, select, audiences, ttl, workload).await?;
    let Some(not_after) = time_of(issued.not_after) else {
        return Err(jwt::unusable("the JWT-SVID has no end"));
    };
    // Its rules or templates were changed a moment ago: what is kept is not what this is.
    if issued.spiffe_id != svid.id.as_str() {
        return Err(jwt::unusable(
            "it is for another SPIFFE ID than was granted before",
        ));
    }
    Ok((SecretString::from(token.as_str()), not_after, reads))
}

/// Default life of JWT-SVIDs (DESIGN section 5).
const JWT_DEFAULT: Duration = Duration::from_secs(300);

fn count(result: &'static str) {
    metrics::counter!(CACHE, "kind" => "jwt", "result" => result).increment(1);
}
