use super::{check_endpoint, parse_size};

#[test]
fn records_leave_the_machine_only_encrypted() {
    for (endpoint, ca_file) in [
        ("http://127.0.0.1:4317", false),
        ("http://[::1]:4317", false),
        ("http://localhost:4317", false),
        ("https://collector.example.org:4317", true),
    ] {
        assert_eq!(check_endpoint(endpoint, ca_file), Ok(()), "{endpoint}");
    }
    for (endpoint, ca_file) in [
        ("http://collector.example.org:4317", false),
        ("http://10.0.0.1:4317", false),
        ("https://collector.example.org:4317", false),
        ("http://127.0.0.1:4317", true),
        ("127.0.0.1:4317", false),
        ("ftp://127.0.0.1", false),
        ("", false),
    ] {
        assert!(check_endpoint(endpoint, ca_file).is_err(), "{endpoint}");
    }
    let told = check_endpoint("https://a:hunter2@collector.example.org", true).unwrap_err();
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn sizes() {
    assert_eq!(parse_size("64KiB"), Ok(65536));
    assert_eq!(parse_size("5000"), Ok(5000));
    assert_eq!(parse_size("2GiB"), Ok(2 << 30));
    for wrong in [
        "",
        "KiB",
        "1",
        "4095",
        "1kb",
        "-1MiB",
        "99999999999GiB",
        "1 MiB",
    ] {
        assert!(parse_size(wrong).is_err(), "{wrong}");
    }
}
