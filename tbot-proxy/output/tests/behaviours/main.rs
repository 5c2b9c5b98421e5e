//! What outputs do, each behaviour in its file.

#![allow(clippy::unwrap_used)]

use std::{fs::File, io::Read, path::Path};

use rustix::fs::{Mode, OFlags, open, openat};

mod aws;
mod full_disk;
mod java;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod planted_links;
mod readers;
mod readers_see_whole_sets;
mod writers_are_killed;

/// Names of the files of a set in these tests.
const NAMES: [&str; 4] = [
    "svid.pem",
    "svid_key.pem",
    "bundle.pem",
    "federated/other.pem",
];

/// Reads all files of the set that is in force now; `None` if it was replaced twice meanwhile.
fn read_set(directory: &Path) -> Option<Vec<Vec<u8>>> {
    let set = open(
        directory.join("..data"),
        OFlags::DIRECTORY | OFlags::RDONLY,
        Mode::empty(),
    )
    .ok()?;
    NAMES
        .iter()
        .map(|name| {
            let file = openat(&set, *name, OFlags::RDONLY, Mode::empty()).ok()?;
            let mut contents = vec![];
            File::from(file).read_to_end(&mut contents).unwrap();
            Some(contents)
        })
        .collect()
}

/// In memory if there is such a place: thousands of flushes to a disk take a minute.
fn memory_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Says loudly that a test does not run without root (CI and the build machines have it).
fn is_root(why: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {why} needs root");
    }
    root
}
