//! A disk that is full or read-only leaves the set that is in force.

use std::{fs, path::Path, process::Command, sync::Arc};

use output::{
    Artifact, Artifacts, Destination, FileSet, Links, SetFile,
    destination::{CredentialsFile, DirectoryConfig},
};

use crate::is_root;

fn mount(arguments: &[&str], at: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(at).status();
    assert!(mounted.unwrap().success());
}

fn unmount(at: &Path) {
    let unmounted = Command::new("umount").arg("-l").arg(at).status();
    assert!(unmounted.unwrap().success());
}

#[test]
fn a_disk_that_is_full_at_any_step_leaves_a_whole_set_in_force() {
    if !is_root("mounting a small disk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut failed, mut succeeded) = (0, 0);
    for inodes in 6..20 {
        let size = format!("size=1m,mode=0700,nr_inodes={inodes}");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], home.path());
        let tried = replace_twice(home.path());
        unmount(home.path());
        match tried {
            Some(true) => succeeded += 1,
            Some(false) => failed += 1,
            None => {}
        }
    }
    assert!(failed > 1 && succeeded > 1, "{failed} {succeeded}");
}

/// Whether the second set came in force; `None` if the first did not.
fn replace_twice(directory: &Path) -> Option<bool> {
    let set = FileSet::open(directory, Links::ByName).ok()?;
    let file = |name, contents: &'static [u8]| SetFile { name, contents };
    set.replace(&[file("a", b"1")]).ok()?;
    // Two new names: the link of the first takes the inode that the old `..data` gives back.
    let second = ["a", "new", "newer"].map(|name| file(name, b"2"));
    let replaced = set.replace(&second).is_ok();
    let expected = if replaced { b"2" } else { b"1" };
    assert_eq!(set.read("a").unwrap().as_deref(), Some(&expected[..]));
    assert_eq!(fs::read(directory.join("a")).unwrap(), expected);
    assert_eq!(
        fs::symlink_metadata(directory.join("new")).is_ok(),
        replaced
    );
    Some(replaced)
}

#[test]
fn a_disk_that_becomes_read_only_leaves_the_set_and_is_used_again_when_it_is_writable() {
    if !is_root("mounting a disk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    mount(&["-t", "tmpfs", "-o", "mode=0700", "tmpfs"], home.path());
    let directory = home.path().join("out");
    let set = FileSet::open(&directory, Links::ByName).unwrap();
    let write = |contents: &'static [u8]| {
        set.replace(&[SetFile {
            name: "a",
            contents,
        }])
    };
    write(b"1").unwrap();
    // The lock is open for writing: a bind mount turns read-only where a file system may not.
    mount(&["--bind", &directory.display().to_string()], &directory);
    drop(set);
    mount(&["-o", "remount,bind,ro"], &directory);
    let error = FileSet::open(&directory, Links::ByName).unwrap_err();
    let kept = fs::read(directory.join("a")).unwrap();
    unmount(&directory);
    let set = FileSet::open(&directory, Links::ByName).unwrap();
    set.replace(&[SetFile {
        name: "a",
        contents: b"2",
    }])
    .unwrap();
    let renewed = fs::read(directory.join("a")).unwrap();
    drop(set);
    unmount(home.path());
    assert!(error.to_string().contains("Read-only"), "{error}");
    assert_eq!((kept, renewed), (b"1".to_vec(), b"2".to_vec()));
}

#[tokio::test]
async fn a_full_disk_leaves_a_file_of_credentials_as_it_is() {
    if !is_root("mounting a small disk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    mount(
        &["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"],
        home.path(),
    );
    let mut file = Destination::CredentialsFile(CredentialsFile {
        directory: DirectoryConfig::new(home.path()),
        forbidden: None,
        name: "aws_credentials".to_owned(),
        profile: "p".to_owned(),
        overwrite: false,
    });
    let section = |size: usize| {
        let text = format!("[p]\naws_session_token = {}\n", "x".repeat(size));
        Arc::new(Artifacts {
            files: vec![Artifact::new("aws_credentials", text)],
            issued: None,
        })
    };
    file.write(section(10)).await.unwrap();
    let before = fs::read(home.path().join("aws_credentials")).unwrap();
    let error = file.write(section(100_000)).await.unwrap_err().to_string();
    let after = fs::read(home.path().join("aws_credentials")).unwrap();
    let mut names: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    unmount(home.path());
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(before, after);
    assert_eq!(
        names,
        ["..aws_credentials.lock", "aws_credentials"],
        "no litter"
    );
}
