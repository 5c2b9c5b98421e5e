//! Values as YAML text, for people to read and [`Document`](crate::Document) to
//! read back: what is written is what is read, whatever is in it.

use std::fmt::Write;

use crate::Free;

/// Widest list that stands on one line.
const FLOW_WIDTH: usize = 72;

/// Writes a value as one YAML document, in block style, with a line end. Text stands
/// plain only where no reader could take it for anything else.
pub fn write(value: &Free) -> String {
    let mut out = String::new();
    match value {
        Free::Map(entries) if !entries.is_empty() => map(&mut out, entries, 0),
        Free::List(items) if !items.is_empty() => list(&mut out, items, 0),
        other => {
            inline(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn map(out: &mut String, entries: &[(String, Free)], indent: usize) {
    for (place, (key, value)) in entries.iter().enumerate() {
        if place > 0 {
            pad(out, indent);
        }
        out.push_str(&scalar(key));
        out.push(':');
        match value {
            Free::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                map(out, inner, indent + 2);
            }
            Free::List(items) if !items.is_empty() => match flow(items) {
                Some(flow) => {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, " {flow}");
                }
                None => {
                    out.push('\n');
                    pad(out, indent + 2);
                    list(out, items, indent + 2);
                }
            },
            other => {
                out.push(' ');
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Free], indent: usize) {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Free::Map(entries) if !entries.is_empty() => map(out, entries, indent + 2),
            Free::List(inner) if !inner.is_empty() => list(out, inner, indent + 2),
            other => {
                inline(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

/// A list of short single values on one line.
fn flow(items: &[Free]) -> Option<String> {
    let mut text = String::from("[");
    for (place, item) in items.iter().enumerate() {
        let between = if place == 0 { "" } else { ", " };
        match item {
            Free::Map(entries) if !entries.is_empty() => return None,
            Free::List(inner) if !inner.is_empty() => return None,
            Free::Text(item) => {
                let _ = write!(text, "{between}{}", scalar(item));
            }
            other => {
                text.push_str(between);
                inline(&mut text, other, 0);
            }
        }
        if text.len() > FLOW_WIDTH {
            return None;
        }
    }
    text.push(']');
    Some(text)
}

/// A single value, or an empty collection. Its lines after the first are indented.
fn inline(out: &mut String, value: &Free, indent: usize) {
    match value {
        Free::Null => out.push_str("null"),
        Free::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Free::Integer(number) => {
            let _ = write!(out, "{number}");
        }
        // With an exponent or a point, so that it is read as what it is.
        Free::Float(number) => {
            let _ = write!(out, "{number:?}");
        }
        Free::Text(text) if fits_block(text) && indent > 0 => block(out, text, indent),
        Free::Text(text) => out.push_str(&scalar(text)),
        Free::List(_) => out.push_str("[]"),
        Free::Map(_) => out.push_str("{}"),
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Whether a text of several lines can stand as a literal block and come back whole.
fn fits_block(text: &str) -> bool {
    let inner = text.strip_suffix('\n').unwrap_or(text);
    inner.contains('\n')
        && !inner.starts_with([' ', '\t', '\n'])
        && !inner.ends_with('\n')
        && inner.split('\n').all(|line| {
            !line.ends_with([' ', '\t']) && !line.starts_with('\t') && line.chars().all(is_shown)
        })
}

fn block(out: &mut String, text: &str, indent: usize) {
    let (inner, header) = match text.strip_suffix('\n') {
        Some(inner) => (inner, "|"),
        None => (text, "|-"),
    };
    out.push_str(header);
    for line in inner.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

/// Plain where no reader of YAML could take it for anything but text, else quoted.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().all(is_shown) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            shown if is_shown(shown) => quoted.push(shown),
            other => {
                let number = u32::from(other);
                let _ = match number {
                    0..=0xffff => write!(quoted, "\\u{number:04x}"),
                    _ => write!(quoted, "\\U{number:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Words that some reader takes for something else.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

fn is_plain(text: &str) -> bool {
    let first = text.bytes().next();
    // A duration, as `1h30m`.
    if first.is_some_and(|byte| (b'1'..=b'9').contains(&byte)) {
        return text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"dhms".contains(&byte))
            && text.ends_with(['d', 'h', 'm', 's']);
    }
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/')
        && !text.ends_with(' ')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._- ".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a character may stand as it is: printable (YAML 1.2, 5.1), on the line,
/// and one that shows.
fn is_shown(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' => {
            // Line and paragraph separators, directions, marks without width.
            !matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        }
        '\u{10000}'.. => !matches!(character, '\u{e0000}'..),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
