use super::*;
use crate::{Expression, Template};

fn read(expression: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let reads = Expression::compile(expression).unwrap().workload_reads();
    (reads.attributes().collect(), reads.groups().collect())
}

#[test]
fn every_attribute_of_a_workload_has_a_bit() {
    for (attribute, index) in schema::attributes().iter().zip(0..) {
        let mut reads = WorkloadReads::default();
        reads.add_leaf(index);
        let of_workload = attribute.path.starts_with("workload.");
        let expected: Vec<_> = of_workload.then_some(attribute.path).into_iter().collect();
        assert_eq!(reads.attributes().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn every_group_of_a_workload_has_a_bit() {
    let paths = schema::attributes().iter().map(|attribute| attribute.path);
    for path in paths.filter(|path| path.starts_with("workload.")) {
        for (end, _) in path.match_indices('.') {
            let mut reads = WorkloadReads::default();
            reads.add_group(schema::group_of(&path[..end]).unwrap());
            assert_eq!(reads.groups().collect::<Vec<_>>(), [&path[..end]]);
        }
    }
}

#[test]
fn what_an_expression_can_depend_on_is_all_that_stands_in_it() {
    let uid = "workload.unix.uid";
    let labels = "workload.kubernetes.labels";
    assert_eq!(read("workload.unix.uid == 1000"), (vec![uid], vec![]));
    // Whichever way it is evaluated.
    assert_eq!(
        read(r#"true || workload.unix.uid == 0"#),
        (vec![uid], vec![])
    );
    assert_eq!(
        read(r#"has(workload.kubernetes) && workload.kubernetes.labels["app"] == "a""#),
        (vec![labels], vec!["workload.kubernetes"])
    );
    assert_eq!(
        read("has(workload.unix.binary_hash)"),
        (vec!["workload.unix.binary_hash"], vec![])
    );
    // Those of others do not count: the issuer knows them by itself.
    assert_eq!(read(r#"user.bot_name == "b""#), (vec![], vec![]));
}

#[test]
fn what_a_template_can_depend_on_is_all_that_stands_in_it() {
    let template = Template::compile("a/{{ workload.unix.uid }}/{{ user.bot_name }}").unwrap();
    let reads = template.workload_reads();
    assert_eq!(
        reads.attributes().collect::<Vec<_>>(),
        ["workload.unix.uid"]
    );
    let literal = Template::compile("a").unwrap();
    assert_eq!(literal.workload_reads(), WorkloadReads::default());
}

#[test]
fn what_signatures_say_depends_on_image_and_signatures() {
    let reads = vec![
        "workload.sigstore.image_digest",
        "workload.sigstore.signatures_hash",
    ];
    assert_eq!(
        read(r#"sigstore.policy_satisfied("release")"#),
        (reads, vec![])
    );
}
