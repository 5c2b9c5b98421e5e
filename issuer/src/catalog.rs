//! What decisions read, in memory.
//!
//! A catalog is the resources, instances, authorities and counters of the store
//! as of one revision. It never changes; the next revision is another catalog that
//! shares with this one all that is the same, so that to make it costs what has
//! changed and not what there is. A decision that reads one catalog throughout
//! reads one state of the world.
//!
//! Resources are held as they are stored and read ("compiled") when they are first
//! asked for, so that a start with very many of them does not wait for that. What
//! is in the store but cannot be understood is an error to whoever asks for it,
//! never something that is silently not there.

mod labels;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use prost::Message;
use proto::admin::v1 as pb;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use self::labels::{LabelIndex, Labels};
use crate::{
    authority::StoredAuthority,
    resources::{Kind, LabelSelector, LockTarget, Resource, Spec},
    store::{StoreError, instances::BotInstance, resources::decode},
};

type Resources = RedBlackTreeMapSync<Arc<str>, Arc<Entry>>;

/// What decisions read, as of one revision of the store.
#[derive(Clone, Default)]
pub struct Catalog {
    revision: u64,
    policy_revision: u64,
    kinds: BTreeMap<Kind, Resources>,
    /// Of the workload identities.
    labels: LabelIndex,
    locks: Locks,
    instances: HashTrieMapSync<Arc<str>, Arc<BotInstance>>,
    authorities: BTreeMap<String, Arc<StoredAuthority>>,
    settings: BTreeMap<String, String>,
}

/// Names of locks, by whom they are on. There are few.
#[derive(Clone, Default)]
struct Locks {
    by_target: BTreeMap<LockTarget, BTreeSet<Arc<str>>>,
    unreadable: BTreeSet<Arc<str>>,
}

/// A resource as it is stored, and as it was understood.
struct Entry {
    revision: u64,
    content: Box<[u8]>,
    labels: Labels,
    compiled: OnceLock<Result<Arc<Resource>, StoreError>>,
}

impl Catalog {
    /// Rises by one with each commit that changes what is in here.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest revision that changed what decisions on SVIDs read of policy: bots,
    /// roles, workload identities, locks, policies of signatures.
    pub fn policy_revision(&self) -> u64 {
        self.policy_revision
    }

    /// Notes at which revision something of a kind changed.
    pub fn note_change(&mut self, kind: Kind, revision: u64) {
        let is_policy = match kind {
            Kind::Bot | Kind::Role | Kind::WorkloadIdentity | Kind::Lock | Kind::SigstorePolicy => {
                true
            }
            // A bundle of others changes with their keys, and agents are told of it.
            Kind::SpiffeFederation | Kind::Token => false,
        };
        if is_policy {
            self.policy_revision = self.policy_revision.max(revision);
        }
    }

    /// The bot of this name.
    pub fn bot(&self, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        self.resource(Kind::Bot, name)
    }

    /// The role of this name.
    pub fn role(&self, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        self.resource(Kind::Role, name)
    }

    /// The workload identity of this name.
    pub fn workload_identity(&self, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        self.resource(Kind::WorkloadIdentity, name)
    }

    /// The policy of signatures of this name.
    pub fn sigstore_policy(&self, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        self.resource(Kind::SigstorePolicy, name)
    }

    /// The foreign trust domain of this name.
    pub fn federation(&self, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        self.resource(Kind::SpiffeFederation, name)
    }

    /// Every foreign trust domain, by name.
    pub fn federations(&self) -> impl Iterator<Item = Result<Arc<Resource>, StoreError>> + '_ {
        self.resources(Kind::SpiffeFederation, None)
    }

    /// A lock that is in force `now` on one of these. A lock that cannot be
    /// understood is an error to all, for it may be on anyone.
    pub fn lock_on(
        &self,
        targets: &[LockTarget],
        now: SystemTime,
    ) -> Result<Option<Arc<Resource>>, StoreError> {
        if let Some(name) = self.locks.unreadable.first() {
            let why = format!("lock {name} cannot be read, so nobody is let in: delete it");
            return Err(StoreError::Damaged(why));
        }
        for target in targets {
            let locks = self.locks.by_target.get(target).into_iter();
            for name in locks.flat_map(|names| names.iter()) {
                let Some(lock) = self.resource(Kind::Lock, name)? else {
                    continue;
                };
                if lock.metadata.expires.is_none_or(|expires| now < expires) {
                    return Ok(Some(lock));
                }
            }
        }
        Ok(None)
    }

    /// Names of the locks on this, expired ones too.
    pub fn locks_of(&self, target: &LockTarget) -> Vec<Arc<str>> {
        let locks = self.locks.by_target.get(target).into_iter().flatten();
        locks.cloned().collect()
    }

    /// The resource of this kind and name. (Join tokens are not in the catalog.)
    pub fn resource(&self, kind: Kind, name: &str) -> Result<Option<Arc<Resource>>, StoreError> {
        match self.kinds.get(&kind).and_then(|kind| kind.get(name)) {
            Some(entry) => entry.compiled(kind).map(Some),
            None => Ok(None),
        }
    }

    /// Those of a kind whose names come after `after`, in the order of their names.
    pub fn resources<'c>(
        &'c self,
        kind: Kind,
        after: Option<&'c str>,
    ) -> impl Iterator<Item = Result<Arc<Resource>, StoreError>> + 'c {
        self.kinds
            .get(&kind)
            .into_iter()
            .flat_map(move |entries| entries.range::<str, _>(labels::names_after(after)))
            .map(move |(_, entry)| entry.compiled(kind))
    }

    /// As [`Catalog::resources`], as they were written and not compiled: for showing
    /// very many.
    pub fn stored<'c>(
        &'c self,
        kind: Kind,
        after: Option<&'c str>,
    ) -> impl Iterator<Item = Result<pb::Resource, StoreError>> + 'c {
        self.kinds
            .get(&kind)
            .into_iter()
            .flat_map(move |entries| entries.range::<str, _>(labels::names_after(after)))
            .map(move |(name, entry)| entry.stored(kind, name))
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, RedBlackTreeMapSync::size)
    }

    /// The workload identities that a selector selects, after the name `after`, in
    /// the order of their names. Only those that have one of the selector's labels
    /// are looked at.
    pub fn select<'c>(
        &'c self,
        selector: &'c LabelSelector,
        after: Option<&'c str>,
    ) -> impl Iterator<Item = Selected<'c>> + 'c {
        self.candidates(selector, after)
            .filter(|candidate| candidate.is_selected_by(selector))
    }

    /// Those that [`Catalog::select`] looks at: who bounds how many that are asks each
    /// itself.
    pub fn candidates<'c>(
        &'c self,
        selector: &LabelSelector,
        after: Option<&'c str>,
    ) -> impl Iterator<Item = Selected<'c>> + use<'c> {
        let all = self.kinds.get(&Kind::WorkloadIdentity);
        let candidates = match labels::fewest(selector, &self.labels) {
            labels::Candidates::Everyone => {
                let names = all.into_iter().flat_map(move |entries| {
                    entries
                        .range::<str, _>(labels::names_after(after))
                        .map(|(name, _)| name)
                });
                Some(Box::new(names) as Box<dyn Iterator<Item = &'c Arc<str>> + Send + 'c>)
            }
            labels::Candidates::Among(sets) => Some(labels::merged(sets, after)),
            labels::Candidates::Nobody => None,
        };
        candidates.into_iter().flatten().filter_map(move |name| {
            let labels = &all?.get(name)?.labels;
            Some(Selected { name, labels })
        })
    }

    /// The joined instance of this id.
    pub fn instance(&self, instance_id: &str) -> Option<Arc<BotInstance>> {
        self.instances.get(instance_id).cloned()
    }

    /// Every joined instance, in no order.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<BotInstance>> {
        self.instances.values()
    }

    /// How many instances have joined.
    pub fn instance_count(&self) -> usize {
        self.instances.size()
    }

    /// The stored keys, by their ids.
    pub fn authorities(&self) -> impl Iterator<Item = &Arc<StoredAuthority>> {
        self.authorities.values()
    }

    /// A counter of the store ([`crate::store::settings`]); absent: 0.
    pub fn number(&self, key: &str) -> u64 {
        let number = self.settings.get(key).and_then(|text| text.parse().ok());
        number.unwrap_or(0)
    }
}

/// A workload identity that was selected, or may be.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'c> {
    /// Its name, for [`Catalog::workload_identity`].
    pub name: &'c str,
    labels: &'c Labels,
}

impl<'c> Selected<'c> {
    /// The value of one of its labels.
    pub fn label(&self, key: &str) -> Option<&'c str> {
        self.labels.get(key)
    }

    /// Whether its labels are those that a selector wants.
    pub fn is_selected_by(&self, selector: &LabelSelector) -> bool {
        selector.matches_by(|key| self.label(key))
    }
}

/// What the store's feed does to a catalog that is being made.
impl Catalog {
    pub(crate) fn at(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    pub(crate) fn put_resource(&mut self, kind: Kind, name: &str, revision: u64, content: &[u8]) {
        self.remove_resource(kind, name);
        // What cannot be read selects nothing, and says why when it is asked for.
        let metadata = pb::Resource::decode(content)
            .ok()
            .and_then(|resource| resource.metadata);
        let labels = match metadata {
            Some(metadata) if kind == Kind::WorkloadIdentity => {
                self.labels.interned(metadata.labels)
            }
            _ => Labels::default(),
        };
        let name: Arc<str> = name.into();
        self.labels.add(&name, &labels);
        let entry = Entry {
            revision,
            content: content.into(),
            labels,
            compiled: OnceLock::new(),
        };
        if kind == Kind::Lock {
            self.locks.add(&name, &entry);
        }
        self.kinds
            .entry(kind)
            .or_insert_with(Resources::new_sync)
            .insert_mut(name, Arc::new(entry));
    }

    pub(crate) fn remove_resource(&mut self, kind: Kind, name: &str) {
        let Some(entries) = self.kinds.get_mut(&kind) else {
            return;
        };
        if let Some(entry) = entries.get(name) {
            self.labels.remove(name, &entry.labels);
            if kind == Kind::Lock {
                self.locks.remove(name, entry);
            }
        }
        entries.remove_mut(name);
    }

    pub(crate) fn put_instance(&mut self, instance: BotInstance) {
        let id = instance.instance_id.as_str().into();
        self.instances.insert_mut(id, Arc::new(instance));
    }

    pub(crate) fn remove_instance(&mut self, instance_id: &str) {
        self.instances.remove_mut(instance_id);
    }

    pub(crate) fn put_authority(&mut self, authority: StoredAuthority) {
        self.authorities
            .insert(authority.key_id.clone(), Arc::new(authority));
    }

    pub(crate) fn remove_authority(&mut self, key_id: &str) {
        self.authorities.remove(key_id);
    }

    pub(crate) fn put_setting(&mut self, key: String, value: String) {
        self.settings.insert(key, value);
    }
}

impl Locks {
    fn add(&mut self, name: &Arc<str>, entry: &Entry) {
        match entry.lock_target() {
            Some(target) => {
                let names = self.by_target.entry(target).or_default();
                names.insert(name.clone());
            }
            None => {
                self.unreadable.insert(name.clone());
            }
        }
    }

    fn remove(&mut self, name: &str, entry: &Entry) {
        self.unreadable.remove(name);
        let Some(target) = entry.lock_target() else {
            return;
        };
        if let Some(names) = self.by_target.get_mut(&target) {
            names.remove(name);
            if names.is_empty() {
                self.by_target.remove(&target);
            }
        }
    }
}

impl Entry {
    fn stored(&self, kind: Kind, name: &str) -> Result<pb::Resource, StoreError> {
        let damaged = |why: String| StoreError::Damaged(format!("{kind} {name}: {why}"));
        let mut resource =
            pb::Resource::decode(&*self.content).map_err(|error| damaged(error.to_string()))?;
        match &mut resource.metadata {
            Some(metadata) => metadata.revision = self.revision,
            None => return Err(damaged("it has no metadata".to_owned())),
        }
        Ok(resource)
    }

    /// Whom a lock is on; none if it cannot be read.
    fn lock_target(&self) -> Option<LockTarget> {
        match &self.compiled(Kind::Lock).ok()?.spec {
            Spec::Lock(lock) => Some(lock.target.clone()),
            _ => None,
        }
    }

    fn compiled(&self, kind: Kind) -> Result<Arc<Resource>, StoreError> {
        self.compiled
            .get_or_init(|| decode(kind, self.revision, &self.content).map(Arc::new))
            .clone()
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
