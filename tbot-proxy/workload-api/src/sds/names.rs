//! The names that a stream wants: all that are there, and some that may come to be.
//!
//! A client names what it likes, on as many streams as it may have, and each name is kept
//! for as long as its stream lasts. So of names that are not there a stream has few. A
//! further one is no error, for that would end the stream and be the trouble of its other
//! names: it is as if it had not been named, until it is named again.

use std::collections::BTreeSet;

use telemetry::Throttle;

use super::resources::Secrets;
use crate::meters;

/// Most names of a stream that are not there, and most bytes of them in all. An Envoy has
/// one name a stream; a SPIFFE ID is 2048 bytes long at most.
pub(super) const MOST_ABSENT: usize = 128;
pub(super) const MOST_ABSENT_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// From now on these are wanted and no others, as far as there is room.
    pub(super) fn set(&mut self, names: Vec<String>, secrets: &Secrets) {
        let mut names: BTreeSet<String> = names.into_iter().collect();
        // What has been wanted before has been there, or has had room.
        self.0.retain(|name| names.remove(name));
        self.add(names, secrets);
    }

    /// These are wanted too; gives back those that there is no room for.
    pub(super) fn add(
        &mut self,
        names: impl IntoIterator<Item = String>,
        secrets: &Secrets,
    ) -> Vec<String> {
        let absent = self.0.iter().filter(|name| secrets.get(name).is_none());
        let (mut count, mut bytes) =
            absent.fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.len()));
        let mut left_out = Vec::new();
        for name in names {
            if self.0.contains(&name) {
                continue;
            }
            if secrets.get(&name).is_none() {
                if count >= MOST_ABSENT || bytes + name.len() > MOST_ABSENT_BYTES {
                    left_out.push(name);
                    continue;
                }
                (count, bytes) = (count + 1, bytes + name.len());
            }
            self.0.insert(name);
        }
        if !left_out.is_empty() {
            tell(left_out.len());
        }
        left_out
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// In order, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn tell(left_out: usize) {
    static TOLD: Throttle = Throttle::ten_a_minute();
    if let Some(held_back) = TOLD.pass() {
        tracing::warn!(
            left_out,
            held_back,
            "an Envoy names more secrets that are not there than are waited for on one stream ({MOST_ABSENT} names of {MOST_ABSENT_BYTES} bytes): ask for the others on further streams"
        );
    }
    meters::left_out("name", left_out);
}

#[cfg(test)]
mod tests;
