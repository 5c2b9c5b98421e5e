//! The cache before an issuer that answers as each test says. WIT-SVIDs, as they need no CA.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use identity::TrustBundleSet;
use proto::issue::v1::{
    JwtSvid, Svid, SvidRequest, SvidResult, WitSvid, WorkloadReads, svid::Document,
    svid_request::Document as Wanted,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    configuration::Selection,
    issuance::{Issuance, IssueError},
    state::IdentityState,
    trust::Trust,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Policy looks at the PID of who asks.
struct Issuer {
    issued: AtomicU64,
    is_away: AtomicBool,
    refuses: AtomicBool,
    /// Whether sets are for everybody. Tokens never are.
    shares: AtomicBool,
    /// What is sent to it is lost.
    hangs: AtomicBool,
}

/// A process whose attributes the issuer does not take.
const NOT_UNDERSTOOD: u64 = 666;
/// How long a lost call is waited for.
const CALL: Duration = Duration::from_secs(20);

impl Issuer {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            issued: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            shares: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
        })
    }

    fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    async fn answer_in_time(&self, request: SvidRequest) -> Result<SvidResult, IssueError> {
        if self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(CALL).await;
            return Err(IssueError::Unavailable("no answer".to_owned()));
        }
        self.answer(request)
    }

    fn answer(&self, request: SvidRequest) -> Result<SvidResult, IssueError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(IssueError::Unavailable("away".to_owned()));
        }
        let reads = WorkloadReads {
            attributes: vec!["workload.unix.pid".to_owned()],
            groups: vec![],
        };
        if self.refuses.load(Ordering::Relaxed) {
            return Err(IssueError::Refused {
                message: "no".to_owned(),
                reads: Reads::of(Some(reads)),
            });
        }
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let attributes = request.workload_attributes.unwrap();
        let unix = format!("{:?}", attributes.fields["unix"]);
        let pid: String = unix
            .split("NumberValue(")
            .nth(1)
            .unwrap()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        if pid == NOT_UNDERSTOOD.to_string() {
            return Err(IssueError::Refused {
                message: "too many attributes".to_owned(),
                reads: Reads::All,
            });
        }
        let now = SystemTime::now();
        let shares = self.shares.load(Ordering::Relaxed);
        let is_jwt = matches!(request.document, Some(Wanted::Jwt(_)));
        let document = match is_jwt {
            true => Document::Jwt(JwtSvid {
                token: format!("jwt-of-{pid}"),
                ..JwtSvid::default()
            }),
            false => Document::Wit(WitSvid {
                token: format!("token-{number}"),
                ..WitSvid::default()
            }),
        };
        let of = if shares { "all" } else { pid.as_str() };
        Ok(SvidResult {
            svids: vec![Svid {
                workload_identity: "app".to_owned(),
                spiffe_id: format!("spiffe://one.example/{of}"),
                not_before: Some(now.into()),
                not_after: Some((now + HOUR).into()),
                document: Some(document),
                ..Svid::default()
            }],
            reads: Some(match shares && !is_jwt {
                true => WorkloadReads::default(),
                false => reads,
            }),
            ..SvidResult::default()
        })
    }
}

/// A cache with this much room.
fn cache(issuer: &Arc<Issuer>, room: Room) -> Arc<Cache> {
    cache_of(issuer, room, Owners::of("/no/such/file", "/no/such/file"))
}

fn cache_of(issuer: &Arc<Issuer>, room: Room, owners: Owners) -> Arc<Cache> {
    let trust = Trust::new(TrustBundleSet::default());
    trust.order_now();
    let issuer = issuer.clone();
    let keeping = Keeping {
        issuance: Issuance::scripted(move |request| {
            let issuer = issuer.clone();
            Box::pin(async move { issuer.answer_in_time(request).await })
        }),
        trust,
        bot: watch::channel(IdentityState::held()).1,
        roll: Arc::default(),
        sealed: Arc::default(),
    };
    Cache::with_room(keeping, room, owners)
}

struct Process {
    uid: u64,
    pid: u64,
}

impl Witness for Process {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        let tree = json!({ "unix": { "pid": self.pid, "uid": self.uid } });
        Box::pin(async { Ok(Some(Arc::new(tree))) })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

fn place() -> Place {
    let selector = Selector {
        selection: Selection::Name("app".to_owned()),
        ttl: HOUR,
    };
    (selector, SetKind::Wit)
}

/// What a process of this user gets, and the process.
async fn ask(
    cache: &Arc<Cache>,
    uid: u64,
    pid: u64,
) -> Result<(Arc<Workload>, Arc<WorkloadSet>, Arc<SetNow>), Crowded> {
    let workload = Workload::new(Process { uid, pid });
    loop {
        let attested = workload
            .attested_since(std::time::Instant::now())
            .await
            .unwrap();
        let set = cache.set_for(&place(), &workload, &attested)?;
        let mut follow = set.follow();
        let settled = follow.wait_for(|now| now.outcome != Outcome::Pending).await;
        let now = settled.unwrap().clone();
        if WorkloadSet::is_for(&now, &attested) {
            return Ok((workload, set, now));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn id(now: &SetNow) -> String {
    now.svids[0].id.to_string()
}

fn room(of_one_user: usize, of_all: usize) -> Room {
    Room {
        of_one_user,
        of_all,
        rest: Duration::from_secs(60),
    }
}

#[tokio::test(start_paused = true)]
async fn who_differs_in_what_policy_looks_at_has_a_set_of_its_own() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, Room::default());
    let (_one, _, first) = ask(&cache, 7, 1).await.unwrap();
    assert_eq!(id(&first), "spiffe://one.example/1");
    let (_two, _, second) = ask(&cache, 7, 2).await.unwrap();
    assert_eq!(id(&second), "spiffe://one.example/2");
    // Another user, the same in what counts.
    let (_three, _, third) = ask(&cache, 8, 1).await.unwrap();
    assert!(Arc::ptr_eq(&first.svids[0], &third.svids[0]));
    assert_eq!(issuer.issued(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_shared_by_those_whom_it_concerns() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, Room::default());
    issuer.refuses.store(true, Ordering::Relaxed);
    let (_one, _, now) = ask(&cache, 7, 1).await.unwrap();
    assert_eq!(now.outcome, Outcome::Refused);
    issuer.refuses.store(false, Ordering::Relaxed);
    let (_two, _, now) = ask(&cache, 7, 2).await.unwrap();
    assert_eq!(now.outcome, Outcome::Held);
    let (_three, _, now) = ask(&cache, 7, 1).await.unwrap();
    assert_eq!(now.outcome, Outcome::Refused, "until it is asked again");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_one_workload_is_not_everybodys() {
    let issuer = Issuer::new();
    issuer.shares.store(true, Ordering::Relaxed);
    let cache = cache(&issuer, Room::default());
    let before = ask(&cache, 7, NOT_UNDERSTOOD).await.unwrap();
    assert_eq!(before.2.outcome, Outcome::Refused);
    let held = ask(&cache, 7, 1).await.unwrap();
    assert_eq!(held.2.outcome, Outcome::Held);
    let other = ask(&cache, 7, 2).await.unwrap();
    assert_eq!(other.2.outcome, Outcome::Held);
    assert_eq!(
        issuer.issued(),
        2,
        "one that was not understood, one for all others"
    );
    drop(before);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_while_the_issuer_is_away_and_then_it_is() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, Room::default());
    issuer.is_away.store(true, Ordering::Relaxed);
    let (_workload, set, now) = ask(&cache, 7, 1).await.unwrap();
    assert_eq!(now.outcome, Outcome::Unavailable);
    issuer.is_away.store(false, Ordering::Relaxed);
    let mut follow = set.follow();
    let held = follow
        .wait_for(|now| now.outcome == Outcome::Held)
        .await
        .unwrap();
    assert_eq!(id(&held), "spiffe://one.example/1");
}

#[tokio::test(start_paused = true)]
async fn a_user_with_too_many_different_workloads_is_told_and_nobody_else_is() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, room(3, 100));
    let mut alive = vec![];
    for pid in 1..=3 {
        alive.push(ask(&cache, 7, pid).await.unwrap());
    }
    let refused = ask(&cache, 7, 4).await.unwrap_err();
    assert_eq!(refused, Crowded("by this user"));
    assert_eq!(issuer.issued(), 3);
    // What is shared needs no room, and others have theirs.
    ask(&cache, 7, 1).await.unwrap();
    ask(&cache, 8, 5).await.unwrap();
    assert_eq!(issuer.issued(), 4);
}

#[tokio::test(start_paused = true)]
async fn ids_that_a_user_has_been_lent_count_for_that_user() {
    let issuer = Issuer::new();
    let home = tempfile::tempdir().unwrap();
    let subuid = home.path().join("subuid");
    std::fs::write(&subuid, "1007:100000:65536\n").unwrap();
    let cache = cache_of(&issuer, room(3, 100), Owners::of(subuid, "/etc/passwd"));
    let mut alive = vec![];
    for (uid, pid) in [(100_000, 1), (100_001, 2), (1007, 3)] {
        alive.push(ask(&cache, uid, pid).await.unwrap());
    }
    for uid in [100_002, 1007] {
        let refused = ask(&cache, uid, 4).await.unwrap_err();
        assert_eq!(refused, Crowded("by this user"));
    }
    ask(&cache, 165_536, 5).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_set_that_nobody_uses_gives_way_after_a_while() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, room(2, 100));
    let (gone, set, _) = ask(&cache, 7, 1).await.unwrap();
    let _stays = ask(&cache, 7, 2).await.unwrap();
    drop((gone, set));
    // A process that is restarted finds its set meanwhile.
    let refused = ask(&cache, 7, 3).await.unwrap_err();
    assert_eq!(refused, Crowded("by this user"));
    tokio::time::advance(Duration::from_secs(61)).await;
    let (_new, _, now) = ask(&cache, 7, 3).await.unwrap();
    assert_eq!(id(&now), "spiffe://one.example/3");
    ask(&cache, 7, 2).await.unwrap();
    assert_eq!(issuer.issued(), 3, "the one in use stayed");
    assert!(ask(&cache, 7, 1).await.is_err(), "both are in use");
}

#[tokio::test(start_paused = true)]
async fn all_users_together_have_a_bound_too() {
    let issuer = Issuer::new();
    let cache = cache(&issuer, room(10, 3));
    let mut alive = vec![];
    for uid in 1..=3 {
        alive.push(ask(&cache, uid, uid).await.unwrap());
    }
    let refused = ask(&cache, 4, 4).await.unwrap_err();
    assert_eq!(refused, Crowded("by all users of this machine"));
    tokio::time::advance(Duration::from_secs(61)).await;
    alive.remove(0);
    ask(&cache, 4, 4).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_goes_only_to_whom_it_would_be_issued() {
    let issuer = Issuer::new();
    issuer.shares.store(true, Ordering::Relaxed);
    let cache = cache(&issuer, Room::default());
    let token = async |pid| {
        let (workload, set, now) = ask(&cache, 7, pid).await.unwrap();
        let attested = workload
            .attested_since(std::time::Instant::now())
            .await
            .unwrap();
        let audiences = ["db".to_owned()];
        let token = set.token(&cache, &now.svids[0], &audiences, &attested);
        token.await.unwrap().0
    };
    assert_eq!(token(1).await, "jwt-of-1");
    assert_eq!(token(1).await, "jwt-of-1");
    assert_eq!(issuer.issued(), 2, "a set, and one token that is kept");
    // A member of the same set, and not the same in what the token depends on.
    assert_eq!(token(2).await, "jwt-of-2");
    assert_eq!(issuer.issued(), 3);
}

/// A workload that asks for tokens of a set for everybody.
struct Asker {
    cache: Arc<Cache>,
    set: Arc<WorkloadSet>,
    now: Arc<SetNow>,
    attested: Attested,
    _workload: Arc<Workload>,
}

impl Asker {
    async fn new(issuer: &Arc<Issuer>) -> Arc<Self> {
        issuer.shares.store(true, Ordering::Relaxed);
        let cache = cache(issuer, Room::default());
        let (workload, set, now) = ask(&cache, 7, 1).await.unwrap();
        let attested = workload.attested_since(std::time::Instant::now()).await;
        Arc::new(Self {
            cache,
            set,
            now,
            attested: attested.unwrap(),
            _workload: workload,
        })
    }

    async fn token(&self) -> Result<String, TokenError> {
        self.token_for("db").await
    }

    async fn token_for(&self, audience: &str) -> Result<String, TokenError> {
        let audiences = [audience.to_owned()];
        let svid = &self.now.svids[0];
        let token = self
            .set
            .token(&self.cache, svid, &audiences, &self.attested);
        token.await.map(|(token, _)| token)
    }

    /// How long so many take who ask at one time.
    async fn all(self: &Arc<Self>, count: usize) -> Duration {
        let begun = Instant::now();
        let all: Vec<_> = (0..count)
            .map(|_| {
                let asker = self.clone();
                tokio::spawn(async move { asker.token().await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap().unwrap(), "jwt-of-1");
        }
        begun.elapsed()
    }
}

/// By the clock that nobody sets.
const HALF_LIFE: Duration = Duration::from_secs(31 * 60);

#[tokio::test(start_paused = true)]
async fn a_token_is_served_at_once_while_packets_to_the_issuer_are_lost() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    asker.token().await.unwrap();
    issuer.hangs.store(true, Ordering::Relaxed);
    tokio::time::advance(HALF_LIFE).await;
    // Those who ask first wait for the renewal a little; they do so side by side.
    assert!(asker.all(20).await <= Duration::from_secs(1));
    // The others do not, neither while it goes on nor for a while after it has failed.
    assert_eq!(asker.all(20).await, Duration::ZERO);
    tokio::time::advance(CALL).await;
    assert_eq!(asker.all(20).await, Duration::ZERO);
    // It is there again.
    issuer.hangs.store(false, Ordering::Relaxed);
    let issued = issuer.issued();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(asker.all(20).await, Duration::ZERO);
    assert_eq!(issuer.issued(), issued + 1);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_served_beyond_its_life_by_whichever_clock() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    asker.token().await.unwrap();
    issuer.is_away.store(true, Ordering::Relaxed);
    // The wall clock of this test does not move: it is as one that is set back.
    tokio::time::advance(HOUR).await;
    let error = asker.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_waits_for_any_more_is_had_all_the_same() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    let issued = issuer.issued();
    // It gives up before the issuer has answered.
    assert!(futures_util::FutureExt::now_or_never(asker.token()).is_none());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(issuer.issued(), issued + 1);
    asker.token().await.unwrap();
    assert_eq!(issuer.issued(), issued + 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_order_the_issuer_is_asked_although_there_is_a_token() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    asker.token().await.unwrap();
    let order = || asker.cache.keeping().trust.order_now();
    issuer.refuses.store(true, Ordering::Relaxed);
    order();
    let error = asker.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Refused(_)), "{error}");

    issuer.refuses.store(false, Ordering::Relaxed);
    asker.token().await.unwrap();
    // It is away, and then it orders: it can be asked.
    issuer.is_away.store(true, Ordering::Relaxed);
    order();
    asker.token().await.unwrap();
    issuer.is_away.store(false, Ordering::Relaxed);
    issuer.refuses.store(true, Ordering::Relaxed);
    order();
    let error = asker.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Refused(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_ever_other_tokens_is_stopped_and_keeps_those_that_are_there() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    asker.token().await.unwrap();
    let mut number = 0;
    let error = loop {
        number += 1;
        match asker.token_for(&number.to_string()).await {
            Ok(_) => assert!(number < 2_000),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("too many different"), "{error}");
    asker.token().await.unwrap();
    // Another user has room.
    let another = Workload::new(Process { uid: 8, pid: 1 });
    let attested = another.attested_since(std::time::Instant::now()).await;
    let attested = attested.unwrap();
    let audiences = ["another".to_owned()];
    let svid = &asker.now.svids[0];
    let token = (asker.set).token(&asker.cache, svid, &audiences, &attested);
    token.await.unwrap();
}

/// It may be slow to answer, and the answer that it is not granted any more.
#[tokio::test(start_paused = true)]
async fn after_an_order_a_slow_issuer_is_waited_for_until_the_call_has_failed() {
    let issuer = Issuer::new();
    let asker = Asker::new(&issuer).await;
    asker.token().await.unwrap();
    issuer.hangs.store(true, Ordering::Relaxed);
    asker.cache.keeping().trust.order_now();
    assert_eq!(asker.all(20).await, CALL);
    // It has failed under this order: for a while nobody waits again.
    assert_eq!(asker.all(20).await, Duration::ZERO);
}
