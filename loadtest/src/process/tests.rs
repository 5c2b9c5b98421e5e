use super::*;

#[test]
fn stat_is_read_by_its_last_parenthesis() {
    let text = b"42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 30 4 20 0 1 0 5 6 7\n";
    let stat = ProcessStat::parse(42, text).unwrap();
    let expected = ProcessStat {
        pid: 42,
        parent: 7,
        name: "a) b (c".to_owned(),
        own: 120,
        reaped: 34,
    };
    assert_eq!(stat, expected);
    assert!(ProcessStat::parse(42, b"42 (cut) S 7").is_none());
}

#[test]
fn a_tree_holds_descendants_and_nothing_else() {
    let process = |pid, parent| ProcessStat {
        pid,
        parent,
        name: String::new(),
        own: 0,
        reaped: 0,
    };
    let table = Table(vec![
        process(1, 0),
        process(2, 1),
        process(3, 2),
        process(4, 1),
    ]);
    let tree = |root| table.tree(root).map(|p| p.pid).collect::<Vec<_>>();
    assert_eq!(tree(2), [2, 3]);
    assert_eq!(tree(1), [1, 2, 3, 4]);
    assert_eq!(tree(9), [0; 0]);
}

#[test]
fn this_process_has_memory_and_one_that_is_missing_is_an_error() {
    let memory = Watched::myself().memory().unwrap();
    assert!(
        memory[0].rss >= memory[0].pss && memory[0].pss > 0,
        "{memory:?}"
    );
    let missing = Selection {
        pids: vec![u32::MAX],
        ..Selection::default()
    };
    let error = Watched::find(&missing).unwrap_err().to_string();
    assert!(error.contains("4294967295"), "{error}");
    let missing = Selection {
        names: vec!["no-such-process".to_owned()],
        ..Selection::default()
    };
    assert!(Watched::find(&missing).is_err());
}
