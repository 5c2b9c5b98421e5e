use super::check_collector;

#[test]
fn a_collector_has_a_plain_url_and_a_password_is_told_nowhere() {
    for accepted in ["http://127.0.0.1:4317", "http://collector:4317/"] {
        check_collector(accepted).unwrap();
    }
    for refused in [
        "https://127.0.0.1:4317",
        "127.0.0.1:4317",
        "",
        "http://agent:hunter2@127.0.0.1:4317",
        "http://agent:hunter2@ 127.0.0.1",
    ] {
        let error = check_collector(refused).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
