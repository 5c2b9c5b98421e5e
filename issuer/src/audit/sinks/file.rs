//! Records in a file, rotated by size.
//!
//! The file itself says how far it is: its last whole line is read when it is opened,
//! and a torn one behind it (a crash, a full disk) is cut off. So no record is twice in
//! it, and none is missing, over any `kill -9`. A file that was taken away is made anew
//! and goes on with the next record. One process writes it: it is locked. A file of
//! anything else, named by mistake, is not touched.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{Held, blocking::BlockingSink, page::Page, settings::FileSettings};
use crate::audit::{chain::Hash, lines::Line};

/// How much is read at once to find the last line.
const CHUNK: u64 = 64 * 1024;
/// What a line of ours begins with.
const BEGINNINGS: [&[u8]; 4] = [
    b"{\"sequence\":",
    b"{\"audit_key\":",
    b"{\"checkpoint\":",
    b"{\"not_durable\":",
];

pub(super) struct FileSink {
    settings: FileSettings,
    open: Option<Open>,
    /// How many lines of a page are written already whose rest could not be: the page
    /// with this last record.
    partly: Option<(u64, usize)>,
}

struct Open {
    file: File,
    size: u64,
    /// Device and inode: whether the path still leads here.
    identity: (u64, u64),
}

impl FileSink {
    pub(super) fn new(settings: FileSettings) -> Self {
        Self {
            settings,
            open: None,
            partly: None,
        }
    }

    /// The file at the path, opened (anew, if it was moved or removed).
    fn current(&mut self) -> io::Result<&mut Open> {
        let path = &self.settings.path;
        let there = match std::fs::metadata(path) {
            Ok(found) => Some((found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let open = match self.open.take() {
            Some(open) if Some(open.identity) == there => open,
            _ => open(path)?,
        };
        Ok(self.open.insert(open))
    }

    /// Moves the file to `.1`, and those behind it one further.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            open.file.sync_all()?;
        }
        let FileSettings { path, keep, .. } = &self.settings;
        if *keep == 0 {
            std::fs::remove_file(path)?;
        }
        for number in (0..*keep).rev() {
            let (from, to) = (numbered(path, number), numbered(path, number + 1));
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_directory(path)?;
        metrics::counter!("issuer_audit_file_rotations_total").increment(1);
        Ok(())
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let open = self.current()?;
        let written = open.file.write_all(text);
        match written {
            Ok(()) => {
                open.size += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What cannot be cut off now is cut off when it is opened again.
                let _ = open.file.set_len(open.size);
                self.open = None;
                Err(error)
            }
        }
    }

    /// Goes on where an attempt that failed has stopped.
    fn write(&mut self, page: &Page) -> io::Result<()> {
        let mut done = match self.partly {
            Some((last, lines)) if last == page.last => lines,
            _ => 0,
        };
        let mut size = self.current()?.size;
        let mut text = Vec::new();
        for (number, (_, line)) in page.lines.iter().enumerate().skip(done) {
            let length = line.len() as u64 + 1;
            if size > 0 && size + length > self.settings.max_size {
                self.append(&text)?;
                (text, done) = (Vec::new(), number);
                self.partly = Some((page.last, done));
                self.rotate()?;
                size = self.current()?.size;
            }
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
            size += length;
        }
        self.append(&text)?;
        self.partly = None;
        Ok(())
    }

    fn newest(&mut self) -> io::Result<Held> {
        let open = self.current()?;
        if let Some((sequence, hash)) = last_record(&mut open.file)? {
            return Ok(Held::Exactly(sequence, hash));
        }
        // New, or just rotated.
        match File::open(numbered(&self.settings.path, 1)) {
            Ok(mut older) => {
                let newest = last_record(&mut older)?;
                Ok(newest.map_or(Held::Unknown, |(sequence, hash)| {
                    Held::AtLeast(sequence, hash)
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Held::Unknown),
            Err(error) => Err(error),
        }
    }

    fn told(&self, what: &str, error: &io::Error) -> String {
        format!(
            "{} cannot be {what} ({error})",
            self.settings.path.display()
        )
    }
}

impl BlockingSink for FileSink {
    fn held(&mut self) -> Result<Held, String> {
        self.newest().map_err(|error| self.told("opened", &error))
    }

    fn deliver(&mut self, page: &Page) -> Result<(), String> {
        self.write(page)
            .map_err(|error| self.told("written", &error))
    }

    fn sync(&mut self) -> Result<(), String> {
        let synced = match &self.open {
            Some(open) => open.file.sync_data(),
            None => Ok(()),
        };
        synced.map_err(|error| self.told("flushed", &error))
    }
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<Open> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        io::Error::other("another process writes it: give each issuer a file of its own")
    })?;
    if !is_ours(&mut file)? {
        let why = "it is there, and holds no audit records: name another file";
        return Err(io::Error::other(why));
    }
    sync_directory(path)?;
    let whole = whole_lines(&mut file)?;
    file.set_len(whole)?;
    let found = file.metadata()?;
    Ok(Open {
        file,
        size: whole,
        identity: (found.dev(), found.ino()),
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// Whether it begins as a file of records does; an empty one may become one.
fn is_ours(file: &mut File) -> io::Result<bool> {
    let beginning = read_range(file, 0, 64)?;
    let beginning = beginning.trim_ascii_start();
    let fits = |ours: &&[u8]| beginning.starts_with(ours) || ours.starts_with(beginning);
    Ok(BEGINNINGS.iter().any(fits))
}

/// Length of the file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(CHUNK);
        let chunk = read_range(file, from, end)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Number and link of the last record in a file of whole lines.
fn last_record(file: &mut File) -> io::Result<Option<(u64, Hash)>> {
    let end = file.metadata()?.len();
    let mut wanted = CHUNK;
    loop {
        let from = end.saturating_sub(wanted);
        let chunk = read_range(file, from, end)?;
        let mut lines: Vec<&[u8]> = chunk.split(|byte| *byte == b'\n').collect();
        if from > 0 {
            // Its beginning is not here.
            lines.remove(0);
        }
        let lines = lines.into_iter().rev().filter(|line| !line.is_empty());
        for line in lines {
            let line = std::str::from_utf8(line).unwrap_or_default();
            if let Ok(Line::Record(record)) = Line::parse(line) {
                return Ok(Some((record.sequence, record.hash)));
            }
        }
        if from == 0 {
            return Ok(None);
        }
        wanted *= 8;
    }
}

fn read_range(file: &mut File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut chunk = Vec::new();
    file.take(to - from).read_to_end(&mut chunk)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests;
