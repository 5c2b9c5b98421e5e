//! Parsers of files below `/proc/PID`: bytes in, facts out.
//!
//! What these files say of other processes is partly in the hands of those
//! processes (names of programs, of cgroups, of mount points), so nothing here
//! trusts a byte: a file that is not as `proc(5)` has it is an error, never a guess.

mod cgroup;
mod mountinfo;
mod stat;
mod status;
#[cfg(test)]
mod tests;

pub use self::{
    cgroup::{CgroupPath, cgroup},
    mountinfo::{Mount, mountinfo},
    stat::{Stat, stat},
    status::{Status, status},
};

/// A file that is not as the kernel writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("/proc/PID/{file} is not as expected: {what}")]
pub struct ParseError {
    /// Its name below `/proc/PID`.
    pub file: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A whole decimal number.
fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
