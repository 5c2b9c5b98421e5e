use super::*;

#[test]
fn paths_are_unique_and_groups_stand_together() {
    for (attribute, number) in attributes().iter().zip(0..) {
        assert_eq!(index_of(attribute.path), Some(number), "{}", attribute.path);
        assert!(!is_group(attribute.path), "{}", attribute.path);
        let (_, members) = group_by_index(group_of(attribute.group()).unwrap());
        assert!(members.contains(&number));
        for member in members {
            assert!(
                by_index(member).path.starts_with(attribute.group()),
                "{}",
                by_index(member).path
            );
        }
    }
}

#[test]
fn a_wrong_name_leads_to_the_right_one() {
    for (wrong, right) in [
        ("join.github.repositry", Some("join.github.repository")),
        (
            "join.kubernetes.namespace",
            Some("join.kubernetes.service_account.namespace"),
        ),
        ("join.githb", Some("join.github")),
        ("usr.name", Some("user.name")),
        ("something.else.entirely", None),
    ] {
        assert_eq!(suggestion(wrong), right, "{wrong}");
    }
}
