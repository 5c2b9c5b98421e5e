use std::path::PathBuf;

use super::Address;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn text_and_address_are_each_others_inverse() {
    let cases = [
        ("127.0.0.1:8080", tcp("127.0.0.1", 8080)),
        ("localhost:0", tcp("localhost", 0)),
        ("db.example:5432", tcp("db.example", 5432)),
        ("my_app:1", tcp("my_app", 1)),
        ("[::1]:80", tcp("::1", 80)),
        ("[2001:db8::7]:65535", tcp("2001:db8::7", 65535)),
        (
            "unix:///run/x.sock",
            Address::Unix(PathBuf::from("/run/x.sock")),
        ),
    ];
    for (text, address) in cases {
        assert_eq!(text.parse::<Address>().unwrap(), address);
        assert_eq!(address.to_string(), text);
    }
    assert_eq!(
        "unix:/run/x.sock".parse::<Address>().unwrap().to_string(),
        "unix:///run/x.sock"
    );
}

#[test]
fn what_is_not_an_address_is_refused_with_its_text() {
    let cases = [
        "",
        "8080",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:+1",
        ":80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[127.0.0.1]:80",
        "[::1%lo]:80",
        "a b:80",
        "-a:80",
        "a..b:80",
        "1.2.3:80",
        "256.1.1.1:80",
        "http://a:80",
        "unix://",
        "unix://run/x",
        "unix:x",
        "unix:///run/",
        "unix:///a\0b",
    ];
    for text in cases {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{text:?} is not an address")),
            "{error}"
        );
    }
}

#[test]
fn loopback_is_what_only_this_host_reaches() {
    let cases = [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("localhost:1", true),
        ("unix:///x", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
        ("localhost.example:1", false),
    ];
    for (text, expected) in cases {
        assert_eq!(
            text.parse::<Address>().unwrap().is_loopback(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn one_listens_on_addresses_not_on_names() {
    let listen = |text: &str| text.parse::<Address>().unwrap().listen_addr();
    assert_eq!(listen("localhost:7"), Some("127.0.0.1:7".parse().unwrap()));
    assert_eq!(listen("[::]:7"), Some("[::]:7".parse().unwrap()));
    assert_eq!(listen("db.example:7"), None);
    assert_eq!(listen("unix:///x"), None);
}
