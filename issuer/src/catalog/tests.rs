use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use prost::Message;

use super::Catalog;
use crate::{
    resources::{
        Kind, LabelSelector, LockSpec, LockTarget, Metadata, Resource, ResourceName, Spec,
        WorkloadIdentitySpec, wire,
    },
    store::StoreError,
};

fn name(name: &str) -> ResourceName {
    ResourceName::parse(name).unwrap()
}

fn put(catalog: &mut Catalog, resource: &Resource) {
    let content = wire::to_wire(resource).encode_to_vec();
    catalog.put_resource(
        resource.kind(),
        resource.metadata.name.as_str(),
        3,
        &content,
    );
}

fn identity(called: &str, labels: &[(&str, &str)]) -> Resource {
    let labels = labels.iter();
    Resource {
        metadata: Metadata {
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Metadata::named(name(called))
        },
        spec: WorkloadIdentitySpec::at("/web").unwrap().into(),
    }
}

fn selector(keys: &[(&str, &[&str])]) -> LabelSelector {
    let keys = keys.iter().map(|(key, values)| {
        let values = values.iter().map(ToString::to_string).collect();
        ((*key).to_owned(), values)
    });
    LabelSelector::new(keys).unwrap()
}

fn selected(catalog: &Catalog, selector: &LabelSelector, after: Option<&str>) -> Vec<String> {
    let selected = catalog.select(selector, after);
    selected.map(|selected| selected.name.to_owned()).collect()
}

/// 120 identities with labels of every combination.
fn world() -> (Catalog, BTreeMap<String, BTreeMap<String, String>>) {
    let mut catalog = Catalog::default();
    let mut labels_of = BTreeMap::new();
    for number in 0..120 {
        let called = format!("w{number:03}");
        let env = ["prod", "test", "dev"][number % 3];
        let team = format!("team-{}", number % 7);
        let mut labels = vec![("env", env)];
        if number % 2 == 0 {
            labels.push(("team", &team));
        }
        let resource = identity(&called, &labels);
        put(&mut catalog, &resource);
        labels_of.insert(called, resource.metadata.labels);
    }
    (catalog, labels_of)
}

#[test]
fn a_selector_selects_by_the_index_what_it_matches_one_by_one() {
    let (catalog, labels_of) = world();
    for selector in [
        selector(&[("*", &["*"])]),
        selector(&[("env", &["prod"])]),
        selector(&[("env", &["dev", "prod", "none", "prod"])]),
        selector(&[("env", &["*"]), ("team", &["team-2", "team-3"])]),
        selector(&[("team", &["*"])]),
        selector(&[("team", &["*", "team-1"]), ("*", &["*"])]),
        selector(&[("none", &["*"])]),
        selector(&[("env", &["none"])]),
        LabelSelector::default(),
    ] {
        let matching = labels_of
            .iter()
            .filter(|(_, labels)| selector.matches(labels));
        let matching: Vec<_> = matching.map(|(name, _)| name.clone()).collect();
        assert_eq!(
            selected(&catalog, &selector, None),
            matching,
            "{selector:?}"
        );
        for after in ["", "w000", "w057", "w0575", "w119", "x"] {
            let rest = matching.iter().filter(|name| name.as_str() > after);
            let rest: Vec<_> = rest.cloned().collect();
            assert_eq!(selected(&catalog, &selector, Some(after)), rest);
        }
    }
}

#[test]
fn a_change_is_in_the_next_catalog_and_not_in_this_one() {
    let (old, _) = world();
    let team = selector(&[("team", &["team-0"])]);
    let before = selected(&old, &team, None);
    let mut new = old.clone();
    put(&mut new, &identity("w000", &[("team", "team-9")]));
    new.remove_resource(Kind::WorkloadIdentity, "w014");
    put(&mut new, &identity("a", &[("team", "team-0")]));
    assert_eq!(selected(&old, &team, None), before);
    assert_eq!(old.count(Kind::WorkloadIdentity), 120);
    let mut after: Vec<_> = before.clone();
    after.retain(|name| name != "w000" && name != "w014");
    after.insert(0, "a".to_owned());
    assert_eq!(selected(&new, &team, None), after);
    assert_eq!(
        selected(&new, &selector(&[("team", &["team-9"])]), None),
        ["w000"]
    );
    assert!(new.workload_identity("w014").unwrap().is_none());
    assert_eq!(
        new.workload_identity("a")
            .unwrap()
            .unwrap()
            .metadata
            .revision,
        3
    );
    let names: Vec<_> = new
        .resources(Kind::WorkloadIdentity, Some("w117"))
        .map(|resource| resource.unwrap().metadata.name.to_string())
        .collect();
    assert_eq!(names, ["w118", "w119"]);
}

#[test]
fn what_cannot_be_read_is_an_error_to_who_asks_for_it_and_to_nobody_else() {
    let (mut catalog, _) = world();
    catalog.put_resource(Kind::Bot, "bad", 1, b"\xff\xff");
    catalog.put_resource(Kind::WorkloadIdentity, "bad", 1, b"");
    assert!(matches!(catalog.bot("bad"), Err(StoreError::Damaged(_))));
    assert!(catalog.workload_identity("bad").is_err());
    assert!(catalog.bot("good").unwrap().is_none());
    assert!(catalog.workload_identity("w001").unwrap().is_some());
}

fn lock(called: &str, target: LockTarget, expires: Option<SystemTime>) -> Resource {
    Resource {
        metadata: Metadata {
            expires,
            ..Metadata::named(name(called))
        },
        spec: Spec::Lock(LockSpec {
            target,
            message: "test".to_owned(),
        }),
    }
}

#[test]
fn a_lock_is_found_by_its_target_until_it_ends_or_is_removed() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (bot, role) = (LockTarget::Bot(name("b")), LockTarget::Role(name("b")));
    let mut catalog = Catalog::default();
    put(&mut catalog, &lock("ended", bot.clone(), Some(now)));
    assert!(
        catalog
            .lock_on(std::slice::from_ref(&bot), now)
            .unwrap()
            .is_none()
    );
    put(&mut catalog, &lock("open", bot.clone(), None));
    let found = catalog.lock_on(&[role.clone(), bot.clone()], now).unwrap();
    assert_eq!(found.unwrap().metadata.name.as_str(), "open");
    assert!(
        catalog
            .lock_on(std::slice::from_ref(&role), now)
            .unwrap()
            .is_none()
    );
    // It is moved to another, then removed.
    put(&mut catalog, &lock("open", role.clone(), None));
    assert!(
        catalog
            .lock_on(std::slice::from_ref(&bot), now)
            .unwrap()
            .is_none()
    );
    assert!(
        catalog
            .lock_on(std::slice::from_ref(&role), now)
            .unwrap()
            .is_some()
    );
    catalog.remove_resource(Kind::Lock, "open");
    assert!(
        catalog
            .lock_on(std::slice::from_ref(&role), now)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_lock_that_cannot_be_read_lets_nobody_in() {
    let mut catalog = Catalog::default();
    catalog.put_resource(Kind::Lock, "bad", 1, b"\xff");
    let anybody = LockTarget::Bot(name("b"));
    let refused = catalog.lock_on(std::slice::from_ref(&anybody), SystemTime::now());
    assert!(refused.unwrap_err().to_string().contains("bad"));
    catalog.remove_resource(Kind::Lock, "bad");
    let found = catalog.lock_on(&[anybody], SystemTime::now());
    assert!(found.unwrap().is_none());
}
