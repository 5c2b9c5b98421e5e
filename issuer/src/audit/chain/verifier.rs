//! Walks a chain and names the first record that is not as it was written.

use std::collections::VecDeque;

use identity::Jwk;

use super::{AuditKeys, Checkpoint, Hash, NotSigned, Record, START};

/// How many links are remembered, to know a record that was delivered twice.
const REMEMBERED: usize = 8192;

/// What is known after a walk without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of the first record; 0: there was none.
    pub first: u64,
    /// Number of the last record; 0: there was none.
    pub last: u64,
    /// The last record's link.
    pub hash: Hash,
    /// Checkpoints that were found to be signed and to fit.
    pub checkpoints: u64,
    /// The newest record that a signed checkpoint vouches for; 0: none.
    pub signed_to: u64,
    /// Whether the first record was taken as it stands, for want of the link before it.
    pub first_on_trust: bool,
    /// Records that were there twice, both alike.
    pub repeated: u64,
}

/// The first thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record does not fit its link.
    #[error(
        "record {sequence} is not what was recorded: it was changed, or moved or inserted here"
    )]
    Changed {
        /// Which one.
        sequence: u64,
    },
    /// What a record is searched by is not what it says.
    #[error(
        "record {sequence} is hidden from searches: the columns it is searched by are not what it says"
    )]
    Hidden {
        /// Which one.
        sequence: u64,
    },
    /// Records are not there.
    #[error("{}: the next one is {next}", missing(*.first, *.last))]
    Missing {
        /// From this one on,
        first: u64,
        /// to this one.
        last: u64,
        /// What comes in their place.
        next: u64,
    },
    /// A record stands where an earlier or another one was due.
    #[error("record {sequence} is out of order: {due} was due")]
    Order {
        /// Which one.
        sequence: u64,
        /// What should be there.
        due: u64,
    },
    /// The end is missing.
    #[error("{}: the trail was signed up to {last}", missing(*.first, *.last))]
    CutTail {
        /// From this one on,
        first: u64,
        /// to this one, at least.
        last: u64,
    },
    /// There are more records than were signed.
    #[error("record {sequence} was never signed: the newest signed one is {signed}")]
    NeverSigned {
        /// The first such record.
        sequence: u64,
        /// Up to where it was signed; 0: nowhere.
        signed: u64,
    },
    /// Every link fits, but this is not the chain that was signed.
    #[error(
        "the chain was made anew: one of the records {first} to {last} is not what was recorded when checkpoint {last} was signed"
    )]
    Rewritten {
        /// The first record that may be the changed one.
        first: u64,
        /// The record whose link was signed.
        last: u64,
    },
    /// A checkpoint is not by the audit key.
    #[error("the checkpoint of record {sequence} proves nothing: {why}")]
    Checkpoint {
        /// The record whose link it is to vouch for.
        sequence: u64,
        /// Why.
        why: NotSigned,
    },
    /// A checkpoint is of another trail.
    #[error("the checkpoint of record {sequence} is of the trust domain {other:?}, not {ours:?}")]
    TrustDomain {
        /// The record.
        sequence: u64,
        /// Whose trail is checked.
        ours: String,
        /// Whose checkpoint it is.
        other: String,
    },
}

/// Checks a chain record by record; constant memory.
///
/// Checkpoints are given before the record that they vouch for, or any time before
/// [`Self::finish`] if they are of later ones.
#[derive(Debug)]
pub struct Verifier {
    keys: AuditKeys,
    trust_domain: Option<String>,
    /// Checked, not met yet, by number.
    due: VecDeque<(u64, Hash)>,
    /// The link before the next record; none: it is taken as it stands.
    previous: Option<Hash>,
    /// Number of the next record; none: whatever comes first.
    next: Option<u64>,
    /// The newest links, and the number of the first of them.
    recent: VecDeque<Hash>,
    verified: Verified,
}

impl Verifier {
    /// Of a trail from its first record on.
    pub fn from_start(keys: AuditKeys) -> Self {
        let mut verifier = Self::from_anywhere(keys);
        verifier.next = Some(1);
        verifier.previous = Some(START);
        verifier.verified.first_on_trust = false;
        verifier
    }

    /// Of a part of a trail that begins after the record `sequence` with this link.
    pub fn after(keys: AuditKeys, sequence: u64, link: Hash) -> Self {
        let mut verifier = Self::from_anywhere(keys);
        verifier.next = Some(sequence + 1);
        verifier.previous = Some(link);
        verifier.verified.first_on_trust = sequence > 0;
        verifier
    }

    /// Of a part of a trail; its first record is taken as it stands, unless it is the
    /// first of all.
    pub fn from_anywhere(keys: AuditKeys) -> Self {
        Self {
            keys,
            trust_domain: None,
            due: VecDeque::new(),
            previous: None,
            next: None,
            recent: VecDeque::new(),
            verified: Verified {
                first: 0,
                last: 0,
                hash: START,
                checkpoints: 0,
                signed_to: 0,
                first_on_trust: true,
                repeated: 0,
            },
        }
    }

    /// Trusts one more audit key.
    pub fn trust(&mut self, key: Jwk) {
        self.keys.add(key);
    }

    /// Whether it has the key that this checkpoint names.
    pub fn knows_signer(&self, checkpoint: &Checkpoint) -> bool {
        self.keys.has(&checkpoint.key_id)
    }

    /// Takes a checkpoint: its signature is checked at once, its link when the record
    /// comes. One of a record before the first of the walk is checked by its signature
    /// alone.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let sequence = checkpoint.head.sequence;
        let ours = self
            .trust_domain
            .get_or_insert_with(|| checkpoint.head.trust_domain.clone());
        if *ours != checkpoint.head.trust_domain {
            return Err(Fault::TrustDomain {
                sequence,
                ours: ours.clone(),
                other: checkpoint.head.trust_domain.clone(),
            });
        }
        self.keys
            .signed(checkpoint)
            .map_err(|why| Fault::Checkpoint { sequence, why })?;
        if let Some(link) = self.link(sequence) {
            return self.compare(sequence, &link, &checkpoint.head.hash);
        }
        let passed = self.next.is_some_and(|next| sequence < next);
        if !passed {
            let at = self.due.partition_point(|(due, _)| *due <= sequence);
            self.due.insert(at, (sequence, checkpoint.head.hash));
        }
        Ok(())
    }

    /// Takes the next record with the link that is stored with it.
    pub fn record(&mut self, record: &Record<'_>, stored: &Hash) -> Result<(), Fault> {
        let sequence = record.sequence;
        if self.next.is_none() && sequence == 1 {
            self.previous = Some(START);
            self.verified.first_on_trust = false;
        }
        let next = *self.next.get_or_insert(sequence);
        if sequence < next {
            return self.again(record, stored, next);
        }
        if sequence > next {
            return Err(Fault::Missing {
                first: next,
                last: sequence - 1,
                next: sequence,
            });
        }
        if let Some(previous) = &self.previous
            && record.hash(previous) != *stored
        {
            return Err(Fault::Changed { sequence });
        }
        if self.verified.first == 0 {
            self.verified.first = sequence;
        }
        self.verified.last = sequence;
        self.verified.hash = *stored;
        self.previous = Some(*stored);
        self.next = Some(sequence + 1);
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(*stored);
        while let Some((due, link)) = self.due.front().copied()
            && due <= sequence
        {
            self.due.pop_front();
            if due == sequence {
                self.compare(sequence, stored, &link)?;
            }
        }
        Ok(())
    }

    /// Ends the walk of everything that there is: the tail must be there, and signed
    /// where `signed_to_the_end` is demanded (of a store, not of an export).
    pub fn finish(self, signed_to_the_end: bool) -> Result<Verified, Fault> {
        let next = self.next.unwrap_or(1);
        if let Some((last, _)) = self.due.back() {
            return Err(Fault::CutTail {
                first: next,
                last: *last,
            });
        }
        let verified = self.verified;
        if signed_to_the_end && verified.signed_to < verified.last {
            return Err(Fault::NeverSigned {
                sequence: verified.signed_to.max(verified.first - 1) + 1,
                signed: verified.signed_to,
            });
        }
        Ok(verified)
    }

    /// Ends the walk of a part: what comes after it is not asked for.
    pub fn finish_part(self) -> Verified {
        self.verified
    }

    /// A record that came before: it is a repetition, or out of order.
    fn again(&mut self, record: &Record<'_>, stored: &Hash, next: u64) -> Result<(), Fault> {
        let sequence = record.sequence;
        let before = match sequence {
            1 => Some(START),
            _ => self.link(sequence - 1),
        };
        let is_alike = self.link(sequence).as_ref() == Some(stored)
            && before.is_none_or(|before| record.hash(&before) == *stored);
        match is_alike {
            true => {
                self.verified.repeated += 1;
                Ok(())
            }
            false => Err(Fault::Order {
                sequence,
                due: next,
            }),
        }
    }

    /// The link of a record that was walked lately.
    fn link(&self, sequence: u64) -> Option<Hash> {
        let first = self.next? - self.recent.len() as u64;
        let index = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.recent.get(index).copied()
    }

    fn compare(&mut self, sequence: u64, link: &Hash, signed: &Hash) -> Result<(), Fault> {
        let verified = &mut self.verified;
        if link != signed {
            let first = match verified.signed_to < sequence {
                true => verified.signed_to.max(verified.first.saturating_sub(1)) + 1,
                false => verified.first,
            };
            return Err(Fault::Rewritten {
                first,
                last: sequence,
            });
        }
        verified.checkpoints += 1;
        verified.signed_to = verified.signed_to.max(sequence);
        Ok(())
    }
}

fn missing(first: u64, last: u64) -> String {
    match first == last {
        true => format!("record {first} is missing"),
        false => format!("records {first} to {last} are missing"),
    }
}
