//! A join token and the CA's key are found nowhere but where they belong, with
//! everything logged.

use std::path::Path;

use super::harness::{Issuer, block_on};

fn files_with(needle: &[u8], folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = match path.is_dir() {
            true => {
                found.extend(files_with(needle, &path));
                continue;
            }
            false => std::fs::read(&path).unwrap_or_default(),
        };
        if bytes.windows(needle.len()).any(|window| window == needle) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_token_is_in_no_log_no_store_and_no_error() {
    let mut issuer = Issuer::start_with(&["--log-level", "trace"]);
    issuer.register("app");
    let token = issuer.token("app");
    let unused = issuer.token("app");
    block_on(async {
        issuer.join(&token).await.unwrap();
        let status = issuer.join(&token).await.err().unwrap();
        assert!(!format!("{status:?}").contains(&token));
    });
    for command in ["delete", "get"] {
        let line = issuer.fails(&[command, &format!("token/{unused}")]);
        assert!(!line.contains(&unused), "{line}");
    }
    let refused = issuer.last_event("token.delete");
    assert_eq!(refused["success"], false, "{refused}");
    let key_file = std::fs::read_to_string(issuer.data_dir().join("ca.kek")).unwrap();
    let shown = issuer.run(&["audit", "-o", "json"])
        + &issuer.run(&["get", "token", "-o", "yaml"])
        + &issuer.run(&["get", "bot", "-o", "json"])
        + &issuer.run(&["status"]);
    assert!(issuer.terminate().success());
    let log = issuer.log.text();
    assert!(log.contains("TRACE"), "nothing was traced");
    for secret in [&token, &unused, &key_file.trim().to_owned()] {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
        assert!(!shown.contains(secret.as_str()), "a secret was shown");
    }
    for secret in [&token, &unused] {
        assert_eq!(
            files_with(secret.as_bytes(), &issuer.data_dir()),
            Vec::<String>::new()
        );
    }
    // The check itself finds what is there.
    assert_eq!(
        files_with(key_file.trim().as_bytes(), &issuer.data_dir()).len(),
        1
    );
    // A P-256 key in PKCS#8 begins so; sealed, it must not be seen.
    let pkcs8 = [
        0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b,
    ];
    assert_eq!(files_with(&pkcs8, &issuer.data_dir()), Vec::<String>::new());
}
