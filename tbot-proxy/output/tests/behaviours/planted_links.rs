//! Symbolic links that somebody else plants lead no write astray.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use output::{
    FileSet, Links, Options, SetFile,
    file_set::{Access, Owner, Symlinks},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::is_root;

/// Somebody else.
const STRANGER: u32 = 54_321;

fn options(symlinks: Symlinks) -> Options {
    Options {
        symlinks,
        ..Options::from(Links::ByName)
    }
}

fn write(set: &FileSet) -> Result<(), output::FileSetError> {
    set.replace(&[SetFile {
        name: "svid_key.pem",
        contents: b"secret",
    }])
}

/// A directory of the stranger's with `out` in it, and a place that is none of its.
struct Scene {
    home: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for name in ["shared", "shared/out", "victim", "victim/out"] {
            fs::create_dir(home.path().join(name)).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(home.path().join(name), mode).unwrap();
        }
        Self { home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What the stranger does with a directory of its own.
    fn swap(&self) {
        fs::rename(self.at("shared"), self.at("moved")).unwrap();
        symlink(self.at("victim"), self.at("shared")).unwrap();
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn a_link_in_the_path_is_refused_and_the_error_names_it() {
    for symlinks in [Symlinks::Secure, Symlinks::TrySecure] {
        let scene = Scene::new();
        scene.swap();
        for path in ["shared/out", "shared/new/out", "shared"] {
            let error = FileSet::open(&scene.at(path), options(symlinks)).unwrap_err();
            let error = error.to_string();
            let link = scene.at("shared").display().to_string();
            assert!(error.contains(&format!("cannot use {link}: ")), "{error}");
            assert!(error.contains("symbolic link"), "{error}");
        }
        assert!(is_empty(&scene.at("victim/out")));
        assert!(!scene.at("victim/new").exists());
        assert!(FileSet::open(&scene.at("shared/out"), options(Symlinks::Insecure)).is_ok());
    }
}

#[test]
fn a_parent_that_is_swapped_while_the_set_is_open_does_not_move_the_writer() {
    let scene = Scene::new();
    let set = FileSet::open(&scene.at("shared/out"), options(Symlinks::TrySecure)).unwrap();
    write(&set).unwrap();
    assert!(set.is_in_place());
    scene.swap();
    assert!(!set.is_in_place());
    write(&set).unwrap();
    assert!(is_empty(&scene.at("victim/out")));
    assert!(scene.at("moved/out/svid_key.pem").exists());
}

#[test]
fn links_in_a_directory_of_the_owners_are_not_followed() {
    if !is_root("giving files away") {
        return;
    }
    let scene = Scene::new();
    let (out, victim) = (scene.at("shared/out"), scene.at("victim/out"));
    fs::write(victim.join("file"), "theirs").unwrap();
    let owned = Options {
        access: Access {
            owner: Owner {
                uid: Some(STRANGER),
                gid: Some(STRANGER),
            },
            ..Access::default()
        },
        ..options(Symlinks::TrySecure)
    };
    // All that it could plant under names of ours.
    chown(&out, Some(STRANGER), Some(STRANGER)).unwrap();
    symlink(victim.join("file"), out.join("..lock")).unwrap();
    assert!(
        FileSet::open(&out, owned.clone()).is_err(),
        "the lock is a link"
    );
    fs::remove_file(out.join("..lock")).unwrap();
    symlink(&victim, out.join("..0123456789abcdef")).unwrap();
    symlink(&victim, out.join("..data")).unwrap();
    symlink(victim.join("file"), out.join("..data.next")).unwrap();
    symlink(victim.join("file"), out.join("svid_key.pem")).unwrap();
    let set = FileSet::open(&out, owned).unwrap();
    write(&set).unwrap();
    set.wipe().unwrap();
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "theirs");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
fn whoever_swaps_a_parent_for_a_link_again_and_again_never_gets_a_file() {
    let scene = Scene::new();
    let (ours, link) = (scene.at("shared"), scene.at("link"));
    symlink(scene.at("victim"), &link).unwrap();
    let done = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // At one moment: there is never nothing at the path.
                renameat_with(CWD, &ours, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // Until both have happened often, or it is plain that one does not.
        for _ in 0..200_000 {
            match FileSet::open(&scene.at("shared/out"), options(Symlinks::Secure)) {
                Ok(set) => {
                    // It may be swapped between any two steps of the write.
                    write(&set).unwrap();
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
            if opened > 100 && refused > 100 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(opened > 100 && refused > 100, "{opened} {refused}");
    assert!(is_empty(&scene.at("victim/out")));
    assert_eq!(fs::read_dir(scene.at("victim")).unwrap().count(), 1);
}
