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

#[test]
fn the_reference_lists_them_all_in_this_order() {
    let reference = include_str!("../../../../docs/reference/close-reasons.md");
    let listed: Vec<(&str, &str)> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(reason, rest)| (reason, rest.split(" |").next().unwrap()))
        .collect();
    let declared: Vec<(&str, &str)> = CloseReason::ALL
        .iter()
        .map(|reason| (reason.as_str(), reason.fault().as_str()))
        .collect();
    assert_eq!(listed, declared);
}
