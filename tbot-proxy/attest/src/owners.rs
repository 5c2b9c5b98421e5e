//! Whom a user id counts for where users are bounded: `/etc/subuid` (subuid(5)) lends ranges
//! of ids, 65,536 as a rule, to users, who run processes under each of them in a user
//! namespace. Counted one by one, such a user would have every bound 65,536 times.
//!
//! A lent id counts for the user who has it. Ranges of system accounts (below 1000: `root`,
//! `kubelet`, `dockremap`) are those of container engines, which share them out to
//! containers: each 65,536 of them count as one user, so that a container is bounded, and
//! takes nothing from root nor, as a rule, from other containers.
//!
//! This is for counting alone: what is attested is the id itself.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The first id of a person (`UID_MIN` of login.defs(5)).
const FIRST_PERSON: u32 = 1000;

/// As many ids as one container has, as a rule.
const BLOCK: u32 = 65_536;

/// Reads `/etc/subuid` when it is made, and again when the file changes.
#[derive(Debug)]
pub struct Owners {
    subuid: PathBuf,
    passwd: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    version: Option<Version>,
    ranges: Vec<Range>,
}

/// By what a changed file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// Ids that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    owner: u32,
    start: u32,
    count: u32,
}

impl Default for Owners {
    /// Those of this machine.
    fn default() -> Self {
        Self::of("/etc/subuid", "/etc/passwd")
    }
}

impl Owners {
    /// By other files of the same formats.
    pub fn of(subuid: impl Into<PathBuf>, passwd: impl Into<PathBuf>) -> Self {
        let owners = Self {
            subuid: subuid.into(),
            passwd: passwd.into(),
            read: Mutex::default(),
        };
        // What it finds is kept.
        owners.owner(0);
        owners
    }

    /// Whom `uid` counts for: itself, unless it is lent.
    pub fn owner(&self, uid: u32) -> u32 {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Version::of(&self.subuid).ok();
        if version != read.version {
            *read = Read {
                version,
                ranges: self.ranges(),
            };
        }
        let range = read.ranges.iter().find(|range| range.has(uid));
        range.map_or(uid, |range| range.counts_for(uid))
    }

    fn ranges(&self) -> Vec<Range> {
        match fs::read_to_string(&self.subuid) {
            Ok(text) => parse(&text, |name| {
                sys::accounts::id_of(name, &self.passwd).ok()?
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => {
                let file = self.subuid.display();
                tracing::warn!(%file, %error, "lent user ids cannot be told and count as users of their own");
                vec![]
            }
        }
    }
}

impl Version {
    fn of(file: &Path) -> io::Result<Self> {
        let file = fs::metadata(file)?;
        Ok(Self {
            place: (file.dev(), file.ino()),
            size: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Range {
    fn has(&self, uid: u32) -> bool {
        uid.checked_sub(self.start)
            .is_some_and(|offset| offset < self.count)
    }

    fn counts_for(&self, uid: u32) -> u32 {
        if self.owner >= FIRST_PERSON {
            return self.owner;
        }
        uid - (uid - self.start) % BLOCK
    }
}

/// The ranges of a file, in its order: of two that overlap, the first counts. A line is
/// `name-or-uid:start:count`; others are left out.
fn parse(text: &str, id_of: impl Fn(&str) -> Option<u32>) -> Vec<Range> {
    let mut ranges = vec![];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match range(line, &id_of) {
            Ok(range) => ranges.push(range),
            Err(why) => tracing::debug!(line = number + 1, why, "a line of subuid is left out"),
        }
    }
    ranges
}

fn range(line: &str, id_of: impl Fn(&str) -> Option<u32>) -> Result<Range, &'static str> {
    let parts: Vec<_> = line.split(':').collect();
    let [owner, start, count] = parts.as_slice() else {
        return Err("it is not NAME:START:COUNT");
    };
    let is_number = owner.bytes().all(|byte| byte.is_ascii_digit());
    let owner = match is_number {
        true => owner.parse().ok(),
        false => id_of(owner),
    };
    let (Ok(start), Ok(count)) = (start.parse(), count.parse()) else {
        return Err("start and count are numbers below 2^32");
    };
    if start < FIRST_PERSON {
        return Err("it lends ids of the system's own accounts");
    }
    Ok(Range {
        owner: owner.ok_or("there is no such user")?,
        start,
        count,
    })
}

#[cfg(test)]
mod tests;
