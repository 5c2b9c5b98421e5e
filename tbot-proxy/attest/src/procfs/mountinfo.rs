//! `/proc/PID/mountinfo`.

use super::ParseError;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What of the file system is mounted: a path inside of it.
    pub root: String,
    /// Where, from the root of the process.
    pub mount_point: String,
    /// The type of the file system: `ext4`, `cgroup2`, ….
    pub file_system: String,
}

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
///
/// A process that has a mount namespace of its own, which every user can make,
/// decides what this says: a bind mount of another container's cgroup or files looks
/// like that container's. So it is only read of the agent itself.
pub fn mountinfo(bytes: &[u8]) -> Result<Vec<Mount>, ParseError> {
    let error = |what| ParseError {
        file: "mountinfo",
        what,
    };
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let root = fields.nth(3).ok_or_else(|| error("a line has no root"))?;
            let mount_point = fields
                .next()
                .ok_or_else(|| error("a line has no mount point"))?;
            // Options, then any number of optional fields, then a dash alone.
            let file_system = fields
                .by_ref()
                .skip(1)
                .find(|field| *field == b"-")
                .and_then(|_| fields.next())
                .ok_or_else(|| error("a line has no type of file system"))?;
            let text = |field| unescaped(field).ok_or_else(|| error("a field is not UTF-8"));
            Ok(Mount {
                root: text(root)?,
                mount_point: text(mount_point)?,
                file_system: text(file_system)?,
            })
        })
        .collect()
}

/// The kernel writes space, tab, line end and backslash as three octal digits.
fn unescaped(field: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}
