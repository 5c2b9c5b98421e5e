//! `/proc/PID/status`.

use super::{ParseError, number};

/// Most supplementary groups of a process that is told who it is. Whoever has a range of
/// subordinate ids can have 65,536, twice the same among them: megabytes to keep, which no
/// rule reads.
const GROUPS_MAX: usize = 1_024;

/// Who a process acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Effective user id, in the user namespace of the reader.
    pub uid: u32,
    /// Effective group id, in the user namespace of the reader.
    pub gid: u32,
    /// Supplementary groups, as the kernel lists them.
    pub groups: Vec<u32>,
}

/// Reads `/proc/PID/status` (proc_pid_status(5)): the second numbers of `Uid:` and
/// `Gid:`, which are the effective ids, and `Groups:`. `Name:` comes first and the
/// kernel escapes line ends in it, so no program can write these lines itself; a key
/// that stands twice is an error all the same.
pub fn status(bytes: &[u8]) -> Result<Status, ParseError> {
    let error = |what| ParseError {
        file: "status",
        what,
    };
    let (mut uid, mut gid, mut groups) = (None, None, None);
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (key, values) = (&line[..colon], &line[colon + 1..]);
        let mut values = values
            .split(u8::is_ascii_whitespace)
            .filter(|value| !value.is_empty());
        let twice = match key {
            b"Uid" => uid
                .replace(values.nth(1).and_then(number).ok_or_else(|| error("Uid"))?)
                .is_some(),
            b"Gid" => gid
                .replace(values.nth(1).and_then(number).ok_or_else(|| error("Gid"))?)
                .is_some(),
            b"Groups" => groups
                .replace(
                    values
                        .take(GROUPS_MAX + 1)
                        .map(number)
                        .collect::<Option<Vec<u32>>>()
                        .filter(|groups| groups.len() <= GROUPS_MAX)
                        .ok_or_else(|| error("Groups: more than 1,024, or not numbers"))?,
                )
                .is_some(),
            _ => false,
        };
        if twice {
            return Err(error("a key stands twice"));
        }
    }
    Ok(Status {
        uid: uid.ok_or_else(|| error("no Uid"))?,
        gid: gid.ok_or_else(|| error("no Gid"))?,
        groups: groups.ok_or_else(|| error("no Groups"))?,
    })
}
