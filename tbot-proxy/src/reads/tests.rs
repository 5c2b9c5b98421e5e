use serde_json::json;

use super::*;

fn reads(attributes: &[&str], groups: &[&str]) -> Reads {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Reads::of(Some(pb::WorkloadReads {
        attributes: owned(attributes),
        groups: owned(groups),
    }))
}

#[test]
fn workloads_that_agree_in_what_counts_have_one_key() {
    let one = json!({"unix": {"uid": 7, "pid": 100}, "kubernetes": {"labels": {"app": "a"}}});
    let same = json!({"unix": {"uid": 7, "pid": 200}, "kubernetes": {"labels": {"app": "a"}}});
    let others = [
        json!({"unix": {"uid": 8}, "kubernetes": {"labels": {"app": "a"}}}),
        json!({"unix": {"uid": "7"}, "kubernetes": {"labels": {"app": "a"}}}),
        json!({"unix": {"uid": 7}, "kubernetes": {"labels": {"app": "b"}}}),
        json!({"unix": {"uid": 7}, "kubernetes": {"labels": {}}}),
        json!({"unix": {"uid": 7}}),
        json!({}),
    ];
    let reads = reads(&["workload.unix.uid", "workload.kubernetes.labels"], &[]);
    let key = reads.key(Some(&one));
    assert_eq!(key, reads.key(Some(&same)));
    for other in others {
        assert_ne!(key, reads.key(Some(&other)), "{other}");
    }
    assert_ne!(key, reads.key(None));
}

#[test]
fn of_a_group_only_its_presence_counts() {
    let reads = reads(&[], &["workload.docker"]);
    let with = |docker: Value| reads.key(Some(&json!({ "docker": docker })));
    assert_eq!(
        with(json!({"attested": true})),
        with(json!({"attested": false}))
    );
    assert_ne!(with(json!({"attested": true})), with(json!({})));
    assert_eq!(with(json!({})), reads.key(Some(&json!({}))));
    assert_eq!(with(json!({})), reads.key(None));
}

#[test]
fn where_the_issuer_does_not_say_everything_counts() {
    let reads = Reads::of(None);
    let one = json!({"unix": {"pid": 1}});
    let other = json!({"unix": {"pid": 2}});
    assert_ne!(reads.key(Some(&one)), reads.key(Some(&other)));
    let nothing = Reads::of(Some(pb::WorkloadReads::default()));
    assert_eq!(nothing.key(Some(&one)), nothing.key(Some(&other)));
}

#[test]
fn workloads_agree_if_and_only_if_they_have_one_key() {
    let known = [
        json!({"unix": {"uid": 7, "pid": 1}, "docker": {"attested": true}}),
        json!({"unix": {"uid": 7, "pid": 1}, "docker": {"attested": false}}),
        json!({"unix": {"uid": 7}, "docker": {}}),
        json!({"unix": {"uid": "7"}}),
        json!({"unix": {"uid": null}, "docker": null}),
        json!({"unix": {"uid": {}}}),
        json!({"unix": {"uid": [7]}}),
        json!({"unix": {}}),
        json!({}),
        json!(null),
    ];
    let known: Vec<_> = known.iter().map(Some).chain([None]).collect();
    let all = [
        Reads::All,
        Reads::Nothing,
        reads(&["workload.unix.uid"], &[]),
        reads(&["workload.unix"], &["workload.docker"]),
        reads(&["other.unix"], &["workload.unix", "workload.docker"]),
        reads(&["workload.unix.uid", "workload.docker.attested"], &[]),
    ];
    let (mut agreed, mut differed) = (0, 0);
    for reads in all {
        for one in &known {
            for other in &known {
                let agree = reads.agree(*one, *other);
                let one_key = reads.key(*one) == reads.key(*other);
                assert_eq!(agree, one_key, "{reads:?} of {one:?} and {other:?}");
                *if agree { &mut agreed } else { &mut differed } += 1;
            }
        }
    }
    assert!(agreed > 100 && differed > 100, "{agreed}, {differed}");
}

#[test]
fn answers_together_depend_on_all_that_either_depends_on() {
    let uid = reads(&["workload.unix.uid"], &[]);
    let both = uid.clone().and(reads(
        &["workload.unix.gid", "workload.unix.uid"],
        &["workload.docker"],
    ));
    assert_eq!(
        both,
        reads(
            &["workload.unix.gid", "workload.unix.uid"],
            &["workload.docker"]
        )
    );
    assert_eq!(uid.clone().and(Reads::Nothing), uid);
    assert_eq!(uid.clone().and(Reads::All), Reads::All);
}
