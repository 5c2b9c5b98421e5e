//! The identities of local workloads, for the servers that hand them out.
//!
//! A caller is attested when it begins to ask, and again before anything new reaches it:
//! what was granted for the process as it was a while ago is not handed to what it has
//! become since. What the caller is decides which set of the [`Cache`] it follows.

mod brokered;
mod caller;
mod following;
mod serving;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use attest::{Attestors, Process, ProcessKey, Processes};
use futures_util::{
    StreamExt,
    future::{BoxFuture, try_join_all},
    stream::{self, BoxStream},
};
use identity::{SpiffeId, TrustBundleSet};
use tokio::net::{TcpStream, UnixStream};
use workload_api::{Backend, BundleContext, Denied, IssuedJwt, WitContext, X509Context};

pub(crate) use self::serving::ApiTask;
use self::{
    caller::{Local, Unattested},
    following::Following,
};
use crate::{
    cache::{Cache, TokenError, Workload, WorkloadSet},
    configuration::Selector,
    kept::{SetKind, SetNow},
};

/// How long a call waits for what is being asked of the issuer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Identities that one selector yields, for whoever calls.
#[derive(Debug)]
pub(crate) struct WorkloadIdentities {
    selector: Selector,
    cache: Arc<Cache>,
    attestors: Arc<Attestors>,
    processes: Processes,
    /// By process, for as long as it is connected.
    workloads: Mutex<HashMap<ProcessKey, Weak<Workload>>>,
}

/// One that has connected.
#[derive(Debug)]
pub(crate) struct Caller(Arc<Workload>);

impl WorkloadIdentities {
    pub(crate) fn new(selector: Selector, cache: Arc<Cache>, attestors: Arc<Attestors>) -> Self {
        Self {
            selector,
            cache,
            attestors,
            processes: Processes::new(),
            workloads: Mutex::default(),
        }
    }

    /// The workload that a process is: connections of one process share it.
    fn workload(&self, process: Arc<Process>) -> Arc<Workload> {
        let mut workloads = self
            .workloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = process.key();
        if let Some(workload) = workloads.get(&key).and_then(Weak::upgrade) {
            return workload;
        }
        if workloads.len() == workloads.capacity() {
            workloads.retain(|_, workload| workload.strong_count() > 0);
        }
        let workload = Workload::new(Local {
            process,
            attestors: self.attestors.clone(),
        });
        workloads.insert(key, Arc::downgrade(&workload));
        workload
    }

    fn follow(&self, caller: &Caller, kind: SetKind) -> Following {
        let place = (self.selector.clone(), kind);
        Following::new(self.cache.clone(), place, caller.0.clone())
    }

    /// What a caller has now, once that is known.
    async fn settled(&self, caller: &Caller) -> Result<(Arc<WorkloadSet>, Arc<SetNow>), Denied> {
        let mut following = self.follow(caller, SetKind::X509);
        match tokio::time::timeout(PATIENCE, following.next()).await {
            Ok(now) => now,
            Err(_) => Err(not_yet()),
        }
    }
}

fn not_yet() -> Denied {
    Denied::Unavailable("the issuer has not answered yet: try again".to_owned())
}

impl Backend for WorkloadIdentities {
    type Caller = Caller;

    fn accepted_unix(&self, stream: &UnixStream) -> io::Result<Caller> {
        let process = self.processes.of_peer(stream).map_err(io::Error::other)?;
        Ok(Caller(self.workload(process)))
    }

    fn accepted_tcp(&self, _: &TcpStream) -> io::Result<Caller> {
        Ok(Caller(Workload::new(Unattested)))
    }

    fn counts_for(&self, uid: u32) -> u32 {
        self.cache.owner(uid)
    }

    fn ended(&self, caller: &Arc<Caller>) -> BoxFuture<'static, ()> {
        caller.0.ended()
    }

    fn x509(&self, caller: &Arc<Caller>) -> BoxStream<'static, Result<Arc<X509Context>, Denied>> {
        changes(self.follow(caller, SetKind::X509), |now| {
            now.contexts.x509()
        })
    }

    fn bundles(
        &self,
        caller: &Arc<Caller>,
    ) -> BoxStream<'static, Result<Arc<BundleContext>, Denied>> {
        changes(self.follow(caller, SetKind::X509), |now| {
            now.contexts.bundles()
        })
    }

    async fn jwt(
        &self,
        caller: &Arc<Caller>,
        audiences: &[String],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<IssuedJwt>, Denied> {
        let (set, now) = self.settled(caller).await?;
        let attested = caller.0.attested_since(now.attested.at).await;
        let attested = attested.map_err(following::denied)?;
        let wanted = now
            .svids
            .iter()
            .filter(|svid| id.is_none_or(|id| svid.id == *id));
        let tokens = wanted.map(async |svid| {
            let token = set.token(&self.cache, svid, audiences, &attested);
            let Ok(token) = tokio::time::timeout(PATIENCE, token).await else {
                return Err(not_yet());
            };
            let (token, not_after) = match token {
                Ok(issued) => issued,
                // Granted as an X509-SVID, and not as this.
                Err(TokenError::Refused(_)) if id.is_none() => return Ok(None),
                Err(TokenError::Refused(why)) => return Err(Denied::NoIdentity(why)),
                Err(TokenError::Unavailable(why)) => return Err(Denied::Unavailable(why)),
            };
            Ok(Some(IssuedJwt {
                id: svid.id.clone(),
                token,
                hint: svid.hint.clone(),
                not_after,
            }))
        });
        let tokens: Vec<_> = try_join_all(tokens).await?.into_iter().flatten().collect();
        match (tokens.is_empty(), id) {
            (false, _) => Ok(tokens),
            (true, Some(id)) => Err(Denied::NoIdentity(format!("this workload is not {id}"))),
            (true, None) => Err(Denied::NoIdentity(
                "no JWT-SVID is granted to this workload".to_owned(),
            )),
        }
    }

    fn wit(
        &self,
        caller: &Arc<Caller>,
        id: Option<&SpiffeId>,
    ) -> BoxStream<'static, Result<Arc<WitContext>, Denied>> {
        let id = id.cloned();
        changes(self.follow(caller, SetKind::Wit), move |now| {
            now.contexts.wit(id.as_ref())
        })
    }

    fn trust(&self) -> Arc<TrustBundleSet> {
        self.cache.keeping().trust.bundles().borrow().clone()
    }
}

/// What `part` shows of each change, unless it is what it showed before; the error that
/// ends it last.
fn changes<T, P>(following: Following, part: P) -> BoxStream<'static, Result<Arc<T>, Denied>>
where
    T: PartialEq + Send + Sync + 'static,
    P: Fn(&SetNow) -> Option<Arc<T>> + Send + 'static,
{
    struct State<T, P> {
        following: Following,
        part: P,
        shown: Option<Arc<T>>,
    }
    let state = State {
        following,
        part,
        shown: None,
    };
    stream::unfold(Some(state), async |state| {
        let mut state = state?;
        loop {
            let now = match state.following.next().await {
                Ok((_, now)) => now,
                Err(denied) => return Some((Err(denied), None)),
            };
            let Some(item) = (state.part)(&now) else {
                let why = "this workload has no such identity".to_owned();
                return Some((Err(Denied::NoIdentity(why)), None));
            };
            let is_shown = |shown: &Arc<T>| Arc::ptr_eq(shown, &item) || **shown == *item;
            if !state.shown.as_ref().is_some_and(is_shown) {
                state.shown = Some(item.clone());
                return Some((Ok(item), Some(state)));
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
