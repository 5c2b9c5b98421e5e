//! A backup that was made while the issuer served brings the issuer back: in SQLite
//! or in PostgreSQL, with the same authority, and never with an older trust bundle.

use std::{fs, os::unix::fs::PermissionsExt};

use e2e::Postgres;
use rcgen::KeyPair;
use serde_json::Value;
use tonic::Code;

use super::harness::{Issuer, block_on};

fn bundle_sequence(issuer: &Issuer) -> u64 {
    let bundle: Value = serde_json::from_str(&issuer.run(&["bundle", "-o", "spiffe"])).unwrap();
    bundle["spiffe_sequence"].as_u64().unwrap()
}

#[test]
fn tb_03_a_restored_issuer_goes_on_and_its_bundle_is_newer_than_any_before() {
    let mut issuer = Issuer::start();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup");
    let file = file.to_str().unwrap();
    block_on(async {
        let steady = issuer.joined("steady").await;
        let renewing = issuer.joined("renewing").await;
        let unused = issuer.token("steady");
        let before = bundle_sequence(&issuer);

        // What lies there of a backup that was killed, or of somebody else, is not used.
        let elsewhere = home.path().join("elsewhere");
        fs::write(&elsewhere, "kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, format!("{file}.part")).unwrap();
        let said = issuer.run(&["backup", file]);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "kept");
        assert!(
            said.contains("ca.kek") && said.contains("NOT in it"),
            "{said}"
        );
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let key = fs::read_to_string(issuer.data_dir().join("ca.kek")).unwrap();
        assert!(!fs::read_to_string(file).unwrap().contains(key.trim()));
        // The same name twice is no backup.
        let line = issuer.fails(&["backup", file]);
        assert!(line.contains("is there already"), "{line}");

        let key = KeyPair::generate().unwrap();
        let renewed = issuer.renew(&renewing, &key).await.unwrap();
        let renewing = renewing.renewed(key, renewed);
        // Not while an issuer has the store.
        let line = issuer.fails(&["restore", file]);
        assert!(line.contains("in use by another issuer"), "{line}");

        // The disk is lost, but for the key.
        issuer.terminate();
        let (data, kept) = (issuer.data_dir(), home.path().join("kept"));
        fs::copy(data.join("ca.kek"), &kept).unwrap();
        fs::remove_dir_all(&data).unwrap();
        let said = issuer.run(&["restore", file]);
        assert!(said.contains("ca.kek"), "{said}");
        let line = issuer.fails(&["restore", file]);
        assert!(line.contains("not empty"), "{line}");
        fs::copy(&kept, data.join("ca.kek")).unwrap();
        let pin = issuer.pin.clone();
        issuer.restart();

        assert_eq!(issuer.pin, pin);
        assert!(bundle_sequence(&issuer) > before);
        assert_eq!(
            issuer.last_event("store.restore")["fields"]["bundle_sequence"],
            bundle_sequence(&issuer)
        );
        issuer.issue(&steady, "steady").await.unwrap();
        // What was handed out after the backup is not known: it must join again.
        let refused = issuer.renew(&renewing, &KeyPair::generate().unwrap()).await;
        assert_eq!(refused.err().unwrap().code(), Code::PermissionDenied);
        let reason = &issuer.last_event("bot.renew")["fields"]["reason"];
        assert_eq!(reason, "unknown_generation");
        // A token that may have been used after the backup is not usable again.
        let refused = issuer.join(&unused).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
        issuer.join(&issuer.token("renewing")).await.unwrap();
    });
}

#[test]
fn a_store_moves_from_sqlite_to_postgresql_with_its_bots() {
    let postgres = Postgres::start();
    let url = postgres.create_database("issuer");
    let mut old = Issuer::start();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup");
    block_on(async {
        let bot = old.joined("web").await;
        old.terminate();
        // Of an issuer that does not run.
        old.run(&["backup", file.to_str().unwrap()]);
        let key_file = old.data_dir().join("ca.kek");
        old.run(&["restore", file.to_str().unwrap(), "--database", &url]);
        let key_file = key_file.to_str().unwrap();
        let new = Issuer::start_with(&["--database", &url, "--key-file", key_file]);
        assert_eq!(new.pin, old.pin);
        new.issue(&bot, "web").await.unwrap();
        assert!(!new.data_dir().join("issuer.db").exists());
        // And back, from the server while it serves.
        let back = home.path().join("back");
        new.run(&["backup", back.to_str().unwrap(), "--database", &url]);
        assert!(fs::read_to_string(back).unwrap().contains("store.restore"));
    });
}
