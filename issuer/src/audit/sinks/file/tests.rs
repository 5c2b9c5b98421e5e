use std::{fs, path::Path};

use tempfile::TempDir;

use super::{FileSettings, FileSink};
use crate::audit::{
    lines::{Line, Recorded},
    sinks::{Held, blocking::BlockingSink, page::Page},
};

fn page(numbers: std::ops::RangeInclusive<u64>) -> Page {
    let last = *numbers.end();
    let lines = numbers.map(|sequence| {
        let line = Line::Record(Recorded {
            sequence,
            time_ms: 0,
            event: "bot.join".to_owned(),
            success: true,
            fields: format!(r#"{{"padding":"{}"}}"#, "x".repeat(100)),
            hash: [0; 32],
        });
        (line.clone(), line.to_json())
    });
    Page {
        lines: lines.collect(),
        last,
    }
}

fn sink(folder: &TempDir, max_size: u64, keep: u64) -> FileSink {
    FileSink::new(FileSettings {
        path: folder.path().join("audit.jsonl"),
        max_size,
        keep,
    })
}

/// The numbers in the files, oldest first.
fn numbers(folder: &Path) -> Vec<u64> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort_by_key(|path| {
        let number = path.extension().and_then(|end| end.to_str()?.parse().ok());
        std::cmp::Reverse(number.unwrap_or(0_u64))
    });
    let mut found = Vec::new();
    for file in files {
        for line in fs::read_to_string(file).unwrap().lines() {
            match Line::parse(line) {
                Ok(Line::Record(record)) => found.push(record.sequence),
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

#[test]
fn files_are_bounded_in_size_and_number_and_no_record_is_lost_between_them() {
    let folder = TempDir::new().unwrap();
    let mut sink = sink(&folder, 5000, 100);
    for first in (1..200).step_by(10) {
        sink.deliver(&page(first..=first + 9)).unwrap();
    }
    assert_eq!(numbers(folder.path()), (1..=200).collect::<Vec<_>>());
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert!(files > 5, "{files}");
    for entry in fs::read_dir(folder.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let found = entry.unwrap().metadata().unwrap();
        assert!(found.len() <= 5000);
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
    drop(sink);
    let few = TempDir::new().unwrap();
    for keep in [0, 2] {
        let mut sink = self::sink(&few, 5000, keep);
        for first in (1..200).step_by(10) {
            sink.deliver(&page(first..=first + 9)).unwrap();
        }
        let files = fs::read_dir(few.path()).unwrap().count() as u64;
        assert_eq!(files, keep + 1);
        assert_eq!(numbers(few.path()).last(), Some(&200));
    }
}

#[test]
fn it_knows_how_far_it_is_and_cuts_off_a_torn_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl");
    assert_eq!(sink(&folder, 5000, 3).held(), Ok(Held::Unknown));
    sink(&folder, 5000, 3).deliver(&page(1..=3)).unwrap();
    let whole = fs::read(&path).unwrap();
    let torn = [whole.as_slice(), br#"{"sequence":4,"time":"20"#].concat();
    fs::write(&path, torn).unwrap();
    let mut sink = sink(&folder, 5000, 3);
    assert_eq!(sink.held(), Ok(Held::Exactly(3, [0; 32])));
    sink.deliver(&page(4..=5)).unwrap();
    assert_eq!(numbers(folder.path()), [1, 2, 3, 4, 5]);
}

#[test]
fn a_file_just_rotated_says_what_the_older_one_holds() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl");
    sink(&folder, 5000, 3).deliver(&page(1..=3)).unwrap();
    fs::rename(&path, folder.path().join("audit.jsonl.1")).unwrap();
    assert_eq!(sink(&folder, 5000, 3).held(), Ok(Held::AtLeast(3, [0; 32])));
}

#[test]
fn a_file_that_was_taken_away_is_made_anew() {
    let folder = TempDir::new().unwrap();
    let mut sink = sink(&folder, 50_000, 3);
    sink.deliver(&page(1..=3)).unwrap();
    fs::remove_file(folder.path().join("audit.jsonl")).unwrap();
    sink.deliver(&page(4..=6)).unwrap();
    assert_eq!(numbers(folder.path()), [4, 5, 6]);
}

#[test]
fn a_page_that_stopped_half_way_goes_on_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let mut sink = sink(&folder, 8000, 1);
    // The rotation in the middle of the page fails: its target is a folder.
    let in_the_way = folder.path().join("audit.jsonl.1");
    fs::create_dir_all(in_the_way.join("full")).unwrap();
    let page = page(1..=40);
    assert!(sink.deliver(&page).is_err());
    assert!(sink.deliver(&page).is_err());
    fs::remove_dir_all(in_the_way).unwrap();
    sink.deliver(&page).unwrap();
    assert_eq!(numbers(folder.path()), (1..=40).collect::<Vec<_>>());
}

#[test]
fn one_process_writes_it() {
    let folder = TempDir::new().unwrap();
    let mut first = sink(&folder, 5000, 3);
    first.deliver(&page(1..=1)).unwrap();
    let refused = sink(&folder, 5000, 3).deliver(&page(2..=2)).unwrap_err();
    assert!(refused.contains("another process writes it"), "{refused}");
    drop(first);
    sink(&folder, 5000, 3).deliver(&page(2..=2)).unwrap();
}

#[test]
fn a_file_of_something_else_is_not_touched() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl");
    for content in ["5a5a5a", "SQLite format 3\0 and more", "{\"keys\":[]}\n{"] {
        fs::write(&path, content).unwrap();
        let refused = sink(&folder, 5000, 3).deliver(&page(1..=1)).unwrap_err();
        assert!(refused.contains("no audit records"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    // A line of ours that a crash has cut off is none of them.
    fs::write(&path, "{\"seq").unwrap();
    sink(&folder, 5000, 3).deliver(&page(1..=1)).unwrap();
    assert_eq!(numbers(folder.path()), [1]);
}
