//! `/proc/PID/stat`.

use super::{ParseError, number};

/// What of `/proc/PID/stat` tells one process from another of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// When it started, in clock ticks (usually 10 ms) since boot.
    pub start_time: u64,
    /// Its state: `R`, `S`, … and `Z` for one that has ended but is not yet reaped.
    pub state: u8,
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name of the program, in
/// parentheses, may hold any bytes, parentheses and spaces too: fields count from the
/// last `)`.
pub fn stat(bytes: &[u8]) -> Result<Stat, ParseError> {
    let error = |what| ParseError { file: "stat", what };
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b')')
        .ok_or_else(|| error("no name in parentheses"))?;
    let mut fields = bytes[end + 1..]
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let Some([state]) = fields.next() else {
        return Err(error("field 3, the state, is not one letter"));
    };
    let start_time = fields
        .nth(18)
        .and_then(number)
        .ok_or_else(|| error("field 22, the start time, is no number"))?;
    Ok(Stat {
        start_time,
        state: *state,
    })
}
