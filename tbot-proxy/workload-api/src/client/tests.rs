use super::Endpoint;

#[test]
fn addresses_are_read_and_nonsense_is_refused() {
    for (text, endpoint) in [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix:/run/a.sock", "unix:///run/a.sock"),
        ("/run/a.sock", "unix:///run/a.sock"),
        ("tcp://127.0.0.1:8000", "tcp://127.0.0.1:8000"),
    ] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), endpoint);
    }
    for text in [
        "tcp://localhost:1",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:1/x",
        "a.sock",
        "",
    ] {
        text.parse::<Endpoint>().unwrap_err();
    }
}
