use super::*;

const SECTION: &str =
    "[prod]\naws_access_key_id = A\naws_secret_access_key = S\naws_session_token = T\n";

#[test]
fn a_profile_is_added_and_replaced_and_everything_else_stays() {
    assert_eq!(merged("", "prod", SECTION), SECTION);
    assert_eq!(
        merged("[a]\nx=1", "prod", SECTION),
        format!("[a]\nx=1\n\n{SECTION}")
    );
    let file = "# mine\n[default]\naws_access_key_id=D\n\n[ prod ]\naws_access_key_id = OLD\n\
                AWS_SECRET_ACCESS_KEY=OLD\nregion = eu-west-1\n# note\n\n[z]\nq = 1\n";
    let expected = format!(
        "# mine\n[default]\naws_access_key_id=D\n\n{SECTION}region = eu-west-1\n# note\n\n[z]\nq = 1\n"
    );
    let once = merged(file, "prod", SECTION);
    assert_eq!(once, expected);
    assert_eq!(merged(&once, "prod", SECTION), expected, "it does not grow");
}

#[test]
fn a_profile_that_is_there_twice_keeps_no_old_secret() {
    let file = "[prod]\naws_session_token=OLD\n[a]\n[prod]\naws_session_token=OLDER\nregion=x\n";
    let merged = merged(file, "prod", SECTION);
    assert!(!merged.contains("OLD"), "{merged}");
    assert_eq!(merged, format!("{SECTION}[a]\n[prod]\nregion=x\n"));
}

#[test]
fn a_profile_is_taken_away() {
    assert_eq!(merged(SECTION, "prod", ""), "");
    let file = format!("[a]\nx=1\n{SECTION}region=x\n");
    assert_eq!(merged(&file, "prod", ""), "[a]\nx=1\n[prod]\nregion=x\n");
}

#[test]
fn names_cannot_end_a_header() {
    for good in ["default", "a-b_c.d", "role@1"] {
        assert!(is_name(good));
    }
    for bad in ["", "a]", "a b", "a\nb", "[", "é"] {
        assert!(!is_name(bad), "{bad}");
    }
}
