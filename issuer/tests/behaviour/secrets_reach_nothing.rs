//! A join token and the CA's key are found nowhere but where they belong, with
//! everything logged.

use std::path::Path;

use proto::issue::v1::{
    IssueSvidsRequest, JwtRequest, SvidRequest, issue_service_client::IssueServiceClient, svid,
    svid_request,
};

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

#[test]
fn an_issued_jwt_is_in_no_log_no_store_and_no_metric() {
    let mut issuer = Issuer::start_with(&["--log-level", "trace"]);
    let (token, shown) = block_on(async {
        let bot = issuer.joined("app").await;
        let mut client = IssueServiceClient::new(issuer.as_bot(&bot).await);
        let request = IssueSvidsRequest {
            requests: vec![SvidRequest {
                selector: Some(svid_request::Selector::Name("app".to_owned())),
                document: Some(svid_request::Document::Jwt(JwtRequest {
                    audiences: vec!["here".to_owned()],
                })),
                ttl: None,
                workload_attributes: None,
                image_signatures: Vec::new(),
            }],
        };
        let answer = client.issue_svids(request).await.unwrap().into_inner();
        let shown = format!("{answer:?}");
        match answer.results[0].svids[0].document.clone() {
            Some(svid::Document::Jwt(jwt)) => (jwt.token, shown),
            other => panic!("{other:?}"),
        }
    });
    let signature = token.rsplit('.').next().unwrap();
    assert!(signature.len() > 80, "{signature}");
    let url = format!("http://{}/metrics", issuer.diagnostics);
    let metrics = std::process::Command::new("curl")
        .args(["-s", &url])
        .output();
    let metrics = String::from_utf8(metrics.unwrap().stdout).unwrap();
    assert!(metrics.contains("type=\"jwt\""), "{metrics}");
    let audit = issuer.run(&["audit", "-o", "json"]);
    assert!(audit.contains("\"here\""), "{audit}");
    assert!(issuer.terminate().success());
    let log = issuer.log.text();
    assert!(log.contains("TRACE"), "nothing was traced");
    for (what, text) in [
        ("debug dump", &shown),
        ("metrics", &metrics),
        ("audit", &audit),
        ("log", &log),
    ] {
        assert!(!text.contains(signature), "a JWT is in the {what}");
    }
    assert_eq!(
        files_with(signature.as_bytes(), &issuer.data_dir()),
        Vec::<String>::new()
    );
}
