//! The names that a stream wants: all that are there, and some that may come to be.
//!
//! A client names what it likes, on as many streams as it may have, and each name is kept
//! for as long as its stream lasts. So of names that are not there a stream has few. A
//! further one is no error, for that would end the stream and be the trouble of its other
//! names: it is as if it had not been named, until it is named again.

use telemetry::Throttle;

use super::resources::Secrets;
use crate::meters;

/// Most names of a stream that are not there, and most bytes of them in all. An Envoy has
/// one name a stream; a SPIFFE ID is 2048 bytes long at most.
pub(super) const MOST_ABSENT: usize = 128;
pub(super) const MOST_ABSENT_BYTES: usize = 16 * 1024;

/// See the module. In order, each once; nearly always it is one, for which a set would take
/// ten times its place.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// From now on these are wanted and no others, as far as there is room.
    pub(super) fn set(&mut self, names: Vec<String>, secrets: &Secrets) {
        let mut names = names;
        names.sort_unstable();
        names.dedup();
        // What has been wanted before has been there, or has had room.
        self.0.retain(|name| names.binary_search(name).is_ok());
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
            let Err(place) = self.0.binary_search(&name) else {
                continue;
            };
            if secrets.get(&name).is_none() {
                if count >= MOST_ABSENT || bytes + name.len() > MOST_ABSENT_BYTES {
                    left_out.push(name);
                    continue;
                }
                (count, bytes) = (count + 1, bytes + name.len());
            }
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, name);
        }
        if !left_out.is_empty() {
            tell(left_out.len());
        }
        left_out
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(place) = self.place(name) {
            self.0.remove(place);
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.as_str().cmp(name))
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
