use serde_json::json;

use super::{Recorded, table_line};

#[test]
fn nothing_that_a_caller_sent_writes_on_the_terminal() {
    let forged = "x\r\u{1b}[2K     7  2026-11-21T20:53:01Z  bot.join\u{202e}\u{9b}1A\n";
    for field in [
        "workload_identity",
        "bot_name",
        "user",
        "reason",
        "error",
        "lock_reason",
    ] {
        let line = table_line(&Recorded {
            sequence: 1,
            time_ms: 0,
            event: "spiffe.svid.issued".to_owned(),
            success: false,
            fields: json!({ field: forged, "success": false }).to_string(),
            hash: [0; 32],
        });
        assert!(
            line.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{field}: {line:?}"
        );
        if field != "error" {
            assert!(line.contains("x\\r\\u{1b}[2K"), "{field}: {line}");
        }
    }
}
