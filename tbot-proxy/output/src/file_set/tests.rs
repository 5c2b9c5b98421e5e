use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

fn file<'a>(name: &'a str, contents: &'a str) -> SetFile<'a> {
    SetFile {
        name,
        contents: contents.as_bytes(),
    }
}

fn open(directory: &Path) -> FileSet {
    FileSet::open(directory, Links::ByName).unwrap()
}

fn versions(directory: &Path) -> usize {
    fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .count()
}

#[test]
fn a_set_replaces_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/er");
    let set = open(&directory);
    for round in 0..5 {
        let text = format!("{round}");
        set.replace(&[file("a", &text), file("sub/b", &text)])
            .unwrap();
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), text);
        assert_eq!(fs::read_to_string(directory.join("sub/b")).unwrap(), text);
    }
    assert_eq!(versions(&directory), 2, "the newest and the one before");
    set.replace(&[file("a", "alone")]).unwrap();
    assert!(fs::symlink_metadata(directory.join("sub")).is_err());
    assert_eq!(set.read("a").unwrap().unwrap(), b"alone");
    assert_eq!(set.read("sub/b").unwrap(), None);
}

#[test]
fn only_the_owner_reads_and_writes() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("out");
    let set = open(&directory);
    set.replace(&[file("key", "secret"), file("sub/b", "x")])
        .unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(directory.clone()), 0o700);
    assert_eq!(mode(directory.join("..data")), 0o700);
    assert_eq!(mode(directory.join("sub")), 0o700);
    assert_eq!(mode(directory.join("key")), 0o600);
    assert_eq!(mode(directory.join("sub/b")), 0o600);
}

#[test]
fn a_directory_that_others_write_to_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = FileSet::open(home.path(), Links::ByName)
            .unwrap_err()
            .to_string();
        assert!(error.contains("others may write"), "{error}");
    }
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileSet::open(&file, Links::ByName).unwrap_err().to_string();
    assert!(error.contains("cannot create directory"), "{error}");
}

#[test]
fn a_foreign_file_stays_and_the_old_set_too() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    set.replace(&[file("a", "1")]).unwrap();
    fs::write(home.path().join("b"), "mine").unwrap();
    let error = set.replace(&[file("a", "2"), file("b", "2")]).unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(home.path().join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(home.path().join("b")).unwrap(), "mine");
    assert_eq!(versions(home.path()), 1, "the failed set is gone");
}

#[test]
fn what_a_crash_left_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    fs::create_dir(home.path().join("..00000000000000aa")).unwrap();
    symlink("nowhere", home.path().join(NEXT)).unwrap();
    fs::create_dir(home.path().join("..mine")).unwrap();
    set.replace(&[file("a", "1")]).unwrap();
    assert!(!home.path().join("..00000000000000aa").exists());
    assert!(fs::symlink_metadata(home.path().join(NEXT)).is_err());
    assert!(home.path().join("..mine").exists());
}

#[test]
fn one_writer_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let first = open(home.path());
    let error = FileSet::open(home.path(), Links::ByName).unwrap_err();
    assert!(error.is_in_use(), "{error}");
    assert!(first.is_in_place());
    fs::remove_file(home.path().join(LOCK)).unwrap();
    assert!(!first.is_in_place(), "the lock is worth nothing any more");
    drop(first);
    open(home.path());
}

#[test]
fn a_name_that_leads_out_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    for name in ["", "/a", "../a", "a/../b", "..data", "a/..b", "."] {
        let error = set.replace(&[file(name, "x")]).unwrap_err().to_string();
        assert!(error.contains("begins with `..`"), "{name}: {error}");
    }
    set.replace(&[file("a.b..c", "x"), file("x/y/z", "x")])
        .unwrap();
    assert_eq!(fs::read(home.path().join("x/y/z")).unwrap(), b"x");
}

#[test]
fn a_wiped_set_leaves_what_is_not_ours() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    fs::write(home.path().join("mine"), "mine").unwrap();
    set.wipe().unwrap();
    for _ in 0..2 {
        set.replace(&[file("key", "secret"), file("sub/b", "x")])
            .unwrap();
    }
    set.wipe().unwrap();
    let mut names: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["..lock", "mine"]);
    set.replace(&[file("key", "again")]).unwrap();
    assert_eq!(set.read("key").unwrap().unwrap(), b"again");
}

#[test]
fn a_lock_that_is_no_plain_file_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let lock = home.path().join(LOCK);
    let fifo = std::process::Command::new("mkfifo").arg(&lock).status();
    assert!(fifo.unwrap().success());
    let refused = || {
        let error = FileSet::open(home.path(), Links::ByName).unwrap_err();
        assert!(error.to_string().contains("no plain file"), "{error}");
    };
    refused();
    // With a reader, it can be opened.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let _reader = rustix::fs::open(&lock, flags, Mode::empty()).unwrap();
    refused();
}

#[test]
fn a_wipe_that_leaves_a_key_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    set.replace(&[file("key", "secret")]).unwrap();
    // Deeper than a set of ours.
    let version = home.path().join("..00000000000000aa");
    let deep = version.join("1/2/3/4/5/6/7/8/9/10");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("key"), "secret").unwrap();
    let error = set.wipe().unwrap_err();
    assert_eq!((error.action, &error.path), ("remove", &version));
    assert_eq!(versions(home.path()), 1, "all that can be removed is gone");
}

#[test]
fn a_directory_that_was_there_before_is_not_cleaned_up() {
    let home = tempfile::tempdir().unwrap();
    let set = open(home.path());
    let name = OsStr::new("..00000000000000aa");
    let before = home.path().join(name);
    fs::create_dir(&before).unwrap();
    fs::write(before.join("key"), "of the set in force").unwrap();
    let error = set.write_version_as(name, &[file("key", "x")]).unwrap_err();
    assert_eq!(error.error.kind(), io::ErrorKind::AlreadyExists);
    assert!(before.join("key").exists());
}
