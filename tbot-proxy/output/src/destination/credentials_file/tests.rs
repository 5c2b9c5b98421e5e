use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use super::*;
use crate::{
    Artifact,
    artifact::{AWS_CREDENTIALS, DatedForm},
    destination::Principal,
};

fn file(home: &Path, profile: &str, overwrite: bool) -> CredentialsFile {
    CredentialsFile {
        directory: DirectoryConfig::new(home),
        forbidden: None,
        name: AWS_CREDENTIALS.to_owned(),
        profile: profile.to_owned(),
        overwrite,
    }
}

fn section(profile: &str, key: &str) -> Arc<Artifacts> {
    let text = format!("[{profile}]\naws_access_key_id = {key}\n");
    Arc::new(Artifacts {
        files: vec![Artifact::new(AWS_CREDENTIALS, text)],
        issued: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_share_a_file_and_none_loses_a_profile() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(AWS_CREDENTIALS);
    fs::write(&path, "[mine]\nx = y\n").unwrap();
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let profile = format!("p{number}");
            let file = file(home.path(), &profile, false);
            tokio::spawn(async move {
                for round in 0..20 {
                    let section = section(&profile, &format!("K{round}"));
                    file.write(section).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("[mine]\nx = y\n"), "{text}");
    for number in 0..8 {
        let section = format!("[p{number}]\naws_access_key_id = K19\n");
        assert!(text.contains(&section), "{text}");
    }
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    file(home.path(), "p3", false).remove().await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("[p3]") && text.contains("[p4]") && text.contains("[mine]"));

    let alone = file(home.path(), "alone", true);
    alone.write(section("alone", "K")).await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "[alone]\naws_access_key_id = K\n");
    alone.remove().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_file_of_credentials_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(AWS_CREDENTIALS);
    fs::write(home.path().join("theirs"), "secret").unwrap();
    symlink("theirs", &path).unwrap();
    let ours = file(home.path(), "p", false);
    let error = ours.write(section("p", "K")).await.unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = ours.write(section("p", "K")).await.unwrap_err();
    assert!(error.to_string().contains("no plain file"), "{error}");
    assert_eq!(
        fs::read_to_string(home.path().join("theirs")).unwrap(),
        "secret"
    );
    let storage = CredentialsFile {
        forbidden: Some(home.path().to_owned()),
        ..ours
    };
    let error = storage.write(section("p", "K")).await.unwrap_err();
    assert!(
        error.to_string().contains("storage of the bot identity"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lock_that_is_no_plain_file_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let lock = home.path().join(format!("..{AWS_CREDENTIALS}.lock"));
    let fifo = std::process::Command::new("mkfifo").arg(&lock).status();
    assert!(fifo.unwrap().success());
    let ours = file(home.path(), "p", false);
    let error = ours.write(section("p", "K")).await.unwrap_err();
    assert!(error.to_string().contains("no plain file"), "{error}");
}

#[tokio::test]
async fn a_session_that_an_earlier_process_wrote_says_when_it_expires() {
    let home = tempfile::tempdir().unwrap();
    let aws = |profile: &str| {
        let form = DatedForm::AwsProfile(profile.to_owned());
        vec![Dated::new(AWS_CREDENTIALS, form)]
    };
    let absent = file(&home.path().join("absent"), "prod", false);
    assert_eq!(absent.expiry(aws("prod")).await.unwrap(), None);
    assert!(!home.path().join("absent").exists(), "a look makes nothing");

    let text = "[prod]\nx_security_token_expires = 2026-01-02T03:04:05Z\n[mine]\nregion = x\n";
    fs::write(home.path().join(AWS_CREDENTIALS), text).unwrap();
    let prod = file(home.path(), "prod", false);
    let expires = prod.expiry(aws("prod")).await.unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    assert_eq!(expires, Some(at));
    assert_eq!(prod.expiry(aws("mine")).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_was_linked_in_from_elsewhere_is_not_copied() {
    const APP: u32 = 54_321;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: giving files away needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (shadow, out) = (home.path().join("shadow"), home.path().join("out"));
    let path = out.join(AWS_CREDENTIALS);
    fs::write(&shadow, "[root]\npassword = secret\n").unwrap();
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o700)).unwrap();
    let mut ours = file(&out, "p", false);

    // The owner of the directory links a file of root's into it (fs.protected_hardlinks=0).
    ours.directory.user = Some(Principal::Id(APP));
    chown(&out, Some(APP), Some(APP)).unwrap();
    fs::hard_link(&shadow, &path).unwrap();
    let refused = async |why: &str| {
        let error = ours.write(section("p", "K")).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let error = ours.remove().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let error = ours.expiry(vec![]).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let owners = |entry: io::Result<fs::DirEntry>| {
            let metadata = entry.unwrap().metadata().unwrap();
            (metadata.uid() == APP).then_some(metadata)
        };
        let copies = fs::read_dir(&out).unwrap().filter_map(owners).count();
        assert_eq!(copies, 0, "{why}");
    };
    refused("hard link").await;
    // Root replaces its own, as passwd(1) does: the old one has but one name.
    fs::remove_file(&shadow).unwrap();
    refused("belongs to uid 0").await;

    chown(&path, Some(APP), None).unwrap();
    ours.write(section("p", "K")).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), APP);
}

#[tokio::test]
async fn a_directory_that_gets_an_owner_keeps_its_profiles() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: giving files away needs root");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut ours = file(home.path(), "p", false);
    let path = home.path().join(AWS_CREDENTIALS);
    fs::write(&path, "[mine]\nx = y\n").unwrap();
    ours.write(section("p", "K0")).await.unwrap();
    ours.directory.user = Some(Principal::Id(54_321));
    for key in ["K1", "K2"] {
        ours.write(section("p", key)).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("[mine]\nx = y\n"), "{text}");
        assert!(text.contains(key), "{text}");
        let uid = |path: &Path| fs::metadata(path).unwrap().uid();
        assert_eq!((uid(&path), uid(home.path())), (54_321, 54_321));
    }
}
