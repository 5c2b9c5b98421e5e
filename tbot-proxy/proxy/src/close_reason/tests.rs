use std::collections::HashSet;

use super::CloseReason;

#[test]
fn each_reason_is_spelled_once_and_as_its_name() {
    let spelled: HashSet<&str> = CloseReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    assert_eq!(spelled.len(), CloseReason::ALL.len());
    for reason in CloseReason::ALL {
        let name = format!("{reason:?}");
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        assert_eq!(reason.as_str(), snake);
        assert_eq!(serde_json::to_value(reason).unwrap(), snake);
    }
}
