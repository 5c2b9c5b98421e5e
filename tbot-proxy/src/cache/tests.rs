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
}

impl Issuer {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            issued: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            shares: AtomicBool::new(false),
        })
    }

    fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
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
    let trust = Trust::new(TrustBundleSet::default());
    trust.order_now();
    let issuer = issuer.clone();
    let keeping = Keeping {
        issuance: Issuance::scripted(move |request| issuer.answer(request)),
        trust,
        bot: watch::channel(IdentityState::held()).1,
        roll: Arc::default(),
        sealed: Arc::default(),
    };
    Cache::with_room(keeping, room)
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
        let token = set.token(cache.keeping(), &now.svids[0], &audiences, &attested);
        token.await.unwrap().0
    };
    assert_eq!(token(1).await, "jwt-of-1");
    assert_eq!(token(1).await, "jwt-of-1");
    assert_eq!(issuer.issued(), 2, "a set, and one token that is kept");
    // A member of the same set, and not the same in what the token depends on.
    assert_eq!(token(2).await, "jwt-of-2");
    assert_eq!(issuer.issued(), 3);
}
