//! What 100,000 workload identities cost beside 100: the start, the memory, and an
//! issuance by name; and what it costs to find those that a role selects by labels.
//!
//! `cargo bench -p issuer --bench many`. Each size runs in a process of its own, so
//! that memory is that of one size.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    hint::black_box,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use issuer::{
    access::changes,
    resources::{LabelSelector, Metadata, Resource, ResourceName, WorkloadIdentitySpec},
    store::{Database, Store},
};

const SIZES: [usize; 2] = [100, 100_000];
const PERIOD: Duration = Duration::from_secs(2);
/// What the child process is told its size by.
const SIZE: &str = "BENCH_IDENTITIES";

fn main() {
    if let Ok(size) = std::env::var(SIZE) {
        let size = size.parse().expect("a number");
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime.block_on(measure(size));
        return;
    }
    for size in SIZES {
        let program = std::env::current_exe().expect("path of the bench");
        let status = Command::new(program).env(SIZE, size.to_string()).status();
        assert!(status.expect("a child").success());
    }
}

async fn measure(size: usize) {
    let home = tempfile::tempdir().expect("temporary directory");
    let database = Database::sqlite(home.path().join("issuer.db"));
    let before = resident();
    let store = Store::open(&database).await.expect("store");
    let begun = Instant::now();
    for chunk in (0..size).collect::<Vec<_>>().chunks(1000) {
        apply(
            &store,
            chunk.iter().map(|number| identity(*number)).collect(),
        )
        .await;
    }
    let written = begun.elapsed();
    store.close().await;
    drop(store);

    // What the start costs is asked of a process that has not just made them all.
    let begun = Instant::now();
    let store = Store::open(&database).await.expect("store");
    let opened = begun.elapsed();
    let catalog = store.catalog();
    let names: Vec<_> = (0..size).step_by(size.div_ceil(1000)).map(name).collect();
    let mut turn = 0;
    let by_name = nanoseconds(|| {
        turn = (turn + 7919) % names.len();
        let found = catalog.workload_identity(names[turn].as_str());
        assert!(black_box(found.expect("readable")).is_some());
    });
    // A role that selects ten of them, whatever the size.
    let selector = selector(&[("team", "team-7"), ("env", "prod")]);
    let by_labels = nanoseconds(|| {
        let found = catalog.select(&selector, None).count();
        assert!(black_box(found) > 0);
    });
    println!("{size} workload identities");
    println!(
        "  written                    {:>10.2} s",
        written.as_secs_f64()
    );
    println!(
        "  opened                     {:>10.2} s",
        opened.as_secs_f64()
    );
    println!("  found by name              {by_name:>10.0} ns");
    println!("  selected by labels         {by_labels:>10.0} ns");
    let selected = catalog.select(&selector, None).count();
    println!("  (selected                  {selected:>10})");
    for identity in catalog.resources(issuer::resources::Kind::WorkloadIdentity, None) {
        black_box(identity.expect("readable"));
    }
    let all = resident() - before;
    println!(
        "  memory, all compiled       {:>10.1} MiB",
        all as f64 / 1048576.0
    );
    store.close().await;
}

async fn apply(store: &Store, resources: Vec<Resource>) {
    let applied: Result<_, changes::ChangeError> = store
        .write(move |tx| {
            let resources = resources.clone();
            let now = SystemTime::now();
            Box::pin(async move { changes::apply(tx, resources, "bench", now).await })
        })
        .await;
    applied.expect("resources");
}

fn name(number: usize) -> ResourceName {
    ResourceName::parse(&format!("identity-{number:06}")).expect("name")
}

/// Ten of them are of one team in production.
fn identity(number: usize) -> Resource {
    let labels = [
        ("app", format!("app-{number}")),
        ("team", format!("team-{}", number / 20)),
        ("env", ["prod", "test"][number % 2].to_owned()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value));
    let path = format!("/team-{}/app-{number}", number / 20);
    Resource {
        metadata: Metadata {
            labels: BTreeMap::from(labels),
            ..Metadata::named(name(number))
        },
        spec: WorkloadIdentitySpec::at(&path).expect("path").into(),
    }
}

fn selector(keys: &[(&str, &str)]) -> LabelSelector {
    let keys = keys.iter();
    let keys = keys.map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()]));
    LabelSelector::new(keys).expect("selector")
}

fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < PERIOD {
        work();
        count += 1;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(count)
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    kibibytes
        .and_then(|text| text.parse::<u64>().ok())
        .expect("VmRSS")
        * 1024
}
