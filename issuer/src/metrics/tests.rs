use std::{collections::BTreeSet, fs, path::Path};

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
    let reference = fs::read_to_string(path).unwrap();
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

/// What the program measures, as its source says.
fn measured(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            measured(&path, names);
        } else if !path.ends_with("src/metrics.rs") && !path.ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            let found = source.split("(\"issuer_").skip(1).chain(
                // The name may have a line of its own.
                source
                    .split("(\n")
                    .filter_map(|rest| rest.trim_start().strip_prefix("\"issuer_")),
            );
            for rest in found {
                let name = rest.split('"').next().unwrap();
                names.insert(format!("issuer_{name}"));
            }
        }
    }
}

#[test]
fn the_table_has_what_is_measured_and_nothing_else() {
    let mut names = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    measured(&source, &mut names);
    // A key of a resource.
    names.remove("issuer_regex");
    // The table's own module sets it.
    names.insert("issuer_build_info".to_owned());
    let table: BTreeSet<_> = METRICS
        .iter()
        .map(|metric| metric.name.to_owned())
        .collect();
    assert_eq!(names, table);
}
