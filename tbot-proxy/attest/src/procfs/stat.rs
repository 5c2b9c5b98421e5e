//! `/proc/PID/stat`.

use sys::StatFields;

use super::ParseError;

/// What of `/proc/PID/stat` tells one process from another of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// When it started, in clock ticks (usually 10 ms) since boot.
    pub start_time: u64,
    /// Its state: `R`, `S`, … and `Z` for one that has ended but is not yet reaped.
    pub state: u8,
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name of the program, in
/// parentheses, may hold any bytes, parentheses and spaces too ([`StatFields`]).
pub fn stat(bytes: &[u8]) -> Result<Stat, ParseError> {
    let error = |what| ParseError { file: "stat", what };
    let fields = StatFields::of(bytes).ok_or_else(|| error("no name in parentheses"))?;
    let Some(&[state]) = fields.field(3) else {
        return Err(error("field 3, the state, is not one letter"));
    };
    let start_time = fields
        .number(22)
        .ok_or_else(|| error("field 22, the start time, is no number"))?;
    Ok(Stat { start_time, state })
}
