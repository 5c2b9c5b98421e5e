//! Durations as people write them: `90s`, `5m`, `1h30m`, `14d`, `250ms`.

use std::time::Duration;

/// Units, longest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses a duration as [`Fields::duration`](crate::Fields::duration) does:
/// whole numbers, each with a unit of `d`, `h`, `m`, `s` or `ms`, longest first.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a duration: write whole numbers with units, as 250ms, 90s, 5m, 1h30m, 14d"
        )
    };
    let too_long = || format!("`{text}` is too long a duration");
    let mut rest = text;
    let mut next_unit = 0;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        if digits == 0 || letters == 0 {
            return Err(wrong());
        }
        let (number, unit) = rest[..digits + letters].split_at(digits);
        let at = UNITS[next_unit..]
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        let (_, milliseconds) = UNITS[next_unit + at];
        let number: u64 = number.parse().map_err(|_| too_long())?;
        total = number
            .checked_mul(milliseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(too_long)?;
        next_unit += at + 1;
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration as [`parse_duration`] reads it, to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, milliseconds) in UNITS {
        let number = rest / milliseconds;
        rest %= milliseconds;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

#[cfg(test)]
mod tests;
