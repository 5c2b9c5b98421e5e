//! A batch decided on as a whole: which workload identities its items come to, under
//! which keys, and how much of that fits an answer.

use std::{sync::Arc, time::SystemTime};

use policy::WorkloadReads;

use super::{
    Approved, Ask, Asker, Decision, Document, Item, SVIDS_MAX, Selection,
    decide::{Standing, check_document, check_ttl},
    record, sign,
};
use crate::{
    access::{self, Denial, Refused},
    audit::Event,
    authority::Keyring,
    catalog::Catalog,
    resources::{LabelSelector, SvidKind},
    service::Issuer,
    store::{StoreError, Tx, audit, instances},
};

/// What an answer may hold, in bytes: clients of gRPC read 4 MiB.
const ANSWER_MAX: usize = 3 * 1024 * 1024;
/// How many workload identities one call decides on by labels; the rest is for the next
/// page. Deciding may have to be repeated while others wait to record.
const DECISIONS_MAX: usize = 2_000;
/// How many workload identities one call looks at by labels, to find those: that many of
/// a hundred thousand more than once costs milliseconds, each item of a thousand seconds.
const LOOKS_MAX: usize = 200_000;
/// How many bytes one call has recorded by labels: what an agent sends once is recorded
/// with each SVID.
const RECORDED_MAX: usize = 16 * 1024 * 1024;

/// What is asked for at once, by one asker at one moment.
#[derive(Debug)]
pub(crate) struct Batch {
    keyring: Arc<Keyring>,
    jwt_issuer: Option<String>,
    asker: Asker,
    items: Vec<Result<Item, Refused>>,
    room: Room,
    now: SystemTime,
}

/// One SVID that is granted.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What was approved.
    pub approved: Approved,
    /// The signed document.
    pub document: Document,
}

/// What became of one item.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What is granted.
    pub grants: Vec<Grant>,
    /// Why the item is refused as a whole.
    pub refused: Option<Refused>,
    /// By labels: where to go on, if there are more.
    pub next_after: String,
    /// By labels: how many more there may be.
    pub remaining: u64,
    /// What of the workload it can depend on; `None`: on everything, it was not read.
    pub reads: Option<WorkloadReads>,
}

/// A batch as it was decided.
pub(super) struct Plan {
    revision: u64,
    items: Vec<Planned>,
    /// The instance whose newest certificate is seen for the first time.
    first_seen: Option<String>,
    /// Why the caller's instance is to be locked.
    copied: Option<String>,
}

/// An item as it was decided.
#[derive(Default)]
struct Planned {
    decided: Vec<Decided>,
    /// By labels: what was not granted.
    left_out: Vec<(String, Refused)>,
    selector: Option<(Arc<LabelSelector>, SvidKind)>,
    refused: Option<Refused>,
    next_after: String,
    remaining: u64,
    reads: Option<WorkloadReads>,
}

struct Decided {
    ask: Ask,
    decision: Decision,
    document: Option<Document>,
}

/// What there is still place for.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Of the answer.
    bytes: usize,
    svids: usize,
    decisions: usize,
    looks: usize,
    /// Bytes of the audit trail.
    recorded: usize,
}

impl Room {
    const WHOLE: Self = Self {
        bytes: ANSWER_MAX,
        svids: SVIDS_MAX,
        decisions: DECISIONS_MAX,
        looks: LOOKS_MAX,
        recorded: RECORDED_MAX,
    };

    /// Takes what an SVID needs, if it is there. `recorded`: of the audit
    /// trail, beyond what each event has.
    fn take(&mut self, approved: &Approved, recorded: usize) -> bool {
        let bytes = size_of(approved);
        let fits = bytes <= self.bytes && self.svids > 0 && recorded <= self.recorded;
        if fits {
            self.bytes -= bytes;
            self.svids -= 1;
            self.recorded -= recorded;
        }
        fits
    }
}

impl Batch {
    pub(crate) fn new(
        issuer: &Issuer,
        asker: Asker,
        items: Vec<Result<Item, Refused>>,
        now: SystemTime,
    ) -> Self {
        Self {
            keyring: issuer.keyring(),
            jwt_issuer: issuer.jwt_issuer.clone(),
            asker,
            items,
            room: Room::WHOLE,
            now,
        }
    }

    /// Grants no more than so many SVIDs.
    pub(crate) fn at_most(mut self, svids: usize) -> Self {
        self.room.svids = svids;
        self
    }

    /// Whether it is decided on at once.
    pub(super) fn is_small(&self) -> bool {
        let by_name = |item: &Result<Item, Refused>| match item {
            Ok(item) => matches!(item.selection, Selection::Name(_)) && item.signatures.is_empty(),
            Err(_) => true,
        };
        self.items.len() <= super::AT_ONCE && self.items.iter().all(by_name)
    }

    /// Decides on all of it.
    #[tracing::instrument(name = "decide", level = "debug", skip_all)]
    pub(super) fn plan(&self, catalog: &Catalog) -> Plan {
        let standing = Standing::of(catalog, &self.asker, self.now);
        let mut room = self.room;
        let items = self.items.iter().map(|item| match item {
            Err(refused) => Planned {
                refused: Some(refused.clone()),
                ..Planned::default()
            },
            Ok(item) => match &item.selection {
                Selection::Name(name) => self.by_name(catalog, &standing, item, name, &mut room),
                Selection::Labels { selector, after } => {
                    let after = after.as_deref();
                    self.by_labels(catalog, &standing, item, selector, after, &mut room)
                }
            },
        });
        Plan {
            items: items.collect(),
            revision: catalog.revision(),
            first_seen: standing
                .first_seen(&self.asker)
                .map(|instance| instance.instance_id.clone()),
            copied: standing
                .refused()
                .filter(|refused| refused.denial == Denial::CopiedIdentity)
                .map(|refused| refused.detail.clone()),
        }
    }

    fn by_name(
        &self,
        catalog: &Catalog,
        standing: &Standing,
        item: &Item,
        name: &str,
        room: &mut Room,
    ) -> Planned {
        let ask = item.ask_for(name);
        let mut decision = standing.decide(catalog, &self.keyring, &ask, self.now, &mut ());
        if let Ok(approved) = &decision.verdict
            && !room.take(approved, 0)
        {
            let detail = "the answer would be too long: ask for fewer at once";
            decision.verdict = Err(Refused::new(Denial::TooMuch, detail));
        }
        Planned {
            refused: decision.verdict.as_ref().err().cloned(),
            reads: Some(decision.reads),
            decided: vec![Decided::new(ask, decision)],
            ..Planned::default()
        }
    }

    /// In order of names: what may be had, as far as there are keys and place. What a
    /// role selects and may not be had is left out.
    fn by_labels(
        &self,
        catalog: &Catalog,
        standing: &Standing,
        item: &Item,
        selector: &Arc<LabelSelector>,
        after: Option<&str>,
        room: &mut Room,
    ) -> Planned {
        let mut planned = Planned {
            selector: Some((selector.clone(), item.wanted.kind())),
            reads: Some(WorkloadReads::default()),
            ..Planned::default()
        };
        let checked = standing
            .refused()
            .map_or(Ok(()), |refused| Err(refused.clone()))
            .and_then(|()| check_document(&self.keyring, &item.wanted))
            .and_then(|()| check_ttl(item.ttl.as_ref()));
        if let Err(refused) = checked {
            planned.refused = Some(refused);
            return planned;
        }
        let roles: Vec<_> = standing.allowing().into_iter().flatten().collect();
        let mut keys = item.keys.iter();
        let mut recorded = None;
        let mut last = after.unwrap_or_default();
        let mut full = false;
        for candidate in catalog.candidates(selector, after) {
            if room.looks == 0 {
                // How many more there are is not known: this one, at least.
                planned.remaining += 1;
                break;
            }
            room.looks -= 1;
            let may_be_had = candidate.is_selected_by(selector)
                && roles.iter().any(|role| candidate.is_selected_by(role));
            if may_be_had {
                full |= room.decisions == 0 || (item.wanted.key().is_some() && keys.len() == 0);
                if full {
                    planned.remaining += 1;
                    continue;
                }
                room.decisions -= 1;
                let ask = item.ask_for(candidate.name);
                let mut decision = standing.decide(catalog, &self.keyring, &ask, self.now, &mut ());
                planned.reads = planned.reads.map(|reads| reads | decision.reads);
                match &mut decision.verdict {
                    Ok(approved) => {
                        // The same for each of the item.
                        let recorded = *recorded
                            .get_or_insert_with(|| record::size_of(&ask, &decision.attributes));
                        if !room.take(approved, recorded) {
                            full = true;
                            planned.remaining += 1;
                            continue;
                        }
                        if item.wanted.key().is_some() {
                            approved.key = keys.next().cloned();
                        }
                        planned.decided.push(Decided::new(ask, decision));
                    }
                    Err(refused) => {
                        let refused = refused.clone();
                        planned.left_out.push((candidate.name.to_owned(), refused));
                    }
                }
            }
            if !full {
                last = candidate.name;
            }
        }
        if planned.remaining > 0 {
            planned.next_after = last.to_owned();
        } else if planned.decided.is_empty() && planned.left_out.is_empty() && after.is_none() {
            let detail = "no role of the bot lets it have a workload identity with these labels";
            planned
                .left_out
                .push((String::new(), Refused::new(Denial::NoRole, detail)));
        }
        planned
    }

    /// Signs one of what was approved.
    pub(super) fn sign(&self, approved: &Approved) -> Result<Document, Refused> {
        sign::sign(&self.keyring, self.jwt_issuer.as_deref(), approved)
    }
}

impl Decided {
    fn new(ask: Ask, decision: Decision) -> Self {
        Self {
            ask,
            decision,
            document: None,
        }
    }
}

impl Plan {
    fn approved(&mut self) -> impl Iterator<Item = &mut Decided> {
        let decided = self.items.iter_mut().flat_map(|item| &mut item.decided);
        decided.filter(|decided| decided.decision.verdict.is_ok())
    }

    /// What is to be signed, in order.
    pub(super) fn jobs(&mut self) -> Vec<Approved> {
        self.approved()
            .filter_map(|decided| decided.decision.verdict.clone().ok())
            .collect()
    }

    /// What was signed, in the order of [`Plan::jobs`].
    pub(super) fn take_documents(&mut self, documents: Vec<Result<Document, Refused>>) {
        for (decided, document) in self.approved().zip(documents) {
            match document {
                Ok(document) => decided.document = Some(document),
                Err(refused) => decided.decision.verdict = Err(refused),
            }
        }
        for item in &mut self.items {
            let failed = |decided: &Decided| decided.decision.verdict.as_ref().err().cloned();
            if item.refused.is_none() {
                item.refused = item.decided.iter().find_map(failed);
            }
        }
    }
}

/// A batch as it was decided and signed, with what is to be recorded of it.
#[derive(Clone)]
pub(crate) struct Settled {
    revision: u64,
    outcomes: Vec<Outcome>,
    events: Vec<Event>,
    first_seen: Option<String>,
    copied: Option<String>,
}

impl Settled {
    pub(super) fn new(batch: &Batch, plan: Plan) -> Self {
        let mut settled = Self {
            revision: plan.revision,
            outcomes: Vec::with_capacity(plan.items.len()),
            events: Vec::with_capacity(plan.items.len()),
            first_seen: plan.first_seen,
            copied: plan.copied,
        };
        for (item, planned) in batch.items.iter().zip(plan.items) {
            settled.add(&batch.asker, item.as_ref().ok(), planned);
        }
        settled
    }

    fn add(&mut self, asker: &Asker, item: Option<&Item>, planned: Planned) {
        let mut outcome = Outcome {
            refused: planned.refused,
            next_after: planned.next_after,
            remaining: planned.remaining,
            reads: planned.reads,
            grants: Vec::with_capacity(planned.decided.len()),
        };
        if planned.decided.is_empty()
            && let Some(refused) = &outcome.refused
        {
            self.events.push(record::refused_item(asker, item, refused));
        }
        for decided in planned.decided {
            let Decided {
                ask,
                decision,
                document,
            } = decided;
            match (&decision.verdict, document) {
                (Ok(approved), Some(document)) => {
                    let event = record::granted(asker, &ask, &decision, approved, &document);
                    self.events.push(event);
                    outcome.grants.push(Grant {
                        approved: approved.clone(),
                        document,
                    });
                }
                (Err(refused), _) => {
                    self.events
                        .push(record::refused(asker, &ask, &decision, refused));
                }
                // What is approved is signed, or refused by then.
                (Ok(_), None) => {}
            }
        }
        if let (Some((selector, kind)), Some(_)) = (&planned.selector, planned.left_out.first()) {
            let event = record::left_out(asker, selector, *kind, &planned.left_out);
            self.events.push(event);
        }
        self.outcomes.push(outcome);
    }

    /// Which state of the store it was decided on.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What is to be recorded of it.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    pub(crate) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// The document of what was approved just so before.
    pub(super) fn document_of(&self, approved: &Approved) -> Option<Document> {
        let mut grants = self.outcomes.iter().flat_map(|outcome| &outcome.grants);
        let same = grants.find(|grant| grant.approved == *approved)?;
        Some(same.document.clone())
    }

    /// Records all of it, and what the decisions ask to be done beside.
    pub(super) async fn record(&self, tx: &mut Tx, batch: &Batch) -> Result<(), StoreError> {
        for event in &self.events {
            audit::append(tx, event, batch.now).await?;
        }
        if let (Some(detail), Asker::Bot(caller)) = (&self.copied, &batch.asker) {
            access::lock_copied(tx, caller, detail, batch.now).await?;
        }
        if let Some(instance) = &self.first_seen {
            instances::newest_seen(tx, instance, batch.now).await?;
        }
        Ok(())
    }

    /// Counts what became of it.
    pub(crate) fn measure(&self) {
        for event in &self.events {
            let kind = match event.text_field("svid_type") {
                "x509" => "x509",
                "jwt" => "jwt",
                "wit" => "wit",
                _ => "none",
            };
            let result = match event.is_success() {
                true => "granted".to_owned(),
                false => event.text_field("reason").to_owned(),
            };
            metrics::counter!("issuer_issuances_total", "type" => kind, "result" => result)
                .increment(1);
        }
    }
}

/// What an SVID takes of an answer, at most.
fn size_of(approved: &Approved) -> usize {
    let rendered = &approved.rendered;
    let told = 256
        + approved.workload_identity.as_str().len()
        + rendered.id.as_str().len()
        + rendered.hint.len()
        + approved
            .federates_with
            .iter()
            .map(|name| name.as_str().len() + 8)
            .sum::<usize>();
    let id = rendered.id.as_str().len();
    let document = match approved.kind {
        SvidKind::X509 => {
            let key = approved
                .key
                .as_ref()
                .map_or(600, |(_, key)| key.spki_der().len());
            let names: usize = rendered
                .dns_sans
                .iter()
                .map(|name| name.as_str().len() + 4)
                .sum();
            // The subject's three parts have at most 64 characters each.
            1024 + key + id + names + 20 * rendered.ip_sans.len() + 3 * 4 * 64
        }
        SvidKind::Jwt => {
            let audiences: usize = approved
                .audiences
                .iter()
                .map(|text| 6 * text.len() + 4)
                .sum();
            let claims = serde_json::to_string(&rendered.claims).map_or(0, |text| text.len());
            1536 + (id + audiences + claims) * 4 / 3
        }
        SvidKind::Wit => 1536 + (id + 1500) * 4 / 3,
    };
    told + document
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
