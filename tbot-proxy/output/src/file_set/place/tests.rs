use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn links_are_refused_and_missing_directories_made_with_and_without_openat2() {
    for step in [Step::Kernel, Step::PartByPart] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("real")).unwrap();
        symlink("real", home.path().join("link")).unwrap();
        let walk = Walk::new(step, true);
        walk.along(&home.path().join("real/a/b")).unwrap();
        assert!(home.path().join("real/a/b").is_dir());
        walk.along(&home.path().join("real/a/../c")).unwrap();
        assert!(home.path().join("real/c").is_dir());
        for path in ["link", "link/a", "real/../link/new"] {
            let error = walk.along(&home.path().join(path)).unwrap_err();
            assert!(
                error.to_string().contains("symbolic link"),
                "{step:?} {error}"
            );
        }
        assert!(!home.path().join("real/new").exists());
        let look = Walk::new(step, false);
        let error = look.along(&home.path().join("absent")).unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::NotFound);
        fs::write(home.path().join("file"), "").unwrap();
        let error = look.along(&home.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
    }
}

#[test]
fn a_path_may_be_relative() {
    Walk::new(Step::Kernel, false)
        .along(Path::new("src"))
        .unwrap();
    Walk::new(Step::Kernel, false)
        .along(Path::new("./src/.."))
        .unwrap();
}

#[test]
fn a_kernel_without_the_call_is_told_from_a_link() {
    let here = openat(CWD, ".", OFlags::PATH, Mode::empty()).unwrap();
    for error in [Errno::NOSYS, Errno::PERM] {
        let error = explained(error, &here, OsStr::new("src"), Path::new("src"));
        assert!(is_unsupported(&error.error));
        assert!(error.to_string().contains("try-secure"));
    }
}
