//! Who is named as a reader reads, through the kernel's own checks; nobody else does.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
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
