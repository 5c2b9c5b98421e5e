use identity::testing::TestCa;

use super::{
    super::world::tests::{context, secrets},
    *,
};

fn there(ids: usize) -> Secrets {
    let (ca, other) = (TestCa::new("one.example"), TestCa::new("two.example"));
    let mut context = context(&ca, &other);
    context.svids.truncate(ids);
    secrets(&context)
}

fn absent(length: usize, count: usize) -> Vec<String> {
    (0..count).map(|it| format!("{it:0length$}")).collect()
}

#[test]
fn what_is_there_needs_no_room_and_what_is_not_has_a_little() {
    let there = there(2);
    let mut names = Names::default();
    assert_eq!(names.add(absent(4, 200), &there).len(), 200 - MOST_ABSENT);
    let known = ["default", "spiffe://one.example/b"].map(str::to_owned);
    assert!(names.add(known, &there).is_empty());
    assert_eq!(names.iter().count(), MOST_ABSENT + 2);
    // Nor is one longer than all of the room.
    let mut names = Names::default();
    let long = absent(MOST_ABSENT_BYTES + 1, 1);
    assert_eq!(names.add(long, &there).len(), 1);
    assert_eq!(names.add(absent(MOST_ABSENT_BYTES / 4, 5), &there).len(), 1);
    // What is given up makes room.
    names.remove(&absent(MOST_ABSENT_BYTES / 4, 1)[0]);
    assert!(names.add(absent(5, 2), &there).is_empty());
}

#[test]
fn what_was_there_once_is_waited_for_whatever_else_is_named() {
    let id = "spiffe://one.example/b";
    let wanted = |more| [vec![id.to_owned()], more].concat();
    let mut names = Names::default();
    names.set(wanted(absent(4, MOST_ABSENT)), &there(2));
    assert_eq!(names.iter().count(), MOST_ABSENT + 1);
    names.set(wanted(absent(5, MOST_ABSENT)), &there(1));
    assert!(names.contains(id));
    assert_eq!(names.iter().count(), MOST_ABSENT, "it counts now");
    names.set(wanted(vec![]), &there(1));
    assert_eq!(names.iter().collect::<Vec<_>>(), [id]);
}
