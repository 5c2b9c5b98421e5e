//! Who is named as a reader reads, through the kernel's own checks; nobody else does.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use output::{
    FileSet, Links, Options, SetFile,
    file_set::{Access, Acls, FileMode, Owner, Reader, Symlinks},
};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::is_root;

const READER: u32 = 54_321;
const GROUP: u32 = 54_400;
const STRANGER: u32 = 54_322;

fn set(directory: &Path, access: Access) -> FileSet {
    let options = Options {
        links: Links::ByName,
        symlinks: Symlinks::TrySecure,
        access,
    };
    let set = FileSet::open(directory, options).unwrap();
    set.replace(&[
        SetFile {
            name: "svid_key.pem",
            contents: b"secret",
        },
        SetFile {
            name: "federated/td.pem",
            contents: b"bundle",
        },
    ])
    .unwrap();
    set
}

/// A directory that everybody may enter.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).unwrap();
    home
}

/// What a process of this user and group reads.
fn read_as(uid: u32, gid: u32, path: &Path) -> Option<Vec<u8>> {
    let output = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .args(["--clear-groups", "cat"])
        .arg(path)
        .output()
        .unwrap();
    output.status.success().then_some(output.stdout)
}

fn can_write_as(uid: u32, path: &Path) -> bool {
    let status = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={uid}")])
        .args(["--clear-groups", "sh", "-c", "echo x >> \"$0\""])
        .arg(path)
        .stderr(std::process::Stdio::null())
        .status();
    status.unwrap().success()
}

#[test]
fn readers_by_access_control_list_read_and_do_not_write() {
    if !is_root("acting as another user") {
        return;
    }
    let home = home();
    let out = home.path().join("out");
    let _set = set(
        &out,
        Access {
            readers: vec![Reader::Group(GROUP), Reader::User(READER)],
            acls: Acls::Required,
            ..Access::default()
        },
    );
    for (name, contents) in [("svid_key.pem", b"secret"), ("federated/td.pem", b"bundle")] {
        let path = out.join(name);
        assert_eq!(
            read_as(READER, READER, &path).as_deref(),
            Some(&contents[..])
        );
        assert_eq!(
            read_as(STRANGER, GROUP, &path).as_deref(),
            Some(&contents[..])
        );
        assert_eq!(read_as(STRANGER, STRANGER, &path), None);
        assert!(!can_write_as(READER, &path));
    }
    assert!(!can_write_as(READER, &out.join("new")));

    let Ok(listed) = Command::new("getfacl")
        .args(["--numeric", "--omit-header", "--absolute-names"])
        .arg(out.join("..data/svid_key.pem"))
        .arg(out.join("..data/federated"))
        .output()
    else {
        eprintln!("SKIPPED: there is no getfacl (Debian package acl)");
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let expected = format!(
        "user::rw-\nuser:{READER}:r--\ngroup::---\ngroup:{GROUP}:r--\nmask::r--\nother::---\n\n\
         user::rwx\nuser:{READER}:r-x\ngroup::---\ngroup:{GROUP}:r-x\nmask::r-x\nother::---\n\n"
    );
    assert_eq!(listed, expected);
}

#[test]
fn where_there_are_no_access_control_lists_the_setting_decides() {
    let access = |acls| Access {
        readers: vec![Reader::User(READER)],
        acls,
        ..Access::default()
    };
    let Some(without) = file_system_without_acls() else {
        eprintln!("SKIPPED: no file system without access control lists can be mounted");
        return;
    };
    let open = |acls| {
        let options = Options {
            links: Links::ByName,
            symlinks: Symlinks::TrySecure,
            access: access(acls),
        };
        FileSet::open(&without.path().join("out"), options)
    };
    let refused = open(Acls::Required).unwrap_err().to_string();
    let tried = open(Acls::Try).map(drop);
    let off = open(Acls::Off).map(drop);
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(without.path())
        .status();
    assert!(unmounted.unwrap().success());
    assert!(refused.contains("no access control lists"), "{refused}");
    tried.unwrap();
    off.unwrap();
}

/// ramfs has no extended attributes.
fn file_system_without_acls() -> Option<tempfile::TempDir> {
    let home = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "ramfs", "ramfs"])
        .arg(home.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return None;
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    Some(home)
}

#[test]
fn modes_and_owner_are_as_configured() {
    if !is_root("giving files away") {
        return;
    }
    let home = home();
    let out = home.path().join("out");
    let access = Access {
        file_mode: Some(FileMode::new(0o440).unwrap()),
        directory_mode: Some(FileMode::new(0o750).unwrap()),
        owner: Owner {
            uid: Some(READER),
            gid: Some(GROUP),
        },
        ..Access::default()
    };
    let set = set(&out, access);
    for (path, mode) in [
        (out.clone(), 0o750),
        (out.join("..data"), 0o750),
        (out.join("federated"), 0o750),
        (out.join("svid_key.pem"), 0o440),
        (out.join("federated/td.pem"), 0o440),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        assert_eq!(found, (mode, READER, GROUP), "{}", path.display());
    }
    let key = out.join("svid_key.pem");
    assert!(read_as(READER, READER, &key).is_some());
    assert!(read_as(STRANGER, GROUP, &key).is_some());
    assert!(read_as(STRANGER, STRANGER, &key).is_none());
    assert!(set.is_in_place());
}

#[test]
fn a_directory_is_not_given_away_by_whoever_could_not_write_to_it_afterwards() {
    if !is_root("giving files away") {
        return;
    }
    let home = home();
    let out = home.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).unwrap();
    let options = |owner: Owner| Options {
        access: Access {
            owner,
            ..Access::default()
        },
        ..Options::from(Links::ByName)
    };
    let owner = |uid| Owner {
        uid: Some(uid),
        gid: None,
    };
    for capability in [
        CapabilitySet::DAC_OVERRIDE,
        CapabilitySet::FOWNER,
        CapabilitySet::CHOWN,
    ] {
        // Capabilities are of a thread.
        let opened = thread::scope(|scope| {
            let without = scope.spawn(|| {
                let mut sets = capabilities(None).unwrap();
                sets.effective.remove(capability);
                set_capabilities(None, sets).unwrap();
                FileSet::open(&out, options(owner(0))).unwrap();
                FileSet::open(&out, options(owner(READER)))
            });
            without.join().unwrap()
        });
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("CAP_DAC_OVERRIDE"), "{error}");
        assert!(error.contains("readers"), "{error}");
        assert_eq!(fs::metadata(&out).unwrap().uid(), 0, "{error}");
    }
    FileSet::open(&out, options(owner(READER))).unwrap();
    let error = FileSet::open(&out, Links::ByName).unwrap_err().to_string();
    assert!(error.contains("belongs to uid 54321"), "{error}");
    assert!(error.contains("chown it"), "{error}");
}

/// Paths of this file in every set that is kept.
fn in_all_sets(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.path().join(name))
        .collect();
    paths.sort();
    paths
}

#[test]
fn who_is_no_reader_any_more_reads_no_set_neither_the_new_one_nor_the_one_before() {
    if !is_root("acting as another user") {
        return;
    }
    let access = |directory_mode: Option<u32>, file_mode, readers: &[Reader]| Access {
        file_mode: Some(FileMode::new(file_mode).unwrap()),
        directory_mode: directory_mode.map(|mode| FileMode::new(mode).unwrap()),
        owner: Owner {
            uid: None,
            gid: Some(GROUP),
        },
        readers: readers.to_vec(),
        acls: Acls::Try,
    };
    let both = [Reader::User(READER), Reader::User(STRANGER)];
    for (before, after, (uid, gid), stays) in [
        // The directory itself is open to the one who is to read nothing.
        (
            access(Some(0o711), 0o600, &both),
            access(Some(0o711), 0o600, &[]),
            (READER, READER),
            false,
        ),
        (
            access(None, 0o600, &both),
            access(None, 0o600, &both[1..]),
            (READER, READER),
            true,
        ),
        (
            access(Some(0o750), 0o640, &[]),
            access(Some(0o750), 0o600, &[]),
            (STRANGER, GROUP),
            false,
        ),
    ] {
        let home = home();
        let out = home.path().join("out");
        let first = set(&out, before.clone());
        let old = in_all_sets(&out, "svid_key.pem");
        assert_eq!(old.len(), 1);
        assert!(read_as(uid, gid, &old[0]).is_some(), "{before:?}");
        drop(first);
        let second = set(&out, after.clone());
        for path in in_all_sets(&out, "svid_key.pem") {
            assert_eq!(read_as(uid, gid, &path), None, "{after:?} {old:?}");
        }
        let other = read_as(STRANGER, STRANGER, &out.join("svid_key.pem"));
        assert_eq!(other.is_some(), stays, "{after:?}");
        drop(second);
        // The rights have not changed: whoever reads the set before goes on.
        let third = set(&out, after);
        assert_eq!(in_all_sets(&out, "svid_key.pem").len(), 2);
        drop(third);
    }
}

#[test]
fn a_directory_without_readers_has_no_list_of_ours_left() {
    let home = home();
    let out = home.path().join("out");
    let of_readers = |readers: &[Reader], acls| Access {
        readers: readers.to_vec(),
        acls,
        ..Access::default()
    };
    let list = || {
        let mut list = vec![0_u8; 256];
        rustix::fs::getxattr(&out, "system.posix_acl_access", &mut list)
    };
    let reader = [Reader::User(READER)];
    let options = Options {
        links: Links::ByName,
        symlinks: Symlinks::TrySecure,
        access: of_readers(&reader, Acls::Required),
    };
    match FileSet::open(&out, options) {
        Ok(set) => drop(set),
        Err(error) if error.to_string().contains("no access control lists") => {
            eprintln!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    assert!(list().is_ok());
    drop(set(&out, of_readers(&[], Acls::Off)));
    assert!(list().is_ok(), "lists are no matter of ours");
    drop(set(&out, of_readers(&[], Acls::Try)));
    assert_eq!(list(), Err(rustix::io::Errno::NODATA));
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o700);
}
