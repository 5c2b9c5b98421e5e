//! Which attributes of a workload a decision can depend on.
//!
//! Found where an expression is written, not where it is evaluated: every `workload.*`
//! attribute that stands in it counts, whichever way an evaluation goes. Two workloads
//! that agree in these get the same answer, so they can share it.

use std::{ops::BitOr, sync::LazyLock};

use crate::schema;

/// A set of `workload.*` attributes, and of groups below `workload` whose presence counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkloadReads {
    /// By number, from the first `workload.*` attribute on.
    leaves: u64,
    /// By number of the group, from `workload` on.
    groups: u64,
}

/// Numbers of the first leaf, and of the group, of `workload`.
static FIRST: LazyLock<(u16, u16)> = LazyLock::new(|| {
    let leaf = schema::attributes()
        .iter()
        .zip(0..)
        .find_map(|(attribute, number)| attribute.path.starts_with("workload.").then_some(number));
    (
        leaf.unwrap_or(u16::MAX),
        schema::group_of("workload").unwrap_or(u16::MAX),
    )
});

impl WorkloadReads {
    /// Adds an attribute, if it is one of a workload.
    pub(crate) fn add_leaf(&mut self, index: u16) {
        if let Some(number) = index.checked_sub(FIRST.0) {
            self.leaves |= bit(number);
        }
    }

    /// Adds that a group is asked for, if it is one of a workload.
    pub(crate) fn add_group(&mut self, group: u16) {
        if let Some(number) = group.checked_sub(FIRST.1) {
            self.groups |= bit(number);
        }
    }

    /// Full names of the attributes whose values count: `workload.unix.uid`.
    pub fn attributes(self) -> impl Iterator<Item = &'static str> {
        bits(self.leaves).map(|number| schema::by_index(FIRST.0 + number).path)
    }

    /// Full names of the groups of which it counts whether they have any attribute:
    /// `workload.kubernetes`.
    pub fn groups(self) -> impl Iterator<Item = &'static str> {
        bits(self.groups).map(|number| schema::group_by_index(FIRST.1 + number).0)
    }
}

impl BitOr for WorkloadReads {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            leaves: self.leaves | other.leaves,
            groups: self.groups | other.groups,
        }
    }
}

impl FromIterator<Self> for WorkloadReads {
    fn from_iter<T: IntoIterator<Item = Self>>(all: T) -> Self {
        all.into_iter().fold(Self::default(), BitOr::bitor)
    }
}

fn bit(number: u16) -> u64 {
    // A test sees to it that 64 bits are enough; if not, everything counts.
    1_u64.checked_shl(u32::from(number)).unwrap_or(u64::MAX)
}

fn bits(set: u64) -> impl Iterator<Item = u16> {
    (0..64_u16).filter(move |number| set >> number & 1 == 1)
}

#[cfg(test)]
mod tests;
