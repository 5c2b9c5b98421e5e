//! A backend for tests: real SVIDs of a test CA, changed by the test.
//!
//! Only behind the feature `testing`; it panics where a test would.
#![allow(clippy::expect_used)]

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use identity::{
    Algorithm, Jwk, SpiffeId, TrustBundle, TrustBundleSet,
    testing::{TestCa, TokenSigner},
};
use serde_json::json;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    Backend, BundleContext, Denied, HeldX509, IssuedJwt, IssuedWit, WitContext, X509Context,
    broker::{Broker, KubernetesObject, Reference, Unresolved},
};

type State<T> = watch::Sender<Result<Arc<T>, Denied>>;

/// One trust domain, and what its callers hold: all the same, whoever they are.
pub struct TestBackend {
    ca: Mutex<TestCa>,
    jwt_signer: TokenSigner,
    wit_signer: TokenSigner,
    federated: Mutex<Vec<TrustBundle>>,
    identities: Mutex<Vec<(String, String)>>,
    x509: State<X509Context>,
    bundles: State<BundleContext>,
    wit: State<WitContext>,
    ended: Mutex<CancellationToken>,
    callers: AtomicUsize,
    all_users: AtomicBool,
}

impl TestBackend {
    /// `trust_domain`, whose callers hold an SVID for each of these paths and hints.
    ///
    /// # Panics
    /// If a path makes no SPIFFE ID.
    pub fn new(trust_domain: &str, identities: &[(&str, &str)]) -> Arc<Self> {
        let none = || Err(Denied::Unavailable("not yet".to_owned()));
        let own = |(path, hint): &(&str, &str)| ((*path).to_owned(), (*hint).to_owned());
        let backend = Self {
            ca: Mutex::new(TestCa::new(trust_domain)),
            jwt_signer: TokenSigner::new(Algorithm::Es256),
            wit_signer: TokenSigner::new(Algorithm::Es256),
            federated: Mutex::default(),
            identities: Mutex::new(identities.iter().map(own).collect()),
            x509: watch::Sender::new(none()),
            bundles: watch::Sender::new(Err(Denied::Unavailable("not yet".to_owned()))),
            wit: watch::Sender::new(Err(Denied::Unavailable("not yet".to_owned()))),
            ended: Mutex::default(),
            callers: AtomicUsize::new(0),
            all_users: AtomicBool::new(false),
        };
        backend.rotate();
        Arc::new(backend)
    }

    /// The CA of now.
    pub fn ca(&self) -> TestCa {
        lock(&self.ca).clone()
    }

    /// The key that signs JWT-SVIDs.
    pub fn jwt_signer(&self) -> &TokenSigner {
        &self.jwt_signer
    }

    /// New SVIDs of the same CA for all.
    pub fn rotate(&self) {
        let context = self.context();
        drop(self.bundles.send_replace(Ok(context.bundles.clone())));
        drop(
            self.wit
                .send_replace(Ok(Arc::new(self.wit_context(&context)))),
        );
        drop(self.x509.send_replace(Ok(Arc::new(context))));
    }

    /// A new CA, and new SVIDs by it. The bundle holds only the new one.
    pub fn replace_ca(&self) {
        let trust_domain = self.ca().trust_domain().to_string();
        *lock(&self.ca) = TestCa::new(&trust_domain);
        self.rotate();
    }

    /// Other identities.
    pub fn set_identities(&self, identities: &[(&str, &str)]) {
        let own = |(path, hint): &(&str, &str)| ((*path).to_owned(), (*hint).to_owned());
        *lock(&self.identities) = identities.iter().map(own).collect();
        self.rotate();
    }

    /// Other federated trust bundles.
    pub fn federate(&self, bundles: Vec<TrustBundle>) {
        *lock(&self.federated) = bundles;
        self.rotate();
    }

    /// All callers are refused from now on.
    pub fn deny(&self, denied: &Denied) {
        drop(self.x509.send_replace(Err(denied.clone())));
        drop(self.bundles.send_replace(Err(denied.clone())));
        drop(self.wit.send_replace(Err(denied.clone())));
    }

    /// This state for all callers.
    pub fn set_x509(&self, context: X509Context) {
        drop(self.x509.send_replace(Ok(Arc::new(context))));
    }

    /// These bundles for all callers.
    pub fn set_bundles(&self, context: BundleContext) {
        drop(self.bundles.send_replace(Ok(Arc::new(context))));
    }

    /// The processes of all connections end.
    pub fn end_processes(&self) {
        lock(&self.ended).cancel();
    }

    /// Whether all users count as one, from now on.
    pub fn count_users_as_one(&self, all: bool) {
        self.all_users.store(all, Ordering::Relaxed);
    }

    /// How many connections have come.
    pub fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }

    /// What callers hold, made anew.
    pub fn context(&self) -> X509Context {
        let ca = self.ca();
        let svid = |(path, hint): &(String, String)| HeldX509 {
            svid: Arc::new(ca.svid(path, Duration::from_secs(3600))),
            hint: hint.clone(),
        };
        X509Context {
            svids: lock(&self.identities).iter().map(svid).collect(),
            bundles: Arc::new(BundleContext {
                own: ca.trust_domain().clone(),
                bundles: self.trust(),
            }),
        }
    }

    fn wit_context(&self, context: &X509Context) -> WitContext {
        let wit = |held: &HeldX509| {
            let (leaf, key) = (held.svid.leaf(), held.svid.key_pkcs8_der());
            IssuedWit {
                id: leaf.id().clone(),
                token: self.wit_token(leaf.id()),
                key_pkcs8: Arc::new(Zeroizing::new(key.to_vec())),
                hint: held.hint.clone(),
                not_after: held.svid.not_after(),
            }
        };
        WitContext {
            svids: context.svids.iter().map(wit).collect(),
            bundles: context.bundles.clone(),
        }
    }

    fn wit_token(&self, id: &SpiffeId) -> String {
        let mut jwk = Jwk::members(self.wit_signer.public()).clone();
        jwk.insert("alg".to_owned(), json!("ES256"));
        let claims = json!({"sub": id.as_str(), "exp": seconds(3600), "cnf": {"jwk": jwk}});
        let header = self.wit_signer.header("wit+jwt");
        self.wit_signer.token(&header, &claims)
    }

    fn token(&self, id: &SpiffeId, audiences: &[String]) -> String {
        let claims = json!({
            "sub": id.as_str(), "aud": audiences, "iat": seconds(0), "exp": seconds(300),
        });
        self.jwt_signer
            .token(&self.jwt_signer.header("JWT"), &claims)
    }
}

impl Backend for TestBackend {
    type Caller = ();

    fn accepted_unix(&self, _: &UnixStream) -> io::Result<()> {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn accepted_tcp(&self, _: &TcpStream) -> io::Result<()> {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn counts_for(&self, uid: u32) -> u32 {
        if self.all_users.load(Ordering::Relaxed) {
            return 0;
        }
        uid
    }

    fn ended(&self, _: &Arc<()>) -> BoxFuture<'static, ()> {
        Box::pin(lock(&self.ended).clone().cancelled_owned())
    }

    fn x509(&self, _: &Arc<()>) -> BoxStream<'static, Result<Arc<X509Context>, Denied>> {
        follow(&self.x509)
    }

    fn bundles(&self, _: &Arc<()>) -> BoxStream<'static, Result<Arc<BundleContext>, Denied>> {
        follow(&self.bundles)
    }

    async fn jwt(
        &self,
        _: &Arc<()>,
        audiences: &[String],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<IssuedJwt>, Denied> {
        let context = self.x509.borrow().clone()?;
        let issued: Vec<_> = context
            .svids
            .iter()
            .filter(|held| id.is_none_or(|id| held.svid.id() == id))
            .map(|held| IssuedJwt {
                id: held.svid.id().clone(),
                token: self.token(held.svid.id(), audiences),
                hint: held.hint.clone(),
                not_after: SystemTime::now() + Duration::from_secs(300),
            })
            .collect();
        match issued.is_empty() {
            true => Err(Denied::NoIdentity("no such identity".to_owned())),
            false => Ok(issued),
        }
    }

    fn wit(
        &self,
        _: &Arc<()>,
        id: Option<&SpiffeId>,
    ) -> BoxStream<'static, Result<Arc<WitContext>, Denied>> {
        let id = id.cloned();
        let only = move |state: Result<Arc<WitContext>, Denied>| {
            let mut context = WitContext::clone(&*state?);
            context
                .svids
                .retain(|wit| id.as_ref().is_none_or(|id| wit.id == *id));
            Ok(Arc::new(context))
        };
        follow(&self.wit).map(only).boxed()
    }

    fn trust(&self) -> Arc<TrustBundleSet> {
        let own = self.ca().bundle();
        let own = own
            .with_jwt_authorities(vec![self.jwt_signer.authority()])
            .with_wit_authorities(vec![self.wit_signer.authority()]);
        let others = lock(&self.federated).clone();
        Arc::new(TrustBundleSet::new(others.into_iter().chain([own])))
    }
}

/// Process id of the one workload that [`Broker::resolve`] knows.
pub const KNOWN_PID: u32 = 4242;
/// UID of the one pod, `web-0` in `default`, that it knows.
pub const KNOWN_POD: &str = "a1b2c3d4-0000-4000-8000-000000000001";

impl Broker for TestBackend {
    async fn resolve(&self, reference: &Reference) -> Result<Arc<()>, Unresolved> {
        let not_found = || Err(Unresolved::NotFound("no such workload".to_owned()));
        match reference {
            Reference::Pid(pid) if pid.get() == KNOWN_PID => Ok(Arc::new(())),
            Reference::Pid(_) => not_found(),
            Reference::Kubernetes(object) => {
                let KubernetesObject {
                    plural,
                    group,
                    key,
                    uid,
                } = object;
                if (plural.as_str(), group.as_str()) != ("pods", "core") {
                    return Err(Unresolved::Invalid("only pods are known here".to_owned()));
                }
                let by_key = key.as_ref().map(|(namespace, name)| {
                    (namespace.as_str(), name.as_str()) == ("default", "web-0")
                });
                let by_uid = uid.as_ref().map(|uid| uid == KNOWN_POD);
                match (by_key, by_uid) {
                    (Some(true), Some(false)) => {
                        Err(Unresolved::Invalid("this pod has another UID".to_owned()))
                    }
                    (Some(false), _) | (None, Some(false)) => not_found(),
                    _ => Ok(Arc::new(())),
                }
            }
        }
    }
}

impl std::fmt::Debug for TestBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestBackend").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(from_now: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("a clock after 1970").as_secs() + from_now
}

/// The state of now, and each one after it, until an error.
fn follow<T: Send + Sync + 'static>(
    state: &State<T>,
) -> BoxStream<'static, Result<Arc<T>, Denied>> {
    let mut states = state.subscribe();
    states.mark_changed();
    stream::unfold(Some(states), |states| async {
        let mut states = states?;
        states.changed().await.ok()?;
        let now = states.borrow_and_update().clone();
        let next = now.is_ok().then_some(states);
        Some((now, next))
    })
    .boxed()
}
