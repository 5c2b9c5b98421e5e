use super::*;

#[test]
fn reads_tcp_and_unix_addresses() {
    let cases = [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("tcp:127.0.0.1:9000", "127.0.0.1:9000"),
        ("tcp://[::1]:9000", "[::1]:9000"),
        ("unix:///run/app.sock", "unix:/run/app.sock"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
    ];
    for (text, shown) in cases {
        assert_eq!(
            text.parse::<Address>().unwrap().to_string(),
            shown,
            "{text}"
        );
    }
    for bad in ["localhost:80", "127.0.0.1", "unix:app.sock", "", "unix:"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

#[test]
fn only_this_machine_is_a_target() {
    let allowed = [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "unix:/x",
    ];
    for text in allowed {
        let address: Address = text.parse().unwrap();
        address.check_target(false).unwrap();
    }
    // TEST-NET addresses (RFC 5737), any, broadcast, multicast, a port that cannot be.
    let refused = [
        "192.0.2.1:443",
        "203.0.113.9:443",
        "[2001:db8::1]:443",
        "0.0.0.0:443",
        "[::]:443",
        "255.255.255.255:443",
        "224.0.0.1:443",
        "127.0.0.1:0",
    ];
    for text in refused {
        let address: Address = text.parse().unwrap();
        assert!(address.check_target(false).is_err(), "{text}");
        assert!(
            address.check_target(true).is_err(),
            "{text} with --allow-private"
        );
    }
}

#[test]
fn own_interface_addresses_need_allow_private() {
    // The address that this machine would use towards a test network, if it has any route.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("192.0.2.1:9").is_err() {
        return; // no interface but loopback here
    }
    let own = probe.local_addr().unwrap().ip();
    if own.is_loopback() {
        return;
    }
    let address = Address::Tcp(SocketAddr::new(own, 443));
    assert!(address.check_target(false).is_err());
    address.check_target(true).unwrap();
}
