//! Values of any shape.

use crate::node::{Node, Value};

/// A value of any shape. Plain scalars mean what YAML's core schema says (YAML 1.2,
/// 10.3.2); quoted ones are text.
#[derive(Debug, Clone, PartialEq)]
pub enum Free {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// From `i64::MIN` to `u64::MAX`.
    Integer(i128),
    /// Finite.
    Float(f64),
    /// Anything else on its own.
    Text(String),
    /// A sequence.
    List(Vec<Free>),
    /// A mapping, in order.
    Map(Vec<(String, Free)>),
}

/// What a plain scalar cannot be.
const TOO_LARGE: &str = "this number is too large to be kept exactly: quote it, to make it text";
const NOT_FINITE: &str = "there is no such number in JSON: quote it, to make it text";

impl Free {
    /// Reads a node. What is wrong is handed to `refuse`, and stands as nothing.
    pub(crate) fn read(node: &Node, refuse: &mut dyn FnMut(&Node, &str)) -> Self {
        match &node.value {
            Value::Null => Self::Null,
            Value::Scalar { text, plain: false } => Self::Text(text.clone()),
            Value::Scalar { text, plain: true } => match Self::plain(text) {
                Ok(value) => value,
                Err(message) => {
                    refuse(node, message);
                    Self::Null
                }
            },
            Value::Sequence(items) => {
                let items = items.iter().map(|item| Self::read(item, refuse));
                Self::List(items.collect())
            }
            Value::Mapping(entries) => {
                let entries = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), Self::read(&entry.value, refuse)));
                Self::Map(entries.collect())
            }
        }
    }

    fn plain(text: &str) -> Result<Self, &'static str> {
        match text {
            "true" | "True" | "TRUE" => return Ok(Self::Boolean(true)),
            "false" | "False" | "FALSE" => return Ok(Self::Boolean(false)),
            ".nan" | ".NaN" | ".NAN" => return Err(NOT_FINITE),
            _ => {}
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
            return Err(NOT_FINITE);
        }
        let digits = |text: &str, radix: u32| {
            !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix))
        };
        let integer = if digits(unsigned, 10) {
            text.parse::<i128>().ok()
        } else if let Some(octal) = text.strip_prefix("0o").filter(|rest| digits(rest, 8)) {
            i128::from_str_radix(octal, 8).ok()
        } else if let Some(hex) = text.strip_prefix("0x").filter(|rest| digits(rest, 16)) {
            i128::from_str_radix(hex, 16).ok()
        } else if is_float(unsigned) {
            let number: f64 = text.parse().map_err(|_| NOT_FINITE)?;
            return match number.is_finite() {
                true => Ok(Self::Float(number)),
                false => Err(TOO_LARGE),
            };
        } else {
            return Ok(Self::Text(text.to_owned()));
        };
        integer
            .filter(|number| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number))
            .map(Self::Integer)
            .ok_or(TOO_LARGE)
    }
}

/// `[0-9]+` or a fraction with a digit, then maybe an exponent; no sign.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && all_digits(exponent)
    });
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent_fits
}

#[cfg(test)]
mod tests;
