//! How the catalog follows the store.
//!
//! Rows that decisions read carry the revision that changed them last, and what
//! is deleted leaves a tombstone with one. So whoever knows a revision reads only
//! what came after it: a transaction through its own eyes, an issuer from what
//! another has committed.
//!
//! A database can lose its newest commits, when a replica takes over that had not got
//! them; then numbers come again, with other content. The audit chain tells: who knows
//! the link of an event that the database does not have has another past, and reads
//! everything anew.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use sqlx::{AnyConnection, AnyPool, Row, postgres::PgListener};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{
    Database, PostgresAddress, StoreError, audit, authorities, head, head::Head, instances,
    instances::BotInstance, settings, to_i64, to_u64,
};
use crate::{audit::chain::Hash, authority::StoredAuthority, catalog::Catalog, resources::Kind};

/// Tombstone of a joined instance.
pub(super) const INSTANCE: &str = "bot_instance";
/// Tombstone of an authority's key.
pub(super) const AUTHORITY: &str = "authority";
/// How often another issuer's changes are looked for.
const POLL: Duration = Duration::from_millis(250);
/// How long a server may take to say what is new.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);
/// How long it is until a lost listener tries again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Where issuers tell each other of changes.
const CHANNEL: &str = "tbot_issuer_revision";
/// What tells them.
pub(super) const NOTIFY: &str = "NOTIFY tbot_issuer_revision";

/// What commits have changed so far, whoever made them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sequence number of the newest audit event.
    pub audit_sequence: u64,
    /// The revision of [`super::Store::catalog`].
    pub revision: u64,
    /// The newest order to renew, if there is one: its epoch, and the window to
    /// spread it over.
    pub renew: Option<(u64, Duration)>,
}

/// What is known of the store.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) catalog: Arc<Catalog>,
    /// Number of the newest audit event.
    sequence: u64,
    /// Its link.
    hash: Hash,
}

impl Known {
    fn new(catalog: Arc<Catalog>, head: &Head) -> Self {
        Self {
            catalog,
            sequence: head.sequence,
            hash: head.hash,
        }
    }

    /// Whether the database, as this connection sees it, goes on from this.
    pub(super) async fn is_past_of(
        &self,
        connection: &mut AnyConnection,
    ) -> Result<bool, StoreError> {
        if self.sequence == 0 {
            return Ok(true);
        }
        let link = audit::link(connection, self.sequence).await?;
        Ok(link == Some(self.hash))
    }
}

/// Holds what was committed last, for all who read it.
#[derive(Debug)]
pub(super) struct Publisher {
    known: RwLock<Known>,
    changes: watch::Sender<Changes>,
    /// Whether the database passes on notices of changes.
    notices: AtomicBool,
    /// Why changes of others cannot be followed now, if so.
    trouble: Mutex<Option<String>>,
    /// What was known when the database was found to have lost some of it, until the
    /// writer has counted past that.
    lost: Mutex<Option<Known>>,
    /// Wakes the writer for that.
    pub(super) unrest: Notify,
}

impl Publisher {
    pub(super) fn new(catalog: Arc<Catalog>, head: &Head) -> Self {
        let changes = watch::Sender::new(changes(&catalog, head));
        Self {
            known: RwLock::new(Known::new(catalog, head)),
            changes,
            notices: AtomicBool::new(false),
            trouble: Mutex::default(),
            lost: Mutex::default(),
            unrest: Notify::new(),
        }
    }

    /// What was lost and is not counted past yet.
    pub(super) fn lost(&self) -> Option<Known> {
        let lost = self.lost.lock();
        lost.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes it; none: it is counted past.
    pub(super) fn note_lost(&self, lost: Option<Known>) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
    }

    /// Why changes of others cannot be followed now, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes it, or that they can; what was noted before.
    fn note(&self, trouble: Option<String>) -> Option<String> {
        let noted = self.trouble.lock();
        std::mem::replace(&mut *noted.unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// Whether others are to be told of changes.
    pub(super) fn gives_notice(&self) -> bool {
        self.notices.load(Ordering::Relaxed)
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        let known = self.known.read();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .catalog
            .clone()
    }

    pub(super) fn known(&self) -> Known {
        let known = self.known.read();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Publishes what a look has found, in place of what was known before it. Not if
    /// something was published meanwhile: the next look tells then.
    fn replace(&self, before: &Known, catalog: Arc<Catalog>, head: &Head) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let is_unchanged = Arc::ptr_eq(&known.catalog, &before.catalog)
            && (known.sequence, known.hash) == (before.sequence, before.hash);
        if is_unchanged {
            self.changes.send_replace(changes(&catalog, head));
            *known = Known::new(catalog, head);
        }
    }

    /// Publishes what this issuer has committed, unless something newer was already.
    pub(super) fn publish(&self, catalog: Arc<Catalog>, head: &Head) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if catalog.revision() > known.catalog.revision() {
            known.catalog = catalog;
        }
        if head.sequence >= known.sequence {
            (known.sequence, known.hash) = (head.sequence, head.hash);
        }
        let mut now = changes(&known.catalog, head);
        now.audit_sequence = known.sequence;
        self.changes
            .send_if_modified(|told| std::mem::replace(told, now) != now);
    }
}

fn changes(catalog: &Catalog, head: &Head) -> Changes {
    let epoch = catalog.number(settings::RENEW_EPOCH);
    let within = Duration::from_millis(catalog.number(settings::RENEW_WITHIN));
    Changes {
        audit_sequence: head.sequence,
        revision: catalog.revision(),
        renew: (epoch > 0).then_some((epoch, within)),
    }
}

/// Reads everything.
pub(super) async fn load(
    connection: &mut AnyConnection,
    head: &Head,
) -> Result<Arc<Catalog>, StoreError> {
    let mut catalog = Catalog::default();
    read_changed(&mut catalog, connection, -1).await?;
    Ok(Arc::new(catalog.at(head.revision)))
}

/// Brings a catalog to where the head is, as this connection sees it.
pub(super) async fn advance(
    catalog: &Catalog,
    connection: &mut AnyConnection,
    head: &Head,
) -> Result<Arc<Catalog>, StoreError> {
    if catalog.revision() < head.forgotten || catalog.revision() > head.revision {
        return load(connection, head).await;
    }
    let mut catalog = catalog.clone();
    let since = to_i64(catalog.revision());
    // What is gone first: what was made anew is then put in its place.
    for (kind, name, _) in tombstones(connection, since).await? {
        match kind.as_str() {
            INSTANCE => catalog.remove_instance(&name),
            AUTHORITY => catalog.remove_authority(&name),
            _ => match kind.parse::<Kind>() {
                Ok(kind) => catalog.remove_resource(kind, &name),
                Err(_) => tracing::warn!(
                    kind,
                    "a newer issuer has deleted what this one does not know"
                ),
            },
        }
    }
    read_changed(&mut catalog, connection, since).await?;
    Ok(Arc::new(catalog.at(head.revision)))
}

/// Kind, name and revision of what was deleted.
async fn tombstones(
    connection: &mut AnyConnection,
    since: i64,
) -> Result<Vec<(String, String, i64)>, StoreError> {
    let gone = sqlx::query_as("SELECT kind, name, changed FROM tombstones WHERE changed > $1")
        .bind(since)
        .fetch_all(connection)
        .await?;
    Ok(gone)
}

async fn read_changed(
    catalog: &mut Catalog,
    connection: &mut AnyConnection,
    since: i64,
) -> Result<(), StoreError> {
    for (kind, _, changed) in tombstones(connection, since).await? {
        if let Ok(kind) = kind.parse::<Kind>() {
            catalog.note_change(kind, to_u64(changed));
        }
    }
    let mut rows = sqlx::query(
        "SELECT kind, name, revision, content, changed FROM resources WHERE changed > $1",
    )
    .bind(since)
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        let kind: String = row.try_get("kind")?;
        let Ok(kind) = kind.parse::<Kind>() else {
            tracing::warn!(
                kind,
                "a newer issuer has written what this one does not know"
            );
            continue;
        };
        let name: String = row.try_get("name")?;
        let content: Vec<u8> = row.try_get("content")?;
        catalog.note_change(kind, to_u64(row.try_get("changed")?));
        catalog.put_resource(kind, &name, to_u64(row.try_get("revision")?), &content);
    }
    drop(rows);
    let instances: Vec<BotInstance> = instances::changed(connection, since).await?;
    for instance in instances {
        catalog.put_instance(instance);
    }
    let authorities: Vec<StoredAuthority> = authorities::changed(connection, since).await?;
    for authority in authorities {
        catalog.put_authority(authority);
    }
    for (key, value) in settings::changed(connection, since).await? {
        catalog.put_setting(key, value);
    }
    Ok(())
}

/// Looks for what other issuers commit, and publishes it, until the store closes.
///
/// The connection is its own: no reader keeps it waiting, and one on which a look did not
/// come to its end, so that a transaction may be open on it, is not used again.
pub(super) async fn follow(readers: AnyPool, publisher: Arc<Publisher>, address: PostgresAddress) {
    let database = Database::Postgres(address.clone());
    let hint = Arc::new(Notify::new());
    // It ends with this.
    let mut listener = JoinSet::new();
    listener.spawn(listen(address, publisher.clone(), hint.clone()));
    let mut connection = None;
    while !readers.is_closed() {
        let is_new = connection.is_none();
        if !is_new {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = hint.notified() => {}
            }
        }
        let looked = look(&database, connection.take(), &publisher);
        let looked = tokio::time::timeout(LOOK_PATIENCE, looked).await;
        let looked = looked.unwrap_or_else(|_| {
            let why = format!("the database has not answered within {LOOK_PATIENCE:?}");
            Err(StoreError::Unavailable(why))
        });
        match looked {
            Ok(looked) => {
                connection = Some(looked);
                publisher.note(None);
            }
            // The server may have cut an old connection: a new one tells.
            Err(_) if !is_new || readers.is_closed() => {}
            Err(error) => {
                if publisher.note(Some(error.to_string())).is_none() {
                    tracing::warn!(%error, "the changes of other issuers cannot be followed");
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Wakes [`follow`] when another issuer says that it has changed something. That is a
/// hint: a server that knows nothing of it, or a notice that gets lost, costs a wait
/// until the next look.
async fn listen(address: PostgresAddress, publisher: Arc<Publisher>, hint: Arc<Notify>) {
    let mut told = false;
    loop {
        let listened = async {
            let mut listener = PgListener::connect(address.url()).await?;
            listener.listen(CHANNEL).await?;
            publisher.notices.store(true, Ordering::Relaxed);
            // What came before is looked for at once.
            hint.notify_one();
            loop {
                listener.recv().await?;
                hint.notify_one();
            }
        };
        let Err::<Infallible, sqlx::Error>(error) = listened.await;
        if !std::mem::replace(&mut told, true) {
            let every = POLL;
            tracing::info!(%error, ?every, "the database does not tell of changes now: they are looked for");
        }
        if error.as_database_error().is_some() && !publisher.notices.load(Ordering::Relaxed) {
            // It has no such thing.
            return;
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

/// Publishes what is new; the connection, for the next time.
async fn look(
    database: &Database,
    connection: Option<AnyConnection>,
    publisher: &Publisher,
) -> Result<AnyConnection, StoreError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => database.connect_beside().await?,
    };
    // Taken before the look: what was published was committed then.
    let known = publisher.known();
    let seen = head::read(&mut connection).await?;
    let is_news = seen.revision != known.catalog.revision()
        || seen.sequence != known.sequence
        || seen.hash != known.hash;
    if !is_news {
        return Ok(connection);
    }
    // All tables as of one moment.
    sqlx::query(database.engine().begin_snapshot())
        .execute(&mut connection)
        .await?;
    let head = head::read(&mut connection).await?;
    let is_lost =
        head.revision < known.catalog.revision() || !known.is_past_of(&mut connection).await?;
    let catalog = match is_lost {
        true => load(&mut connection, &head).await?,
        false => advance(&known.catalog, &mut connection, &head).await?,
    };
    sqlx::query("ROLLBACK").execute(&mut connection).await?;
    if is_lost {
        let (events, found) = (known.sequence, head.sequence);
        tracing::error!(events, found, "the database has lost its newest commits");
        publisher.note_lost(Some(known.clone()));
        publisher.unrest.notify_one();
    }
    publisher.replace(&known, catalog, &head);
    Ok(connection)
}
