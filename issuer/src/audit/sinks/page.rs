//! Reads the store in pages of lines: records, and the checkpoints and keys that
//! belong among them.

use std::collections::HashSet;

use crate::{
    audit::lines::Line,
    store::{Store, StoreError, audit},
};

/// Records of a page at most.
const RECORDS: u32 = 256;
/// Bytes of a page's lines, about: what one message to a collector may have.
const BYTES: usize = 1024 * 1024;

/// Some lines in order.
#[derive(Debug)]
pub(super) struct Page {
    /// Each with its text, without the end of the line.
    pub(super) lines: Vec<(Line, String)>,
    /// Number of the last record.
    pub(super) last: u64,
}

/// Reads page after page.
#[derive(Debug)]
pub(super) struct Pages {
    store: Store,
    /// Audit keys that this sink has been told.
    told: HashSet<String>,
}

impl Pages {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            told: HashSet::new(),
        }
    }

    /// What comes after the record `position`; none: nothing yet.
    pub(super) async fn after(&mut self, position: u64) -> Result<Option<Page>, StoreError> {
        let mut connection = self.store.read().await?;
        let all = audit::search::Filter::default();
        let records = audit::search::read(&mut connection, &all, position + 1, RECORDS).await?;
        let Some(newest) = records.last().map(|record| record.sequence) else {
            return Ok(None);
        };
        let mut checkpoints =
            audit::checkpoints::read(&mut connection, position + 1, newest, RECORDS)
                .await?
                .into_iter()
                .peekable();
        let (mut lines, mut bytes, mut last) = (Vec::new(), 0, position);
        let mut push = |line: Line| {
            let text = line.to_json();
            bytes += text.len();
            lines.push((line, text));
            bytes
        };
        for record in records {
            last = record.sequence;
            let mut size = push(Line::Record(record));
            while let Some(checkpoint) = checkpoints.next_if(|next| next.head.sequence <= last) {
                if !self.told.contains(&checkpoint.key_id) {
                    for key in audit::checkpoints::keys(&mut connection).await? {
                        if self.told.insert(key.thumbprint()) {
                            push(Line::Key(key));
                        }
                    }
                }
                size = push(Line::Checkpoint(checkpoint));
            }
            if size > BYTES {
                break;
            }
        }
        Ok(Some(Page { lines, last }))
    }
}
