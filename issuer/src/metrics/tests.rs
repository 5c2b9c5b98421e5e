use super::{METRICS, Type};

#[test]
fn names_are_in_order_and_end_in_their_unit() {
    let names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    for metric in METRICS {
        let ends = |suffix: &str| metric.name.ends_with(suffix);
        assert!(metric.name.starts_with("issuer_"), "{metric:?}");
        assert_eq!(ends("_total"), metric.r#type == Type::Counter, "{metric:?}");
        if ends("_duration_seconds") {
            assert!(matches!(metric.r#type, Type::Histogram(_)), "{metric:?}");
        }
    }
}

/// The table in the reference says what this one says.
#[test]
fn the_reference_lists_every_metric() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/issuer-operating.md"
    );
    let reference = std::fs::read_to_string(path).unwrap();
    let listed: Vec<_> = reference
        .lines()
        .filter(|line| line.starts_with("| `issuer_"))
        .map(str::to_owned)
        .collect();
    let wanted: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            let labels = metric.labels.join(", ");
            let (name, r#type, help) = (metric.name, metric.r#type.as_str(), metric.help);
            format!("| `{name}` | {type} | {labels} | {help} |")
        })
        .collect();
    assert_eq!(
        listed,
        wanted,
        "docs/reference/issuer-operating.md should say:\n{}",
        wanted.join("\n")
    );
}
