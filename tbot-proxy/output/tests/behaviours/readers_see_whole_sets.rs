//! A reader that resolves `..data` once never sees files of two sets, however
//! often they change (DESIGN D13).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use output::{FileSet, Links, SetFile};

use crate::{memory_directory, read_set};

const ROTATIONS: u64 = 3_000;
#[test]
fn readers_see_whole_sets_during_thousands_of_changes() {
    let home = memory_directory();
    let directory = home.path().join("out");
    let files = FileSet::open(&directory, Links::ByName).unwrap();
    let write = |round: u64| {
        // Long enough that a partial write would be seen.
        let contents = format!("{round}\n").repeat(500);
        let set = crate::NAMES.map(|name| SetFile {
            name,
            contents: contents.as_bytes(),
        });
        files.replace(&set).unwrap();
    };
    write(0);
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = HashSet::new();
                    while !done.load(Ordering::Relaxed) {
                        let Some(set) = read_set(&directory) else {
                            continue;
                        };
                        let round: String = String::from_utf8(set[0].clone()).unwrap();
                        assert!(set.iter().all(|file| *file == set[0]), "files of two sets");
                        let round = round.lines().next().unwrap().to_owned();
                        assert_eq!(set[0].len(), (round.len() + 1) * 500, "a partial file");
                        seen.insert(round);
                        read.fetch_add(1, Ordering::Relaxed);
                        // By name a file is whole too, at any moment.
                        if let Ok(by_name) = std::fs::read(directory.join("svid.pem")) {
                            let first = by_name.split(|byte| *byte == b'\n').next().unwrap();
                            assert_eq!(by_name.len(), (first.len() + 1) * 500);
                        }
                    }
                    seen.len()
                })
            })
            .collect();
        (1..=ROTATIONS).for_each(write);
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 10, "the reader saw the set change");
        }
    });
    assert!(read.load(Ordering::Relaxed) > 100);
    let last = std::fs::read_to_string(directory.join("svid.pem")).unwrap();
    assert!(last.starts_with(&format!("{ROTATIONS}\n")));
}
