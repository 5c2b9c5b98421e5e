//! JWT-SVIDs of a set: issued when they are asked for, and served again until half of
//! their life, or until the issuer orders otherwise. Then who asks has it renewed, and waits
//! for that: at half of its life not for long ([`LATE`]), after an order (policy is another)
//! until the call has failed. While the issuer is away, the one that is there serves until
//! it expires.
//!
//! What is asked of the issuer goes on when who wanted it has given up, and all who want
//! the same wait for the same answer.
//!
//! Life is counted by both clocks: one that is set back makes no token older than it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use proto::issue::v1::svid_request::Selector as Select;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{Cache, room::User};
use crate::{
    issuance::IssueError,
    join::expired_on_arrival,
    jwt,
    kept::{Attested, KeptSvid},
    key::time_of,
    metrics::{CACHE, RENEWALS, result},
    reads::Reads,
    schedule::Backoff,
    trust::{Obtained, RenewOrder},
};

/// Most tokens of one set. More audiences than that are not kept.
const TOKENS_MAX: usize = 1_024;
/// Most bytes of the audiences of a token that is kept.
const AUDIENCES_MAX: usize = 2_048;
/// How long a renewal is waited for, from its begin, while there is a token that nothing is
/// known against.
const LATE: Duration = Duration::from_secs(1);
/// Default life of JWT-SVIDs (DESIGN section 5).
const JWT_DEFAULT: Duration = Duration::from_secs(300);

/// A workload identity and the audiences, in order, each once.
type Key = (String, Vec<String>);

#[derive(Debug, Default)]
pub(super) struct Tokens {
    slots: Arc<Slots>,
}

#[derive(Debug, Default)]
struct Slots(Mutex<HashMap<Key, Arc<Slot>>>);

/// The place of one token.
#[derive(Debug, Default)]
struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    token: Option<Arc<Token>>,
    obtained: Option<Obtained>,
    /// What the issuer is being asked.
    asking: Option<Asking>,
    backoff: Backoff,
    /// Until when nobody asks again if there is a token, and under which order that is so:
    /// an issuer that orders can be asked.
    rests: Option<(Instant, Option<RenewOrder>)>,
}

/// An answer that several wait for.
#[derive(Debug, Clone)]
struct Asking {
    begun: Instant,
    answer: Shared<BoxFuture<'static, Result<Arc<Token>, Refusal>>>,
}

#[derive(Debug)]
struct Token {
    whose: Whose,
    token: SecretString,
    not_after: SystemTime,
    /// The same, by a clock that nobody sets.
    ends: Instant,
    /// Half of its life.
    renew_at: (SystemTime, Instant),
}

/// What an answer depends on, and how that was of the workload that asked: under another
/// policy than that of the set it may be more than the members of the set agree in.
#[derive(Debug, Clone)]
struct Whose {
    reads: Reads,
    key: String,
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

/// The same, and for whom that is so; `None`: for all.
#[derive(Debug, Clone)]
struct Refusal(TokenError, Option<Whose>);

impl Refusal {
    fn unavailable(why: &str) -> Self {
        Self(TokenError::Unavailable(why.to_owned()), None)
    }
}

/// A token to be had.
struct Wanted<'a> {
    cache: &'a Cache,
    place: Key,
    svid: &'a KeptSvid,
    attested: &'a Attested,
    ttl: Duration,
}

impl Tokens {
    pub(super) async fn token(
        &self,
        cache: &Cache,
        svid: &KeptSvid,
        audiences: &[String],
        attested: &Attested,
        ttl: Duration,
    ) -> Result<(String, SystemTime), TokenError> {
        let mut audiences = audiences.to_vec();
        audiences.sort_unstable();
        audiences.dedup();
        let wanted = Wanted {
            cache,
            place: (svid.workload_identity.clone(), audiences),
            svid,
            attested,
            ttl,
        };
        let slot = self.slots.of(&wanted.place);
        loop {
            let order = *cache.keeping.trust.order().borrow();
            let (asking, before) = match self.look(&slot, &wanted, order)? {
                Look::Serve(token) => return Ok(token.give()),
                Look::Wait(asking, before) => (asking, before),
            };
            let answer = match &before {
                Some(before) if !before.is_ordered => {
                    let answer = timeout_at(asking.begun + LATE, asking.answer).await;
                    answer.unwrap_or_else(|_| Err(Refusal::unavailable("the issuer is late")))
                }
                _ => asking.answer.await,
            };
            match answer {
                Ok(token) if token.whose.is(attested) => return Ok(token.give()),
                Err(Refusal(error @ TokenError::Unavailable(_), _)) => {
                    let before = before.map(|before| before.token);
                    let before = before.filter(|token| token.is_valid());
                    return before.map(|token| token.give()).ok_or(error);
                }
                Err(Refusal(error, whose))
                    if whose.as_ref().is_none_or(|whose| whose.is(attested)) =>
                {
                    return Err(error);
                }
                // Another workload had asked, whom another answer is for.
                _ => {}
            }
        }
    }

    /// Looks at what there is, and has the issuer asked if that is to be.
    fn look(
        &self,
        slot: &Arc<Slot>,
        wanted: &Wanted<'_>,
        order: Option<RenewOrder>,
    ) -> Result<Look, TokenError> {
        let mut state = slot.state();
        let there = state.token.as_ref();
        let there = there.filter(|token| token.is_valid() && token.whose.is(wanted.attested));
        let there = there.cloned();
        let is_ordered = match (order, &mut state.obtained) {
            (Some(order), Some(obtained)) => obtained.renewal_within(order).is_some(),
            _ => false,
        };
        if let Some(token) = &there {
            let rests = state.rests;
            let rests = rests.is_some_and(|(end, of)| Instant::now() < end && of == order);
            if rests || (!is_ordered && token.is_fresh()) {
                count("hit");
                return Ok(Look::Serve(token.clone()));
            }
        }
        if state.asking.is_none()
            && let Err(over) = wanted.cache.rate.take(wanted.user())
        {
            count("refused");
            // One that is there serves.
            return there.map(Look::Serve).ok_or_else(|| {
                let over = over.as_secs_f64();
                TokenError::Unavailable(format!(
                    "workloads of this user ask for too many different tokens: try again in {over:.1} s, and use tokens again while they are valid"
                ))
            });
        }
        count("miss");
        let asking = state.asking.get_or_insert_with(|| {
            let task = tokio::spawn(wanted.ask(self.slots.clone(), Arc::downgrade(slot), order));
            let answer = task.map(|answer| {
                answer.unwrap_or_else(|_| Err(Refusal::unavailable("the issuance was abandoned")))
            });
            Asking {
                begun: Instant::now(),
                answer: answer.boxed().shared(),
            }
        });
        let before = there.map(|token| Before { token, is_ordered });
        Ok(Look::Wait(asking.clone(), before))
    }
}

/// What to do.
enum Look {
    Serve(Arc<Token>),
    /// Wait for this, and what may be served if it does not come.
    Wait(Asking, Option<Before>),
}

/// A token that is to be renewed.
struct Before {
    token: Arc<Token>,
    /// The issuer wants that: it may not grant it any more.
    is_ordered: bool,
}

impl Wanted<'_> {
    fn user(&self) -> User {
        User::of(self.attested, &self.cache.owners)
    }

    /// Asks the issuer, and puts what comes of it in its place.
    fn ask(
        &self,
        slots: Arc<Slots>,
        slot: Weak<Slot>,
        order: Option<RenewOrder>,
    ) -> impl Future<Output = Result<Arc<Token>, Refusal>> + Send + 'static {
        let (keeping, place) = (self.cache.keeping.clone(), self.place.clone());
        let (id, attested) = (self.svid.id.clone(), self.attested.clone());
        // The service's wish is for X509-SVIDs; a token lives as long as the resource says,
        // and no longer than that.
        let ttl = (self.ttl < JWT_DEFAULT).then_some(self.ttl);
        async move {
            let select = Select::Name(place.0.clone());
            let workload = attested.workload.as_deref();
            let issued = jwt::issue(&keeping.issuance, select, place.1.clone(), ttl, workload);
            let issued = issued.await.and_then(|(issued, token, reads)| {
                // Its rules or templates were changed a moment ago: what is kept is not what
                // this is.
                if issued.spiffe_id != id.as_str() {
                    return Err(IssueError::unusable(
                        "it is for another SPIFFE ID than was granted before",
                    ));
                }
                let not_after = time_of(issued.not_after)
                    .ok_or_else(|| IssueError::unusable("the JWT-SVID has no end"))?;
                let whose = Whose::of(reads, &attested);
                Token::new(whose, SecretString::from(token.as_str()), not_after)
            });
            metrics::counter!(RENEWALS, "identity" => "jwt", "result" => result(issued.is_ok()))
                .increment(1);
            let answer = match issued {
                Ok(token) => Ok(Arc::new(token)),
                Err(IssueError::Refused { message, reads }) => {
                    let whose = Whose::of(reads, &attested);
                    Err(Refusal(TokenError::Refused(message), Some(whose)))
                }
                Err(IssueError::Unavailable(why)) => {
                    Err(Refusal(TokenError::Unavailable(why), None))
                }
            };
            if let Some(slot) = slot.upgrade() {
                slot.state().settle(&answer, order, &attested);
                slots.forget_empty(&place, &slot);
            }
            answer
        }
    }
}

impl State {
    /// Notes an answer to who asked with these attributes.
    fn settle(
        &mut self,
        answer: &Result<Arc<Token>, Refusal>,
        order: Option<RenewOrder>,
        attested: &Attested,
    ) {
        self.asking = None;
        match answer {
            Ok(token) => {
                self.token = Some(token.clone());
                self.obtained = Some(Obtained::under(order));
                self.backoff.reset();
                self.rests = None;
            }
            Err(Refusal(TokenError::Refused(_), _)) => {
                self.token.take_if(|token| token.whose.is(attested));
            }
            Err(Refusal(TokenError::Unavailable(_), _)) => {
                self.token.take_if(|token| !token.is_valid());
                self.rests = Some((Instant::now() + self.backoff.next(), order));
            }
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, place: &Key) -> Arc<Slot> {
        if place.1.iter().map(String::len).sum::<usize>() > AUDIENCES_MAX {
            return Arc::default();
        }
        let mut slots = self.all();
        if slots.len() >= TOKENS_MAX && !slots.contains_key(place) {
            slots.retain(|_, slot| {
                let state = slot.state();
                let is_fresh = state.token.as_ref().is_some_and(|token| token.is_fresh());
                is_fresh || state.asking.is_some()
            });
            if slots.len() >= TOKENS_MAX {
                return Arc::default();
            }
        }
        slots.entry(place.clone()).or_default().clone()
    }

    /// Names that nothing is kept for are not kept either.
    fn forget_empty(&self, place: &Key, slot: &Arc<Slot>) {
        let mut slots = self.all();
        let is_it = |other: &Arc<Slot>| Arc::ptr_eq(other, slot);
        if slots.get(place).is_some_and(is_it) {
            let state = slot.state();
            if state.token.is_none() && state.asking.is_none() {
                slots.remove(place);
            }
        }
    }
}

impl Token {
    fn new(whose: Whose, token: SecretString, not_after: SystemTime) -> Result<Self, IssueError> {
        let (now, clock) = (SystemTime::now(), Instant::now());
        let Some(left) = not_after
            .duration_since(now)
            .ok()
            .filter(|left| !left.is_zero())
        else {
            return Err(IssueError::Unavailable(expired_on_arrival(not_after, now)));
        };
        Ok(Self {
            whose,
            token,
            not_after,
            ends: clock + left,
            renew_at: (now + left / 2, clock + left / 2),
        })
    }

    fn is_fresh(&self) -> bool {
        self.is_valid() && SystemTime::now() < self.renew_at.0 && Instant::now() < self.renew_at.1
    }

    fn is_valid(&self) -> bool {
        SystemTime::now() < self.not_after && Instant::now() < self.ends
    }

    fn give(&self) -> (String, SystemTime) {
        (self.token.expose_secret().to_owned(), self.not_after)
    }
}

impl Whose {
    fn of(reads: Reads, attested: &Attested) -> Self {
        let key = reads.key(attested.workload.as_deref());
        Self { reads, key }
    }

    /// Whether it would be the same for this workload.
    fn is(&self, attested: &Attested) -> bool {
        self.reads.key(attested.workload.as_deref()) == self.key
    }
}

fn count(result: &'static str) {
    metrics::counter!(CACHE, "kind" => "jwt", "result" => result).increment(1);
}
