//! Profiles of the shared credentials file of AWS.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>

/// Settings of a profile that are ours.
const OURS: [&str; 4] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    EXPIRES,
];

/// When the session of a profile expires, RFC 3339.
const EXPIRES: &str = "x_security_token_expires";

/// Whether this can be the name of a profile.
pub fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.@+=,/:".contains(c))
}

/// `file` with the settings of `profile` as `section` has them (its header included).
/// Everything else stays: other profiles, comments, settings of this one that are not ours.
/// An empty `section` takes ours away, and the profile if nothing else is in it.
pub fn merged(file: &str, profile: &str, section: &str) -> String {
    let ours: String = section
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    let mut text = String::with_capacity(file.len() + section.len());
    let mut is_written = ours.is_empty();
    for part in sections(file) {
        if part.name != Some(profile) {
            text.push_str(&terminated(part.text));
            continue;
        }
        let kept: String = part
            .text
            .lines()
            .skip(1)
            .filter(|line| !is_ours(line))
            .map(|line| format!("{line}\n"))
            .collect();
        if !is_written {
            text.push_str(&format!("[{profile}]\n{ours}{kept}"));
            is_written = true;
        } else if !kept.trim().is_empty() {
            text.push_str(&format!("[{profile}]\n{kept}"));
        }
    }
    if !is_written {
        if !text.is_empty() && !text.ends_with("\n\n") {
            text.push('\n');
        }
        text.push_str(&format!("[{profile}]\n{ours}"));
    }
    text
}

/// When the session that `profile` holds expires, as the file has it.
pub fn expiration<'a>(file: &'a str, profile: &str) -> Option<&'a str> {
    let sections = sections(file).into_iter();
    let mut lines = sections
        .filter(|section| section.name == Some(profile))
        .flat_map(|section| section.text.lines());
    lines.find_map(|line| {
        let (key, value) = line.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case(EXPIRES)
            .then_some(value.trim())
    })
}

/// From a header, or from the start of the file, to the next header.
struct Section<'a> {
    name: Option<&'a str>,
    text: &'a str,
}

fn sections(file: &str) -> Vec<Section<'_>> {
    let mut sections = vec![];
    let (mut start, mut at, mut name) = (0, 0, None);
    for line in file.split_inclusive('\n') {
        if let Some(header) = header(line) {
            if at > start {
                sections.push(Section {
                    name,
                    text: &file[start..at],
                });
            }
            (start, name) = (at, Some(header));
        }
        at += line.len();
    }
    if at > start {
        sections.push(Section {
            name,
            text: &file[start..at],
        });
    }
    sections
}

fn header(line: &str) -> Option<&str> {
    let inside = line.trim_start().strip_prefix('[')?;
    Some(inside.split(']').next()?.trim())
}

fn is_ours(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    line.contains('=') && OURS.iter().any(|ours| key.eq_ignore_ascii_case(ours))
}

fn terminated(text: &str) -> String {
    if text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}\n")
    }
}

#[cfg(test)]
mod tests;
