//! A hundred thousand rules, none like another, are in memory at once.

use std::time::Instant;

use policy::{PathTemplate, Rule, RuleSource, Rules};

#[test]
fn a_rule_and_a_path_take_less_than_a_kilobyte() {
    // What this process has in memory, in bytes.
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes.unwrap().parse::<usize>().unwrap() * 1024
    };
    const COUNT: usize = 5_000;
    let make = |number: usize| {
        let text = format!(
            "join.github.repository == \"org/app-{number}\" && join.github.ref == \"refs/heads/main\""
        );
        let rule = Rule::new("", &RuleSource::Expression(text), true).unwrap();
        let path = format!("/ci/app-{number}/{{{{ join.github.actor }}}}");
        (
            Rules::new(vec![], vec![rule]).unwrap(),
            PathTemplate::compile(&path).unwrap(),
        )
    };
    let warm: Vec<_> = (0..100).map(make).collect();
    let (before, begun) = (resident(), Instant::now());
    let kept: Vec<_> = (100..100 + COUNT).map(make).collect();
    let each = (resident() - before) / COUNT;
    println!("{each} bytes and {:?} each", begun.elapsed() / COUNT as u32);
    assert!(each < 1024, "{each} bytes each");
    drop((warm, kept));
}
