use super::{Given, parse_address};

#[test]
fn what_is_said_first_counts_and_the_rest_is_default() {
    let flags = Given {
        listen: Some("127.0.0.1:1".to_owned()),
        ..Given::default()
    };
    let file = Given {
        listen: Some("127.0.0.1:2".to_owned()),
        bot_ttl: Some("10m".to_owned()),
        admin_uids: vec![7],
        admin_socket: Some("/run/issuer/admin.sock".into()),
        ..Given::default()
    };
    let settings = flags.or(file).resolve().unwrap();
    assert_eq!(settings.listen.port(), 1);
    assert_eq!(settings.bot_ttl.as_secs(), 600);
    assert_eq!(settings.admin_uids, [7]);
    assert_eq!(settings.diagnostics.to_string(), "127.0.0.1:3081");
    assert_eq!(settings.trust_domain, None);
    assert_eq!(settings.default_trust_domain.as_str(), "example.org");
    let settings = Given::default().resolve().unwrap();
    assert_eq!(
        settings.admin_socket.to_str(),
        Some("./issuer-data/admin.sock")
    );
}

#[test]
fn admitting_users_needs_a_socket_that_they_can_reach() {
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("data");
    let given = |socket: Option<&str>| Given {
        data_dir: Some(data_dir.clone()),
        admin_uids: vec![7],
        admin_socket: socket.map(|socket| home.path().join(socket)),
        ..Given::default()
    };
    // Whether or not the directory is there yet.
    for _ in 0..2 {
        for socket in [None, Some("data/admin.sock"), Some("data/below/a.sock")] {
            let error = given(socket).resolve().err().unwrap().to_string();
            assert!(error.contains("--admin-uid"), "{error}");
            assert!(error.contains("--socket"), "{error}");
        }
        given(Some("admin.sock")).resolve().unwrap();
        let _ = std::fs::create_dir(&data_dir);
    }
}

#[test]
fn diagnostics_leave_the_machine_only_when_told_to() {
    for (address, anywhere, accepted) in [
        ("127.0.0.1:0", None, true),
        ("[::1]:0", None, true),
        ("0.0.0.0:0", None, false),
        (":3081", None, false),
        ("192.0.2.1:3081", Some(false), false),
        ("0.0.0.0:0", Some(true), true),
    ] {
        let given = Given {
            diagnostics: Some(address.to_owned()),
            diagnostics_anywhere: anywhere,
            ..Given::default()
        };
        let resolved = given.resolve();
        assert_eq!(resolved.is_ok(), accepted, "{address}: {resolved:?}");
        if let Err(error) = resolved {
            let error = error.to_string();
            assert!(error.contains("--diagnostics-anywhere"), "{error}");
        }
    }
}

#[test]
fn addresses_are_ip_port_or_port() {
    for (text, resolved) in [
        ("127.0.0.1:0", Some("127.0.0.1:0")),
        (":3025", Some("0.0.0.0:3025")),
        ("[::1]:3025", Some("[::1]:3025")),
        ("3025", None),
        ("127.0.0.1", None),
        ("127.0.0.1:99999", None),
        ("", None),
    ] {
        let address = parse_address("listen", text)
            .ok()
            .map(|address| address.to_string());
        assert_eq!(address.as_deref(), resolved, "{text}");
    }
}
