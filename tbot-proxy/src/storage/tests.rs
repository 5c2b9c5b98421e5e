use std::time::Duration;

use identity::testing::TestCa;

use super::*;

fn stored(next_key: Option<&str>) -> Stored {
    let ca = TestCa::new("td");
    Stored {
        svid: Arc::new(ca.svid("/bot/a/1", Duration::from_secs(3600))),
        bundles: TrustBundleSet::new([ca.bundle()]),
        next_key: next_key.map(|key| PendingKey(Zeroizing::new(key.to_owned()))),
        state: State {
            bot_name: "a".to_owned(),
            instance_id: "1".to_owned(),
            generation: 7,
            renew_at: Some(1_000),
            renew_epoch: Some(3),
        },
    }
}

fn open(path: &Path) -> Result<BotStorage, StorageError> {
    BotStorage::open(&configuration::Storage::Directory(path.to_owned()))
}

#[test]
fn what_was_kept_is_read_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let storage = open(&path).unwrap();
    assert!(storage.load().unwrap().is_none());
    for next_key in [None, Some("a key"), None] {
        let kept = stored(next_key);
        storage.save(&kept).unwrap();
        let read = storage.load().unwrap().unwrap();
        assert_eq!(read.svid.chain(), kept.svid.chain());
        assert_eq!(read.svid.key_pkcs8_der(), kept.svid.key_pkcs8_der());
        assert_eq!(read.bundles, kept.bundles);
        assert_eq!(read.state, kept.state);
        assert_eq!(
            read.next_key.map(|key| key.0.to_string()).as_deref(),
            next_key
        );
        let renew_at = read
            .svid
            .not_after()
            .min(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        assert_eq!(kept.life().renew_at, Some(renew_at));
    }
}

#[test]
fn memory_keeps_nothing() {
    let storage = BotStorage::open(&configuration::Storage::Memory).unwrap();
    storage.save(&stored(None)).unwrap();
    assert!(storage.load().unwrap().is_none());
}

#[test]
fn one_process_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StorageError::InUse { .. })));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn what_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let storage = open(&path).unwrap();
    storage.save(&stored(None)).unwrap();
    let key = path.join("..data").join(KEY);
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    for mode in [0o640, 0o604, 0o666] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = storage.load().unwrap_err();
        assert!(
            matches!(&error, StorageError::Open { path, mode: seen } if path.ends_with(KEY) && *seen == mode),
            "{error}"
        );
    }
    drop(storage);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(
        open(&path),
        Err(StorageError::Open { mode: 0o750, .. })
    ));
}

#[test]
fn a_set_whose_directory_is_open_to_others_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let storage = open(&path).unwrap();
    storage.save(&stored(None)).unwrap();
    let set = path.join("..data");
    for mode in [0o755, 0o701, 0o770] {
        fs::set_permissions(&set, fs::Permissions::from_mode(mode)).unwrap();
        let error = storage.load().unwrap_err();
        assert!(
            matches!(&error, StorageError::Open { path, mode: seen } if *path == set && *seen == mode),
            "{error}"
        );
    }
}

#[test]
fn an_old_key_does_not_stay() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let storage = open(&path).unwrap();
    for _ in 0..3 {
        storage.save(&stored(Some("next"))).unwrap();
        let sets = fs::read_dir(&path).unwrap().flatten();
        let sets =
            sets.filter(|entry| entry.path().join(KEY).exists() && entry.file_name() != "..data");
        assert_eq!(sets.count(), 1, "only the set in force");
    }
}

#[test]
fn what_belongs_to_others_is_refused_with_what_to_do() {
    let error = StorageError::Foreign {
        path: "/storage".into(),
        uid: 12_345,
    };
    let text = error.to_string();
    assert!(text.contains("12345") && text.contains("chown"), "{text}");
}

#[test]
fn the_key_of_a_join_is_kept_for_its_token_until_it_is_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("storage");
    let storage = open(&path).unwrap();
    assert!(storage.join_key().unwrap().is_none());
    for (token, key) in [("one", "a key"), ("two", "another key")] {
        let token = TokenDigest::of(token);
        let key = PendingKey(Zeroizing::new(key.to_owned()));
        let join = JoinKey { token, key };
        storage.keep_join_key(&join).unwrap();
        let kept = storage.join_key().unwrap().unwrap();
        assert_eq!((kept.token, kept.key.0), (join.token, join.key.0));
    }
    assert!(storage.load().unwrap().is_none(), "it is no identity yet");
    storage.save(&stored(None)).unwrap();
    assert!(storage.join_key().unwrap().is_some());
    let key = path.join(JOIN).join("..data").join(JOIN_KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = storage.join_key();
    assert!(matches!(refused, Err(StorageError::Open { .. })));
    storage.forget_join_key();
    assert!(!path.join(JOIN).exists() && storage.join_key().unwrap().is_none());
    assert!(!TokenDigest::of("one").0.contains("one"));
}

#[test]
fn damage_is_named() {
    for (name, contents) in [
        (CERTIFICATE, "rubbish"),
        (KEY, "rubbish"),
        (BUNDLES, "{}"),
        (STATE, "[]"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("storage");
        let storage = open(&path).unwrap();
        storage.save(&stored(None)).unwrap();
        fs::write(path.join("..data").join(name), contents).unwrap();
        let error = storage.load().unwrap_err().to_string();
        assert!(
            error.contains("is damaged") && error.contains("join anew"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let text = format!("{:?}", stored(Some("a-secret-key")));
    assert!(!text.contains("a-secret-key"), "{text}");
}
