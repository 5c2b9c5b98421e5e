use super::*;

fn failure(attestor: &'static str, reason: &str) -> Failure {
    Failure {
        attestor,
        reason: reason.to_owned(),
    }
}

#[test]
fn ten_thousand_reasons_are_few_lines_and_hide_no_other_attestor() {
    let mut told = Told::default();
    let lines = (0..10_000).filter_map(|it| told.pass(&failure("unix", &format!("/tmp/{it}"))));
    let lines: Vec<u64> = lines.collect();
    assert_eq!(lines, [0; 10]);
    let docker = failure("docker", "the engine does not answer");
    assert_eq!(told.pass(&docker), Some(0));
    assert_eq!(told.pass(&docker), None, "it is known");
    // What was held back is not taken for told.
    assert!(told.reasons.len() <= 11);
}
