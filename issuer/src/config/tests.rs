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
        ..Given::default()
    };
    let settings = flags.or(file).resolve().unwrap();
    assert_eq!(settings.listen.port(), 1);
    assert_eq!(settings.bot_ttl.as_secs(), 600);
    assert_eq!(settings.admin_uids, [7]);
    assert_eq!(settings.diagnostics.to_string(), "127.0.0.1:3081");
    assert_eq!(settings.trust_domain, None);
    assert_eq!(settings.default_trust_domain.as_str(), "example.org");
    assert_eq!(
        settings.admin_socket.to_str(),
        Some("./issuer-data/admin.sock")
    );
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
