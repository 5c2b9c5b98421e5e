//! Users and groups by name, as `/etc/passwd` (passwd(5)) and `/etc/group` (group(5)) list
//! them.
//!
//! Those that only a directory service knows are not found: asking it would need the C
//! library's plug-ins, which a static binary has not.

use std::{fs, io, path::Path};

/// The number of the user or group of this name in a file of one of these formats; `None`:
/// it is not there.
///
/// # Errors
///
/// The file cannot be read.
pub fn id_of(name: &str, file: &Path) -> io::Result<Option<u32>> {
    let text = fs::read_to_string(file)?;
    // name:password:id:…
    Ok(text.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(name)).then(|| parts.nth(1)?.parse().ok())?
    }))
}
