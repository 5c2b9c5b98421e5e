use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

#[test]
fn a_key_file_is_made_once_and_told_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let made = file::key(&path, None).unwrap();
    assert_eq!(*file::key(&path, None).unwrap(), *made);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_ne!(
        *file::key(&folder.path().join("other"), None).unwrap(),
        *made
    );
}

#[test]
fn a_key_file_that_others_read_or_that_holds_no_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        file::key(&path, None)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let good = "0f".repeat(32);
    write(&good, 0o600).unwrap();
    write(&format!("{good}\n"), 0o600).unwrap();
    let refused = write(&good, 0o640).unwrap_err();
    assert!(
        refused.contains("mode 0600") && refused.contains("key"),
        "{refused}"
    );
    for wrong in [
        "",
        "0f",
        &"0g".repeat(32),
        &"0f".repeat(33),
        &format!("{good}\n\n\n"),
    ] {
        let refused = write(wrong, 0o600).unwrap_err();
        assert!(
            refused.contains("openssl rand -hex 32"),
            "{wrong}: {refused}"
        );
        assert!(
            wrong.is_empty() || !refused.contains(wrong),
            "it tells the key"
        );
    }
}

#[test]
fn addresses_of_tpms_are_read() {
    for (text, read) in [
        ("/dev/tpmrm0", Some("/dev/tpmrm0")),
        ("tcp://127.0.0.1:2321", Some("tcp://127.0.0.1:2321")),
        ("tcp://localhost", None),
        ("tpmrm0", None),
    ] {
        let address = text.parse::<TpmAddress>().ok().map(|it| it.to_string());
        assert_eq!(address.as_deref(), read, "{text}");
    }
}
