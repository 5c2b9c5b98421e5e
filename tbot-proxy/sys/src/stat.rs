//! `/proc/PID/stat` (proc_pid_stat(5)), whose name of a program is in the hands of the
//! process.

use std::str::FromStr;

/// Its fields, as the kernel writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatFields<'a> {
    name: &'a [u8],
    /// From the third on.
    after: Vec<&'a [u8]>,
}

impl<'a> StatFields<'a> {
    /// Takes a file apart; `None`: there is no name in parentheses. It may hold any bytes,
    /// parentheses and spaces too, so that it ends at the last `)`.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let start = bytes.iter().position(|byte| *byte == b'(')? + 1;
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let fields = bytes.get(end + 1..)?.split(u8::is_ascii_whitespace);
        Some(Self {
            name: bytes.get(start..end)?,
            after: fields.filter(|field| !field.is_empty()).collect(),
        })
    }

    /// Name of the program: its first 15 bytes.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// A field by its number in the manual, which is 3 (the state) at least.
    pub fn field(&self, number: usize) -> Option<&'a [u8]> {
        self.after.get(number.checked_sub(3)?).copied()
    }

    /// A field that is a whole decimal number.
    pub fn number<T: FromStr>(&self, number: usize) -> Option<T> {
        let digits = self.field(number)?;
        if !digits.first()?.is_ascii_digit() {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}
